"""Do the three derivations of DDPM give one and the same step, and which loss trains it best?

    python experiments/ddpm_three_ways.py [--samples 200000] [--seed 0]

DDPM can be had by undoing a demolition step by step, as a variational autoencoder with N latents,
or by Bayes' rule. Each is written out here from the betas alone:

    a_t = 1 - beta_t,   ab_t = a_1 ... a_t,   bb_t = 1 - ab_t

Expected, and printed:

    1. The three means of p(x_{t-1} | x_t) agree to 1e-12 relative in float64 (largest gap over Ho
       et al.'s 1000 steps: about 2e-15); the variational weight on ||e - eps||**2 is
       beta_t**2 / (2 sigma_t**2 a_t bb_t), to 1e-11.
    2. Variance reduction, f any function of x_t, e the single noise of x_t:
           E||e_t - f||**2 = (beta_t/bb_t) E||e - sqrt(bb_t/beta_t) f||**2 + d (1 - beta_t/bb_t)
       within 3 standard errors at each t.
    3. Both losses have one gradient in expectation (root mean square z about 1), the right one with
       less variance. For the untrained tanh network of seed 0 the four-noise gradient varies 1.7,
       4.6, 8.2, 5.8 and 5.3 times as much at t = 2, 10, 100, 500 and 1000 (seed 1, another
       network: 1.6, 3.0, 4.2, 3.1, 3.1): without the spare noise so much smaller a batch will do.

Hardware: 2 CPU cores, 30 seconds and 1.5 GB. Sources: Su 2022, kexue.fm articles 9119
(demolish), 9152 (autoencoder) and 9164 (Bayes); Ho et al. 2020, arXiv:2006.11239. No function of
`jaxdiff.gaussian` is called: the tests compare the two.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxdiff import schedules

__all__ = [
    "Step",
    "autoencoder",
    "autoencoder_weight",
    "bayes",
    "build",
    "compare",
    "four_noise",
    "main",
    "steps",
    "three_noise",
]

TIMES = (2, 10, 100, 500, 1000)


class Step(NamedTuple):
    """The numbers of one step of the chain, or of all: fields [] or [N]."""

    beta: Any
    a: Any
    ab: Any
    bb: Any
    ab_before: Any
    bb_before: Any


def steps(betas: np.ndarray) -> Step:
    """All steps of a chain; 1 - ab by expm1, which keeps its digits at t = 1."""
    log_ab = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])
    ab, bb = np.exp(log_ab), -np.expm1(log_ab)
    return Step(betas, 1 - betas, ab[1:], bb[1:], ab[:-1], bb[:-1])


# -- three ways to the mean of p(x_{t-1} | x_t), given the network's eps(x_t)


def build(c: Step, x_t: Any, eps: Any) -> Any:
    """Demolish and build: take the last brick off again.

    Demolition adds e_t by x_t = sqrt(a) x_{t-1} + sqrt(beta) e_t. A network f(x_t) that has
    learned E[e_t | x_t] puts back x_{t-1} = (x_t - sqrt(beta) f) / sqrt(a). Of the whole noise
    sqrt(bb) e = sqrt(a bb_before) e_before + sqrt(beta) e_t the last brick is the part
    e_t = sqrt(beta / bb) e + (something independent of x_t), so f = sqrt(beta / bb) eps.
    """
    brick = np.sqrt(c.beta / c.bb) * eps
    return (x_t - np.sqrt(c.beta) * brick) / np.sqrt(c.a)


def autoencoder(c: Step, x_t: Any, eps: Any) -> Any:
    """Variational autoencoder: the regression E[x_{t-1} | x_t].

    KL(q(x_0..x_N) || p(x_0..x_N)) holds mu only in E||x_{t-1} - mu(x_t)||**2 / (2 sigma**2), whose
    minimum is the conditional mean. x_{t-1} = sqrt(ab_before) x_0 + sqrt(bb_before) e_before, with
    x_0 = (x_t - sqrt(bb) e) / sqrt(ab), and e_before regressed on e has the slope
    Cov(e_before, e) = sqrt(a bb_before / bb).
    """
    x_0 = (x_t - np.sqrt(c.bb) * eps) / np.sqrt(c.ab)
    e_before = np.sqrt(c.a * c.bb_before / c.bb) * eps
    return np.sqrt(c.ab_before) * x_0 + np.sqrt(c.bb_before) * e_before


def autoencoder_weight(c: Step, var: Any) -> Any:
    """What ||e - eps||**2 counts in the bound, from the regression's own slope by eps."""
    slope = np.sqrt(c.bb_before * c.a * c.bb_before / c.bb) - np.sqrt(c.ab_before * c.bb / c.ab)
    return slope**2 / (2 * var)


def bayes(c: Step, x_t: Any, eps: Any) -> Any:
    """Bayes: q(x_{t-1} | x_t, x_0) is q(x_t | x_{t-1}) q(x_{t-1} | x_0), normalised.

    Two Gaussians in x_{t-1}: x_t / sqrt(a) with precision a / beta, and sqrt(ab_before) x_0 with
    precision 1 / bb_before. Their product has the precision-weighted mean; both precisions are
    multiplied by beta bb_before here, so that the first step, where bb_before = 0, divides by no
    zero. The network's x_0 stands in for the unknown one.
    """
    x_0 = (x_t - np.sqrt(c.bb) * eps) / np.sqrt(c.ab)
    of_x_t, of_x_0 = c.a * c.bb_before, c.beta
    return (of_x_t * x_t / np.sqrt(c.a) + of_x_0 * np.sqrt(c.ab_before) * x_0) / (of_x_t + of_x_0)


# -- the loss of the demolition, and the one with its two noises rotated into one


def four_noise(f: Any, c: Step, x_0: Any, e_before: Any, e_t: Any) -> Any:
    """||e_t - f(sqrt(ab) x_0 + sqrt(a bb_before) e_before + sqrt(beta) e_t)||**2, [n].

    Its random variables are x_0, e_before, e_t and t: four.
    """
    x_t = jnp.sqrt(c.ab) * x_0 + jnp.sqrt(c.a * c.bb_before) * e_before + jnp.sqrt(c.beta) * e_t
    return jnp.sum((e_t - f(x_t)) ** 2, axis=-1)


def three_noise(f: Any, c: Step, x_0: Any, e: Any) -> Any:
    """The right side of the identity, [n]: x_0, e and t, the part of e_t beyond e integrated."""
    share = c.beta / c.bb
    x_t = jnp.sqrt(c.ab) * x_0 + jnp.sqrt(c.bb) * e
    error = jnp.sum((e - f(x_t) / jnp.sqrt(share)) ** 2, axis=-1)
    return share * error + x_0.shape[-1] * (1 - share)


def network(params: dict[str, Any], x: Any) -> Any:
    """A small tanh network, untrained: the identity holds for any function."""
    return jnp.tanh(x @ params["in"]) @ params["out"]


def start(key: Any, dim: int, width: int = 16) -> dict[str, Any]:
    """Its parameters."""
    keys = jax.random.split(key)
    return {
        "in": jax.random.normal(keys[0], (dim, width)) / dim**0.5,
        "out": jax.random.normal(keys[1], (width, dim)) / width**0.5,
    }


def compare(key: Any, f: Any, params: Any, c: Step, *, dim: int, samples: int, std=0.5) -> dict:
    """Means, standard errors and gradient variances of both losses on data N(0, std**2 I).

    Args:
        key: a PRNG key.
        f: `f(params, x)`.
        params: a pytree.
        c: one step.
        dim: of the data.
        samples: draws of each loss, independent of one another.
        std: the deviation of the data.

    Returns:
        "four" and "three": (mean, standard error); "z": the distance of the two mean gradients in
        standard errors, root mean square over the parameters; "variances": the variance of one
        example's gradient, summed over the parameters, [2].
    """
    draws = jax.random.normal(key, (5, samples, dim))
    found, gradients = {}, []
    for name, loss, arguments in [
        ("four", four_noise, (std * draws[0], draws[1], draws[2])),
        ("three", three_noise, (std * draws[3], draws[4])),
    ]:
        values, slopes = _each(loss, f, c, params, arguments)
        found[name] = (values.mean(), values.std() / np.sqrt(samples))
        gradients.append((slopes.mean(0), slopes.var(0)))
    (mean_4, var_4), (mean_3, var_3) = gradients
    z = (mean_4 - mean_3) / np.sqrt((var_4 + var_3) / samples)
    return {**found, "z": np.sqrt(np.mean(z**2)), "variances": (var_4.sum(), var_3.sum())}


def _each(loss: Any, f: Any, c: Step, params: Any, arguments: tuple) -> tuple:
    """Losses [n] and gradients [n, P] of single examples."""

    def one(params, *example):
        return loss(lambda x: f(params, x), c, *(a[None] for a in example))[0]

    axes = (None, *(0 for _ in arguments))
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(one), axes))(params, *arguments)
    flat = [np.asarray(leaf).reshape(len(values), -1) for leaf in jax.tree.leaves(slopes)]
    return np.asarray(values), np.concatenate(flat, axis=1)


def main(samples: int = 200_000, seed: int = 0) -> None:
    """Prints the tables.

    Args:
        samples: Monte-Carlo draws at each t.
        seed: of the draws.
    """
    c = steps(schedules.linear_betas())
    generator = np.random.default_rng(seed)
    x_t, eps = generator.normal(size=(2, len(c.beta)))
    ways = {"build": build, "autoencoder": autoencoder, "Bayes": bayes}
    means = {name: way(c, x_t, eps) for name, way in ways.items()}
    print("1. the mean of p(x_{t-1} | x_t) by three ways, and the weight of ||e - eps||**2")
    print(f"{'t':>5}" + "".join(f"{name:>22}" for name in ways) + f"{'weight':>14}{'formula':>14}")
    weights = autoencoder_weight(c, c.beta), c.beta**2 / (2 * c.beta * c.a * c.bb)
    for t in TIMES:
        row = "".join(f"{mean[t - 1]:22.16f}" for mean in means.values())
        print(f"{t:5}{row}{weights[0][t - 1]:14.8f}{weights[1][t - 1]:14.8f}")
    gap = max(np.max(np.abs(mean - means["Bayes"])) for mean in means.values())
    off = np.max(np.abs(weights[0] / weights[1] - 1))
    print(f"largest gap over all {len(c.beta)} steps: {gap:.1e}; of the weights: {off:.1e}\n")

    print("2. E||e_t - f||**2, four noises, against its three-noise form;  3. their gradients")
    heads = ("four noises", "three noises", "z", "z of grad", "var four", "var three", "ratio")
    print(f"{'t':>5}" + _cells(heads))
    with jax.enable_x64(True):
        key = jax.random.key(seed)
        params = start(key, dim=4)
        for t in TIMES:
            one = Step(*(field[t - 1] for field in c))
            draws = jax.random.fold_in(key, t)
            print(f"{t:5}" + _row(compare(draws, network, params, one, dim=4, samples=samples)))


def _row(found: dict) -> str:
    """One line of the second table."""
    (four, four_error), (three, three_error) = found["four"], found["three"]
    z = (four - three) / np.hypot(four_error, three_error)
    var_4, var_3 = found["variances"]
    numbers = [f"{v:.2f}" for v in (z, found["z"], var_4, var_3, var_4 / var_3)]
    return _cells(
        [f"{four:.5f} +- {four_error:.5f}", f"{three:.5f} +- {three_error:.5f}", *numbers]
    )


def _cells(texts: Any) -> str:
    """Two wide columns and five narrow ones."""
    return "".join(f"{text:>{22 if i < 2 else 11}}" for i, text in enumerate(texts))


if __name__ == "__main__":
    tyro.cli(main)
