"""Makes all processes of a job resume the same save.

jax.distributed or torch.distributed knows the processes. Neither is imported here: a
program that uses one has imported it. Processes send messages through the key-value
store of these packages, never through collectives of devices.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash
from msgspec import Struct, json

from ..errors import ReadError, SaveNotFoundError, reason
from ..user.notices import Notices

_TIMEOUT_S = 600.0
_READS = "reads"  # Process 0 puts this in place of its number if it writes nothing.
_POLLS_S = 0.01, 1.0  # Pause between two reads of the store, at first and at most.
_logger = logging.getLogger("elementsckpt")
# How often this process has resumed from each directory.
_calls: collections.Counter[str] = collections.Counter()


class Group(Struct, frozen=True):
    """This process and the others of its job.

    Attributes:
      name: Package that connects the processes.
      rank: Number of this process.
      size: Number of processes.
      put: Sets a key of the store to a text.
      peek: Returns the text of a key, or None if there is none yet.
    """

    name: str
    rank: int
    size: int
    put: Callable[[str, str], object]
    peek: Callable[[str], str | None]

    def __str__(self) -> str:
        return f"process {self.rank} of {self.size} of {self.name}"


def current() -> Group | None:
    """Return the processes of this job, or None if there is only this one."""
    group = _of_jax() or _of_torch()
    return None if group is None or group.size == 1 else group


def _of_jax() -> Group | None:
    state = getattr(sys.modules.get("jax._src.distributed"), "global_state", None)
    client = getattr(state, "client", None)
    if state is None or client is None:
        return None

    def put(key: str, text: str) -> None:
        client.key_value_set(key, text, allow_overwrite=True)

    def peek(key: str) -> str | None:
        # In older versions of JAX, all other reads wait for the key.
        return dict(client.key_value_dir_get(key.rpartition("/")[0])).get(key)

    rank, size = state.process_id, state.num_processes
    return Group("jax.distributed", rank, size, put, peek)


def _of_torch() -> Group | None:
    torch: Any = sys.modules.get("torch.distributed")
    if torch is None or not torch.is_available() or not torch.is_initialized():
        return None
    store = torch.distributed_c10d._get_default_store()
    if store is None:  # With MPI, for example.
        return None

    def peek(key: str) -> str | None:
        return str(store.get(key), "utf-8") if store.check([key]) else None

    rank, size = torch.get_rank(), torch.get_world_size()
    return Group("torch.distributed", rank, size, store.set, peek)


def warn_of_looking(directory: Path, notices: Notices) -> None:
    """Warn if this process lists saves that process 0 may just have written."""
    group = current()
    if group is not None and group.rank > 0:
        notices.warn(
            ("looking", group.name),
            "This is %s, and asks whether there is a save in %s: it may be one that "
            "another process has just written. Call load_or_save() in all processes, "
            "with Checkpoint(..., write=rank == 0): all of them resume what process 0 "
            "does.",
            *(group, directory),
        )


class Agreement:
    """Makes processes that write nothing resume the save that process 0 resumes.

    As a context, it tells the others if process 0 fails before it has decided. If this
    process does not find the save that process 0 resumed, it explains the error.

    Args:
      directory: The directory of saves.
      writes: Whether this process writes there.

    Attributes:
      is_followed: Whether this process resumes the save that process 0 resumes.
    """

    def __init__(self, directory: Path, *, writes: bool) -> None:
        self._directory = directory
        self._is_told = False
        self._group = group = current()
        self.is_followed = group is not None and group.rank > 0 and not writes
        if group is None:
            return
        path = os.path.abspath(directory)
        _calls[path] += 1
        place = xxhash.xxh3_64_hexdigest(os.fsencode(path))
        self._key = f"elementsckpt/{place}/{_calls[path]}/"
        if writes or group.rank == 0:
            self._meet_writers(group, writes=writes)

    def _meet_writers(self, group: Group, *, writes: bool) -> None:
        """Warn if a process other than 0 writes: processes wait only for process 0."""
        own, other = ("first", "others") if group.rank == 0 else ("others", "first")
        group.put(f"{self._key}{own}", f"{group.rank}" if writes else _READS)
        found = group.peek(f"{self._key}{other}")
        if found is None:
            return
        if not writes or found == _READS:
            does = "process 0 has write=False there, and another one writes. So one"
        else:
            does = f"process {found} resumes from there, too. As both write, one"
        _logger.warning(
            "This is %s, and resumes from %s: %s can resume what the other has just "
            "written. If it is one and the same directory, let process 0 alone write, "
            "with Checkpoint(..., write=rank == 0), and call the same methods in all "
            "processes.",
            group,
            self._directory,
            does,
        )

    def wait(self) -> Path | None:
        """Return the save that process 0 resumes, or None if it starts afresh.

        Raises:
          ReadError: process 0 could not resume, or did not answer in time.
        """
        group = self._group
        assert group is not None
        end, pause = time.monotonic() + _TIMEOUT_S, _POLLS_S[0]
        while (text := group.peek(f"{self._key}save")) is None:
            if time.monotonic() > end:
                raise ReadError(
                    f"Process 0 of {group.name} did not call load_or_save() with "
                    f"{self._directory} for {_TIMEOUT_S:.0f} s, and {group}, with "
                    f"write=False, resumes what that one does. Call the same methods "
                    f"in all processes, or load() in one that loads by itself."
                )
            time.sleep(pause)
            pause = min(2 * pause, _POLLS_S[1])
        answer = json.decode(text)
        if "error" in answer:
            raise ReadError(
                f"Process 0 of {group.name} could not resume from {self._directory}: "
                f"{answer['error']}. So {group} cannot either: restore there what that "
                f"one needs, and start all of them again."
            )
        return None if answer["save"] is None else self._directory / answer["save"]

    def tell(self, save: Path | None) -> None:
        """If this is process 0, tell the others which save it resumes, or None."""
        self._put({"save": save and save.name})

    def _put(self, answer: dict[str, Any]) -> None:
        if self._group is not None and self._group.rank == 0 and not self._is_told:
            self._is_told = True
            self._group.put(f"{self._key}save", json.encode(answer).decode())

    def __enter__(self) -> Agreement:
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if error is not None:
            with contextlib.suppress(Exception):  # The store may be gone.
                self._put({"error": reason(error)})
        self._group = None  # Later loads concern this process alone.
        if self.is_followed and isinstance(error, SaveNotFoundError):
            raise SaveNotFoundError(
                f"{reason(error)}. Process 0 of this job resumed it, so it was pruned "
                f"since, or is on another machine. Call save() only when all processes "
                f"have resumed, in a directory that all of them see."
            ) from error
