"""Networks that others have trained, read from their files into ours."""

from jaxdiff.interop.bert import Bert, convert, find, network, read

__all__ = ["Bert", "convert", "find", "network", "read"]
