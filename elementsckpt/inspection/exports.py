"""Writes leaves of a save to a file of another format, in bounded memory."""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from msgspec import Struct

from ..errors import MismatchError, damage
from ..format import dtypes
from ..reports.disk import ExportReport
from ..storage import disk, files
from ..system.progress import Meter
from ..user import arguments, hints
from ..user.arguments import AnyPath, local, shown
from .contents import Blocks, Contents, Leaf, newest
from .values import array

_SUFFIXES = {".safetensors": "safetensors", ".npz": "npz"}
_ALIGN = 8  # Of the header of a safetensors file.
_DTYPES = "__dtypes__"  # Entry of an npz: JSON of names to dtypes that NumPy lacks.
_NUMBERS = (bool, int, float)


class Tensor(Struct):
    """An array to write.

    Attributes:
      name: Its name in the file.
      dtype: Its dtype.
      shape: Its shape.
      chunks: Returns its bytes in C order, in pieces.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[Any]]

    @property
    def size_bytes(self) -> int:
        """Size of its bytes."""
        return int(self.dtype.itemsize * np.prod(self.shape, dtype=object))


def export(
    path: AnyPath,
    target: AnyPath,
    *,
    format: str | None = None,
    keys: Iterable[str] | None = None,
    regex: str | None = None,
    rename: Mapping[str, str] | None = None,
) -> ExportReport:
    """Write the arrays of a save to one file that other programs read.

    Names are full names of leaves; they have no key if `keys` names one component.
    Numbers become arrays of no axes. In an npz, the entry `__dtypes__` is JSON of names
    to dtypes that NumPy lacks, such as bfloat16.

    Args:
      path: A save or its address, or a directory, for its newest save.
      target: The file to write; there must be nothing.
      format: "safetensors" or "npz"; by default the suffix of `target` tells.
      keys: Components; all by default.
      regex: As for `leaves`.
      rename: Patterns to replacements, as for `re.sub`, on the names in the file.

    Returns:
      What was written, and which leaves the format lacks, such as text.

    Raises:
      SaveNotFoundError: there is no save.
      SaveExistsError: there is something at `target`.
      MissingKeyError: the save lacks a component.
      MismatchError: a pattern is not valid or matches nothing, or two leaves get one
        name.
      DamagedError: what is read is damaged; nothing was written.
      WriteError: the disk refused; nothing was written.
      ValueError: `format` is not known, or `keys` is text.
    """
    file = local(target)
    write = _WRITERS[_format(format, file.suffix)]
    wanted = None if keys is None else arguments.keys(keys)
    contents = Contents(newest(path), wanted)
    bare = wanted[0] if wanted is not None and len(wanted) == 1 else None
    tensors: list[Tensor] = []
    left_out: list[str] = []
    readers: dict[str, Blocks] = {}
    with Meter("export") as meter, damage(contents.where):
        for leaf in contents.leaves(regex):
            name = _renamed(leaf.name if bare and leaf.name else leaf.full_name, rename)
            if leaf.key not in readers:
                readers[leaf.key] = Blocks(contents, leaf.key, meter)
            blocks = readers[leaf.key]
            tensor = _tensor(name, contents, leaf, blocks)
            if tensor is None or not write.holds(tensor):
                left_out.append(leaf.full_name)
            else:
                tensors.append(tensor)
        refuse_twice(tensor.name for tensor in tensors)
        meter.begin(sum(tensor.size_bytes for tensor in tensors))
        with disk.new_file(file) as stream:
            write.write(tensors, stream)
    return ExportReport(file, files.status(file).st_size, tuple(left_out))


def _format(format: str | None, suffix: str) -> str:
    found = _SUFFIXES.get(suffix) if format is None else format
    if found not in _WRITERS:
        known = " or ".join(map(repr, _WRITERS))
        what = f"the suffix {suffix!r}" if format is None else f"format={shown(format)}"
        raise ValueError(f"{what} is not a format that is known: pass format={known}.")
    return found


def _renamed(name: str, rename: Mapping[str, str] | None) -> str:
    for pattern, replacement in (rename or {}).items():
        try:
            name = re.sub(pattern, replacement, name)
        except (re.error, IndexError, TypeError) as error:
            raise MismatchError(
                f"Cannot rename {name!r} by {pattern!r} to {replacement!r}: {error}. "
                f"Correct it; nothing was written."
            ) from error
    return name


def refuse_twice(names: Iterable[str]) -> None:
    """Refuse leaves that would have the same name.

    Raises:
      MismatchError: there are some.
    """
    seen: set[str] = set()
    twice = []
    for name in names:
        if name in seen:
            twice.append(name)
        seen.add(name)
    if twice:
        raise MismatchError(
            f"Several leaves would have the name {hints.listed(twice, most=5)}. Choose "
            f"some with keys= or regex=, or rename them; nothing was written."
        )


def _tensor(name: str, contents: Contents, leaf: Leaf, blocks: Blocks) -> Tensor | None:
    """Return a leaf as array; None if it is none."""
    value = leaf.value
    if isinstance(value, (*_NUMBERS, np.generic)):
        try:
            small = np.asarray(value)
        except OverflowError:
            return None
        return Tensor(name, small.dtype, (), lambda: [small.tobytes()])
    dtype = leaf.dtype
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        return None

    def chunks() -> Iterator[Any]:
        group = leaf.group
        assert group is not None
        if group.order == "C" and leaf.kind not in ("view", "torch"):
            yield from blocks.chunks(contents.blocks(leaf))
        else:
            yield np.ascontiguousarray(array(contents, leaf)).tobytes()

    return Tensor(name, dtype, leaf.shape, chunks)


class _Safetensors:
    """One file as the safetensors package writes it.

    Source: github.com/huggingface/safetensors.
    """

    @staticmethod
    def holds(tensor: Tensor) -> bool:
        """Return whether the format has this dtype."""
        return _tag(tensor.dtype) is not None

    @staticmethod
    def write(tensors: Iterable[Tensor], stream: BinaryIO) -> None:
        """Write a file."""
        header: dict[str, Any] = {}
        end = 0
        # As that package does: wide elements first, so that all are aligned.
        ordered = sorted(tensors, key=lambda x: (-x.dtype.itemsize, x.name))
        for tensor in ordered:
            begin, end = end, end + tensor.size_bytes
            header[tensor.name] = {
                "dtype": _tag(tensor.dtype),
                "shape": list(tensor.shape),
                "data_offsets": [begin, end],
            }
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % _ALIGN)
        stream.write(struct.pack("<Q", len(text)))
        stream.write(text)
        for tensor in ordered:
            for chunk in tensor.chunks():
                stream.write(chunk)


def _tag(dtype: np.dtype[Any]) -> str | None:
    try:
        return dtypes.tag(dtypes.encode(dtype))
    except dtypes.UnknownDtypeError:
        return None


class _Npz:
    """A zip file of npy files, as `numpy.savez` writes it."""

    @staticmethod
    def holds(tensor: Tensor) -> bool:
        """Return whether the format has this dtype and this name."""
        return not tensor.dtype.hasobject and "\0" not in tensor.name

    @staticmethod
    def write(tensors: Iterable[Tensor], stream: BinaryIO) -> None:
        """Write a file."""
        own: dict[str, str] = {}
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for tensor in tensors:
                dtype = tensor.dtype
                if dtype.kind == "V" and dtype.names is None:  # Of ml_dtypes.
                    own[tensor.name] = dtype.name
                    dtype = np.dtype(f"V{dtype.itemsize}")
                _write_npy(archive, tensor.name, dtype, tensor.shape, tensor.chunks())
            if own:
                text = np.array(json.dumps(own))
                _write_npy(archive, _DTYPES, text.dtype, (), [text.tobytes()])


def _write_npy(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    chunks: Iterable[Any],
) -> None:
    entry = zipfile.ZipInfo(f"{name}.npy")  # Of 1980: no output tells when it was made.
    with archive.open(entry, "w", force_zip64=True) as file:
        described = {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_2_0(file, described)
        for chunk in chunks:
            file.write(chunk)


_WRITERS: dict[str, Any] = {"safetensors": _Safetensors, "npz": _Npz}
