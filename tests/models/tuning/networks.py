"""The networks and methods that the tests of tuning are over."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.models import MLP, DiT, UNet, tuning
from jaxdiff.models.transformer import Transformer

QUICK = {"xla_backend_optimization_level": 0}
X = np.random.default_rng(0).normal(size=(3, 4, 4, 1)).astype(np.float32)
T = np.array([3.0, 40.0, 500.0], np.float32)
TOKENS = np.arange(18).reshape(3, 6) % 11

NETWORKS = {
    "mlp": (MLP(width=8, depth=2), (X[:, :, 0, 0], T)),
    "unet": (UNet(channels=8, multipliers=(1,), blocks=1, attention=(4,), groups=4), (X, T)),
    "dit": (DiT(width=16, depth=2, heads=2), (X, T)),
    "dit, recomputed": (DiT(width=16, depth=2, heads=2, remat=True), (X, T)),
    "transformer": (Transformer(11, width=16, depth=2, heads=2, length=12), (TOKENS,)),
}


def ladder(net, args, **more):
    """A ladder of half the width; where there are tokens it begins at their embeddings."""
    if isinstance(net, Transformer):
        more = {"first": ("tokens",), "output": "up", **more}
    side = more.pop("side", None) or tuning.narrow(net, 2)
    return tuning.Ladder(net, side, tuning.find_blocks(net, *args), **more)


def lora(net, args):
    return tuning.LoRA(net, ("*/in", "*/emb") if isinstance(net, MLP) else (), rank=2)


METHODS = {
    "full": lambda net, args: tuning.full(net),
    "head": lambda net, args: tuning.head(net, ("*_out",) if has(net, "vocab") else ("out",)),
    "bitfit": lambda net, args: tuning.bitfit(net, ()),
    "lora": lora,
    "adapters": lambda net, args: tuning.Adapters(net, width=3),
    "ladder": ladder,
    "prompts": lambda net, args: tuning.Prompts(net, 3),
}


def has(net, field):
    return hasattr(net, field)


def filled(shapes, seed=1):
    """Parameters as if trained: none is zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(0.3 * rng.normal(size=a.shape), a.dtype), shapes)


def trained(net, args):
    """Parameters of a network as if trained."""
    return filled(jax.eval_shape(net.init, jax.random.key(0), *args)["params"])


def abstract(method, args, **more):
    """Shapes and dtypes of a method's variables."""
    return jax.eval_shape(lambda key: method.init(key, *args, **more), jax.random.key(0))


def count(variables, labels, which="trained"):
    """How many numbers are labelled so."""
    leaves = zip(jax.tree.leaves(variables), jax.tree.leaves(labels), strict=True)
    return sum(leaf.size for leaf, label in leaves if label == which)
