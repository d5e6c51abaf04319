"""What the batteries run over: a new schedule or parametrization is one row of a list here."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import arrays, parametrization, schedules
from jaxdiff.typing import CLEAN, NoiseLevel

BETAS = {
    "linear": schedules.linear_betas(),
    "linear_100": schedules.linear_betas(100),
    "scaled_linear": schedules.scaled_linear_betas(),
    "sqrt_linear": schedules.sqrt_linear_betas(),
    "cosine": schedules.cosine_betas(),
    "sigmoid": schedules.sigmoid_betas(),
    "su": schedules.su_betas(),
    "zero_snr": schedules.rescale_to_zero_terminal_snr(schedules.linear_betas()),
}

SCHEDULES = {
    "linear_vp": schedules.linear_vp(),
    "cosine": schedules.cosine(),
    "sub_vp": schedules.sub_vp(),
    "ve": schedules.ve(),
    "edm": schedules.edm(),
    "rectified": schedules.rectified(),
    "one_of": schedules.one_of([schedules.cosine(), schedules.linear_vp()], 1),
    "shifted_rectified": schedules.shifted(schedules.rectified(), 3.0),
    "shifted_cosine": schedules.shifted(schedules.cosine(), 2.0),
    "shifted_linear_vp": schedules.shifted(schedules.linear_vp(), 0.5),
    "shifted_zero_snr": schedules.shifted(schedules.from_betas(BETAS["zero_snr"]), 2.0),
    **{f"betas_{name}": schedules.from_betas(betas) for name, betas in BETAS.items()},
}

PARAMETRIZATIONS = {
    **{name: parametrization.resolve(name) for name in parametrization.PARAMETRIZATIONS},
    "edm_1.3": parametrization.edm(1.3),
    "one_of": parametrization.one_of(["eps", "flow"], 1),
}


def ddpm_limit(rate=5.0):
    """alpha = exp(-rate t**2), the limit of DDPM's own chain at rate 5 (kexue.fm 9209), by hand."""
    sigma = lambda t: arrays.safe_sqrt(-jnp.expm1(-2 * rate * t**2))  # noqa: E731
    return schedules.from_path(lambda t: jnp.exp(-rate * t**2), sigma)


# One of each kind, shifted or clean at the end among them; the others are as like as brothers.
QUICK = {"linear_vp", "cosine", "sub_vp", "ve", "edm", "rectified", "shifted_cosine"}
QUICK |= {"betas_linear", "betas_zero_snr", "linear", "zero_snr"}


def _rows(name, rows, quick=None):
    def marks(key):
        return [] if quick is None or key in quick else [pytest.mark.slow]

    params = [pytest.param(row, id=key, marks=marks(key)) for key, row in rows.items()]
    return pytest.mark.parametrize(name, params)


each_schedule = _rows("schedule", {**SCHEDULES, "path": ddpm_limit()}, QUICK)
each_betas = _rows("betas", BETAS, QUICK)
each_parametrization = _rows("parametrized", PARAMETRIZATIONS)


def assert_gradients(function, gradient, arguments, *, step=1e-5, rtol=1e-6, atol=1e-6):
    """`gradient(*arguments)` is finite and equals central differences in float64.

    One random direction an argument. The error of a difference is step**2 times third
    derivatives, plus a rounding of 1e-16 over the step: 1e-10 and 1e-11 of unit functions.
    """
    generator = np.random.default_rng(0)
    for i, (slope, argument) in enumerate(zip(gradient(*arguments), arguments, strict=True)):
        assert np.isfinite(slope).all(), f"the gradient by argument {i} is not finite"
        direction = generator.normal(size=np.shape(argument))
        ahead, behind = (
            function(*arguments[:i], argument + h * direction, *arguments[i + 1 :])
            for h in (step, -step)
        )
        central = (ahead - behind) / (2 * step)
        np.testing.assert_allclose(np.sum(slope * direction), central, rtol=rtol, atol=atol)


def noisy_times(schedule) -> np.ndarray:
    """Times from near the clean end to the noisy one itself; whole on chains of 1000."""
    fractions = np.asarray([0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.99, 1.0])
    low, high = float(schedule.t_min), float(schedule.t_max)
    return low + (high - low) * fractions


def pairs(schedule) -> tuple[NoiseLevel, NoiseLevel]:
    """(t, s): all ordered pairs of the levels at `noisy_times` and the clean one, fields [P]."""
    noisy = schedule(jnp.asarray(noisy_times(schedule)))
    path = NoiseLevel(*(np.append(clean, a) for clean, a in zip(CLEAN, noisy, strict=True)))
    t, s = np.tril_indices(len(path.t), -1)
    return tuple(NoiseLevel(*(jnp.asarray(a[i]) for a in path)) for i in (t, s))
