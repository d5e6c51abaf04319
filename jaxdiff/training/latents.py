"""What a model is trained on in latents: a trained autoencoder as a codec, and data through it.

The encoder runs before the step, not in it. The program that is trained is then that of any data of
the latents' shape: the encoder's parameters are inputs of a small program of their own, neither
closed over nor in the state; meshes, microbatches and populations do not know of them; and batches
of the next steps are encoded in the background. The posterior is drawn anew at each step from
`fold_in(key, step)`, so that a batch is a function of (seed, step), and a run that was interrupted
goes on bit for bit. What it costs is one run of the encoder a batch.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays, latent
from jaxdiff.data import Dataset
from jaxdiff.keys import example_keys
from jaxdiff.models import Autoencoder
from jaxdiff.training import generators
from jaxdiff.training.step import LossFn
from jaxdiff.typing import Normal

__all__ = ["Encoded", "autoencoder_loss", "codec_of", "measure", "shape_of"]

# What is folded into the seed's key, whose first two children are the state's: the draws of
# batches, and of whole sets.
_BATCHES, _SETS = 2, 3


@arrays.pytree
class _Posterior:
    params: Any
    net: Autoencoder = arrays.static()

    def __call__(self, x: Array) -> Normal:
        mean, log_var = self.net.apply(self.params, x, method="encode")
        return Normal(mean, jnp.exp(log_var))


@arrays.pytree
class _Decoder:
    params: Any
    net: Autoencoder = arrays.static()

    def __call__(self, z: Array) -> Array:
        return self.net.apply(self.params, z, method="decode")


def codec_of(net: Autoencoder, variables: Any) -> latent.Codec:
    """A trained autoencoder as a codec, whose latents are as the encoder draws them.

    Args:
        net: the module.
        variables: {"params": {"encoder": ..., "decoder": ...}}; each half takes its own.
    """
    encoder, decoder = ({"params": {n: variables["params"][n]}} for n in ("encoder", "decoder"))
    return latent.codec(latent.drawn(_Posterior(encoder, net)), _Decoder(decoder, net))


def autoencoder_loss(net: Autoencoder) -> LossFn:
    """The loss of an autoencoder: `vae_loss` with its own deviation."""
    return generators.vae_loss(
        functools.partial(net.apply, method="encode"),
        functools.partial(net.apply, method="decode"),
        std=net.std,
    )


def shape_of(codec: latent.Codec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a latent, from that of an example."""
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(codec.encode, jax.random.key(0), x).shape[1:]


@jax.jit
def _encode(codec: latent.Codec, keys: Array, x: Array) -> Array:
    return codec.encode(keys, x)


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """A data set as it is seen through a codec; what a training and its commands ask for.

    Attributes:
        data: the data set.
        codec: the codec.
        name: what errors and logs call it.
    """

    data: Dataset
    codec: latent.Codec
    name: str
    bins = None  # latents are points of a continuum
    in_memory = False  # a batch takes time, and is made in the background

    def __len__(self) -> int:
        return len(self.data)

    @property
    def flip(self) -> bool:
        """Whether images are mirrored at random, before they are encoded."""
        return self.data.flip

    @functools.cached_property
    def example_shape(self) -> tuple[int, ...]:
        """(h, w, C), of a latent."""
        return shape_of(self.codec, self.data.example_shape)

    def batch_at(self, step: int) -> dict[str, np.ndarray]:
        """The batch of one step, a pure function of (seed, step); "x" holds latents."""
        batch = self.data.batch_at(step)
        key = jax.random.fold_in(self._key(_BATCHES), step)
        place, x = self.data.share[0], batch["x"]
        return {**batch, "x": self._encoded(x, key, place * len(x))}

    def with_batches(self, batch_size: int, *, seed: int = 0, flip: bool = False) -> "Encoded":
        """The same examples, dealt out otherwise; see `Dataset.with_batches`."""
        data = self.data.with_batches(batch_size, seed=seed, flip=flip)
        return dataclasses.replace(self, data=data)

    def with_share(self, place: int, parts: int) -> "Encoded":
        """The same batches, of which only one part is read; see `Dataset.with_share`."""
        return dataclasses.replace(self, data=self.data.with_share(place, parts))

    def images(self, limit: int | None = None) -> np.ndarray:
        """Latents of `data.images(limit)`, each drawn once: [M, h, w, C]."""
        return np.concatenate(list(self.blocks(limit)))

    def blocks(self, limit: int | None = None, size: int = 256) -> Iterator[np.ndarray]:
        """The same, `size` at a time."""
        x, key = self.data.images(limit), self._key(_SETS)
        n, size = len(x), min(size, len(x))
        for first in range(0, n, size):  # all of one size, so that one program does
            z = self._encoded(x[np.arange(first, first + size) % n], key, first)
            yield z[: n - first]

    def labels(self, limit: int | None = None) -> np.ndarray | None:
        """The labels [M] of what `images(limit)` returns, None without any."""
        return self.data.labels(limit)

    def _key(self, what: int) -> Array:
        return jax.random.fold_in(jax.random.key(self.data.seed), what)

    def _encoded(self, x: np.ndarray, key: Array, first: int) -> np.ndarray:
        return np.asarray(_encode(self.codec, example_keys(key, len(x), first), x))


def measure(codec: latent.Codec, data: Dataset, limit: int = 10_000) -> latent.Moments:
    """The moments of what a codec's encoder gives, by channel.

    Args:
        codec: the codec; its shift and scale are passed over.
        data: the data set.
        limit: how many examples are taken at most, evenly spaced.
    """
    plain = latent.codec(codec.encoder, codec.decoder)
    blocks = Encoded(data, plain, data.name).blocks(limit)
    return functools.reduce(latent.merged, map(latent.moments, blocks))
