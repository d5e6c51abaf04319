"""Grids: which levels a sampler visits, noisiest first. Each names the coordinate it spaces.

    uniform          t, down to the clean end of the clock
    uniform_log_snr  log SNR
    karras           (sigma / alpha)**(1 / rho), never t
    quadratic        sqrt(t)
    leading, trailing, linspace    whole steps of a chain, as the literature rounds them
    from_steps, from_levels        what you give

K steps are K+1 levels. The last is `end`, the level of data itself, unless `end=None`, where the
grid stops at its cleanest noisy level. A step of N-step DDPM is the pair (n, n - 1) and respacing
is a shorter grid: samplers only ever see pairs.

`pad` repeats the clean end, which samplers pass over, so that grids of different lengths stack.
"""

from collections.abc import Callable

from jaxdiff.grids.build import from_levels, from_steps, pad
from jaxdiff.grids.chain import leading, linspace, quadratic, trailing
from jaxdiff.grids.spaced import karras, uniform, uniform_log_snr
from jaxdiff.typing import Grid

__all__ = [
    "GRIDS",
    "from_levels",
    "from_steps",
    "karras",
    "leading",
    "linspace",
    "pad",
    "quadratic",
    "trailing",
    "uniform",
    "uniform_log_snr",
]

GRIDS: dict[str, Callable[..., Grid]] = {
    "uniform": uniform,
    "uniform_log_snr": uniform_log_snr,
    "karras": karras,
    "quadratic": quadratic,
    "leading": leading,
    "trailing": trailing,
    "linspace": linspace,
}
"""Those that take (schedule, num_steps), by name."""
