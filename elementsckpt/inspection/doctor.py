"""Examines a directory: whether it suits saves, and who else writes there."""

from __future__ import annotations

from pathlib import Path

from ..directory import lookup
from ..directory.listing import Directory
from ..errors import CheckpointError, SaveNotFoundError, WriteError, reason
from ..reports import figures
from ..storage import paths, trials
from ..storage.trials import Finding
from ..user.arguments import AnyPath, local
from .disk_usage import stored_bytes


def examine(directory: AnyPath) -> list[Finding]:
    """Return what was found of a directory, which need not have saves.

    Raises:
      SaveNotFoundError: there is no such folder.
      ValueError: it is a save.
    """
    path = local(directory)
    if not paths.is_there(path):
        lookup.require_no_save(path)
    if not paths.is_folder(path):
        raise SaveNotFoundError(
            f"{path} is not a folder: {paths.describe(path)}. Make it first."
        )
    here = Directory(path)
    saves, largest = _saves(here)
    try:
        found = trials.try_folder(path)
    except WriteError as error:
        advice = "Let this user write there, or choose another directory."
        found = [Finding("writing", False, reason(error.__cause__ or error), advice)]
    return [*found, trials.room(path, largest), _writer(path), *saves]


def _saves(here: Directory) -> tuple[list[Finding], int]:
    """Return what was found of the saves, and the size of the largest state."""
    try:
        saves, sizes = here.saves(), [stored_bytes(x) for x in here.unfinished()]
    except CheckpointError as error:
        return [Finding("saves", False, reason(error), "See who may read it.")], 0
    if not saves:
        lookup.require_no_save(here.path)
    damaged = [save.path.name for save in saves if save.error is not None]
    heads = [save.head for save in saves if save.head is not None]
    largest = max((sum(x.size_bytes for x in y.summaries) for y in heads), default=0)
    findings = [Finding("saves", True, f"{len(saves)} with good manifests")]
    if damaged:
        found = f"{len(damaged)} of {len(saves)} have damaged manifests"
        advice = f"Find out more with: elementsckpt verify {here.path}"
        findings = [Finding("saves", False, found, advice)]
    if sizes:
        found = f"{len(sizes)}, {figures.size(sum(sizes))}: written now, or left by a "
        advice = "The next save of a run there removes what was left unfinished."
        findings.append(Finding("unfinished", True, f"{found}dead process", advice))
    return findings, largest


def _writer(path: Path) -> Finding:
    """Return whether a process saves there now."""
    if not trials.is_locked(path):
        return Finding("writers", True, "none now")
    heads = [save.head for save in Directory(path).saves() if save.head is not None]
    last = heads[-1].lineage if heads else None
    who = "a process"
    if last is not None and last.pid is not None:
        who = f"process {last.pid} on {last.host}, as the newest save says"
    return Finding("writers", True, f"{who}: start no other run here")
