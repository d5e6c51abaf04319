"""The reverse process: the step p(x_s | x_t) and where its variance comes from."""

from jaxdiff.reverse.kernel import p_reverse, reverse_mean
from jaxdiff.reverse.variance import VARIANCES, large, resolve, small

__all__ = ["VARIANCES", "large", "p_reverse", "resolve", "reverse_mean", "small"]
