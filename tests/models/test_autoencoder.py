"""The autoencoder. Truth: the published network's size, layer by layer; scipy's integrals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jaxdiff import models
from jaxdiff.training.generators import vae_loss

SMALL = {"latents": 3, "channels": 4, "multipliers": (1, 2), "blocks": 1, "groups": 2}


def block(i, o):
    return 2 * i + 9 * i * o + o + 2 * o + 9 * o * o + o + (i * o + o if i != o else 0)


def conv(i, o, kernel=3):
    return kernel**2 * i * o + o


def test_the_published_network():
    """KL, f = 8 of 256 pixels: 128 channels, (1, 2, 4, 4), two blocks, attention once a half."""
    middle = 2 * block(512, 512) + 2 * 512 + 4 * conv(512, 512, 1)
    down = conv(3, 128) + 2 * block(128, 128) + conv(128, 128)
    down += block(128, 256) + block(256, 256) + conv(256, 256)
    down += block(256, 512) + block(512, 512) + conv(512, 512) + 2 * block(512, 512)
    down += middle + 2 * 512 + conv(512, 8) + conv(8, 8, 1)
    up = conv(4, 4, 1) + conv(4, 512) + middle + 2 * (3 * block(512, 512) + conv(512, 512))
    up += block(512, 256) + 2 * block(256, 256) + conv(256, 256)
    up += block(256, 128) + 2 * block(128, 128) + 2 * 128 + conv(128, 3)
    net, x = models.Autoencoder(), jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), x)
    sizes = {n: sum(a.size for a in jax.tree.leaves(p)) for n, p in variables["params"].items()}
    assert sizes == {"encoder": down, "decoder": up}
    assert down + up == 83_653_863  # as published
    mean, log_var = jax.eval_shape(functools.partial(net.apply, method="encode"), variables, x)
    assert mean.shape == log_var.shape == (2, 32, 32, 4)


@pytest.mark.slow
def test_there_and_back_under_every_transformation(key):
    """Half the size and back; examples by themselves; gradients reach every parameter."""
    net = models.Autoencoder(**SMALL, attention=True, out_channels=1)
    x = jax.random.normal(key, (4, 4, 6, 1))

    @jax.jit
    def all_of_it(key, x):
        # residual branches end as zeros, where gradients of what is before them are 0
        start = net.init(key, x)
        start = jax.tree.map(
            lambda a: a + 0.1 * jnp.sin(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape), start
        )

        def loss(params):
            mean, log_var = net.apply(params, x, method="encode")
            z = mean + jnp.exp(0.5 * log_var)
            again = net.apply(params, z, method="decode")
            return jnp.sum(again**2), (mean, log_var, again)

        slope, (mean, log_var, again) = jax.grad(loss, has_aux=True)(start)
        alone = jax.vmap(lambda one: net.apply(start, one[None], method="encode")[0][0])(x)
        return slope, mean, log_var, again, alone

    slope, mean, log_var, again, alone = all_of_it(key, x)
    assert mean.shape == log_var.shape == (4, 2, 3, 3)
    assert again.shape == x.shape
    zero = [path for path, g in jax.tree_util.tree_leaves_with_path(slope) if not np.any(g)]
    assert not zero, zero
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(slope))
    np.testing.assert_allclose(alone, mean, rtol=1e-4, atol=1e-5)


def test_divergence_and_error_of_the_loss(key):
    """KL of N(.7, .4^2) and N(-.2, 2^2) to N(0, 1) by quadrature; a decoder that is off by .5."""
    means, stds = np.array([0.7, -0.2]), np.array([0.4, 2.0])

    def divergence(m, s):
        p = stats.norm(m, s)
        gap = lambda z: p.pdf(z) * (p.logpdf(z) - stats.norm.logpdf(z))  # noqa: E731
        return integrate.quad(gap, m - 12 * s, m + 12 * s)[0]

    x = jnp.zeros((3, 2, 2, 1))
    log_var = jnp.broadcast_to(2 * jnp.log(jnp.asarray(stds)), (3, 1, 1, 2))
    encode = lambda params, x: (jnp.broadcast_to(means, (3, 1, 1, 2)), log_var)  # noqa: E731
    loss_fn = vae_loss(encode, lambda params, z: x + 0.5, std=0.2)
    loss, (told, _) = loss_fn({}, {"x": x}, key, {}, ())
    kl = sum(divergence(m, s) for m, s in zip(means, stds, strict=True))
    np.testing.assert_allclose(told["kl"], kl, rtol=1e-5)
    np.testing.assert_allclose(told["error"], 0.25, rtol=1e-6)
    np.testing.assert_allclose(loss, 4 * 0.25 / (2 * 0.2**2) + kl, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "shape", "words"),
    [
        ({}, (1, 7, 8, 1), "must divide by 2"),
        ({}, (1, 8, 8, 2), r"x must be \[B, H, W, 1\]"),
        ({}, (8, 8, 1), r"x must be \[B, H, W, 1\]"),
        ({"groups": 3}, (1, 8, 8, 1), "groups=3 must divide"),
        ({"latents": 0}, (1, 8, 8, 1), "latents must be positive"),
        ({"multipliers": ()}, (1, 8, 8, 1), "multipliers"),
        ({"dtype": "int8"}, (1, 8, 8, 1), "dtype must be None or one of"),
    ],
)
def test_bad_input(fields, shape, words):
    net = models.Autoencoder(**{**SMALL, "out_channels": 1, **fields})
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))


def test_latents_of_another_shape():
    net, x = models.Autoencoder(**SMALL, out_channels=1), jnp.zeros((1, 8, 8, 1))
    variables = jax.eval_shape(net.init, jax.random.key(0), x)
    z = jax.ShapeDtypeStruct((1, 4, 4, 2), jnp.float32)
    decode = functools.partial(net.apply, method="decode")
    with pytest.raises(ValueError, match=r"z must be \[B, h, w, 3\], got \[1, 4, 4, 2\]"):
        jax.eval_shape(decode, variables, z)


@pytest.mark.slow
def test_half_precision_keeps_what_must_be_float32(key):
    """Outputs and parameters; and nothing is far from float32's (eps of bfloat16 is .0078)."""
    x = jax.random.normal(key, (2, 8, 8, 1))
    nets = [models.Autoencoder(**SMALL, attention=False, out_channels=1, dtype=d)
            for d in (None, "bfloat16")]  # fmt: skip
    variables = nets[0].init(key, x)
    full, half = (net.apply(variables, x) for net in nets)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, full, atol=0.1 * float(jnp.abs(full).max()))
