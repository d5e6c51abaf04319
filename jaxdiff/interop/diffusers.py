"""diffusers' UNet2DModel and DiTTransformer2DModel as `models.UNet` and `models.DiT`, and back.

Three things differ besides names, and are taken up by the order of numbers in the weights: cosines
before sines, shifts before scales, and queries, keys and values apart. Each block of their DiT has
its own copy of the embedding of time and class; published ones are equal, and only such are read.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.data import files
from jaxdiff.interop import diffusers_common as common
from jaxdiff.interop import diffusers_dit, diffusers_unet, given, names
from jaxdiff.interop.weights import read_safetensors, read_torch, write_safetensors
from jaxdiff.models import DiT, UNet

__all__ = ["from_diffusers", "read_diffusers", "to_diffusers", "write_diffusers"]

_NAME = "diffusion_pytorch_model"

_CLASSES = {
    "UNet2DModel": diffusers_unet.FIELDS,
    "DiTTransformer2DModel": diffusers_dit.FIELDS,
    "Transformer2DModel": diffusers_dit.FIELDS | diffusers_dit.OLDER,
}

# Attention as it was named in older files.
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def read_diffusers(directory: str | os.PathLike, *, null_label: bool = False) -> names.Network:
    """Reads a network from a directory, or from the "unet" or "transformer" of a pipeline's.

    Args:
        directory: with config.json and diffusion_pytorch_model.safetensors, or .bin.
        null_label: as `from_diffusers` has it.

    Raises:
        FileNotFoundError: a file is missing.
        ImportError: the library safetensors is, or torch where only a .bin is there.
        ValueError: a file is damaged, or of a network that ours cannot be; see `from_diffusers`.
    """
    directory = Path(directory).expanduser()
    inner = [directory / name for name in ("unet", "transformer")]
    directory = next((path for path in inner if (path / "config.json").is_file()), directory)
    path = directory / "config.json"
    files.check_readable(path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold names and values, got {type(config).__name__}")
    safe, pickled = directory / f"{_NAME}.safetensors", directory / f"{_NAME}.bin"
    if pickled.is_file() and not safe.is_file():
        return from_diffusers(config, read_torch(pickled), null_label=null_label)
    return from_diffusers(config, read_safetensors(safe), null_label=null_label)


def write_diffusers(directory: str | os.PathLike, net: Any, params: Any, shape: Any) -> None:
    """Writes a directory that diffusers' `from_pretrained` reads.

    Args:
        directory: is made if need be.
        net, params, shape: as `to_diffusers` takes them.

    Raises:
        ImportError: the library safetensors is not installed.
        ValueError: as `to_diffusers`; or the directory holds a config.json without such weights.
    """
    directory = Path(directory).expanduser()
    if (directory / "config.json").exists() and not (directory / f"{_NAME}.safetensors").exists():
        raise ValueError(
            f"{directory} holds a config.json of something else, such as a run: name another folder"
        )
    config, weights = to_diffusers(net, params, shape)
    directory.mkdir(parents=True, exist_ok=True)
    write_safetensors(directory / f"{_NAME}.safetensors", weights)
    with files.replacing(directory / "config.json") as file:
        file.write((json.dumps(config, indent=2) + "\n").encode())


def from_diffusers(
    config: Mapping[str, Any], weights: Mapping[str, Any], *, null_label: bool = False
) -> names.Network:
    """Our network and parameters from their configuration and tensors.

    Args:
        config: what config.json holds; what is left out has their default.
        weights: tensors by name; float16 and bfloat16 are widened to float32.
        null_label: whether the last class of a UNet stands for no label, as the row after the last
            always does in a DiT; else label -1 adds nothing to the embedding of the time, which
            it was not trained for.

    Returns:
        The network; its time feature is their timestep, 0, 1, ...

    Raises:
        ValueError: a field that is not known, or a value that ours cannot be: the field, the value
            and what is supported; or tensors that are missing, too many or wrong, as `names.read`
            says them.
    """
    kind = config.get("_class_name", "UNet2DModel")
    if kind not in list(_CLASSES):
        raise ValueError(f"_class_name must be one of {', '.join(_CLASSES)}, got {kind!r}")
    fields = common.completed(config, _CLASSES[kind])
    weights = {_renamed(name): a for name, a in given.tensors(weights).items()}
    unet = kind == "UNet2DModel"
    part, constants = (diffusers_unet if unet else diffusers_dit), {}
    with given.described(f"config describes no {kind}"):
        net, shape = part.network(fields), common.shape_of(fields)
        if null_label and unet:
            net = net.clone(num_classes=net.num_classes - 1)
        shapes = names.shapes_of(net, shape)
    if unet:
        first = bool(fields["flip_sin_to_cos"])
        table = diffusers_unet.table(net, cosines_first=first, whole=null_label)
    else:
        table, constants = diffusers_dit.table(net), diffusers_dit.constants(net, shape)
    params = names.read(weights, shapes, table, constants)
    return names.Network(net, params, shape)


def to_diffusers(
    net: Any, params: Mapping[str, Any], shape: tuple[int, int, int], *, cosines_first: bool = False
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Their configuration and tensors of our network: what `from_diffusers` read, to the bit.

    A UNet whose null label is learned has one class more there, which is it.

    Args:
        net: a `UNet` or a `DiT`.
        params: its parameters.
        shape: of its images, (H, W, C), square.
        cosines_first: whether the UNet there is to have flip_sin_to_cos; the numbers are the same.

    Returns:
        (config, tensors by name).

    Raises:
        ValueError: a field that theirs do not have, or parameters of another network.
    """
    if len(shape) != 3 or shape[0] != shape[1]:
        raise ValueError(f"shape must be of a square image (H, H, C), got {tuple(shape)}")
    if isinstance(net, UNet):
        whole = bool(net.num_classes) and bool(
            np.any(params["conditioning"]["label"]["embedding"][-1])
        )
        table = diffusers_unet.table(net, cosines_first=cosines_first, whole=whole)
        config = diffusers_unet.config_of(net, shape, cosines_first=cosines_first, whole=whole)
    elif isinstance(net, DiT):
        table, config = diffusers_dit.table(net), diffusers_dit.config_of(net, shape)
    else:
        raise ValueError(f"net must be a UNet or a DiT, got {type(net).__name__}")
    return config, names.write(params, names.shapes_of(net, shape), table)


def _renamed(name: str) -> str:
    *before, layer, leaf = ["", *name.split(".")] if "." in name else ["", "", name]
    if "attentions" in before and layer in _RENAMED:
        return ".".join([*before[1:], _RENAMED[layer], leaf])
    return name
