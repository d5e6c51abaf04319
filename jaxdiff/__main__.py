"""`python -m jaxdiff`, the command line."""

import sys

from jaxdiff.cli import main

sys.exit(main())
