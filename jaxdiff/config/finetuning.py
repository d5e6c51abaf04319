"""The tuning of a network to labelled texts: what fixes it, and what the values stand for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro

from jaxdiff import arrays
from jaxdiff.config import codec
from jaxdiff.models import tuning
from jaxdiff.models.sentence import POOLING, SentenceClassifier
from jaxdiff.models.transformer import Transformer
from jaxdiff.models.tuning import paths
from jaxdiff.training import finetune, optim
from jaxdiff.training.state import TrainState

__all__ = [
    "METHODS",
    "FinetuneConfig",
    "MethodConfig",
    "TextConfig",
    "build_classifier",
    "build_optimizer",
    "build_state",
    "from_json",
    "learning_rate",
]


@dataclass(frozen=True)
class TextConfig:
    """The texts, and how they are divided and cut."""

    source: tyro.conf.Suppress[str] = ""
    """The path of the file."""
    text: str = "text"
    """The column of the text: its name, or its number from 0 where the first line has no names."""
    label: str = "label"
    """The column of the class, likewise."""
    length: int = 128
    """Tokens of a text; what is beyond is cut off."""
    validation: float = 0.1
    """The share of texts by which the best checkpoint is chosen."""
    test: float = 0.1
    """The share that the result is tested on, where there is no --test file."""
    tested: tyro.conf.Suppress[str | None] = None
    """The path of that file."""
    digest: tyro.conf.Suppress[str] = ""
    """Of the texts and their labels; found out from the data."""
    classes: tyro.conf.Suppress[tuple[str, ...]] = ()
    """The names of the classes; found out from the data."""


@dataclass(frozen=True)
class MethodConfig:
    """The numbers of the methods; each looks at its own."""

    ratio: int = 8
    """lst: the side network is narrower by it."""
    heads: int | None = None
    """lst: attention heads of the side network, as many as the network's unless given. Fewer save
    memory: the weights of attention, [heads, tokens, tokens], are no smaller for being narrow."""
    start: Literal["random", "pruned", "fisher"] = "random"
    """lst: whether the side network starts at random, from the largest rows of the network, or from
    those that matter most to the classes, by their Fisher information."""
    examples: int = 1024
    """lst, start fisher: texts that it is found by; all, where there are fewer."""
    dropped: tuple[int, ...] = ()
    """lst: blocks that the side network leaves out, from 0."""
    mix: Literal[tuning.ladder.MIXES] = "gate"
    """lst: how outputs of the network's blocks join the side network: by gates before its blocks,
    or added behind them."""
    rank: int = 8
    """lora: of the change of query and value."""
    alpha: float = 8.0
    """lora: what the change is scaled with, times the rank."""
    width: int = 48
    """adapter: of the small perceptrons."""
    prompts: int = 20
    """prompt: how many vectors stand before the tokens."""


def _lst(net: Transformer, part: MethodConfig) -> Any:
    wrong = [i for i in part.dropped if not 0 <= i < net.depth]
    if wrong:
        raise ValueError(f"method.dropped must be of 0..{net.depth - 1}, got {wrong[0]}")
    if len(set(part.dropped)) == net.depth:
        raise ValueError(f"method.dropped must leave one of the {net.depth} blocks")
    arrays.check_count("method.examples", part.examples)
    heads = net.heads if part.heads is None else part.heads
    # It starts from the embedding of tokens, which needs no kinds of them beside.
    side = tuning.narrow(net, part.ratio).clone(types=0, heads=heads)
    names = {
        kept: tuple(f"block_{i}" for i in range(net.depth) if (i not in part.dropped) == kept)
        for kept in (True, False)
    }
    return tuning.Ladder(
        net, side, blocks=names[True], dropped=names[False], first=("tokens",), output="up",
        mix=part.mix,
    )  # fmt: skip


def _prompts(net: Transformer, part: MethodConfig) -> Any:
    arrays.check_count("method.prompts", part.prompts)
    return tuning.Prompts(net, part.prompts)


METHODS: dict[str, tuple[Callable[[Transformer, MethodConfig], Any], float]] = {
    "lst": (_lst, 3e-3),
    "full": (lambda net, part: tuning.full(net), 5e-5),
    "lora": (lambda net, part: tuning.LoRA(net, rank=part.rank, alpha=part.alpha), 1e-3),
    "adapter": (
        lambda net, part: tuning.Adapters(net, ("*/attention", "*/perceptron"), part.width),
        1e-3,
    ),
    "bitfit": (lambda net, part: tuning.bitfit(net, ()), 1e-3),
    "prompt": (_prompts, 1e-2),
    "head": (lambda net, part: tuning.head(net, ()), 3e-3),
}
"""Methods by name, and the learning rate of each unless another is given.

The head that tells the classes is trained in all of them.
"""

MethodName = Literal[tuple(METHODS)]


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything that fixes a run."""

    backbone: str = "minilm"
    """The trained network: minilm, or a directory with config.json, model.safetensors and
    tokenizer.json of a BERT."""
    name: tyro.conf.Suppress[MethodName] = "lst"
    """The method."""
    data: TextConfig = field(default_factory=TextConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    pooling: Literal[tuple(POOLING)] = "mean"
    """What of the tokens stands for the text: their mean, or the first one, [CLS]."""
    dropout: float = 0.1
    """Of the network while it is tuned; lst has it in the side network alone."""
    dtype: Literal["bfloat16", "float16"] | None = None
    """What the network computes in; None for float32."""
    lr: float | None = None
    """The peak learning rate; what suits the method unless given."""
    warmup: float = 0.1
    """The share of the steps over which it rises; then it falls to 0, linearly."""
    weight_decay: float = 0.0
    """Decoupled weight decay of what is trained."""
    clip: float | None = 1.0
    """The largest norm of the gradient, None for no limit."""
    batch_size: int = 32
    """Texts a step."""
    epochs: float = 3.0
    """How often each text is seen."""
    steps: int | None = None
    """The number of steps, instead of epochs."""
    seed: int = 0
    """Of new parameters, dropout, the parts of the data and their order."""
    log_every: int = 20
    """Steps between rows of the log."""
    save_every: int | None = None
    """Steps between checkpoints, each judged on the validation part; an epoch unless given."""


def from_json(values: Any) -> FinetuneConfig:
    """The configuration that `codec.plain` wrote.

    Raises:
        ValueError: a name that is not known or a value of the wrong type, with its path.
    """
    return codec.decode(FinetuneConfig, values, "config")


def learning_rate(config: FinetuneConfig) -> float:
    """The peak learning rate."""
    return METHODS[config.name][1] if config.lr is None else config.lr


def build_classifier(config: FinetuneConfig, net: Transformer) -> SentenceClassifier:
    """The classifier that a configuration stands for, on a network.

    Raises:
        ValueError: the method's numbers do not fit the network.
    """
    net = net.clone(dropout=config.dropout, dtype=config.dtype)
    method = METHODS[config.name][0](net, config.method)
    return SentenceClassifier(method, len(config.data.classes), config.pooling)


def build_optimizer(config: FinetuneConfig) -> Any:
    """Adam of unit learning rate, an optax GradientTransformation."""
    return optim.adam(clip=config.clip, weight_decay=config.weight_decay)


def build_state(
    config: FinetuneConfig,
    classifier: SentenceClassifier,
    steps: int,
    backbone: Any = None,
    importance: Any = None,
) -> TrainState:
    """The state before the first step.

    Args:
        config: the configuration.
        classifier: what `build_classifier` made of it.
        steps: how many there will be.
        backbone: the parameters of the trained network, None for new ones.
        importance: of them, by `finetune.importance`, for the start of that name; None for their
            size.
    """
    ids = jnp.zeros((1, config.data.length), jnp.int32)
    how = {"lr": learning_rate(config), "warmup": config.warmup * steps}

    @jax.jit
    def made(backbone: Any, importance: Any) -> TrainState:
        key_init, key = jax.random.split(jax.random.key(config.seed))
        variables = classifier.init(key_init, ids, ids == 0, backbone=backbone)
        if config.name == "lst" and config.method.start != "random":
            variables = _pruned(variables, classifier.net, config.method.ratio, importance)
        return finetune.begin(key, classifier, variables, build_optimizer(config), **how)

    return made(backbone, importance)


def _pruned(
    variables: dict[str, Any], ladder: tuning.Ladder, ratio: int, importance: Any
) -> dict[str, Any]:
    """The variables, the side network's being rows of the backbone's."""
    leaves = paths.flat(variables)
    plan = tuning.transformer_plan(ladder.backbone)
    kept = tuning.prune(variables["params"]["net"]["backbone"], plan, ratio, importance)
    side = {f"params/net/ladder/side/{path}": leaf for path, leaf in paths.flat(kept).items()}
    return paths.nested({**leaves, **{path: side[path] for path in side if path in leaves}})
