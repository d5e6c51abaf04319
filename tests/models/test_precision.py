"""The precision policy, read from the programs of all networks, and what it is for.

Truth: the table in `jaxdiff.models.precision`. Programs are traced, not compiled.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import models
from jaxdiff.models import embeddings, precision

UNET = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,)}
EDM = {**UNET, "num_classes": 3, "cond_dim": 9}
SU = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4}
NETWORKS = {
    "mlp": models.MLP(16, 2),
    "unet": models.UNet(**UNET, groups=4, scale_shift=True),
    "dit": models.DiT(16, 2, 2),
    "ddpmpp": models.SongUNet(**EDM),
    "ncsnpp": models.SongUNet(
        **EDM, embedding="fourier", waves=2, encoder="residual", taps=(1, 3, 3, 1)
    ),
    "adm": models.DhariwalUNet(**EDM, head_channels=8),
    "su_a": models.SuA(**SU),
    "su_b": models.SuB(**SU),
    "classifier": models.Classifier(3, **{**UNET, "groups": 4}),
}


def inputs(name, batch=2):
    x = jnp.zeros((batch, 6) if name == "mlp" else (batch, 8, 8, 3))
    args = [x, jnp.linspace(900.0, 999.0, batch)]
    if name in ("ddpmpp", "ncsnpp", "adm"):
        args.append({"label": jnp.zeros(batch, int), "vector": jnp.ones((batch, 9))})
    return args


def equations(jaxpr):
    """All equations of a program, those of programs inside it too."""
    for equation in jaxpr.eqns:
        yield equation
        for part in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
        ):
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NETWORKS))
def test_products_are_half_or_exact(name):
    net = NETWORKS[name].clone(dtype="bfloat16")
    args = inputs(name)
    shapes = jax.eval_shape(net.init, jax.random.key(0), *args)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    program = jax.make_jaxpr(net.apply)(shapes, *args)
    assert program.out_avals[0].dtype == jnp.float32
    half = exact = 0
    for equation in equations(program.jaxpr):
        operation = equation.primitive.name
        assert "callback" not in operation
        for out in equation.outvars:
            assert out.aval.dtype != jnp.float64
        if operation not in ("dot_general", "conv_general_dilated"):
            continue
        dtypes = {v.aval.dtype for v in equation.invars}
        if dtypes == {jnp.dtype("bfloat16")}:
            half += 1
            continue
        # What is not half describes a whole example: [B, E], and exact.
        assert dtypes == {jnp.dtype("float32")}
        assert operation == "dot_general"
        assert equation.invars[0].aval.ndim == 2
        assert equation.params["precision"] == (precision.EXACT, precision.EXACT)
        exact += 1
    assert half > 3
    assert exact > 0


def test_scores_of_attention_are_float32():
    net = NETWORKS["adm"].clone(dtype="bfloat16")
    args = inputs("adm")
    shapes = jax.eval_shape(net.init, jax.random.key(0), *args)
    program = jax.make_jaxpr(net.apply)(shapes, *args)
    wide, exponentials = 0, []
    for equation in equations(program.jaxpr):
        out = equation.outvars[0].aval
        if equation.primitive.name == "dot_general" and out.ndim >= 4:
            wide += out.dtype == jnp.float32
        if equation.primitive.name == "exp":
            exponentials.append(out.dtype)
    assert wide == len(exponentials) == 4  # attention in enc 4x4, dec in0, and dec 4x4 twice
    assert set(exponentials) == {jnp.dtype("float32")}


@pytest.mark.parametrize("embed", [embeddings.sinusoidal, embeddings.fourier])
def test_features_tell_998_from_999(embed):
    # bfloat16 has one number for both.
    assert jnp.bfloat16(998) == jnp.bfloat16(999)
    near, far = embed(jnp.array([998.0, 999.0]), 64)
    assert float(jnp.abs(near - far).max()) > 0.5


@pytest.mark.parametrize(
    "name", ["su_a", *[pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS if n != "su_a"]]
)
def test_neighbouring_steps_differ_in_half_precision(name):
    net = NETWORKS[name].clone(dtype="bfloat16")
    first, _, *cond = inputs(name)
    x = jnp.ones_like(first)
    args = [x, jnp.array([998.0, 999.0]), *cond]
    generator = np.random.default_rng(0)
    draw = lambda a: jnp.asarray(0.3 * generator.normal(size=a.shape), a.dtype)  # noqa: E731
    variables = jax.tree.map(draw, jax.eval_shape(net.init, jax.random.key(0), *args))
    out = jax.jit(net.apply, compiler_options={"xla_backend_optimization_level": 0})(
        variables, *args
    )
    assert np.isfinite(out).all()
    # all but the time is equal
    assert float(jnp.abs(out[0] - out[1]).max()) > 1e-3
