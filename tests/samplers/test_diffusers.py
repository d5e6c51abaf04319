"""Truth: the schedulers of diffusers, run step by step with the same model and the same noise.

Skipped unless diffusers is there: `pip install jaxdiff[parity]`. Everything runs in float64 (see
`replay.wide`), and paths are held to 1e-9 of their size. Most agree to 1e-14; DPM2-ancestral to
1e-10, since theirs takes the noise kept as the root of a difference of squares, and DDPM to 2e-10,
since theirs adds noise of 1e-10 on the last step.
What of theirs is wrong, and so has no row here, is in `test_diffusers_defects.py`.
"""

import itertools
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

pytest.importorskip("diffusers")

import torch

from jaxdiff import grids, samplers, schedules
from jaxdiff.denoiser import clip_x0, dynamic_threshold
from jaxdiff.typing import Grid
from tests.samplers import replay

pytestmark = [
    pytest.mark.usefixtures("x64", "double"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]

double = replay.double
TOLERANCE = 1e-9
SPACINGS = {
    "leading": {"timestep_spacing": "leading"},
    "leading_1": {"timestep_spacing": "leading", "steps_offset": 1},
    "trailing": {"timestep_spacing": "trailing"},
    "linspace": {"timestep_spacing": "linspace"},
    "karras": {"use_karras_sigmas": True},
}
WHOLE = ("leading", "leading_1", "trailing", "linspace")
ALL = tuple(SPACINGS)
NOISY_END = {"final_sigmas_type": "sigma_min"}


class Row(NamedTuple):
    """One of their schedulers and what it is of ours."""

    scheduler: str
    sampler: Any
    config: dict = {}
    spacings: tuple = ALL
    num_steps: int = 10
    options: dict = {}


def multistep(algorithm, order, **config):
    return {"algorithm_type": algorithm, "solver_order": order, **config}


ODE, SDE = "dpmsolver++", "sde-dpmsolver++"
HEUN = {"solver_type": "heun"}
LARGE = {"variance_type": "fixed_large"}
ROWS = {
    # into a clean end they clamp the variance to 1e-20: noise of 1e-10, below our tolerance
    "ddpm_small": Row("DDPM", samplers.ddpm(), {}, WHOLE),
    # the large variance keeps its noise on the last step, unless that leaves timestep 0
    "ddpm_large": Row("DDPM", samplers.ddpm("large"), LARGE, ("leading", "linspace")),
    "ddpm_large_noisy_end": Row(
        "DDPM", samplers.ddpm("large", last_noise=1.0), LARGE, ("leading_1", "trailing")
    ),
    # linspace: see the defects
    **{
        f"ddim_{eta}": Row("DDIM", samplers.ddim(eta), {}, WHOLE[:3], options={"eta": eta})
        for eta in (0.0, 0.5, 1.0)
    },
    "dpmpp_1": Row("DPMSolverMultistep", samplers.dpmpp_1s(), multistep(ODE, 1)),
    "dpmpp_2m": Row("DPMSolverMultistep", samplers.dpmpp_2m(), multistep(ODE, 2)),
    "dpmpp_2m_heun": Row(
        "DPMSolverMultistep", samplers.dpmpp_2m("heun"), multistep(ODE, 2, **HEUN)
    ),
    "dpmpp_2m_noisy_end": Row(
        "DPMSolverMultistep",
        samplers.dpmpp_2m(),
        multistep(ODE, 2, lower_order_final=False, **NOISY_END),
        WHOLE,
    ),
    # runs of less than 15 steps end at lower order, as do all with euler_at_final
    "dpmpp_2m_short": Row(
        "DPMSolverMultistep",
        samplers.dpmpp_2m(warm_down=True),
        multistep(ODE, 2, **NOISY_END),
        WHOLE,
    ),
    "dpmpp_2m_euler_at_final": Row(
        "DPMSolverMultistep",
        samplers.dpmpp_2m(warm_down=True),
        multistep(ODE, 2, euler_at_final=True, **NOISY_END),
        WHOLE,
        num_steps=16,
    ),
    "dpmpp_3m": Row(
        "DPMSolverMultistep", samplers.dpmpp_3m("ported"), multistep(ODE, 3), num_steps=16
    ),
    "dpmpp_3m_short": Row(
        "DPMSolverMultistep",
        samplers.dpmpp_3m("ported", warm_down=True),
        multistep(ODE, 3),
    ),
    "dpmpp_3m_short_noisy_end": Row(
        "DPMSolverMultistep",
        samplers.dpmpp_3m("ported", warm_down=True),
        multistep(ODE, 3, **NOISY_END),
        WHOLE,
    ),
    # noise prediction of first order is the same step
    "dpm_1": Row("DPMSolverMultistep", samplers.ddim(), multistep("dpmsolver", 1, **NOISY_END)),
    "dpm_2m": Row(
        "DPMSolverMultistep",
        samplers.dpm_solver_2m(),
        multistep("dpmsolver", 2, lower_order_final=False, **NOISY_END),
        WHOLE,
    ),
    "dpm_2m_heun_short": Row(
        "DPMSolverMultistep",
        samplers.dpm_solver_2m("heun", warm_down=True),
        multistep("dpmsolver", 2, **HEUN, **NOISY_END),
        WHOLE,
    ),
    "dpm_3m": Row(
        "DPMSolverMultistep",
        samplers.dpm_solver_3m("ported"),
        multistep("dpmsolver", 3, **NOISY_END),
        WHOLE,
        num_steps=16,
    ),
    "dpm_2m_sde": Row(
        "DPMSolverMultistep",
        samplers.dpm_solver_2m_sde(),
        multistep("sde-dpmsolver", 2, lower_order_final=False, **NOISY_END),
        WHOLE,
    ),
    "dpm_2m_sde_heun_short": Row(
        "DPMSolverMultistep",
        samplers.dpm_solver_2m_sde(form="heun", warm_down=True),
        multistep("sde-dpmsolver", 2, **HEUN, **NOISY_END),
        WHOLE,
    ),
    "sde_2m_short": Row(
        "DPMSolverMultistep",
        samplers.dpmpp_2m_sde(warm_down=True),
        multistep(SDE, 2, **NOISY_END),
        WHOLE,
    ),
    "sde_2m": Row("DPMSolverMultistep", samplers.dpmpp_2m_sde(), multistep(SDE, 2)),
    "sde_2m_heun": Row(
        "DPMSolverMultistep", samplers.dpmpp_2m_sde(form="heun"), multistep(SDE, 2, **HEUN)
    ),
    "sde_2m_noisy_end": Row(
        "DPMSolverMultistep",
        samplers.dpmpp_2m_sde(),
        multistep(SDE, 2, lower_order_final=False, **NOISY_END),
        WHOLE,
    ),
    # bh1 into a clean end is their NaN: see the defects
    "unipc_1": Row("UniPC", samplers.unipc(1), {"solver_order": 1}),
    "unipc_2": Row("UniPC", samplers.unipc(2), {"solver_order": 2}),
    "unipc_3": Row("UniPC", samplers.unipc(3, warm_down=True), {"solver_order": 3}),
    **{
        f"unipc_{order}_{kind}_noisy_end": Row(
            "UniPC",
            samplers.unipc(order, kind),
            {"solver_order": order, "solver_type": kind, "lower_order_final": False, **NOISY_END},
            WHOLE,
        )
        for order in (1, 2, 3)
        for kind in ("bh1", "bh2")
    },
    "unip_2": Row(
        "UniPC",
        samplers.unipc(2, corrector=False),
        {"solver_order": 2, "disable_corrector": list(range(10))},
    ),
    # from 15 steps on its order is not lowered at the end, which is noisy always
    **{
        f"deis_{order}": Row(
            "DEIS", samplers.deis(order, clock="log_rho"), {"solver_order": order}, num_steps=16
        )
        for order in (1, 2, 3)
    },
    **{
        f"deis_{order}_short": Row(
            "DEIS",
            samplers.deis(order, clock="log_rho", warm_down=True),
            {"solver_order": order},
            WHOLE,
        )
        for order in (2, 3)
    },
    "heun": Row("Heun", samplers.heun()),
    "euler": Row("Euler", samplers.euler()),
    "euler_noisy_end": Row("Euler", samplers.euler(), NOISY_END, WHOLE[2:3]),
    "euler_ancestral": Row("EulerAncestral", samplers.euler_ancestral(), {}, WHOLE),
    "dpm2": Row("KDPM2", samplers.dpm2()),
    "dpm2_ancestral": Row("KDPM2Ancestral", samplers.dpm2_ancestral()),
    **{
        f"lms_{order}": Row("LMS", samplers.lms(order), options={"order": order})
        for order in (1, 2, 3, 4)
    },
}
EDM_ROWS = {
    "edm_euler": Row("EDMEuler", samplers.euler()),
    "edm_dpmpp_1": Row("EDMDPMSolverMultistep", samplers.dpmpp_1s(), multistep(ODE, 1)),
    "edm_dpmpp_2m": Row("EDMDPMSolverMultistep", samplers.dpmpp_2m(), multistep(ODE, 2)),
    "edm_dpmpp_2m_heun": Row(
        "EDMDPMSolverMultistep", samplers.dpmpp_2m("heun"), multistep(ODE, 2, **HEUN)
    ),
    "edm_dpmpp_3m": Row(
        "EDMDPMSolverMultistep",
        samplers.dpmpp_3m("ported", warm_down=True),
        multistep(ODE, 3),
    ),
    "edm_sde_2m": Row("EDMDPMSolverMultistep", samplers.dpmpp_2m_sde(), multistep(SDE, 2)),
    "edm_sde_2m_heun": Row(
        "EDMDPMSolverMultistep", samplers.dpmpp_2m_sde(form="heun"), multistep(SDE, 2, **HEUN)
    ),
}


def gap(a, b) -> float:
    """The largest difference of two paths, by the size of each state (at least 1)."""
    size = np.maximum(1, np.abs(b).max(axis=(1, 2, 3), keepdims=True))
    return float(np.max(np.abs(a - b) / size))


def compare(monkeypatch, row, config, record, wrap=None):
    source = replay.wide(monkeypatch, row.scheduler)
    scheduler = replay.make(row.scheduler, row.num_steps, **row.config, **config)
    grid = replay.grid_of(scheduler)
    path, x_T, noise = replay.ours(scheduler, row.sampler, grid, wrap)
    wanted = replay.theirs(scheduler, source, grid, x_T, noise, **row.options)
    found = gap(path, wanted)
    record("gap", found)
    assert np.abs(wanted[-1]).max() > 1e-2  # something was there to compare
    assert found < TOLERANCE


@pytest.mark.parametrize("betas", replay.BETAS)
@pytest.mark.parametrize(
    ("row", "spacing"), [(name, spacing) for name, row in ROWS.items() for spacing in row.spacings]
)
def test_path(monkeypatch, record_property, row, spacing, betas):
    config = {**SPACINGS[spacing], **replay.BETAS[betas][0]}
    compare(monkeypatch, ROWS[row], config, record_property)


@pytest.mark.parametrize("row", EDM_ROWS)
def test_path_of_edm(monkeypatch, record_property, row):
    compare(monkeypatch, EDM_ROWS[row], {}, record_property)


@pytest.mark.parametrize("kind", ["sample", "v_prediction"])
@pytest.mark.parametrize(
    ("row", "spacing"),
    [
        ("ddpm_small", "trailing"),
        ("ddim_0.5", "leading"),
        ("sde_2m", "karras"),
        ("unipc_2", "linspace"),
        ("deis_2", "linspace"),
        ("heun", "karras"),
    ],
)
def test_predictions(monkeypatch, record_property, row, spacing, kind):
    compare(monkeypatch, ROWS[row], {**SPACINGS[spacing], "prediction_type": kind}, record_property)


CLIP = {"clip_sample": True, "clip_sample_range": 0.2}
THRESHOLD = {"thresholding": True, "dynamic_thresholding_ratio": 0.7, "sample_max_value": 100.0}
CLIPPING = {
    "ddpm": ("ddpm_small", CLIP, {}, lambda d: clip_x0(d, -0.2, 0.2)),
    "ddim": ("ddim_0.5", CLIP, {}, lambda d: clip_x0(d, -0.2, 0.2, keep_eps=True)),
    "ddim_clipped_eps": (
        "ddim_0.5",
        CLIP,
        {"use_clipped_model_output": True},
        lambda d: clip_x0(d, -0.2, 0.2),
    ),
    "threshold": ("dpmpp_2m", THRESHOLD, {}, lambda d: dynamic_threshold(d, 0.7)),
}


@pytest.mark.parametrize("name", CLIPPING)
def test_clipping(monkeypatch, record_property, name):
    """DDPM takes its mean from the clipped x0, DDIM keeps the network's eps unless told not to."""
    row, config, options, wrap = CLIPPING[name]
    row = ROWS[row]._replace(options={**ROWS[row].options, **options})
    compare(monkeypatch, row, {**SPACINGS["leading"], **config}, record_property, wrap)


@pytest.mark.parametrize("spacing", ALL)
def test_corrector_of_another_solver(monkeypatch, record_property, spacing):
    """UniC on DPM-Solver++(2M), for a network of x0.

    With one of eps theirs hands the solver eps at the state before the correction, and the solver
    takes it for that of the corrected state: an x0 that is neither's.
    """
    config = {**SPACINGS[spacing], "prediction_type": "sample"}
    replay.wide(monkeypatch, "DPMSolverMultistep")
    solver = replay.make("DPMSolverMultistep", **config)
    row = Row("UniPC", samplers.unic(samplers.dpmpp_2m()), {"solver_order": 2, "solver_p": solver})
    compare(monkeypatch, row, config, record_property)


SINGLE = {
    "dpmpp_2s": (samplers.dpmpp_2s(), ODE, 2),
    "dpm_solver_2": (samplers.dpm_solver(2), "dpmsolver", 2),
    "dpmpp_3s": (samplers.dpmpp_3s(), ODE, 3),
    "dpm_solver_3": (samplers.dpm_solver(3), "dpmsolver", 3),
}


@pytest.mark.parametrize("betas", replay.BETAS)
@pytest.mark.parametrize("name", SINGLE)
def test_singlestep(monkeypatch, record_property, name, betas):
    """They have no levels between: the grid's own serve, so theirs is put on ours with its middles.

    Their third order knows the papers' two parts under two names: the stage at 2/3 is that of
    "heun", the step itself that of "midpoint", so the name is changed between calls.
    """
    sampler, algorithm, order = SINGLE[name]
    config, table = replay.BETAS[betas]
    source = replay.wide(monkeypatch, "DPMSolverSinglestep")
    scheduler = replay.make(
        "DPMSolverSinglestep", 5 * order, **config, **multistep(algorithm, order), **NOISY_END
    )
    schedule = replay.log_sigma(np.asarray(scheduler.alphas_cumprod))
    grid = Grid(grids.trailing(schedules.from_betas(table), 5, end=None).levels, schedule)
    t, s = grid.pairs
    inner = [grid.between(t, s, j / order) for j in range(order)]
    nodes = jax.tree.map(lambda *a: np.append(np.stack(a, 1).ravel(), a[0][-1]), *inner)
    nodes = jax.tree.map(lambda a, last: np.append(a[:-1], last[-1]), nodes, grid.levels)
    scheduler.timesteps = torch.from_numpy(nodes.t[:-1] - 1)
    scheduler.sigmas = torch.from_numpy(nodes.sigma / nodes.alpha)

    network, calls = replay.their_network(scheduler), itertools.count()

    def model(x, t):
        stage = next(calls) % order
        scheduler.register_to_config(solver_type="heun" if stage < 2 < order else "midpoint")
        return network(x, t)

    replay.begin(scheduler)
    path, x_T, _ = replay.ours(scheduler, sampler, grid)
    still = np.zeros((5 * order, *x_T.shape))
    states = replay.step_through(scheduler, source, x_T, still, model=model)
    found = gap(path, np.stack(states[::order]))
    record_property("gap", found)
    assert found < TOLERANCE
