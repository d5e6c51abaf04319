"""Prompt tuning: learned vectors before the tokens of a transformer that stays as it is."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.models.tuning import calls, paths

__all__ = ["Prompts"]


@dataclass(frozen=True)
class Prompts:
    """A transformer that stays as it is, with learned vectors before its tokens.

    They start as the embeddings of tokens drawn at random. Not a module: equal fields make equal
    values, and its variables are {"params": {"backbone": those of the network, "prompt":
    [length, width]}}.

    Attributes:
        backbone: a network that takes `prefix` and has a table of tokens, such as `Transformer`.
        length: the number of vectors, >= 1; with the tokens they must fit into the positions.
        trained: patterns of what is trained of the network itself, such as its last layer.

    Raises:
        ValueError: a length that is no positive number.

    Source: Lester et al. 2021, arXiv:2104.08691, sections 2 and 3.2: starts from 5,000 common
    tokens there, from all here; length 20 is about as good as 100.
    """

    backbone: nn.Module
    length: int = 20
    trained: tuple[str, ...] = ()

    def __post_init__(self):
        arrays.check_count("length", self.length)

    def init(self, key: Array, *args: Any, backbone: Any = None, **kwargs: Any) -> dict[str, Any]:
        """The variables at the start.

        Args:
            key: a PRNG key.
            *args, **kwargs: what the network takes; only shapes and dtypes count.
            backbone: its trained parameters, None for new ones.

        Raises:
            ValueError: parameters of another network, a network without a table of tokens, or a
                pattern that names nothing.
        """
        key, key_prompt = jax.random.split(key)
        params = calls.start(self.backbone, key, backbone, args, kwargs)
        paths.labels(params, self.trained)
        table = paths.flat(params).get("tokens/embedding")
        if table is None:
            raise ValueError(
                "backbone must have a table of tokens, tokens/embedding, for prompts to start"
                f" from, got {type(self.backbone).__name__}"
            )
        rows = jax.random.randint(key_prompt, (self.length,), 0, table.shape[0])
        variables = {"params": {"backbone": params, "prompt": jnp.take(table, rows, axis=0)}}
        jax.eval_shape(lambda: self.apply(variables, *args, **kwargs))
        return variables

    def apply(
        self,
        variables: dict[str, Any],
        *args: Any,
        key: Array | None = None,
        train: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The network's output for its input after the prompt.

        Args:
            variables: as `init` made them.
            *args, **kwargs: what the network takes.
            key: for its dropout.
            train: static, whether dropout is on.
        """
        params = paths.hold(variables["params"]["backbone"], self.trained)
        kwargs = {**kwargs, "prefix": variables["params"]["prompt"]}
        return calls.run(self.backbone, params, args, kwargs, key, train)

    def labels(self, variables: dict[str, Any]) -> Any:
        """What of the variables is "trained" and what "frozen", as a tree like them."""
        backbone = paths.labels(variables["params"]["backbone"], self.trained)
        return {"params": {"backbone": backbone, "prompt": paths.TRAINED}}
