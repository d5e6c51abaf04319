"""Data whose diffusion is known in closed form: a Gaussian, and a mixture of Gaussians.

With component m drawn with probability w_m, x_0 ~ N(mu_m, C_m) and x_t = alpha x_0 + sigma eps,

    (1) S_m = alpha^2 C_m + sigma^2 I,    z_m = S_m^-1 (x_t - alpha mu_m)
    (2) p(x_t | m) = N(alpha mu_m, S_m),  p(m | x_t) = softmax_m(log w_m + log p(x_t | m))
    (3) E[x_0 | x_t, m] = mu_m + alpha C_m z_m,       Cov[x_0 | x_t, m] = sigma^2 S_m^-1 C_m
    (4) E[eps | x_t, m] = sigma z_m,                  Cov[eps | x_t, m] = alpha^2 S_m^-1 C_m
    (5) grad log p(x_t | m) = -z_m

and everything else is a mean over p(m | x_t). Nothing here divides by alpha or by sigma, nor
subtracts two covariances, so both ends are ordinary points: sigma = 0 gives x_0 = x_t / alpha,
alpha = 0 gives the mean of the data. One Cholesky factor of S_m serves the density and the solve;
an eigenbasis of C_m would be cheaper over many levels, but its gradient is infinite where two
eigenvalues meet, as they do for every isotropic component.

Source: conditioning of a joint Gaussian (Bishop 2006, Pattern Recognition and Machine Learning,
eq. 2.113-2.117). Not here: images (flatten them), and singular covariances.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.typing import CLEAN, Denoised, NoiseLevel

__all__ = ["GaussianMixture", "gaussian", "gaussian_mixture"]

# Default matmul precision on TPU and TF32 GPUs would leave three digits of a covariance.
_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


@arrays.pytree
class GaussianMixture:
    """A mixture of Gaussians as data, and the exact model of its diffusion.

    Calling it is `denoise`, so it serves wherever a `Denoise` does. All fields are leaves: vmap
    over them is a loop over mixtures, and gradients take them as free numbers (the weights are
    not normalised again). States are [B, D]; level fields are [] or [B]. Answers have the wider
    dtype of the state and the parameters.

    Attributes:
        weights: [M], probabilities of the components.
        means: [M, D].
        covs: [M, D, D].
    """

    weights: Array
    means: Array
    covs: Array

    def __call__(self, x_t: Array, level: NoiseLevel) -> Denoised:
        """The same as `denoise`."""
        return self.denoise(x_t, level)

    def denoise(self, x_t: Array, level: NoiseLevel) -> Denoised:
        """E[x_0 | x_t] and E[eps | x_t].

            x0 = sum_m p(m | x_t) (mu_m + alpha C_m z_m),    eps = sigma sum_m p(m | x_t) z_m

        Args:
            x_t: [B, D].
            level: fields [] or [B]; alpha = 0 and sigma = 0 included.

        Returns:
            Denoised, [B, D] each, no heads.

        Raises:
            ValueError: where x_t is not [B, D] or a level field is neither [] nor [B].
        """
        x_t, level = self._checked(x_t, level)
        log_joint, z = self._components(x_t, level)
        share = jax.nn.softmax(log_joint, axis=-1)
        x0 = _einsum("bm,bmd->bd", share, self._posterior_means(x_t, level, z))
        return Denoised(x0, arrays.expand_to(level.sigma, x_t) * _einsum("bm,bmd->bd", share, z))

    def score(self, x_t: Array, level: NoiseLevel = CLEAN) -> Array:
        """grad log p_t(x_t) = -sum_m p(m | x_t) z_m, [B, D]; finite at a clean level too."""
        x_t, level = self._checked(x_t, level)
        log_joint, z = self._components(x_t, level)
        return -_einsum("bm,bmd->bd", jax.nn.softmax(log_joint, axis=-1), z)

    def log_prob(self, x_t: Array, level: NoiseLevel = CLEAN) -> Array:
        """log p_t(x_t) in nats, [B]; by default the log-density of the data."""
        x_t, level = self._checked(x_t, level)
        return jax.nn.logsumexp(self._components(x_t, level)[0], axis=-1)

    def eps2(self, x_t: Array, level: NoiseLevel) -> Array:
        """E[eps^2 | x_t] elementwise, [B, D]: what an SN head (Bao et al. 2022) should learn.

        eps2 = sum_m p(m | x_t) ((sigma z_m)^2 + alpha^2 diag(S_m^-1 C_m))
        """
        x_t, level = self._checked(x_t, level)
        log_joint, z = self._components(x_t, level)
        var = jnp.diagonal(self._gains(x_t, level), axis1=-2, axis2=-1)
        alpha, sigma = (arrays.expand_to(a, z) for a in (level.alpha, level.sigma))
        share = jax.nn.softmax(log_joint, axis=-1)
        return _einsum("bm,bmd->bd", share, (sigma * z) ** 2 + alpha**2 * var)

    def residual2(self, x_t: Array, level: NoiseLevel) -> Array:
        """Var[eps | x_t] elementwise, [B, D]: what an NPR head of the exact mean should learn.

        residual2 = sum_m p(m | x_t) ((sigma (z_m - z))^2 + alpha^2 diag(S_m^-1 C_m)),  z their mean
        """
        x_t, level = self._checked(x_t, level)
        log_joint, z = self._components(x_t, level)
        var = jnp.diagonal(self._gains(x_t, level), axis1=-2, axis2=-1)
        share = jax.nn.softmax(log_joint, axis=-1)
        apart = z - _einsum("bm,bmd->bd", share, z)[:, None]
        alpha, sigma = (arrays.expand_to(a, z) for a in (level.alpha, level.sigma))
        return _einsum("bm,bmd->bd", share, (sigma * apart) ** 2 + alpha**2 * var)

    def posterior(self, x_t: Array, level: NoiseLevel) -> "GaussianMixture":
        """p(x_0 | x_t): one mixture an example, to be mapped over by vmap.

        Its `mean` [B, D] and `cov` [B, D, D] are those of each example. At sigma = 0 it is a point:
        `mean` and `cov` still answer, but there is no density and no draw.

        Args:
            x_t: [B, D].
            level: fields [] or [B].

        Returns:
            A GaussianMixture with weights [B, M], means [B, M, D] and covs [B, M, D, D].
        """
        x_t, level = self._checked(x_t, level)
        log_joint, z = self._components(x_t, level)
        gains = self._gains(x_t, level)
        return GaussianMixture(
            weights=jax.nn.softmax(log_joint, axis=-1),
            means=self._posterior_means(x_t, level, z),
            covs=arrays.expand_to(level.sigma, gains) ** 2 * gains,
        )

    def sample(self, key: Array, n: int) -> Array:
        """`n` independent draws of the data, [n, D]."""
        component_key, noise_key = jax.random.split(key)
        m = jax.random.categorical(component_key, jnp.log(self.weights), shape=(n,))
        noise = jax.random.normal(noise_key, (n, self.means.shape[-1]), self.means.dtype)
        factors = jnp.linalg.cholesky(self.covs)
        return self.means[m] + _einsum("nij,nj->ni", factors[m], noise)

    @property
    def mean(self) -> Array:
        """The mean of the data, [D]."""
        return _einsum("...m,...md->...d", self.weights, self.means)

    @property
    def cov(self) -> Array:
        """The covariance of the data, [D, D]: within components plus between them."""
        apart = self.means - self.mean[..., None, :]
        within = _einsum("...m,...mij->...ij", self.weights, self.covs)
        return within + _einsum("...m,...mi,...mj->...ij", self.weights, apart, apart)

    def _checked(self, x_t: Array, level: NoiseLevel) -> tuple[Array, NoiseLevel]:
        """The state, and the level with fields [] or [B], in the one dtype of the answer."""
        x_t, dim = jnp.asarray(x_t), self.means.shape[-1]
        if x_t.ndim != 2 or x_t.shape[-1] != dim:
            raise ValueError(f"x_t must be [B, {dim}], got shape {x_t.shape}")
        for name in ("alpha", "sigma"):
            shape = jnp.shape(getattr(level, name))
            if shape not in ((), x_t.shape[:1]):
                raise ValueError(f"level.{name} must be [] or [{x_t.shape[0]}], got shape {shape}")
        dtype = np.promote_types(x_t.dtype, self.means.dtype)  # explicit, so strictness allows it
        return x_t.astype(dtype), jax.tree.map(lambda a: jnp.asarray(a, dtype), level)

    def _components(self, x_t: Array, level: NoiseLevel) -> tuple[Array, Array]:
        """log w_m + log p(x_t | m), [B, M], and z_m, [B, M, D]."""
        log_prob, z = self._map(_evidence, x_t, level)
        weights = jnp.asarray(self.weights, x_t.dtype)
        return jnp.log(weights)[None] + log_prob, z

    def _posterior_means(self, x_t: Array, level: NoiseLevel, z: Array) -> Array:
        """E[x_0 | x_t, m], [B, M, D]."""
        means, covs = jnp.asarray(self.means, z.dtype), jnp.asarray(self.covs, z.dtype)
        return means[None] + arrays.expand_to(level.alpha, z) * _einsum("mij,bmj->bmi", covs, z)

    def _gains(self, x_t: Array, level: NoiseLevel) -> Array:
        """S_m^-1 C_m, [B, M, D, D]."""
        return self._map(_gain, x_t, level)

    def _map(self, function: Any, x_t: Array, level: NoiseLevel) -> Any:
        """`function(x, alpha, sigma, mean, cov)` over components, then over the batch.

        A level that the batch shares is not batched, so that each S_m is factored once.
        """
        means, covs = jnp.asarray(self.means, x_t.dtype), jnp.asarray(self.covs, x_t.dtype)
        over_components = jax.vmap(function, in_axes=(None, None, None, 0, 0))
        axes = (0, *(0 if a.ndim else None for a in (level.alpha, level.sigma)), None, None)
        return jax.vmap(over_components, in_axes=axes)(x_t, level.alpha, level.sigma, means, covs)


def gaussian(mean: Any, cov: Any) -> GaussianMixture:
    """The Gaussian N(mean, cov) as data: a mixture of one component.

    Args:
        mean: [D].
        cov: [D, D], symmetric and positive definite.

    Returns:
        A GaussianMixture with M = 1.

    Raises:
        ValueError: where a shape or a concrete value is not as above.
    """
    mean, cov = (jnp.asarray(a, arrays.float_dtype()) for a in (mean, cov))
    _check_shapes(mean=(mean, "[D]", 1), cov=(cov, "[D, D]", 2))
    if cov.shape != mean.shape * 2:
        raise ValueError(f"cov must be [{mean.size}, {mean.size}] as mean is, got {cov.shape}")
    _check_finite("mean", mean)
    _check_cov("cov", cov)
    return GaussianMixture(jnp.ones(1, mean.dtype), mean[None], cov[None])


def gaussian_mixture(weights: Any, means: Any, covs: Any) -> GaussianMixture:
    """The mixture sum_m weights[m] N(means[m], covs[m]) as data.

    Args:
        weights: [M], positive, with sum 1.
        means: [M, D].
        covs: [M, D, D], each symmetric and positive definite.

    Returns:
        A GaussianMixture.

    Raises:
        ValueError: where a shape or a concrete value is not as above.
    """
    weights, means, covs = (jnp.asarray(a, arrays.float_dtype()) for a in (weights, means, covs))
    _check_shapes(
        weights=(weights, "[M]", 1), means=(means, "[M, D]", 2), covs=(covs, "[M, D, D]", 3)
    )
    m, d = means.shape
    if weights.shape != (m,):
        raise ValueError(f"weights must be [{m}], one for each of means, got {weights.shape}")
    if covs.shape != (m, d, d):
        raise ValueError(f"covs must be [{m}, {d}, {d}] as means are, got {covs.shape}")
    _check_finite("means", means)
    _check_weights(weights)
    for i in range(m):
        _check_cov(f"covs[{i}]", covs[i])
    return GaussianMixture(weights, means, covs)


def _evidence(x, alpha, sigma, mean, cov):
    """log N(x; alpha mean, S) and z = S^-1 (x - alpha mean) of one example and component."""
    gap = x - alpha * mean
    factor = _factor(alpha, sigma, cov)
    z = jax.scipy.linalg.cho_solve((factor, True), gap)
    half_log_det = jnp.sum(jnp.log(jnp.diagonal(factor)))
    half_log_two_pi = gap.shape[0] * math.log(2 * math.pi) / 2
    return -jnp.sum(gap * z) / 2 - half_log_det - half_log_two_pi, z


def _gain(x, alpha, sigma, mean, cov):
    """S^-1 C, which is symmetric: S and C share their eigenvectors."""
    del x, mean
    return jax.scipy.linalg.cho_solve((_factor(alpha, sigma, cov), True), cov)


def _factor(alpha, sigma, cov):
    """The lower Cholesky factor of S = alpha^2 C + sigma^2 I."""
    return jnp.linalg.cholesky(alpha**2 * cov + sigma**2 * jnp.eye(cov.shape[0], dtype=cov.dtype))


def _check_shapes(**named):
    for name, (value, wanted, ndim) in named.items():
        if value.ndim != ndim or value.size == 0:
            raise ValueError(f"{name} must be {wanted} and not empty, got shape {value.shape}")


def _check_finite(name, value):
    value = arrays.concrete(value)
    if value is not None and not np.isfinite(value).all():
        raise ValueError(f"{name} must be finite, got {value}")


def _check_weights(weights):
    weights = arrays.concrete(weights)
    if weights is None:
        return
    if not (weights > 0).all():
        raise ValueError(f"weights must be positive, got {weights}")
    if abs(weights.sum(dtype=np.float64) - 1) > 1e-4:  # thousands of float32 roundings
        raise ValueError(f"weights must sum to 1, got {weights.sum(dtype=np.float64)}")


def _check_cov(name, cov):
    cov = arrays.concrete(cov)
    if cov is None:
        return
    _check_finite(name, cov)
    if np.abs(cov - cov.T).max() > 1e-5 * np.abs(cov).max():  # rounding of a float32 product
        raise ValueError(f"{name} must be symmetric, got {cov.tolist()}")
    least = np.linalg.eigvalsh(cov).min()
    if least <= 0:
        raise ValueError(f"{name} must be positive definite, got least eigenvalue {least:.3g}")
