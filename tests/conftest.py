"""What every test runs under: 8 virtual CPU devices, no rank promotion, strictness by request.

`strict` forbids implicit dtype promotion (optax and Flax layers do not bear it, so tests of the
mathematics ask for it: `pytestmark = pytest.mark.usefixtures("strict")`). `x64` gives float64,
for comparisons with closed forms. XLA compiles without LLVM's optimisations: the programs are the
same, and a third of the suite's time, which is compilation, is saved.
"""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"

import jax

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
