"""Saves that this process still reads from, a shard at a time."""

from __future__ import annotations

import contextlib
import weakref
from pathlib import Path
from typing import Protocol

from .store import Source


class Stream(Protocol):
    """Reads a save.

    Attributes:
      source: The save.
    """

    source: Source


# Changed by atomic calls only, as threads, signal handlers and forked children use it.
_streams: list[weakref.ref[Stream]] = []


def hold(stream: Stream) -> None:
    """Note that a save is read, until `release` or the stream is collected."""
    _streams.append(weakref.ref(stream, _streams.remove))


def release(stream: Stream) -> None:
    """Note that a stream reads no longer, if it was noted that it does."""
    with contextlib.suppress(ValueError):
        _streams.remove(weakref.ref(stream))


def is_held(folder: Path) -> bool:
    """Return whether this process still reads from the save folder."""
    found = [ref() for ref in tuple(_streams)]
    return folder in [stream.source.path for stream in found if stream is not None]
