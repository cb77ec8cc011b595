"""Files of the safetensors package: a header in JSON, then the bytes of the arrays.

    uint64      size of the header, little endian
    header      {"name": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, ...}
    data        arrays in C order, one directly after the other

Source: github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from ..format import dtypes
from .mapped_files import Arrays, array, opened

NAME = "safetensors"
_METADATA = "__metadata__"
_START = 8  # Bytes of the size of the header.
_MOST_BYTES = 100_000_000  # Of a header, as that package has it.


class _Tensor(Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def is_one(start: bytes, size_bytes: int) -> bool:
    """Return whether a file is of this format, by how it begins and its size."""
    header = int.from_bytes(start[:_START], "little")
    return start[_START : _START + 1] == b"{" and header <= size_bytes - _START


def read(path: Path, scratch: Path) -> Arrays:
    """Return the arrays of a file, mapped.

    Args:
      path: The file.
      scratch: Is not needed.

    Raises:
      DamagedError: it is not valid; the message says where.
      ReadError: the system refused.
    """
    with opened(path, NAME) as (_, content):
        size = int.from_bytes(bytes(content[:_START]), "little")
        if size > min(_MOST_BYTES, content.size - _START):
            raise ValueError(f"its header would have {size:,} bytes")
        text = bytes(content[_START : _START + size])
        entries = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(
            entries.pop(_METADATA, b"{}"), type=dict[str, str]
        )
        tensors = {
            name: _decoded(name, entry) for name, entry in sorted(entries.items())
        }
        json.loads(text, object_pairs_hook=_refuse_twice)
        return Arrays(_mapped(tensors, content[_START + size :]), metadata)


def _decoded(name: str, entry: msgspec.Raw) -> _Tensor:
    try:
        return msgspec.json.decode(entry, type=_Tensor)
    except msgspec.ValidationError as error:
        raise ValueError(f"the entry {name!r} in its header: {error}") from error


def _refuse_twice(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise ValueError(f"its header has {name!r} twice")
        seen.add(name)


def _mapped(tensors: dict[str, _Tensor], data: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays, which must fill the data without a hole, in this order."""
    values: dict[str, np.ndarray] = {}
    place = 0
    for name, tensor in sorted(tensors.items(), key=lambda x: x[1].data_offsets):
        begin, end = tensor.data_offsets
        if begin != place or end > data.size:
            raise ValueError(
                f"{name!r} is at bytes {begin} to {end}, expected from {place} on, of "
                f"{data.size}"
            )
        try:
            dtype = dtypes.of_tag(tensor.dtype)
            values[name] = array(data, begin, end, dtype, tensor.shape)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from error
        place = end
    if place != data.size:
        raise ValueError(f"its arrays end at byte {place} of {data.size}")
    return {name: values[name] for name in tensors}
