"""Truth: data N(0, C) at one time, where Var[eps | x_t] and E[eps | x_t] are closed forms.

Var[eps | x_t] = alpha**2 C / (alpha**2 C + sigma**2),    E[eps | x_t] = sigma x_t / (same)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import losses, schedules
from jaxdiff.denoiser import make_denoiser

C, BIAS, N = 0.25, 0.6, 2**15
SCHEDULE = schedules.linear_vp()
TIME = 0.4
ALPHA = np.exp(-0.5 * (0.1 * TIME + 19.9 * TIME**2 / 2))  # Song et al. 2021, eq. 33
TOTAL = ALPHA**2 * C + 1 - ALPHA**2
VAR = ALPHA**2 * C / TOTAL


def at_one_time(key, n, schedule):
    return jnp.full(n, TIME), jnp.ones(n)


def exact(x):
    return np.sqrt(1 - ALPHA**2) / TOTAL * x


BEST = {"residual2": lambda x: VAR + BIAS**2 + 0 * x, "eps2": lambda x: VAR + exact(x) ** 2}


def apply(params, x, t):
    """The exact mean plus a bias, and heads beside the best ones by a constant and a slope."""
    heads = [
        BEST[name](x) + params[name]["by"] + params[name]["slope"] * x
        for name in BEST
        if name in params
    ]
    return jnp.concatenate([exact(x) + params["bias"], *heads], axis=-1)


def network(*names):
    params = {name: {"by": 0.0, "slope": 0.0} for name in names}
    params = jax.tree.map(jnp.float32, {**params, "bias": BIAS})
    return make_denoiser(apply, params, parametrization="eps", time_feature="clock", heads=names)


def loss_and_slope(loss, denoiser, key, **more):
    x0 = C**0.5 * jax.random.normal(jax.random.key(9), (N, 1))

    def value(params):
        model = denoiser.with_params(params)
        return loss(key, model, x0, SCHEDULE, times=at_one_time, **more)

    return jax.jit(jax.value_and_grad(value, has_aux=True))(denoiser.params)


@pytest.mark.parametrize("names", [("residual2",), ("eps2",), ("residual2", "eps2")])
def test_least_at_the_closed_form(names, key):
    """A loss quadratic in each parameter is least where its slope is 0.

    A slope is the mean of 2 (head - target) u over N draws, u = 1 or x_t, so 5 standard errors.
    """
    (loss, told), slope = loss_and_slope(losses.second_moment, network(*names), key)
    assert set(told) == {"per_example", "weighted", "t", *names}
    # E[u**2] is 1 or Var[x_t], and u and the error's size grow together: a factor 3 (Gaussian
    # fourth moments) bounds E[u**2 error**2] here
    sizes = {"by": 1.0, "slope": 3 * TOTAL}
    for name in names:
        for number, square in sizes.items():
            deviation = 2 * np.sqrt(square * np.mean(told[name]))
            assert abs(slope[name][number]) < 5 * deviation / np.sqrt(N), (name, number)
    total = sum(np.mean(told[name]) for name in names)
    np.testing.assert_allclose(loss, total, rtol=1e-5)
    # the mean is not moved by it: its share of the target has no gradient
    assert slope["bias"] == 0


def test_without_its_square_of_the_bias_a_residual_is_not_least(key):
    """The slope at Var alone is -2 BIAS**2, by the closed form."""
    denoiser = network("residual2")
    params = {**denoiser.params, "residual2": {"by": jnp.float32(-(BIAS**2)), "slope": 0.0}}
    (_, told), slope = loss_and_slope(losses.second_moment, denoiser.with_params(params), key)
    error = 2 * np.sqrt(np.mean(told["residual2"]) / N)
    np.testing.assert_allclose(slope["residual2"]["by"], -2 * BIAS**2, atol=5 * error)


def test_joint_is_both_losses_of_one_call(key):
    denoiser = network("residual2", "eps2")
    (both, told), slope = loss_and_slope(losses.joint, denoiser, key, weight=losses.plain)
    (mean, _), of_mean = loss_and_slope(losses.denoising, denoiser, key, weight=losses.plain)
    (heads, _), of_heads = loss_and_slope(losses.second_moment, denoiser, key)
    np.testing.assert_allclose(both, mean + heads, rtol=1e-5)
    np.testing.assert_allclose(np.mean(told["mean"]), mean, rtol=1e-5)
    # E (eps - eps_hat)**2, whose slope by the bias is twice the bias
    error = 5 * np.sqrt(3) * (VAR + BIAS**2) / np.sqrt(N)
    np.testing.assert_allclose(mean, VAR + BIAS**2, atol=error)
    np.testing.assert_allclose(slope["bias"], of_mean["bias"], rtol=1e-5)
    np.testing.assert_allclose(slope["bias"], 2 * BIAS, atol=10 * np.sqrt(VAR / N))
    for name in BEST:
        np.testing.assert_allclose(slope[name]["by"], of_heads[name]["by"], rtol=1e-4, atol=1e-6)


def test_a_network_without_heads_is_named(key):
    with pytest.raises(ValueError, match="must have a head of residual2, eps2, got none"):
        losses.second_moment(key, network(), jnp.zeros((2, 1)), SCHEDULE)
