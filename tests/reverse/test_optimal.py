"""The optimal variance, by closed forms, quadrature and the published tables.

Truth: Gaussian conditioning; the law of total variance; figures printed in specifications of the
papers' systems, made by quadrature outside this library; theorem 2 of Bao et al. 2022.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import exact, grids, reverse, samplers, schedules
from jaxdiff.likelihood import elbo
from jaxdiff.reverse import analytic, moments_of_gamma, npr, optimal, sn
from jaxdiff.typing import Denoised, Grid, NoiseLevel
from tests import battery
from tests.likelihood.mixture import ENTROPY, mixture, posterior_variance, product_rule

CHAIN = schedules.from_betas(battery.BETAS["linear"])


def whole():
    return grids.from_steps(CHAIN, np.arange(1000.0, 0, -1))


def even(num_steps):
    return grids.from_steps(CHAIN, np.round(np.linspace(1, 1000, num_steps))[::-1])


def gamma_of(c, levels):
    """Gamma of N(0, c): the score is -x / v with E x**2 = v."""
    return 1 / (levels.alpha**2 * c + levels.sigma**2)


def joint_variance(t, s, eta, c):
    """Var[x_s | x_t] of N(0, c) from the joint Gaussian of (x_s, x_t), by numpy.

    x_s = alpha_s x_0 + kept eps + l e and x_t = alpha_t x_0 + sigma_t eps.
    """
    alpha_t, sigma_t, alpha_s, sigma_s = (
        np.asarray(a, np.longdouble) for a in (t.alpha, t.sigma, s.alpha, s.sigma)
    )
    fresh = eta**2 * sigma_s**2 * (1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2)
    kept = np.sqrt(sigma_s**2 - fresh)
    var_s, var_t = alpha_s**2 * c + sigma_s**2, alpha_t**2 * c + sigma_t**2
    # var_s - cross**2 / var_t as a sum of squares: nothing cancels but alpha_s - alpha_t kept / sig
    apart = alpha_s * sigma_t - alpha_t * kept
    return fresh + c * apart**2 / var_t, var_s


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_gaussian_data_all_pairs_of_a_chain(eta, x64):
    # 499,500 pairs; float64 leaves 1e-16 / (1 - sqrt(r)) of the truth's own difference, 1e-11
    t, s = np.triu_indices(1000, 1)
    levels = CHAIN(jnp.arange(1000.0, 0, -1))
    at = lambda i: jax.tree.map(lambda a: a[i], levels)  # noqa: E731
    first, second = at(t), at(s)
    variance = analytic(moments_of_gamma(levels, gamma_of(0.25, levels)))
    ours = jax.jit(variance.std)(Denoised(0.0, 0.0), t=first, s=second, eta=eta) ** 2
    want, _ = joint_variance(first, second, eta, 0.25)
    np.testing.assert_allclose(ours, np.asarray(want, float), rtol=1e-10)


@pytest.mark.parametrize("eta", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
@pytest.mark.slow
def test_unequal_directions_give_their_average(eta, x64):
    spread = np.array([0.1, 0.4, 2.0])
    source = exact.gaussian(jnp.zeros(3), jnp.diag(jnp.asarray(spread)))
    levels = CHAIN(jnp.array([1000.0, 400.0, 20.0]))
    gamma = np.mean([gamma_of(c, levels) for c in spread], axis=0)
    variance = analytic(moments_of_gamma(levels, gamma))
    t, s = CHAIN(jnp.asarray([400.0])), CHAIN(jnp.asarray([20.0]))
    ours = variance.std(source(jnp.ones((1, 3)), t), t=t, s=s, eta=eta) ** 2
    each = [joint_variance(t, s, eta, c)[0] for c in spread]
    np.testing.assert_allclose(ours, np.mean(each, axis=0), rtol=1e-10)
    # and each direction's own, where the covariance is given for each
    var = jnp.asarray(spread)[None]
    alpha, sigma = t.alpha[:, None], t.sigma[:, None]
    own = optimal(lambda d, level: var * sigma**2 / (alpha**2 * var + sigma**2))
    ours = own.std(source(jnp.ones((1, 3)), t), t=t, s=s, eta=eta) ** 2
    np.testing.assert_allclose(ours[0], np.ravel(each), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "num_steps", [10, 1000, *(pytest.param(k, marks=pytest.mark.slow) for k in (5, 20, 50, 100))]
)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_sampled_variance_is_the_data_s(num_steps, eta, x64):
    """The recursion of a linear chain: .2499 at every K without noise in the last step, as the
    table of the systems prints; .25000 with it."""
    grid = even(num_steps)
    t, s = grid.pairs
    variance = analytic(moments_of_gamma(t, gamma_of(0.25, t)))
    d = exact.gaussian([0.0], [[0.25]])(jnp.ones((num_steps, 1)), t)
    slope = np.asarray(reverse.reverse_mean(d, t=t, s=s, eta=eta))[:, 0]
    fresh = np.asarray(variance.std(d, t=t, s=s, eta=eta)) ** 2
    total = 1.0
    for k in range(num_steps - 1):
        total = slope[k] ** 2 * total + fresh[k]
    assert slope[-1] ** 2 * total == pytest.approx(0.2499, abs=5.1e-5)
    # x_N ~ N(0, 1) rather than N(0, 1 - alpha_bar c') leaves 3e-5 of a variance: alpha_bar is 4e-5
    assert slope[-1] ** 2 * total + fresh[-1] == pytest.approx(0.25, abs=2e-5)


@pytest.mark.parametrize(("t", "want"), [(1, 3.99880), (100, 3.05589), (500, 1.06263)])
def test_published_gamma(t, want, x64):
    levels = CHAIN(jnp.asarray([float(t)]))
    moments = moments_of_gamma(levels, gamma_of(0.25, levels))
    assert moments.gamma[0] == pytest.approx(want, abs=6e-6)


TABLE = {  # NELBO in nats of the mixture: analytic, state-dependent
    3: (1.0675, 1.0667),
    5: (1.0536, 0.9728),
    10: (0.7173, 0.2303),
    20: (0.0951, -0.0802),
    50: (-0.0941, -0.1648),
    100: (-0.1456, -0.1822),
}
FIXED = {3: 1.1546, 5: 1.1080, 10: 0.8639, 20: 0.4968, 50: 0.1444, 100: -0.0107}  # beta


def by_quadrature(num_steps, variance):
    x0, noise, weights = product_rule()
    grid = even(num_steps)
    noise = jnp.broadcast_to(jnp.asarray(noise), (1, num_steps, *noise.shape))
    model = exact.with_heads(mixture())
    how = {"variance": variance, "last_std": variance, "noise": noise}
    found = elbo(None, model, jnp.asarray(x0), grid, **how)
    return -float(np.sum(weights * np.asarray(found.values[:, 0, 0])))


def mixture_gamma(levels):
    """Gamma of the mixture from E Var[x_0 | x_t], by quadrature over x_t."""
    left = [
        posterior_variance(NoiseLevel(0.0, a, s))
        for a, s in zip(*(np.asarray(v) for v in levels[1:]), strict=True)
    ]
    return (1 - np.asarray(left) * (levels.alpha / levels.sigma) ** 2) / levels.sigma**2


@pytest.mark.parametrize(
    "num_steps", [10, *(pytest.param(k, marks=pytest.mark.slow) for k in (3, 5, 20, 50, 100))]
)
def test_table_of_the_mixture(num_steps, x64):
    """To the printed digits, and in the order that the theorem states."""
    t, _ = even(num_steps).pairs
    scalar = by_quadrature(num_steps, analytic(moments_of_gamma(t, mixture_gamma(t))))
    state = by_quadrature(num_steps, sn())
    assert scalar == pytest.approx(TABLE[num_steps][0], abs=6e-5)
    assert state == pytest.approx(TABLE[num_steps][1], abs=6e-5)
    assert by_quadrature(num_steps, npr()) == pytest.approx(state, abs=1e-9)
    assert ENTROPY < state <= scalar < FIXED[num_steps]


@jax.jit
def within_bounds(t, s, eta):
    """The optimal and the small deviation of N(0, .3), and the bounds for data in [-2, 2]."""
    cov = 0.3 * t.sigma**2 / (t.alpha**2 * 0.3 + t.sigma**2)
    d = Denoised(jnp.zeros(()), jnp.zeros(()))
    std = optimal(lambda d, level: cov).std(d, t=t, s=s, eta=eta)
    bounds = reverse.bounds(t, s, eta=eta, data_range=(-2.0, 2.0))
    return std, reverse.small().std(d, t=t, s=s, eta=eta), *bounds


@battery.each_schedule
@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_between_the_bounds(schedule, eta, x64):
    """Theorem 2, on every schedule: small below, alpha = 0 included, unit data inside [-2, 2]."""
    t, s = battery.pairs(schedule)
    std, least, low, high = (np.asarray(a) for a in within_bounds(t, s, eta))
    np.testing.assert_allclose(low, least**2, rtol=1e-14)
    assert (low <= std**2).all()
    assert (std**2 <= high * (1 + 1e-12)).all()
    assert np.isfinite(high).all()


def test_ddim_and_ddpm_forms_of_the_paper(x64):
    """sigma**2 = (beta / alpha)(1 - beta Gamma) for DDPM, eq. 9; its corollary for DDIM."""
    t, s = CHAIN(jnp.array([700.0])), CHAIN(jnp.array([300.0]))
    gamma = np.array([0.8])
    variance = analytic(moments_of_gamma(t, gamma))
    a = (np.asarray(t.alpha) / np.asarray(s.alpha)) ** 2
    beta = 1 - a
    ours = variance.std(Denoised(0.0, 0.0), t=t, s=s, eta=1.0) ** 2
    np.testing.assert_allclose(ours, beta / a * (1 - beta * gamma), rtol=1e-12)
    ours = variance.std(Denoised(0.0, 0.0), t=t, s=s, eta=0.0) ** 2
    root = np.sqrt(np.asarray(t.sigma) ** 2 / a) - np.asarray(s.sigma)
    np.testing.assert_allclose(ours, root**2 * (1 - np.asarray(t.sigma) ** 2 * gamma), rtol=1e-11)


def biased_by(b, source):
    """The exact model and heads of a mixture, its eps shifted by b."""

    def biased(x_t, level):
        d = source(x_t, level)
        eps = d.eps + b
        alpha, sigma = (jnp.reshape(a, (-1, 1)) for a in (level.alpha, level.sigma))
        x0 = (x_t - sigma * eps) / alpha
        heads = {"residual2": source.residual2(x_t, level) + b**2}
        return Denoised(x0, eps, heads | {"eps2": source.eps2(x_t, level)})

    return biased


@pytest.mark.slow
def test_a_biased_mean(x64):
    """eps_hat = eps + b: NPR's head is Var + b**2, SN's plug-in E[eps**2] - (eps + b)**2, held at 0
    where negative."""
    b, source = 0.3, mixture()
    biased = biased_by(b, source)
    t = CHAIN(jnp.full(5, 300.0))
    x_t = jnp.linspace(-1, 1, 5)[:, None]
    d, true = biased(x_t, t), exact.with_heads(source)(x_t, t)
    ratio = ((t.sigma / t.alpha) ** 2)[:, None]
    np.testing.assert_allclose(
        npr().cov(d, t), ratio * (true.heads["eps2"] - true.eps**2 + b**2), rtol=1e-9
    )
    plug_in = ratio * (true.heads["eps2"] - (true.eps + b) ** 2)
    assert (plug_in < 0).any()
    np.testing.assert_allclose(sn().cov(d, t), np.maximum(plug_in, 0), rtol=1e-9, atol=1e-14)


@pytest.mark.slow
def test_with_a_biased_mean_npr_has_the_better_bound(x64):
    source = mixture()
    biased = biased_by(0.3, source)
    key = jax.random.key(3)
    x = source.sample(key, 400)
    nelbo = {
        name: -float(elbo(key, biased, x, even(10), variance=name, last_std=0.02).mean)
        for name in ("npr", "sn")
    }
    assert nelbo["npr"] < nelbo["sn"]


def test_learned_range_between_its_ends(x64):
    t, s = CHAIN(jnp.array([500.0, 2.0])), CHAIN(jnp.array([400.0, 1.0]))
    for out, name in ((-1.0, "small"), (1.0, "large")):
        heads = {"log_var_fraction": jnp.full((2, 3), out)}
        d = Denoised(jnp.zeros((2, 3)), jnp.zeros((2, 3)), heads)
        want = reverse.resolve(name).std(d, t=t, s=s, eta=1.0)
        got = reverse.learned_range().std(d, t=t, s=s, eta=1.0)
        np.testing.assert_allclose(got, np.broadcast_to(want[:, None], (2, 3)), rtol=1e-12)
    # outside [-1, 1] nothing is held: v = 1.5 is beta**1.5 / beta_tilde**.5
    d = Denoised(d.x0, d.eps, {"log_var_fraction": jnp.full((2, 3), 2.0)})
    low, high = (reverse.resolve(n).std(d, t=t, s=s, eta=1.0) for n in ("small", "large"))
    got = reverse.learned_range().std(d, t=t, s=s, eta=1.0)[:, 0]
    np.testing.assert_allclose(got, high**1.5 / low**0.5, rtol=1e-12)


def test_floors_of_the_last_step(x64):
    grid = even(10)
    t, s = grid.pairs
    floor = reverse.second_to_last(grid)
    small = np.asarray(reverse.small().std(None, t=t, s=s, eta=1.0)) ** 2
    assert float(floor) == pytest.approx(small[-2], rel=1e-12)
    d = Denoised(jnp.zeros((10, 1)), jnp.zeros((10, 1)), {"log_var_fraction": -jnp.ones((10, 1))})
    for value in (float(floor), reverse.TINY):
        got = reverse.learned_range(value).std(d, t=t, s=s, eta=1.0)[:, 0] ** 2
        np.testing.assert_allclose(got[:-1], small[:-1], rtol=1e-12)
        assert got[-1] == pytest.approx(value, rel=1e-12)


def test_table_interpolates_and_refuses_what_lies_beyond(x64):
    levels = CHAIN(jnp.arange(1000.0, 0, -10))
    table = analytic(moments_of_gamma(levels, gamma_of(0.25, levels)))
    between = CHAIN(jnp.arange(985.0, 20, -10))
    want = 0.25 * between.sigma**2 / (between.alpha**2 * 0.25 + between.sigma**2)
    got = table.cov(Denoised(0.0, 0.0), between)
    np.testing.assert_allclose(got, want, rtol=5e-3)  # linear over steps of some .2 in log SNR
    with pytest.raises(ValueError, match="reach over the grid"):
        analytic(moments_of_gamma(levels, gamma_of(0.25, levels))).check(CHAIN(jnp.array([1.0])))


@pytest.mark.slow
@pytest.mark.parametrize("by", [pytest.param("x0", marks=pytest.mark.slow), "residual"])
def test_zero_terminal_snr(by, key, x64):
    """At alpha = 0 the covariance is that of the data."""
    schedule = schedules.cosine()
    grid = grids.uniform(schedule, 20)
    source = exact.gaussian([0.0], [[0.25]])
    moments = reverse.second_moments(key, source, source.sample(key, 2000), grid)
    cov = analytic(moments, by=by).cov(Denoised(0.0, 0.0), schedule(jnp.asarray([1.0])))
    assert cov[0] == pytest.approx(0.25, abs=4 * float(moments.spread.error))
    with pytest.raises(ValueError, match="zero terminal SNR"):
        analytic(moments_of_gamma(moments.levels, moments.gamma))
    analytic(moments_of_gamma(moments.levels, moments.gamma), data_range=(-1.0, 1.0))


@pytest.mark.slow
def test_many_settings_as_one_program(key):
    """Tables, etas and clips are leaves: vmap over them is a loop over samplers."""
    source, grid = exact.gaussian([0.0], [[0.25]]), even(5)
    t, _ = grid.pairs

    def draw(c, last_std):
        variance = analytic(moments_of_gamma(t, gamma_of(c, t)))
        sampler = samplers.ddpm(variance, last_std=last_std)
        return samplers.sample(key, source, grid, (8, 1), sampler=sampler)

    c, clip = jnp.array([0.1, 0.25]), jnp.array([0.001, np.inf])
    many = jax.vmap(draw)(c, clip)
    for i in range(2):
        np.testing.assert_allclose(many[i], draw(c[i], clip[i]), rtol=2e-5, atol=1e-6)
    slope = jax.grad(lambda c: jnp.sum(draw(c, 1.0) ** 2))(0.25)
    assert np.isfinite(slope)


@pytest.mark.slow
def test_several_numbers_of_steps_as_one_program(key):
    """Grids padded with clean ends: each row is the run of its own grid, its last clip included."""
    source = exact.gaussian([0.0], [[0.25]])
    t, _ = whole().pairs
    sampler = samplers.ddpm(analytic(moments_of_gamma(t, gamma_of(0.25, t))), last_std=0.01)

    def draw(grid):
        return samplers.sample(key, source, grid, (8, 1), sampler=sampler)

    grids_ = [even(3), even(5)]

    def filled(grid):
        more = 5 - grid.num_steps
        return jax.tree.map(lambda a: jnp.concatenate([a, jnp.repeat(a[-1:], more)]), grid.levels)

    levels = jax.tree.map(lambda *a: jnp.stack(a), *(filled(grid) for grid in grids_))
    many = jax.vmap(lambda levels: draw(Grid(levels, CHAIN)))(levels)
    for row, grid in zip(many, grids_, strict=True):
        np.testing.assert_allclose(row, draw(grid), rtol=2e-5, atol=1e-6)


def test_last_std_limits_the_step_before_the_last(key):
    """E |std noise| is so many values of 255: the mean size of a Gaussian is std sqrt(2 / pi)."""
    limit = samplers.visible(2.0)
    assert limit * np.sqrt(2 / np.pi) == pytest.approx(2 * 2 / 255)
    assert limit**2 == pytest.approx(3.87e-4, rel=2e-3)
    source, grid = exact.gaussian([0.0], [[0.25]]), even(4)
    noise = jnp.ones((4, 1, 1, 1))
    paths = {}
    for name, std in (("held", 0.0), ("free", np.inf)):
        sampler = samplers.ddpm("large", last_std=std)
        how = {"sampler": sampler, "noise": noise, "x_T": jnp.zeros((1, 1)), "keep_path": True}
        paths[name] = samplers.sample(key, source, grid, (1, 1), **how)
    t, s = grid.pairs
    gap = np.asarray(paths["free"] - paths["held"])[:, 0, 0]
    want = float(reverse.large().std(None, t=t, s=s, eta=1.0)[2])
    assert gap[:3].tolist() == [0, 0, 0]
    assert gap[3] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: analytic("gamma"), "must be Moments"),
        (lambda: analytic(moments_of_gamma(even(3).pairs[0], [1.0, 1.0])), "one a level"),
        (lambda: moments_of_gamma(even(3).pairs[0], [1.0, np.nan, 1.0]), "gamma"),
        (lambda: analytic(moments_of_gamma(even(3).pairs[0], np.ones(3)), by="x0"), "Gamma alone"),
        (lambda: analytic(moments_of_gamma(even(3).pairs[0], np.ones(3)), by="y"), "one of eps"),
        (lambda: npr(data_range=(1.0, -1.0)), "data_range"),
        (lambda: npr(data_range=2.0), r"\(low, high\) or None, got 2.0"),
        (lambda: npr(data_range=("a", "b")), r"data_range\[1\] must be a number, got 'b'"),
        (
            lambda: analytic(
                moments_of_gamma(even(2).pairs[0], np.ones(2)), data_range=(-np.ones(2), np.ones(2))
            ),
            r"two numbers.*\[2\]",
        ),
        (lambda: reverse.learned_range(0.0), "floor"),
        (lambda: reverse.resolve("analytic"), "second moments"),
        (lambda: reverse.table(even(3).pairs[0], [-1.0, 0.0, 1.0]), "cov"),
        (lambda: samplers.ddpm(last_std=-1.0), "last_std"),
        (lambda: samplers.visible(-1), "values"),
        (lambda: samplers.visible(1, bins=1), "bins"),
        (lambda: samplers.visible(1, low=1.0, high=-1.0), "high - low"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises((ValueError, TypeError), match=match):
        call()


def test_missing_heads_are_named():
    d = Denoised(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    t, s = CHAIN(jnp.array([9.0])), CHAIN(jnp.array([3.0]))
    for name, head in (("npr", "residual2"), ("sn", "eps2"), ("learned", "log_var_fraction")):
        with pytest.raises(ValueError, match=head):
            reverse.resolve(name).std(d, t=t, s=s, eta=1.0)
        wide = Denoised(jnp.zeros((1, 2)), jnp.zeros((1, 2)), {head: jnp.ones((1, 1))})
        with pytest.raises(ValueError, match="as x0"):
            reverse.resolve(name).std(wide, t=t, s=s, eta=1.0)


def test_gamma_above_one_falls_back_to_the_small_variance(x64):
    t, s = CHAIN(jnp.array([900.0, 300.0])), CHAIN(jnp.array([500.0, 100.0]))
    variance = analytic(moments_of_gamma(t, 1.2 / t.sigma**2))
    got = variance.std(Denoised(0.0, 0.0), t=t, s=s, eta=1.0)
    np.testing.assert_allclose(got, reverse.small().std(None, t=t, s=s, eta=1.0), rtol=1e-14)
