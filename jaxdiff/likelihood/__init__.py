"""Likelihoods with their standard errors, one answer from three estimators.

    elbo(key, denoise, x, grid)                            the variational bound, term by term
    log_prob(key, denoise, x, schedule)                    the flow's log-density, exact trace
    log_prob(..., divergence=hutchinson(8))                the same by random probes

Each returns an `Estimate`: log-likelihoods of every example, dequantisation and probe, bits per
dimension, and a standard error split by cause. Images of whole numbers take a `Quantisation`.
"""

from jaxdiff.divergence import exact, hutchinson, hutchpp
from jaxdiff.likelihood.bound import elbo
from jaxdiff.likelihood.estimate import Errors, Estimate, concatenate
from jaxdiff.likelihood.flow import log_prob
from jaxdiff.likelihood.quantisation import Quantisation, quantised

__all__ = [
    "Errors",
    "Estimate",
    "Quantisation",
    "concatenate",
    "elbo",
    "exact",
    "hutchinson",
    "hutchpp",
    "log_prob",
    "quantised",
]
