"""The weight files of a Hugging Face folder: safetensors or pickled archives, whole or in shards."""

import json
import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from elision.errors import InputError

WHOLE = ("model.safetensors", "pytorch_model.bin")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of the folder by name, on the CPU. Pickled files are read with `weights_only`: no code runs.

    Raises: InputError when there is no weight file, a shard is missing, or a file is damaged or holds other things.
    """
    for name in WHOLE:
        if (folder / name).is_file():
            return _read(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _read_shards(index)
    raise InputError(
        f"{folder} has no weights: expected {' or '.join(WHOLE)} (or their .index.json with its shards)"
        f"{_others(folder)}"
    )


def _read_shards(index: Path) -> dict[str, Tensor]:
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(places.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{index} is not an index of shards: expected JSON with a weight_map") from None
    missing = [shard for shard in shards if not (index.parent / shard).is_file()]
    if missing:
        raise InputError(f"{index} names shards that are not there: {', '.join(missing)}. Copy them beside it")
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        tensors |= _read(index.parent / shard)
    absent = sorted(places.keys() - tensors.keys())
    if absent:
        raise InputError(f"{index} names {absent[0]}, which is not in {places[absent[0]]}: a shard is of another model")
    return tensors


def _read(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except SafetensorError as error:
            raise InputError(f"{file} is not a whole safetensors file ({error}): copy it again") from None
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{file} holds more than tensors, or is not a weight file: it is not read, since that could run code. "
            f"Convert it to safetensors where it comes from"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{file} is damaged ({str(error).splitlines()[0]}): copy it again") from None
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{file} is not a table of tensors by name")
    return dict(content)


def _others(folder: Path) -> str:
    for name in ("tf_model.h5", "flax_model.msgpack"):
        if (folder / name).is_file():
            return f". It has {name}, which only transformers can convert"
    return ""
