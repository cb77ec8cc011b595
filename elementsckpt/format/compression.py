"""zstd: whether compressing a leaf is worth it, and blocks ⇄ frames."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from ..errors import DamagedError, reason
from ..user.arguments import shown
from .manifest import MAX_BLOCK_BYTES

# "auto" for leaves that shrink to half or less, None for no leaves, a level for all.
Compress = Literal["auto"] | int | None

_AUTO_LEVEL = 1  # Several times as fast as the others, and nearly as small.
_FIRST_SAMPLE = 4 << 10
_SECOND_SAMPLE = 64 << 10
_HOPELESS = 0.75
_NO_MEMORY = "not enough memory"  # An error of zstd about the system, not a frame.
_tools = threading.local()  # Only one thread at a time may use a zstd context.


def check(compress: Any) -> Compress:
    """Return the argument `compress` if it is valid.

    Raises:
      ValueError: it is not.
    """
    is_level = type(compress) is int and 1 <= compress <= 22
    is_auto = isinstance(compress, str) and compress == "auto"
    if compress is None or is_level or is_auto:
        checked: Compress = compress
        return checked
    raise ValueError(
        f"compress={shown(compress)}: pass 'auto', None, or a level of zstd from 1 to "
        f"22."
    )


def is_worth_it(parts: Sequence[Any]) -> bool:
    """Return whether compression will about halve the bytes, judging from samples.

    Weights look like noise in any 4 KiB. Other data is tried once more with samples
    that are long enough to find images that repeat.

    It is not where there is too little memory to try.

    Args:
      parts: Samples from different places of a leaf, uint8[n] each.
    """
    try:
        zstandard = _zstandard()
    except MemoryError:
        return False
    try:
        return _shrinks(parts)
    except (zstandard.ZstdError, MemoryError):
        return False


def _shrinks(parts: Sequence[Any]) -> bool:
    small = b"".join(_middle(part, _FIRST_SAMPLE) for part in parts)
    if len(_compressor(_AUTO_LEVEL).compress(small)) > _HOPELESS * len(small):
        return False
    large = b"".join(_middle(part, _SECOND_SAMPLE) for part in parts)
    return 2 * len(_compressor(_AUTO_LEVEL).compress(large)) <= len(large)


def _middle(part: Any, size: int) -> bytes:
    start = max(0, len(part) - size) // 2
    return bytes(memoryview(part)[start : start + size])


def pack(content: Any, compress: Compress) -> bytes | None:
    """Return the content as a zstd frame, or None if it is to be stored uncompressed.

    Args:
      content: uint8[n].
      compress: "auto", for a frame of at most half the size, or the level.
    """
    level = compress if isinstance(compress, int) else _AUTO_LEVEL
    try:
        frame: bytes = _compressor(level).compress(content)
    except (_zstandard().ZstdError, MemoryError):  # Too little memory to compress.
        return None
    if compress == "auto" and 2 * len(frame) > len(content):
        return None
    return frame


def unpack(frame: Any, memory: Any) -> None:
    """Fill memory with the content of a zstd frame.

    Args:
      frame: uint8[n].
      memory: uint8[m], writable. A frame with more content takes no more memory.

    Raises:
      DamagedError: it is not a zstd frame, or holds more or less than m bytes.
    """
    zstandard = _zstandard()
    try:
        with _decompressor().stream_reader(frame) as reader:
            done = reader.readinto(memory)
            is_exact = done == len(memory) and not reader.read(1)
    except zstandard.ZstdError as error:
        if _NO_MEMORY in str(error):
            raise MemoryError from error
        raise DamagedError(f"it is not a zstd frame ({reason(error)}).") from error
    if not is_exact:
        raise DamagedError(f"its zstd frame does not hold {len(memory)} bytes.")


def _compressor(level: int) -> Any:
    known = _tools.__dict__.setdefault("compressors", {})
    if level not in known:
        known[level] = _zstandard().ZstdCompressor(level=level)
    return known[level]


def _decompressor() -> Any:
    if "decompressor" not in _tools.__dict__:
        make = _zstandard().ZstdDecompressor
        _tools.decompressor = make(max_window_size=MAX_BLOCK_BYTES)
    return _tools.decompressor


@lru_cache
def _zstandard() -> Any:
    """Import zstandard when it is needed: most saves hold nothing to compress.

    Raises:
      MemoryError: there is too little for its library.
    """
    try:
        import zstandard
    except ImportError as error:
        if "failed to map" in str(error):
            raise MemoryError from error
        raise
    return zstandard
