"""The UNet's size against the published one, odd image sizes, and what a convolution promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.models import UNet, ddpm_cifar10


def _abstract(net, shape):
    return jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(shape), jnp.zeros(shape[0]))


def test_cifar10_has_the_published_number_of_parameters():
    # Ho et al. 2020, appendix B: 35.7 million; the count of their released network.
    variables = _abstract(ddpm_cifar10(), (1, 32, 32, 3))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 35_746_307
    assert ddpm_cifar10().dropout == 0.1
    assert ddpm_cifar10(out_channels=6).out_channels == 6


@pytest.mark.slow
@pytest.mark.parametrize("skip", ["concat", "add"])
@pytest.mark.parametrize("resample", ["conv", "pool"])
def test_sizes_that_end_odd(skip, resample):
    net = UNet(8, (1, 2, 2), 1, (7,), groups=4, skip=skip, resample=resample)  # 28, 14, 7
    x, t = jnp.zeros((2, 28, 28, 1)), jnp.zeros(2)
    variables = _abstract(net, x.shape)
    assert jax.eval_shape(net.apply, variables, x, t).shape == x.shape


def test_names_are_shared_between_remat_and_plain():
    net = UNet(8, (1, 2), 1, (4,), groups=4)
    plain, remat = (_abstract(n, (1, 8, 8, 1)) for n in (net, net.clone(remat=True)))
    assert jax.tree.structure(plain) == jax.tree.structure(remat)


@pytest.mark.slow
def test_mirrors_an_image_if_its_kernels_are_symmetric():
    net = UNet(8, (1, 2), 1, (4,), groups=4, resample="pool")
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    t = jnp.array([3.0, 700.0])
    generator = np.random.default_rng(0)

    def symmetric(leaf):
        leaf = jnp.asarray(0.2 * generator.normal(size=leaf.shape), jnp.float32)
        return (leaf + leaf[:, ::-1]) / 2 if leaf.ndim == 4 else leaf

    variables = jax.tree.map(symmetric, _abstract(net, x.shape))
    apply = jax.jit(net.apply, compiler_options={"xla_backend_optimization_level": 0})
    out = apply(variables, x, t)
    assert not np.allclose(out, out[:, :, ::-1], atol=0.1)
    # float32 through some ten layers.
    np.testing.assert_allclose(apply(variables, x[:, :, ::-1], t), out[:, :, ::-1], atol=1e-4)
