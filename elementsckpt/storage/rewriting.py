"""Replaces the manifest of a save that is complete, at once or not at all.

The new manifest is written as the draft is, under its name and with its lock. A save
that has a manifest is a save, whatever else is in it, so a draft that a dead process
left there changes nothing, and is replaced or removed with the save.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from ..errors import DamagedError, WriteError
from ..format import names
from . import descriptors, disk, files
from .descriptors import Descriptor


def rewrite(path: Path, content: bytes) -> None:
    """Replace the manifest of a save; it is durable on return.

    The time of the file stays: it tells whether segments were written to since the
    commit.

    Raises:
      WriteError: the disk refused, or another process replaces it, too; it is as it
        was.
      DamagedError: there is no manifest any more.
    """
    draft, manifest = path / names.DRAFT, path / names.MANIFEST
    file = _create(draft)
    try:
        committed_ns = files.status(manifest).st_mtime_ns
        disk.write(file.fd, content, 0, path=draft)
        disk.set_time(file.fd, committed_ns, path=draft)
        disk.sync(file.fd, path=draft)
        disk.rename(draft, manifest)
        disk.sync_folder(path)
    except BaseException:
        if descriptors.is_at(file.fd, draft):
            with contextlib.suppress(WriteError):
                disk.remove(draft)
        raise
    finally:
        file.close()


def _create(draft: Path) -> Descriptor:
    """Return a new, locked file; what a dead process left there is removed."""
    for _ in range(2):
        try:
            file = disk.create(draft)
        except WriteError as error:
            if error.errno != errno.EEXIST:
                raise
        else:
            descriptors.lock(file.fd)
            return file
        with contextlib.suppress(DamagedError), files.File(draft, to_lock=True) as old:
            if descriptors.lock(old.fd) and descriptors.is_at(old.fd, draft):
                disk.remove(draft)
    raise WriteError(
        f"Another process is changing {draft.parent}: try again.", errno.EEXIST
    )
