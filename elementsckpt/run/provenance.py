"""Where the state of a run comes from: which save, run, machine and commit."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ..directory.entries import SaveEntry
from ..directory.metadata import changes
from ..format import manifest, names, scalars
from ..reports import SaveReport
from ..storage import files, folders, paths

_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FILE_BYTES = 1 << 26  # Of packed references in a very large repository.
_HOPS = 5  # From one reference to another; as many as git follows.
_logger = logging.getLogger("elementsckpt")


class Provenance:
    """Keeps the lineage that the next save will have.

    A run goes on in the process that loads one of its saves from its own directory; any
    other object that saves is a run of its own.

    Attributes:
      left_out: Keys of components that the resumed save has and this run lacks.
    """

    def __init__(self) -> None:
        self._lineage = manifest.Lineage()
        self._begun: Path | None = None  # A save that may be complete or not.
        self.left_out: frozenset[str] = frozenset()
        self._has_saved = False
        self._has_warned = False
        commit()  # Remembers the commit that the program started with.

    def lineage(self) -> manifest.Lineage:
        """Return the lineage for a save by this process."""
        begun, self._begun = self._begun, None
        if begun is not None and not folders.is_missing(begun / names.MANIFEST):
            self._lineage = replace(self._lineage, parent=_text(begun))
        self._lineage = replace(
            self._lineage,
            run=self._lineage.run or os.urandom(16).hex(),
            host=manifest.escape(os.uname().nodename),
            pid=os.getpid(),
            commit=commit(),
        )
        return self._lineage

    def begins(self, path: Path) -> None:
        """Note that a save has begun, as an interrupt can hide its end."""
        self._begun = path

    def saved(self, report: SaveReport) -> None:
        """Note that a save was made."""
        self._has_saved = True
        self._begun = None
        self._lineage = replace(self._lineage, parent=_text(report.path))

    def loaded(self, found: SaveEntry, *, is_own: bool) -> None:
        """Note that a save was loaded.

        Args:
          found: The save.
          is_own: Whether it is in the object's own directory.
        """
        saved = found.head.lineage.run if found.head and is_own else None
        run, path = saved or self._lineage.run, _text(found.path)
        self._begun = None
        self._lineage = replace(self._lineage, loaded_from=path, parent=path, run=run)

    def resumed(
        self,
        found: Path,
        head: manifest.Head,
        keys: Iterable[str],
        metadata: Any,
        *,
        writes: bool,
    ) -> None:
        """Warn if this run differs from the save that it resumes.

        Args:
          found: The save.
          head: The start of its manifest.
          keys: The components of this run.
          metadata: The metadata of this run, encoded, or None.
          writes: Whether this run saves.
        """
        saved = scalars.decode_keys(item.key for item in head.summaries)
        self.left_out = frozenset({*saved, *scalars.decode_keys(head.keys)} - {*keys})
        if self.left_out and writes:
            _logger.warning(
                "%s is of a run with %s, which is not registered: new saves lack that. "
                "The newest save that has it stays until you delete it.",
                found,
                ", ".join(map(repr, sorted(self.left_out))),
            )
        changed = changes(metadata or {}, head.metadata)
        if changed:
            _logger.warning(
                "%s was saved with other metadata: %s. If that is another run, choose "
                "another directory.",
                found,
                "; ".join(changed),
            )

    def compare(self, newest: SaveEntry | None, step: int | None) -> None:
        """Warn, once, if the newest save is of another run, or of a later step.

        Args:
          newest: The newest save in the directory.
          step: The step to be saved.
        """
        head = None if newest is None else newest.head
        if self._has_warned or head is None:
            return
        is_other = head.lineage.run not in (None, self._lineage.run)
        if is_other and self._has_saved:
            return  # Another process saves here now: the writer lock warns of that.
        if is_other:
            whose = "another run, which this one did not load"
            remedy = (
                "To go on with it call load_or_save() before the first save(); to "
                "start anew choose another directory."
            )
        elif step is not None and head.step is not None and step < head.step:
            whose = "this run, which goes back"
            remedy = "That is right if an older save was loaded on purpose."
        else:
            return
        self._has_warned = True
        saved_at, newest_at = (
            "" if x is None else f" at step {x}" for x in (step, head.step)
        )
        _logger.warning(
            "Saving%s, while the newest save in %s is%s of %s: %s. What was saved last "
            "is the newest, whatever its step, and what keep= does not ask for is "
            "removed. %s",
            *(saved_at, newest and newest.path.parent, newest_at),
            *(whose, head.name, remedy),
        )


@functools.cache
def commit() -> str | None:
    """Return the git commit that is checked out where the program is.

    The repository is the one that holds the script, or else the current directory. This
    looks once, as a long run goes on with the code that it started with.

    Returns:
      The commit's hash, without a sign of changes that are not committed; or None if
      there is no repository or no commit, or if this does not understand the files.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    with contextlib.suppress(OSError, ValueError, TypeError):  # No save fails for it.
        here = paths.real(script).parent if script else Path.cwd()
        for folder in (here, *here.parents):
            if not folders.is_missing(folder / ".git"):
                return _head(folder / ".git")
    return None


def _head(git: Path) -> str | None:
    """Return the commit of HEAD.

    Source: gitrepository-layout, the format with loose and packed references.
    """
    if not git.is_dir():  # In worktrees and submodules, a file holds the path.
        git = git.parent / _read(git).removeprefix("gitdir: ")
    # A worktree has its own HEAD, and shares its branches with the others.
    is_worktree = (git / "commondir").exists()
    common = git / _read(git / "commondir") if is_worktree else git
    found = _read(git / "HEAD")
    for _ in range(_HOPS):
        if _HASH.fullmatch(found):
            return found
        name = found.removeprefix("ref:").lstrip()
        if not name.startswith("refs/") or ".." in name:
            return None
        found = _reference(name, common)
    return None


def _reference(name: str, common: Path) -> str:
    if (common / name).is_file():
        return _read(common / name)
    for line in _read(common / "packed-refs").splitlines():
        if line.endswith(f" {name}"):
            return line.partition(" ")[0]
    return ""


def _read(path: Path) -> str:
    content = files.read_file(path, limit_bytes=_FILE_BYTES)
    return os.fsdecode(bytes(content)).rstrip("\r\n")


def _text(path: os.PathLike[str]) -> str:
    return manifest.escape(os.fspath(path))
