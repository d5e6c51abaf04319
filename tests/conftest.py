"""What every test runs under: 8 virtual CPU devices, no rank promotion, strictness by request.

`strict` forbids implicit dtype promotion (optax and Flax layers do not bear it, so tests of the
mathematics ask for it: `pytestmark = pytest.mark.usefixtures("strict")`). `x64` gives float64,
for comparisons with closed forms.

Most of the suite's time is compilation. XLA compiles without LLVM's optimisations and by its
plainer emitters: the same up to a rounding, in two thirds of the time. What is compiled is kept
beside pytest's own cache, for all processes of a run and for the next.
"""

import os
import subprocess
import sys
from pathlib import Path

QUICK = " --xla_backend_optimization_level=0"
PLAIN = " --xla_cpu_use_fusion_emitters=false"

os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parents[1] / ".pytest_cache/programs")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def _knows(flag: str) -> bool:
    """Whether this XLA has a flag: it aborts at one that it does not know."""
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    env = {**os.environ, "XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, env=env, capture_output=True).returncode == 0


if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit what is set here
    flags = os.environ.get("XLA_FLAGS", "") + QUICK
    os.environ["XLA_FLAGS"] = flags + (PLAIN if _knows(PLAIN) else "")

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

import matplotlib  # noqa: E402
import pytest  # noqa: E402

matplotlib.use("Agg")


_SEEN = 0


@pytest.fixture(autouse=True)
def _few_programs_at_once():
    """Forgets compiled programs now and then: some thousands exhaust a process's memory maps."""
    global _SEEN
    yield
    _SEEN += 1
    if _SEEN % 500 == 0:
        jax.clear_caches()


@pytest.fixture
def strict():
    """Forbids implicit dtype promotion."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def x64():
    """float64 throughout."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key():
    """One fixed key."""
    return jax.random.key(0)
