"""Bad input to samplers: one row a case. Each raises before the sampling program is compiled, and
the message names the argument, what was given and what was wanted.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, samplers, schedules
from jaxdiff.samplers import langevin, make_sampler, repaint, replacement, restart, sample, unic
from jaxdiff.samplers.base import _run
from jaxdiff.typing import Denoised, NoiseLevel

VP, EDM = schedules.linear_vp(), schedules.edm()
GRID = grids.karras(EDM, 8)
SHAPE = (2, 3)
KNOWN, MASK = np.array([0.5, 0.1, -0.2]), np.array([1, 0, 1])


def draw(sampler, grid=GRID, shape=SHAPE, **more):
    denoise = lambda x, level: Denoised(x, x)  # noqa: E731
    return sample(jax.random.key(0), denoise, grid, shape, sampler=sampler, **more)


CASES = {
    "dpm_solver of order 4": (lambda: samplers.dpm_solver(4), "order.*1, 2 or 3.*got 4"),
    "unipc of order 0": (lambda: samplers.unipc(0), "order.*1, 2 or 3.*got 0"),
    "unipc of another variant": (lambda: samplers.unipc(2, "bh3"), "variant.*bh1 or bh2.*'bh3'"),
    "deis of order 5": (lambda: samplers.deis(5), r"order.*1\.\.4.*got 5"),
    "deis in another clock": (lambda: samplers.deis(2, clock="rho"), "clock.*log_rho.*'rho'"),
    "deis in t on no schedule": (
        lambda: draw(samplers.deis(), grids.from_levels(GRID.levels)),
        'needs a grid on a schedule.*clock="log_rho"',
    ),
    "lms of order 7": (lambda: samplers.lms(7), r"order.*1\.\.4.*got 7"),
    "another form of 2M": (lambda: samplers.dpmpp_2m("trapezoid"), "form.*midpoint, heun.*'trap"),
    "the form of 3M for 2M": (lambda: samplers.dpmpp_2m("ported"), "form.*midpoint, heun.*'ported"),
    "negative eta of the SDE solver": (lambda: samplers.dpmpp_2m_sde(-1.0), "eta.*got -1"),
    "eta above 1 of dpm2_ancestral": (lambda: samplers.dpm2_ancestral(1.5), "eta.*got 1.5"),
    "churn on a sampler that has none": (
        lambda: make_sampler("dpmpp_2m", s_churn=40.0),
        "dpmpp_2m takes form.*'s_churn'",
    ),
    "hyperparameters of a sampler without": (
        lambda: make_sampler("reverse_diffusion", eta=0.5),
        "reverse_diffusion takes no hyperparameters, got 'eta'",
    ),
    "negative churn": (lambda: samplers.heun(s_churn=-1.0), "s_churn.*got -1"),
    "s_max below s_min": (lambda: samplers.heun(1.0, s_min=2.0, s_max=1.0), "s_max.*2.*got 1"),
    "negative s_noise": (lambda: samplers.heun(1.0, s_noise=-1.0), "s_noise.*got -1"),
    "restart upside down": (lambda: restart(low=1.0, high=0.5), r"high.*\(1, inf\).*got 0.5"),
    "restart at zero": (lambda: restart(low=0.0), "low.*got 0"),
    "restart below the grid": (
        lambda: draw(restart(low=0.001, high=0.5)),
        r"restart's low \(in sigma / alpha\).*0.002.*got 0.001",
    ),
    "restart above the grid": (
        lambda: draw(restart(low=0.1, high=100.0)),
        r"restart's high.*80.*got 100",
    ),
    "restart of no passes": (lambda: restart(repeats=0), "repeats.*at least 1.*got 0"),
    "restart of half a step": (lambda: restart(steps=2.5), "steps.*got 2.5"),
    "restart at zero terminal SNR": (
        lambda: draw(restart(), grids.uniform(schedules.cosine(), 4)),
        "alpha = 0.*t_first",
    ),
    "negative snr": (lambda: langevin(-0.1), "snr.*got -0.1"),
    "no Langevin steps": (lambda: langevin(steps=0), "steps.*at least 1.*got 0"),
    "corrector on a stochastic solver": (
        lambda: unic(samplers.ddpm()),
        "sampler must draw no noise.*euler.*Ancestral",
    ),
    "mask of another shape": (lambda: replacement(None, KNOWN, MASK[:2]), r"mask.*\[3\].*\[2\]"),
    "mask of grey values": (lambda: replacement(None, KNOWN, MASK * 0.5), "mask.*0 and 1.*got 0.5"),
    "mask of ones": (lambda: replacement(None, KNOWN, np.ones(3)), "mask.*nothing to draw"),
    "mask of zeros": (lambda: replacement(None, KNOWN, np.zeros(3)), "mask.*nothing known"),
    "mask the other way round": (
        lambda: replacement(None, np.array([0.5, np.nan, 1.0]), 1 - MASK),
        "known must be finite where mask is 1.*other way round",
    ),
    "known in whole numbers": (
        lambda: replacement(None, np.array([1, 2, 3], np.uint8), MASK),
        "known must be float.*uint8",
    ),
    "jump beyond the grid": (
        lambda: draw(repaint(None, KNOWN, MASK, jump=8)),
        "jump must be at most 7.*got 8",
    ),
    "jump beyond a stretch of restart": (
        lambda: draw(restart(repaint(None, KNOWN, MASK, jump=4), low=0.1, high=1.0, steps=3)),
        "jump must be at most 3.*got 4",
    ),
    "restart from where numbers have no path": (
        lambda: draw(
            restart(samplers.ddim(), low=0.3, high=200.0),
            grids.from_levels(grids.uniform(schedules.rectified(), 6).levels),
        ),
        "restart's high.*5.*got 200",
    ),
    "no jump": (lambda: repaint(None, KNOWN, MASK, jump=0), "jump.*at least 1.*got 0"),
    "sigmas that the schedule does not reach": (
        lambda: grids.karras(EDM, 8, t_first=100.0),
        r"t_first.*80.*got 100",
    ),
    "sigmas below what the schedule reaches": (
        lambda: grids.karras(schedules.ve(0.01, 50.0), 8, t_last=-0.1),
        r"t_last.*got -0.1",
    ),
    "sigmas that rise": (
        lambda: grids.from_levels(NoiseLevel(*3 * [np.array([0.1, 1.0, 10.0])])),
        "must fall, noisiest first",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case):
    call, message = CASES[case]
    before = _run._cache_size()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()
    assert _run._cache_size() == before


WHILE_TRACING = {  # what a sampler is told only when it meets x_T; XLA never sees it
    "known of another image": (
        lambda: draw(replacement(None, KNOWN, MASK), shape=(2, 4)),
        r"known.*\[4\] or \[2, 4\].*got \[3\]",
    ),
    "known of another batch": (
        lambda: draw(replacement(None, np.ones((5, 3)), MASK)),
        r"known.*\[2, 3\].*got \[5, 3\]",
    ),
    "restart of a sampler with memory": (
        lambda: draw(restart(samplers.unipc(), low=0.1, high=1.0)),
        "restart.*without memory.*UniC",
    ),
    "repaint by a sampler with memory": (
        lambda: draw(repaint(samplers.dpmpp_2m(), KNOWN, MASK, jump=1, repeats=2)),
        "repaint.*without memory.*Multistep",
    ),
}


@pytest.mark.parametrize("case", WHILE_TRACING)
def test_bad_input_while_tracing(case):
    call, message = WHILE_TRACING[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()


WRONG_KINDS = {
    "restart of a name": (lambda: restart("heun"), "sampler must be a Sampler.*'heun'"),
    "a corrector that is a sampler": (
        lambda: samplers.predictor_corrector(samplers.ddpm(), samplers.ddpm()),
        "corrector must be a Corrector such as langevin",
    ),
    "a corrector that is no pytree": (
        lambda: samplers.predictor_corrector(
            samplers.ddpm(), type("Own", (), {"noises": 1, "correct": lambda *a: a[1]})()
        ),
        "corrector must be a pytree.*Own",
    ),
    "a factory for a sampler": (lambda: unic(samplers.dpmpp_2m), "Sampler.*function dpmpp_2m"),
    "inpainting by a grid": (lambda: replacement(GRID, KNOWN, MASK), "sampler must be a Sampler"),
}


@pytest.mark.parametrize("case", WRONG_KINDS)
def test_wrong_kinds(case):
    call, message = WRONG_KINDS[case]
    with pytest.raises(TypeError, match=f"(?s){message}"):
        call()


def test_masks_of_jax_and_batches_of_known_images_are_fine():
    """One known image an example, and a mask of booleans."""
    known = jnp.stack([jnp.asarray(KNOWN)] * 2)
    x = draw(replacement(None, known, jnp.asarray(MASK, bool)))
    np.testing.assert_array_equal(x[:, 0], np.float32(0.5))
