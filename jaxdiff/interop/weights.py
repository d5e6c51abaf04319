"""Files of weights as arrays by name; nothing in them is ever executed."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.data import files

__all__ = ["read_safetensors", "read_torch", "write_safetensors"]


def read_torch(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a file that torch wrote, by `weights_only=True`: tensors and what holds them.

    Args:
        path: such as weights.pth.

    Returns:
        Arrays by name, narrower floats as float32; dictionaries and lists within stay such.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: torch is not installed; it is the extra "import".
        ValueError: the file is damaged, or holds more than weights.
    """
    path = Path(path).expanduser()
    files.check_readable(path)
    try:
        import torch
    except ImportError as error:
        raise ImportError(f"{path} needs torch: pip install 'jaxdiff[import]'") from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch raises of a damaged or an unsafe file
        first = str(error).split("\n")[0]
        raise ValueError(f"{path} holds no weights that can be read safely: {first}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold tensors by name, got {type(found).__name__}")
    try:
        return _arrays(found)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{path} holds tensors that numpy cannot have: {error}") from error


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a .safetensors file; bfloat16 comes as float32, which holds it exactly.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the library safetensors is not installed.
        ValueError: the file is damaged, or of dtypes that numpy lacks.
    """
    path = Path(path).expanduser()
    files.check_readable(path)
    library = _safetensors(path)
    try:
        found = library.deserialize(path.read_bytes())
        return {name: _array(**about) for name, about in found}
    except (library.SafetensorError, KeyError) as error:
        raise ValueError(f"{path} cannot be read: {error!r}") from error


def write_safetensors(path: str | os.PathLike, arrays: Mapping[str, Any]) -> None:
    """Writes arrays by name, the whole file or none.

    Raises:
        ImportError: the library safetensors is not installed.
        OSError: the file cannot be written.
    """
    library = _safetensors(Path(path))
    plain = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
    with files.replacing(path) as file:
        file.write(library.numpy.save(plain))


def _safetensors(path: Path) -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        wanted = "pip install 'jaxdiff[text]'"
        raise ImportError(f"{path} needs the library safetensors: {wanted}") from error
    return safetensors


_DTYPES = {
    f"{letter}{8 * size}": f"<{letter.lower()}{size}" for letter in "IU" for size in (1, 2, 4, 8)
}
_DTYPES |= {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BOOL": "?"}


def _array(*, dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    """An array of safetensors' name of a dtype; bfloat16 is the upper half of float32."""
    if dtype == "BF16":
        wide = np.frombuffer(data, "<u2").astype("<u4") << 16
        return wide.view("<f4").reshape(shape)
    return np.frombuffer(data, _DTYPES[dtype]).reshape(shape)


def _arrays(found: dict[str, Any]) -> dict[str, Any]:
    """Tensors as arrays, also in dictionaries and lists within; all else is left out."""
    made: dict[str, Any] = {}
    for name, value in found.items():
        if isinstance(value, dict):
            made[name] = _arrays(value)
        elif isinstance(value, list | tuple):
            made[name] = list(_arrays(dict(enumerate(value))).values())
        elif hasattr(value, "detach"):
            tensor = value.detach()
            narrow = tensor.is_floating_point() and tensor.element_size() < 4
            made[name] = np.asarray((tensor.float() if narrow else tensor).numpy())
    return made
