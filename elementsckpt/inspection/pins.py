"""Pins saves, which no rule then removes, and takes pins from them."""

from __future__ import annotations

from msgspec.structs import replace

from ..directory import lookup
from ..directory.entries import SaveEntry
from ..directory.listing import Directory
from ..format import codec, names
from ..reports import SaveInfo
from ..storage import paths
from ..user.arguments import AnyPath, local
from .infos import describe


def pin(path: AnyPath, name: str) -> SaveInfo:
    """Pin a save under a name; it has one pin, and a new one replaces the old one.

    Only the manifest is written anew, at once or not at all.

    Args:
      path: A save or its address, or a directory, for its newest save.
      name: The name, as for `Checkpoint.save`.

    Returns:
      The description of the save, with its pin.

    Raises:
      SaveNotFoundError: there is no save.
      DamagedError, VersionError: its manifest is not valid.
      WriteError: the disk refused; the save is as it was.
      ValueError: the name is not valid, another save of the directory has it, or
        elements wrote the save.
    """
    checked = lookup.checked_pin(name, None)
    if checked is None:
        raise ValueError("A pin needs a name: pass one, or call unpin().")
    found = _found(path)
    _require_free(found, checked)
    return _set_pin(found, checked)


def unpin(path: AnyPath) -> SaveInfo:
    """Take the pin from a save; nothing happens if it has none.

    Args:
      path: As for `pin`.

    Raises:
      As `pin`.
    """
    return _set_pin(_found(path), None)


def _found(path: AnyPath) -> SaveEntry:
    found = lookup.newest(local(path))
    if found.head is None:
        raise ValueError(
            f"{found.path} was written by elements, which has no pins: load it, and "
            f"save it with Checkpoint.save(pin=...)."
        )
    return found


def _require_free(found: SaveEntry, name: str) -> None:
    for save in Directory(found.path.parent).saves():
        is_other = paths.real(save.path) != paths.real(found.path)
        if is_other and save.head is not None and save.head.pin == name:
            step = "" if save.step is None else f", of step {save.step},"
            raise ValueError(
                f"{save.path}{step} is pinned as {name!r} already: choose another "
                f"name, or unpin that save first."
            )


def _set_pin(found: SaveEntry, name: str | None) -> SaveInfo:
    where = str(found.path / names.MANIFEST)
    manifest = codec.decode(found.source.manifest(), where)
    if manifest.pin != name:
        store = Directory(found.path.parent).store
        content = codec.encode(replace(manifest, pin=name))
        store.rewrite(found.path.name, content)
    return describe(lookup.find(found.path)[0])
