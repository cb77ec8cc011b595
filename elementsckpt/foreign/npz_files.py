"""Files of `numpy.savez`: zip files of npy files.

Entries that were stored are mapped; those that were compressed are first inflated to a
file. No entry is unpickled. An entry `__dtypes__`, which `export` writes, is JSON of
names to dtypes that NumPy lacks; without it, elements of 2 raw bytes are bfloat16.

Source: the format of npy files in numpy.lib.format.
"""

from __future__ import annotations

import ast
import json
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from ..format import dtypes
from ..storage import disk
from ..storage.files import File
from .mapped_files import Arrays, array, map_file, opened, size_bytes

NAME = "npz"
DTYPES = "__dtypes__"
_MAGIC = b"\x93NUMPY"
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_LOCAL = 30  # Bytes of a local header, without name and extra field.
# Names of dtypes in an npy file. NumPy accepts much more, some of it as expressions.
_NAME = re.compile(r"[<>|][biufcmMSUV][0-9]{1,10}(\[[0-9]{0,10}[A-Za-z]{1,2}\])?")
_MOST_HEADER = 10_000  # Bytes, as NumPy has it: more could crash the parser.
_MOST_JSON = 1 << 24
_CHUNK = 1 << 20
_ALIGN = 64


class _Entry(Struct):
    """An array in the zip file.

    Attributes:
      name: Its name.
      info: What the zip file says of it.
      dtype: Its dtype; with objects, it is a pickle.
      shape: Its shape.
      order: "C" or "F".
      start: Size of the header in front of its bytes.
    """

    name: str
    info: zipfile.ZipInfo
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: str
    start: int


def is_one(start: bytes, size_bytes: int) -> bool:
    """Return whether a file is of this format, by how it begins: a zip file."""
    return start[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def read(path: Path, scratch: Path) -> Arrays:
    """Return the arrays of a file, mapped.

    Args:
      path: The file.
      scratch: A folder on a disk with room for what is compressed; nothing stays there.

    Raises:
      DamagedError: it is not valid; the message says where.
      WriteError: there is no room to inflate it.
      ReadError: the system refused.
    """
    with opened(path, NAME) as (file, content), file.stream() as stream:
        with zipfile.ZipFile(stream) as archive:
            infos = archive.infolist()
            _refuse_overlaps(infos, content)
            entries = [_entry(archive, info) for info in infos]
            _refuse_twice([entry.name for entry in entries])
            whole = [x for x in entries if not x.dtype.hasobject]
            values = {x.name: _stored(archive, x, content) for x in whole if _is_raw(x)}
            values |= _inflated(archive, [x for x in whole if not _is_raw(x)], scratch)
        named = {entry.name: values[entry.name] for entry in whole}
        left_out = [x.name for x in entries if x.dtype.hasobject]
        return Arrays(_with_dtypes(named), left_out=left_out)


def _is_raw(entry: _Entry) -> bool:
    return entry.info.compress_type == zipfile.ZIP_STORED


def _begin(info: zipfile.ZipInfo, content: np.ndarray) -> int:
    """Return where the bytes of an entry begin."""
    local = bytes(content[info.header_offset : info.header_offset + _LOCAL])
    name, extra = struct.unpack("<HH", local[-4:])
    return int(info.header_offset + _LOCAL + name + extra)


def _refuse_overlaps(infos: list[zipfile.ZipInfo], content: np.ndarray) -> None:
    """Refuse entries that share bytes, with which a small file could be a huge one."""
    place = 0
    for info in sorted(infos, key=lambda x: x.header_offset):
        name = info.filename
        if info.flag_bits & 1 or info.compress_type not in _METHODS:
            raise ValueError(f"{name!r} is encrypted, or compressed in another way")
        if info.header_offset < place:
            raise ValueError(f"{name!r} overlaps the entry before it")
        place = _begin(info, content) + info.compress_size
        if place > content.size:
            raise ValueError(f"{name!r} ends at byte {place} of {content.size}")
        is_raw = info.compress_type == zipfile.ZIP_STORED
        if is_raw and info.compress_size != info.file_size:
            raise ValueError(f"{name!r} has two sizes")


def _refuse_twice(names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"it has {name!r} twice")
        seen.add(name)


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Entry:
    """Return what the header of an npy file says."""
    with archive.open(info) as file:
        start = file.read(12)
        if start[:6] != _MAGIC or start[6:7] not in (b"\x01", b"\x02", b"\x03"):
            raise ValueError(f"{info.filename!r} in it is not an array of NumPy")
        wide = start[6] > 1
        size = int.from_bytes(start[8:12] if wide else start[8:10], "little")
        if size > _MOST_HEADER:
            raise ValueError(f"the header of {info.filename!r} has {size} bytes")
        text = (b"" if wide else start[10:12]) + file.read(size - (0 if wide else 2))
    try:
        header = ast.literal_eval(text.decode("latin1" if start[6] < 3 else "utf-8"))
        dtype = _dtype(header["descr"])
        shape = tuple(header["shape"])
        length = size + (12 if wide else 10)
        found = info.file_size - length
        if not dtype.hasobject and size_bytes(dtype, shape) != found:
            raise ValueError(f"{found} bytes for the shape {shape} of {dtype}")
    except (SyntaxError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the header of {info.filename!r}: {error}") from error
    order = "F" if header.get("fortran_order") is True else "C"
    name = info.filename.removesuffix(".npy")
    return _Entry(name, info, dtype, shape, order, length)


def _dtype(described: Any) -> np.dtype[Any]:
    """Return the dtype of a header; of what holds objects, any that does."""
    if isinstance(described, str):
        if described != "|O" and not _NAME.fullmatch(described):
            raise ValueError(f"{described[:80]!r} is not the name of a dtype")
        return np.dtype(described)
    if isinstance(described, tuple):
        base, shape = described
        return np.dtype((_dtype(base), shape))
    for field in described:
        _dtype(field[1])  # NumPy would take texts that are not names of dtypes.
    return np.lib.format.descr_to_dtype(described)


def _stored(archive: zipfile.ZipFile, entry: _Entry, content: np.ndarray) -> np.ndarray:
    """Return an entry that is not compressed, where it is; its checksum is verified."""
    with archive.open(entry.info) as file:
        while file.read(_CHUNK):
            pass
    begin = _begin(entry.info, content)
    return _array(entry, content, begin + entry.start, begin + entry.info.file_size)


def _array(entry: _Entry, content: np.ndarray, begin: int, end: int) -> np.ndarray:
    if entry.order == "C":
        return array(content, begin, end, entry.dtype, entry.shape)
    return array(content, begin, end, entry.dtype, entry.shape[::-1]).T


def _inflated(
    archive: zipfile.ZipFile, entries: list[_Entry], scratch: Path
) -> dict[str, np.ndarray]:
    """Return entries that are compressed, from a file of which only maps remain."""
    if not entries:
        return {}
    path = scratch / ".inflated"
    disk.require_space(scratch, sum(x.info.file_size + _ALIGN for x in entries))
    places: list[int] = []
    place = 0
    new = disk.create(path)
    try:
        for entry in entries:
            places.append(place)
            with archive.open(entry.info) as file:
                file.read(entry.start)
                while chunk := file.read(_CHUNK):
                    disk.write(new.fd, chunk, place, path=path)
                    place += len(chunk)
            place += -place % _ALIGN
        if not place:
            return {x.name: np.zeros(x.shape, x.dtype, order="C") for x in entries}
        with File(path) as written:
            content = map_file(written)
    finally:
        new.close()
        disk.remove(path)
    return {
        x.name: _array(x, content, y, y + x.info.file_size - x.start)
        for x, y in zip(entries, places, strict=True)
    }


def _with_dtypes(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays with the dtypes that NumPy lacks."""
    own: Any = {}
    described = values.get(DTYPES)
    if described is not None and described.dtype.kind == "U" and not described.shape:
        if described.nbytes > _MOST_JSON:
            raise ValueError(f"{DTYPES} has {described.nbytes} bytes")
        own = json.loads(str(described))
        if not isinstance(own, dict) or not own.keys() <= values.keys():
            raise ValueError(f"{DTYPES} is not JSON of its names to dtypes")
        values = {name: x for name, x in values.items() if name != DTYPES}
    return {name: _viewed(name, x, own.get(name)) for name, x in values.items()}


def _viewed(name: str, value: np.ndarray, own: Any) -> np.ndarray:
    is_raw = value.dtype.kind == "V" and value.dtype.names is None
    if own is None:
        own = "bfloat16" if is_raw and value.dtype.itemsize == 2 else None
    if own is None:
        return value
    dtype = dtypes.decode(own) if isinstance(own, str) else None
    if dtype is None or not is_raw or dtype.itemsize != value.dtype.itemsize:
        raise ValueError(f"{DTYPES} says that {name!r} is {own!r}")
    return value.view(dtype)
