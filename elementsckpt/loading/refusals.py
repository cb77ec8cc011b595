"""Why a load is refused: the errors, in the order in which a load can meet them.

What to do about leaves that do not fit is made by `remedies`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ..directory.listing import SaveEntry
from ..errors import (
    CheckpointError,
    DamagedError,
    MismatchError,
    MissingKeyError,
    PickleError,
    ReadError,
    reason,
)
from ..state import matching, tree
from ..state.matching import Plan
from ..user import hints
from ..user.arguments import shown
from . import remedies
from .loaded import Loaded, full_names
from .request import Request
from .verbs import Verb

# The save


@contextlib.contextmanager
def damage(where: str) -> Iterator[None]:
    """Turn errors from decoding what a file says into a DamagedError."""
    try:
        yield
    except CheckpointError:
        raise
    except ImportError as error:
        raise ReadError(
            f"{where} needs what is not installed here ({reason(error)}). Install it, "
            f"or leave it out with keys= or regex=; of tensors, elementsckpt.read "
            f"gives NumPy arrays."
        ) from error
    except MemoryError as error:
        raise ReadError(
            f"{where} does not fit into memory. Load less of it at a time, or map its "
            f"arrays with mmap=True."
        ) from error
    except Exception as error:  # Whatever NumPy, torch and classes make of nonsense.
        found = f"{type(error).__name__}: {reason(error)}"
        raise DamagedError(f"{where} is not a valid save ({found}).") from error


def all_damaged(
    saves: Sequence[SaveEntry], damaged: Sequence[DamagedError]
) -> Exception:
    """Return the error for saves that are all damaged, each for its reason."""
    if len(damaged) == 1:
        return DamagedError(
            f"{damaged[0]} Load another save by its path, or restore this one from a "
            f"copy."
        )
    reasons = zip(saves, damaged, strict=True)
    lines = [f"\n  {found.path.name}: {error}" for found, error in reasons]
    return DamagedError(
        f"All {len(damaged)} saves in {saves[0].path.parent} are damaged:"
        f"{''.join(lines)}\nRestore one from a copy, or start in another directory."
    )


def always_removed(attempts: int, directory: Path) -> Exception:
    """Return the error for saves that are removed faster than they can be read."""
    return ReadError(
        f"{attempts} times a save in {directory} was removed while it was read: "
        f"another process saves there, and faster than this one reads. Keep more saves "
        f"with keep=."
    )


# Components


def missing_keys(
    path: Path, request: Request, there: Iterable[str], counterparts: Mapping[str, str]
) -> Exception:
    """Return the error for components that the save lacks.

    Args:
      path: The save.
      request: What is asked of it.
      there: The keys that it has.
      counterparts: Our keys of such components to what seems to be the same.
    """
    here, keys = list(there), request.keys or {}
    missing = [key for key in keys.values() if key not in here]
    return MissingKeyError(
        f"{path} has no {', '.join(map(shown, missing))}. It has "
        f"{', '.join(map(repr, here)) or 'components'}. Nothing was loaded. "
        f"{request.verb.lacking(keys, here, counterparts)}"
    )


def folder_for_state(key: str, path: Path, verb: Verb) -> Exception:
    """Return the error for a folder, where what loads it takes a state."""
    return MismatchError(
        f"{key!r} in {path} is a folder of files, and what loads it takes a state. Use "
        f"elementsckpt.Files(load=function), or leave it out{verb.by('keys')}; nothing "
        f"was loaded."
    )


def state_for_folder(key: str, path: Path, verb: Verb) -> Exception:
    """Return the error for a state, where what loads it takes a folder."""
    return MismatchError(
        f"{key!r} in {path} is a state, and what loads it is a Files, which takes a "
        f"folder. Use what it was saved with, or leave it out{verb.by('keys')}; "
        f"nothing was loaded."
    )


IN_SHARDS = "in shards by a generator"


def without_names(what: str, verb: Verb, others: Sequence[str] = ()) -> Exception:
    """Return the error for a component whose leaves cannot be selected.

    Args:
      what: Which it is, and how it was saved.
      verb: What the user called.
      others: Keys of components whose leaves can be selected.
    """
    remedy = f"Leave it out{verb.by('keys')}"
    if "keys" in verb.takes:
        remedy = f"Leave it out with keys=[{', '.join(map(repr, others)) or '...'}]"
    if "key" in verb.takes:
        remedy = "Load it with a Checkpoint, into what it was saved from"
    return MismatchError(
        f"{what}, so its leaves have no names to select or compare them by. {remedy}; "
        f"nothing was loaded."
    )


# Leaves


def nothing_selected(
    loaded: Loaded, saved: Mapping[str, Sequence[str]]
) -> Exception | None:
    """Return the error for components in which nothing is selected, if it is one.

    Args:
      loaded: What was asked for.
      saved: The names of these components' leaves, by key.
    """
    plans = {key: loaded.plans[key] for key in saved if key in loaded.plans}
    lost = [x for key, plan in plans.items() for x in full_names(key, plan.unexpected)]
    path = loaded.found.path
    if lost:  # The pattern matched, but nothing that is here now.
        return MismatchError(
            f"No matched leaf of {path} is in the current state: "
            f"{', '.join(lost[:5])}. {remedies.renaming_hint(loaded)}; nothing was "
            f"loaded."
        )
    selection = loaded.selections[next(iter(saved))]
    if selection.regex is None:
        return None
    keys = ", ".join(map(repr, saved))
    what = f"regex={shown(selection.regex)} matches no leaf of {keys} in {path}"
    names = [name for some in saved.values() for name in some]
    if not names:
        return MismatchError(
            f"{what}, where none has a name: leaves in attributes of containers have "
            f"none, and there may be no others. Load it whole, without regex=; nothing "
            f"was loaded."
        )
    text = remedies.text_of(selection.regex)
    near = ", ".join(map(repr, hints.nearest(text, names)))
    return MismatchError(
        f"{what}. The nearest names in the save are {near}. "
        f"{_of_saved_key(loaded, selection.regex, saved)}"
        f"{_of_current(selection.regex, plans)}Correct the pattern, which must match "
        f"from the start of a name, with or without the key; nothing was loaded."
    )


def _of_saved_key(
    loaded: Loaded, regex: str, saved: Mapping[str, Sequence[str]]
) -> str:
    """Say that a pattern is one with the key in the save, if it is."""
    for key, names in saved.items():
        theirs = loaded.keys[key]
        full = full_names(theirs, names) if theirs not in ("", key) else []
        if any(re.match(regex, name) for name in full):
            return f"The key in full names is the one here, {key!r}, not {theirs!r}. "
    return ""


def _of_current(regex: str, plans: Mapping[str, Plan]) -> str:
    """Say that a pattern is one for the current state, if it is."""
    for key, plan in plans.items():
        for name in plan.flat.names:
            if re.match(regex, name) or re.match(regex, tree.full_name(key, name)):
                return (
                    f"It matches {name!r} of the current state, and patterns are for "
                    f"names in the save, which rename= maps to current ones. "
                )
    return ""


def refuse_misfits(loaded: Loaded) -> None:
    """Raise one error with everything that does not fit, if anything does not."""
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
    """Return the error for loaded leaves that make no state with the others."""
    return MismatchError(
        f"The leaves of {key!r} that are selected make no state with those that are "
        f"not: {reason(error)}. Select more or fewer of them with another regex; "
        f"nothing was loaded."
    )


# Pickles. `by` says with which arguments a leaf can be left out.


def pickled(name: str, by: str) -> Exception:
    """Return the error for a leaf that is pickled."""
    return PickleError(
        f"{name} was saved with pickle, and loading it could run any code, so it needs "
        f"allow_pickle=True. Pass that if you trust who wrote the save, or leave the "
        f"leaf out{by}."
    )


def not_unpickled(name: str, by: str, error: Exception) -> Exception:
    """Return the error for a leaf whose pickle cannot be read."""
    return PickleError(
        f"{name} cannot be unpickled: {reason(error)}. Make its class importable, or "
        f"leave it out{by}."
    )


def unknown_function(name: str, by: str, path: str) -> Exception:
    """Return the error for a function that the current state does not hold."""
    return PickleError(
        f"{name} is the function {path}, which is not in the component's current state "
        f"or was not found. Pass allow_pickle=True if you trust who wrote the save, or "
        f"leave the leaf out{by}."
    )


_GIVE_TEMPLATE = "Give the Value that loads it a template: Value(one_like_the_saved)"


def skeleton_lost(where: str) -> Exception:
    """Return the error for a value that was saved without what is not in its leaves."""
    return PickleError(f"{_value(where)} that could not be pickled. {_GIVE_TEMPLATE}.")


def skeleton_pickled(where: str) -> Exception:
    """Return the error for a value whose classes may not be unpickled."""
    return PickleError(
        f"{_value(where)} that are pickled, and loading them could run any code. "
        f"{_GIVE_TEMPLATE}, or pass allow_pickle=True if you trust who wrote the save."
    )


def skeleton_not_unpickled(where: str, error: Exception) -> Exception:
    """Return the error for a value whose classes cannot be unpickled."""
    return PickleError(
        f"{_value(where)} that cannot be unpickled: {reason(error)}. {_GIVE_TEMPLATE}."
    )


def _value(where: str) -> str:
    return f"{where} is a Value's, with classes or static fields"
