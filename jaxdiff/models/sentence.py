"""A classifier of texts on a network of tokens, whichever way that is tuned."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.models import layers, precision
from jaxdiff.models.tuning import paths

__all__ = ["POOLING", "SentenceClassifier"]


def _mean(h: Array, mask: Array) -> Array:
    seen = mask[..., None].astype(h.dtype)
    return jnp.sum(h * seen, axis=1) / jnp.maximum(jnp.sum(seen, axis=1), 1)


def _first(h: Array, mask: Array) -> Array:
    del mask
    return h[:, 0]


POOLING = {"mean": _mean, "cls": _first}
"""From tokens [B, N, width] to a text [B, width], by name: the mean over what is no padding, or
the first token, which BERT's format has for it."""


@dataclass(frozen=True)
class SentenceClassifier:
    """Logits of the class of a text: a dense layer on what its tokens become, pooled.

        logits = pool(net(ids, mask)) kernel + bias

    The layer starts as zero: untrained, every class is equally likely. It is trained whatever is
    trained of the network. Not a module: equal fields make equal values, and its variables are
    {"params": {"net": the method's own, "head": {"kernel", "bias"}}}.

    Attributes:
        net: a method of `tuning` on a network that takes (ids, mask), such as `Transformer`.
        classes: how many there are, >= 2.
        pooling: a name of `POOLING`.

    Raises:
        ValueError: fewer classes, or an unknown pooling.

    Source: mean: Reimers and Gurevych 2019, arXiv:1908.10084, section 3; cls: Devlin et al. 2019,
    arXiv:1810.04805, section 4.1.
    """

    net: Any
    classes: int
    pooling: str = "mean"

    def __post_init__(self):
        arrays.check_count("classes", self.classes, 2)
        if self.pooling not in POOLING:
            raise ValueError(f"pooling must be one of {', '.join(POOLING)}, got {self.pooling!r}")

    def init(self, key: Array, ids: Array, mask: Array, *, backbone: Any = None) -> dict[str, Any]:
        """The variables at the start.

        Args:
            key: a PRNG key.
            ids: int [B, N], tokens; only the shape counts.
            mask: bool [B, N].
            backbone: the parameters of the trained network, None for new ones.
        """
        net = self.net.init(key, ids, mask, backbone=backbone)["params"]
        out = jax.eval_shape(lambda: self.net.apply({"params": net}, ids, mask))
        head = self._head().init(key, jnp.zeros((1, out.shape[-1]), out.dtype))["params"]
        return {"params": {"net": net, "head": head}}

    def apply(
        self,
        variables: dict[str, Any],
        ids: Array,
        mask: Array,
        *,
        key: Array | None = None,
        train: bool = False,
    ) -> Array:
        """The logits.

        Args:
            variables: as `init` made them.
            ids: int [B, N], tokens.
            mask: bool [B, N], True where there is one.
            key: for dropout.
            train: static, whether dropout is on.

        Returns:
            [B, classes], float32.
        """
        params = variables["params"]
        h = self.net.apply({"params": params["net"]}, ids, mask, key=key, train=train)
        pooled = POOLING[self.pooling](precision.output(h), mask)
        return self._head().apply({"params": params["head"]}, pooled)

    def labels(self, variables: dict[str, Any]) -> Any:
        """ "trained" or "frozen" for each of the variables."""
        params = variables["params"]
        net = self.net.labels({"params": params["net"]})["params"]
        return {"params": {"net": net, "head": paths.labels(params["head"], ("*",))}}

    def _head(self) -> Any:
        return layers.exact_dense(self.classes, kernel_init=layers.ZEROS)
