"""Whole samplers in a file that plain JAX runs: network, loop and grid through `jax.export`.

A file is an .npz archive without pickles:

    program          bytes of `jax.export`, a function of (weights, key=, index=, label=, guidance=)
    about            JSON: versions, shapes, what goes in
    weights/NAME     the parameters; where they lie beside, in NAME.safetensors instead

Example i is drawn with the key fold_in(key, index[i]), as `samplers.example_keys` does, so that the
program draws what `samplers.sample` draws. `label` and `guidance` are there where it was made so.

JAX keeps such programs readable for six months by its own promise, and longer in practice; `about`
says by which version one was written.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import keys
from jaxdiff.data import files, npz
from jaxdiff.interop import weights as weight_files
from jaxdiff.samplers import sample
from jaxdiff.training.comparison import leaf_differences, named
from jaxdiff.typing import Denoise, Grid, Sampler

__all__ = ["PLATFORMS", "Program", "export_sampler", "read_program", "write_program"]

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_FORMAT = 1
_PREFIX = "weights/"


@dataclasses.dataclass(frozen=True)
class Program:
    """A sampler that was exported.

    Attributes:
        exported: the function, `exported.call(weights, key=, index=, ...)`.
        weights: arrays by name.
        about: "shape" of an example, "batch" (None where it is open), "inputs" by name,
            "platforms", the versions of "jaxdiff" and "jax", and whatever its maker added.
    """

    exported: jax.export.Exported
    weights: Mapping[str, Any]
    about: Mapping[str, Any]

    def __call__(self, key: Array, index: Any, **inputs: Any) -> Array:
        """Draws the examples of `index`.

        Args:
            key: one PRNG key.
            index: [B] integers >= 0, which examples of the job; B as the program wants it.
            **inputs: `label` [B], `guidance` [], those that `about["inputs"]` names.

        Returns:
            [B, ...].

        Raises:
            ValueError: an input is missing, unknown or of another shape, or the program is not for
                this platform.
        """
        key = jax.random.key_data(keys.as_keys(key, 1))
        given = {"key": key, "index": jnp.asarray(index, jnp.int32), **inputs}
        _check_inputs(self, given)
        for name, dtype in (("label", jnp.int32), ("guidance", jnp.float32)):
            if name in given:
                given[name] = jnp.asarray(given[name], dtype)
        return self._jitted(dict(self.weights), **given)

    @functools.cached_property
    def _jitted(self) -> Callable[..., Array]:
        """Kept, or each call would compile anew: every `exported.call` is another object."""
        return jax.jit(self.exported.call)


def export_sampler(
    denoise_of: Callable[[Any, Array | None, Array | None], Denoise],
    weights: Any,
    grid: Grid,
    shape: Sequence[int],
    *,
    sampler: Sampler,
    labelled: bool = False,
    guided: bool = False,
    decode: Callable[[Any, Array], Array] = lambda weights, x: x,
    platforms: Sequence[str] = ("cpu",),
    batch: int | None = None,
) -> Program:
    """Makes one program of a model and a sampler.

    Args:
        denoise_of: `denoise_of(weights, label, guidance)` gives the model under labels [B] and at a
            scale []; each is None where the program does not take it.
        weights: a tree of arrays; it goes into the program as an argument, not as a constant.
        grid: the levels to visit.
        shape: of one example, [...].
        sampler: the algorithm.
        labelled: whether the program takes `label`.
        guided: whether it takes `guidance`.
        decode: `decode(weights, x)`, what is done to samples [B, ...], such as to decode latents.
        platforms: of `PLATFORMS`, where it is to run; none of them need be here.
        batch: examples a call; any number of them if None.

    Returns:
        The program.

    Raises:
        ValueError: an unknown platform, a batch below 1, or a model that cannot be traced with an
            open batch.
    """
    unknown = [name for name in platforms if name not in PLATFORMS]
    if unknown or not platforms:
        raise ValueError(f"platforms must be of {', '.join(PLATFORMS)}, got {list(platforms)}")
    if batch is not None and (not isinstance(batch, int) or batch < 1):
        raise ValueError(f"batch must be a whole number >= 1, or None, got {batch!r}")
    by_name, structure = named(weights), jax.tree.structure(weights)

    def run(weights, key, index, label=None, guidance=None):
        tree = jax.tree.unflatten(structure, [weights[name] for name in by_name])
        each = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.wrap_key_data(key), index)
        model = denoise_of(tree, label, guidance)
        return decode(tree, sample(each, model, grid, (*index.shape, *shape), sampler=sampler))

    inputs = _inputs(batch, labelled, guided)
    abstract = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in by_name.items()}
    with _open_batch(batch):
        exported = jax.export.export(jax.jit(run), platforms=tuple(platforms))(abstract, **inputs)
    about = {
        "format": _FORMAT,
        "jaxdiff": metadata.version("jaxdiff"),
        "jax": jax.__version__,
        "platforms": list(platforms),
        "shape": [int(n) for n in exported.out_avals[0].shape[1:]],
        "batch": batch,
        "inputs": list(inputs),
        "weights": {name: [list(a.shape), str(a.dtype)] for name, a in by_name.items()},
    }
    return Program(exported, by_name, about)


def write_program(
    path: str | os.PathLike, program: Program, *, beside: bool = False
) -> tuple[Path, ...]:
    """Writes a program, whole or not at all.

    Args:
        path: ending in .npz.
        program: as `export_sampler` gives it; its `about` must be JSON.
        beside: whether the weights go into a .safetensors of the same name rather than inside, so
            that other checkpoints of the network can take their place.

    Returns:
        The files written.

    Raises:
        ValueError: a name of another ending.
        ImportError: a library that this needs is missing: flatbuffers, or safetensors.
        OSError: a file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path must end in .npz, got {path}")
    try:
        code = program.exported.serialize()
    except ImportError as error:
        raise ImportError("writing programs needs: pip install 'jaxdiff[export]'") from error
    about = {**program.about, "digest": hashlib.sha256(code).hexdigest()}
    arrays = {"program": np.frombuffer(bytes(code), np.uint8)}
    written = [path]
    if beside:
        about["beside"] = path.with_suffix(".safetensors").name
        written.append(path.with_name(about["beside"]))
        weight_files.write_safetensors(written[1], program.weights)
    else:
        arrays |= {_PREFIX + name: np.asarray(a) for name, a in program.weights.items()}
    with files.replacing(path) as file:
        np.savez(file, about=np.array(json.dumps(about)), **arrays)
    return tuple(written)


def read_program(path: str | os.PathLike, *, weights: str | os.PathLike | None = None) -> Program:
    """Reads a program.

    Args:
        path: the .npz.
        weights: a .safetensors to take the parameters from, instead of its own.

    Raises:
        FileNotFoundError: a file is not there.
        ImportError: flatbuffers or safetensors is missing.
        ValueError: it is no such file, or damaged; or weights that are missing, unknown, or of
            another shape or dtype, each named.
    """
    path = Path(path).expanduser()
    arrays = _read(path)
    try:
        about = json.loads(str(arrays.pop("about")))
        code = arrays.pop("program").tobytes()
        if about["format"] != _FORMAT:
            raise ValueError(f"its format is {about['format']}, this reads {_FORMAT}")
        if hashlib.sha256(code).hexdigest() != about["digest"]:
            raise ValueError("its program is not what was written")
        exported = jax.export.deserialize(bytearray(code))
    except ImportError as error:
        raise ImportError("reading programs needs: pip install 'jaxdiff[export]'") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} holds no program that can be read: {error}") from error
    found = {name.removeprefix(_PREFIX): a for name, a in arrays.items()}
    source = path
    if weights is not None or about.get("beside"):
        source = Path(weights) if weights is not None else path.with_name(about["beside"])
        found = weight_files.read_safetensors(source)
    have = {name: [list(a.shape), str(a.dtype)] for name, a in found.items()}
    differences = leaf_differences(have, about["weights"])
    if differences:
        raise ValueError(f"{source} has other weights: {'; '.join(differences)}")
    return Program(exported, found, about)


def _read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz."""
    files.check_readable(path)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an .npz file")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except npz.UNREADABLE as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _inputs(batch: int | None, labelled: bool, guided: bool) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of what goes in beside the weights."""
    (n,) = jax.export.symbolic_shape("n") if batch is None else (batch,)
    spec = jax.ShapeDtypeStruct
    key = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    inputs = {"key": spec(key.shape, key.dtype), "index": spec((n,), jnp.int32)}
    if labelled:
        inputs["label"] = spec((n,), jnp.int32)
    if guided:
        inputs["guidance"] = spec((), jnp.float32)
    return inputs


@contextlib.contextmanager
def _open_batch(batch: int | None) -> Iterator[None]:
    """Says what helps where a model's shapes cannot be traced for any batch."""
    try:
        yield
    except jax.errors.InconclusiveDimensionOperation as error:
        if batch is not None:
            raise
        first = str(error).split("\n")[0]
        raise ValueError(f"batch=None: this model needs a number of examples: {first}") from error


def _check_inputs(program: Program, given: dict[str, Any]) -> None:
    wanted, about = program.about["inputs"], program.about
    missing = [name for name in wanted if name not in given]
    unknown = [name for name in given if name not in wanted]
    if missing or unknown:
        raise ValueError(f"the program takes {', '.join(wanted)}, got {', '.join(given)}")
    shape = given["index"].shape
    if len(shape) != 1 or not shape[0] or about["batch"] not in (None, shape[0]):
        count = "[B], B >= 1" if about["batch"] is None else f"[{about['batch']}]"
        raise ValueError(f"index must have shape {count}, got {list(shape)}")
    if "label" in given and np.shape(given["label"]) != shape:
        raise ValueError(f"label must have the shape of index, got {np.shape(given['label'])}")
    if "guidance" in given and np.shape(given["guidance"]) != ():
        raise ValueError(f"guidance must be a number, got shape {np.shape(given['guidance'])}")
    here = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if here not in about["platforms"] and not (here == "cuda" and "rocm" in about["platforms"]):
        raise ValueError(f"the program is for {', '.join(about['platforms'])}, this is {here}")
