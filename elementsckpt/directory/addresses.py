"""Addresses of saves: `DIR@best`, `DIR@4000`, `DIR@latest~2`.

An address is text for a command line, where there is no object to ask. What is after
the `@` is `latest`, `best`, a step, `#` and a sequence, or `pin:` and a name; `~N`
means the save that is N saves before that one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import SaveNotFoundError
from ..format import manifest
from ..storage import paths
from ..user import hints
from . import choice
from .entries import SaveEntry
from .listing import Directory
from .retention import Keep

_BEFORE = re.compile(r"~(\d{1,9})\Z")
_GROUPED = re.compile(r"-?\d{1,3}(,\d{3})+")
_MOST_NEAR, _NEAR = 5, 0.7


def find(path: Path) -> SaveEntry | None:
    """Return the save that an address means, or None if the path is not an address.

    It is cut at the last "@" that has a folder on its left. A path that exists is not
    an address.

    Raises:
      SaveNotFoundError: there is no such save; the message has those near it.
    """
    text = str(path)
    if "@" not in text or paths.is_there(path):
        return None
    cut = len(text)
    while (cut := text.rfind("@", 0, cut)) > 0:
        if paths.is_folder(Path(text[:cut])):
            return _find(Directory(Path(text[:cut])), text[cut + 1 :], text)
    return None


def _find(directory: Directory, name: str, address: str) -> SaveEntry:
    before = _BEFORE.search(name)
    saves = directory.saves()
    if not saves:
        raise SaveNotFoundError(
            f"There is no save {address}: {paths.describe(directory.path)}. Check the "
            f"path."
        )
    place = saves.index(_named(directory, saves, _BEFORE.sub("", name), address))
    count = int(before[1]) if before else 0
    if count > place:
        raise SaveNotFoundError(
            f"There is no save {address}: {place} before {saves[place].path} are all. "
            f"Choose a smaller number after the ~."
        )
    return saves[place - count]


def _named(
    directory: Directory, saves: Sequence[SaveEntry], name: str, address: str
) -> SaveEntry:
    newest_first = saves[::-1]
    if name == "latest":
        return next((x for x in newest_first if x.error is None), newest_first[0])
    if name == "best":
        return _best(directory.path, saves)
    if name.startswith("pin:"):
        return _pinned(directory, saves, name.removeprefix("pin:"), address)
    number = name.removeprefix("#")
    is_step = number == name
    if _GROUPED.fullmatch(number):  # As steps are shown.
        number = number.replace(",", "")
    if not re.fullmatch(r"-?\d{1,40}", number):
        pins = [f"pin:{x.head.pin}" for x in saves if x.head and x.head.pin is not None]
        near = hints.nearest(name, ["latest", "best", *pins], 1, _NEAR)
        meant = f"; is it {near[0]!r}?" if near else "."
        raise SaveNotFoundError(
            f"There is no save {address}, and {name!r} is not an address{meant} Choose "
            f"latest, best, a step such as 4000, a sequence such as #12, or a pin such "
            f"as pin:paper, and perhaps ~N after it for N saves before."
        )
    for save in newest_first:
        if int(number) == (save.step if is_step else save.sequence):
            return save
    here = {save.step if is_step else save.sequence for save in saves}
    numbers = sorted(int(x) for x in here if x is not None)
    raise SaveNotFoundError(
        f"There is no save {address}. "
        + _near(int(number), numbers, "step" if is_step else "sequence")
    )


def _near(number: int, numbers: Sequence[int], noun: str) -> str:
    near = sorted(sorted(numbers, key=lambda x: abs(x - number))[:_MOST_NEAR])
    if not near:
        return f"No save there has a {noun}: choose one by @latest."
    listed = ", ".join(str(x) if noun == "step" else f"#{x}" for x in near)
    return f"Choose one of the nearest: {listed}."


def _pinned(
    directory: Directory, saves: Sequence[SaveEntry], name: str, address: str
) -> SaveEntry:
    found = choice.pinned(directory, name)
    if found:
        return next(x for x in saves if x.path == found[0].path)
    pins = sorted({x.head.pin for x in saves if x.head and x.head.pin is not None})
    near = hints.nearest(manifest.escape(name), pins)
    advice = "No save there is pinned: choose one by its step."
    if near:
        advice = f"Choose one of the pins there: {', '.join(near)}."
    raise SaveNotFoundError(f"There is no save {address}. {advice}")


def _best(place: Path, saves: Sequence[SaveEntry]) -> SaveEntry:
    try:
        found = choice.best_of(saves, Keep(), place)
    except ValueError as error:  # Metrics, and no save says which to go by.
        raise SaveNotFoundError(
            f"No save in {place} records what is best: pass a Checkpoint for "
            f"it keep=Keep(metric=...), or choose a save by its step."
        ) from error
    if found is None:
        raise SaveNotFoundError(
            f"No save in {place} has a finite metric to be the best by. "
            f"Choose one by its step, or the newest by @latest."
        )
    return found
