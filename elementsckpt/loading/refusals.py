"""Why a load is refused: the errors, in the order in which a load can meet them.

`remedies` says what to do about leaves that do not fit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import errors
from ..directory.entries import SaveEntry
from ..errors import reason
from ..state import matching, saved_tree
from ..state.matching import Plan
from ..user import hints
from ..user.arguments import shown
from . import remedies
from .loaded import Loaded, full_names
from .verbs import LOAD, LOAD_OR_SAVE, Verb

# The save


def all_damaged(saves: Sequence[SaveEntry], damaged: Sequence[Exception]) -> Exception:
    """Return the error for saves that are all damaged, with the reason of each."""
    if len(damaged) == 1:
        return errors.DamagedError(
            f"{damaged[0]} Load another save by its path, or restore this one from a "
            f"copy."
        )
    reasons = zip(saves, damaged, strict=True)
    lines = [f"\n  {found.path.name}: {error}" for found, error in reasons]
    return errors.DamagedError(
        f"All {len(damaged)} saves in {saves[0].path.parent} are damaged:"
        f"{''.join(lines)}\nRestore one from a copy, or start in another directory."
    )


def always_removed(attempts: int, directory: Path) -> Exception:
    """Return the error for saves that are removed faster than they can be read."""
    return errors.ReadError(
        f"{attempts} times a save in {directory} was removed while it was read: "
        f"another process saves there, and faster than this one reads. Keep more saves "
        f"with keep=."
    )


# Components


def missing_keys(
    loaded: Loaded, here: Sequence[str], counterparts: Mapping[str, str]
) -> Exception:
    """Return the error for components that the save lacks.

    Args:
      loaded: The load.
      here: The keys that the save has.
      counterparts: Our keys of missing components, to saved keys of what seems to be
        the same.
    """
    missing = [key for key in loaded.keys.values() if key not in here]
    return errors.MissingKeyError(
        f"{loaded.found.path} has no {', '.join(map(shown, missing))}. It has "
        f"{hints.listed(here, 'components')}. Nothing was loaded. "
        f"{_without(loaded, here, counterparts)}"
    )


def _without(
    loaded: Loaded, here: Sequence[str], counterparts: Mapping[str, str]
) -> str:
    """Return advice on components that the save lacks."""
    verb = loaded.request.verb
    if verb not in (LOAD, LOAD_OR_SAVE):
        return verb.otherwise
    instead = "" if verb is LOAD else ", once, in place of load_or_save()"
    found = {ours: saved for ours, saved in loaded.keys.items() if saved in here}
    is_mapped = any(ours != saved for ours, saved in found.items())
    known: Any = found if is_mapped else [*found]
    said = []
    if counterparts:
        said.append(
            f"Load what it has under another key with "
            f"load(keys={found | {**counterparts}}){instead}, from keys here to those "
            f"in the save."
        )
    if known:
        said.append(
            f"To go on without what it lacks, call load(keys={known}){instead}; the "
            f"next save() has all that is registered."
        )
    return " ".join(said) or verb.otherwise


def other_kind(key: str, loaded: Loaded, *, is_folder: bool) -> Exception:
    """Return the error for a folder where a state is expected, or the reverse."""
    if is_folder:
        what = "a folder of files, and what loads it takes a state"
        remedy = "Use elementsckpt.Files(load=function)"
    else:
        what = "a state, and what loads it is a Files, which takes a folder"
        remedy = "Use what it was saved with"
    return errors.MismatchError(
        f"{key!r} in {loaded.found.path} is {what}. {remedy}, or leave it "
        f"out{loaded.request.verb.by('keys')}; nothing was loaded."
    )


IN_SHARDS = "in shards by a generator"


def without_names(what: str, verb: Verb, others: Sequence[str] = ()) -> Exception:
    """Return the error for a component whose leaves cannot be selected.

    Args:
      what: Name of the component, and how it was saved.
      verb: What the user called.
      others: Keys of components whose leaves can be selected.
    """
    remedy = f"Leave it out{verb.by('keys')}"
    if "keys" in verb.takes:
        remedy = f"Leave it out with keys=[{hints.listed(others, '...')}]"
    if "key" in verb.takes:
        remedy = "Load it with a Checkpoint, into what it was saved from"
    return errors.MismatchError(
        f"{what}, so its leaves have no names to select or compare them by. {remedy}; "
        f"nothing was loaded."
    )


# Leaves


def refuse_nothing(loaded: Loaded, saved: Mapping[str, Sequence[str]]) -> None:
    """Raise an error for components in which a pattern selects nothing.

    Args:
      loaded: Has the request.
      saved: The names of these components' leaves, by key.
    """
    plans = {key: loaded.plans[key] for key in saved if key in loaded.plans}
    lost = [x for key, plan in plans.items() for x in full_names(key, plan.unexpected)]
    path = loaded.found.path
    if lost:  # The pattern matched, but only leaves that the current state lacks.
        raise errors.MismatchError(
            f"No matched leaf of {path} is in the current state: "
            f"{', '.join(lost[:5])}. {remedies.renaming_hint(loaded)}; nothing was "
            f"loaded."
        )
    selection = loaded.selections[next(iter(saved))]
    if selection.regex is None:
        return
    what = f"regex={shown(selection.regex)} matches no leaf of {hints.listed(saved)}"
    names = [name for some in saved.values() for name in some]
    if not names:
        raise errors.MismatchError(
            f"{what} in {path}, where no leaf has a name: either there are none, or "
            f"all are in attributes of containers. Load it whole, without regex=; "
            f"nothing was loaded."
        )
    near = hints.listed(hints.nearest(remedies.text_of(selection.regex), names))
    raise errors.MismatchError(
        f"{what} in {path}. The nearest names in the save are {near}. "
        f"{_of_saved_key(loaded, selection.regex, saved)}"
        f"{_of_current(selection.regex, plans)}Correct the pattern, which must match "
        f"from the start of a name, with or without the key; nothing was loaded."
    )


def _of_saved_key(
    loaded: Loaded, regex: str, saved: Mapping[str, Sequence[str]]
) -> str:
    """Return advice if a pattern has the key in the save in place of ours, or ""."""
    for key, names in saved.items():
        theirs = loaded.keys[key]
        full = full_names(theirs, names) if theirs not in ("", key) else []
        if any(re.match(regex, name) for name in full):
            return f"The key in full names is the one here, {key!r}, not {theirs!r}. "
    return ""


def _of_current(regex: str, plans: Mapping[str, Plan]) -> str:
    """Return advice if a pattern matches only names in the current state, or ""."""
    for key, plan in plans.items():
        for name in plan.flat.names:
            if re.match(regex, name) or re.match(
                regex, saved_tree.full_name(key, name)
            ):
                return (
                    f"It matches {name!r} of the current state, and patterns match "
                    f"names in the save, which rename= maps to current ones. "
                )
    return ""


def refuse_misfits(loaded: Loaded) -> None:
    """Raise one error that lists everything that does not fit, if anything."""
    is_strict, plans = loaded.request.strict, loaded.plans.values()
    others = [*loaded.missing, *loaded.unexpected] if is_strict else []
    misplaced = sum(len(plan.misplaced) for plan in plans)
    if not others and not loaded.mismatched:
        return
    matching.refuse(
        str(loaded.found.path),
        loaded.mismatched,
        loaded.missing if is_strict else (),
        loaded.unexpected if is_strict else (),
        "Give it a sharding that divides its shape."
        if misplaced == len(loaded.mismatched) and not others
        else remedies.of(loaded, is_uneven=bool(others)),
    )


def no_state(key: str, error: Exception) -> Exception:
    """Return the error for selected leaves that do not make a state with the others."""
    return errors.MismatchError(
        f"The selected leaves of {key!r} do not make a valid state with the others: "
        f"{reason(error)}. Select more or fewer of them with another regex; nothing "
        f"was loaded."
    )


# Pickles. `by` says which arguments leave out a leaf.


def pickled(name: str, by: str) -> Exception:
    """Return the error for a leaf that is pickled."""
    return errors.PickleError(
        f"{name} was saved with pickle, and loading it could run any code, so it needs "
        f"allow_pickle=True. Pass that if you trust who wrote the save, or leave the "
        f"leaf out{by}."
    )


def not_unpickled(name: str, by: str, error: Exception) -> Exception:
    """Return the error for a leaf whose pickle cannot be read."""
    return errors.PickleError(
        f"{name} cannot be unpickled: {reason(error)}. Make its class importable, or "
        f"leave it out{by}."
    )


def unknown_function(name: str, by: str, path: str) -> Exception:
    """Return the error for a function that the current state does not hold."""
    return errors.PickleError(
        f"{name} is the function {path}, which is not in the component's current state "
        f"or was not found. Pass allow_pickle=True if you trust who wrote the save, or "
        f"leave the leaf out{by}."
    )


def no_skeleton(where: str, problem: str, otherwise: str = "") -> Exception:
    """Return the error for a value whose classes cannot be had.

    Args:
      where: Name of the component and the save.
      problem: What is wrong with its classes and static fields.
      otherwise: Another remedy than a template.
    """
    return errors.PickleError(
        f"{where} is a Value's, with classes or static fields {problem}. Give the "
        f"Value that loads it a template: Value(one_like_the_saved){otherwise}."
    )
