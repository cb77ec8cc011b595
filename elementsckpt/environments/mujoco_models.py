"""MuJoCo's models, which programs change: masses, friction, terrain, goals, textures.

A model is saved as it was when it was first seen, which costs nothing in later saves as
it is the same bytes, and by name what has changed since. Of what is large and hardly
ever changed, such as textures and meshes, there is only a digest until it changes.
"""

from __future__ import annotations

import json
import logging
import operator
import re
import weakref
from typing import Any

import numpy as np
from msgspec import Struct

from ..format.digests import digest
from ..format.sizes import DEFAULT
from .families import Unfit

_logger = logging.getLogger("elementsckpt")
_ASSETS = re.compile("tex_|mesh_|skin_|bvh_|oct_")
# What the compiler derives, and programs that change a model leave as it is.
_DERIVED = re.compile(
    "body_subtreemass|.*_invweight0|dof_M0|tendon_length0|actuator_(acc|length)0"
    "|geom_(rbound|aabb)"
)
# All other integers say which thing belongs to which: MuJoCo trusts them.
_SETTABLE = re.compile(
    ".*(contype|conaffinity|condim|priority|group|matid|castshadow|limited|mode)|(opt|vis)[.].*"
)
# What many tasks place at each reset, such as goals.
_PLACED = re.compile("(body|geom|site|cam|light)_(pos|quat|dir|size|rgba)|hfield_data")
# Sizes of memory, in which versions of MuJoCo differ.
_MEMORY = ("nbuffer", "narena")
_names: dict[type, _Names] = {}


class _Names(Struct, frozen=True):
    """What a model holds: the same for all models of a version of MuJoCo.

    Attributes:
      arrays: Names of arrays of numbers.
      structs: Names of structs, such as "opt", and those of their numbers.
      assets: Names of arrays that are large and hardly ever changed.
      sizes: Names of sizes, which tell models apart.
      numbers: Names of arrays of numbers, and of numbers in structs.
      known: These, and those of assets.
    """

    arrays: list[str]
    structs: dict[str, list[str]]
    assets: list[str]
    sizes: list[str]
    numbers: list[str]
    known: frozenset[str]


class Seen(Struct, frozen=True):
    """A model as it was when it was first seen.

    Attributes:
      about: The model's sizes, which arrays the numbers are, and digests of assets.
      numbers: All numbers that are not of assets, one array after the other.
      packed: Both as an array.
    """

    about: dict[str, Any]
    numbers: bytes
    packed: Any


# A model that lives is the one that was seen, and MuJoCo makes one object of each.
_seen: weakref.WeakKeyDictionary[Any, Seen] = weakref.WeakKeyDictionary()


def save(model: Any) -> dict[str, Any]:
    """Return a model as it was first seen, and what has changed since."""
    seen = see(model)
    changed = {name: np.array(array) for name, array in _changed(model, seen).items()}
    return {"first": seen.packed, "changed": changed}


def check(model: Any, data: Any) -> None:
    """Refuse what was saved of another model.

    A model of the same structure whose numbers are others may be of another XML, or it
    was changed before it was first seen. Some numbers no program changes, so if these
    differ, it is another XML.

    Raises:
      Unfit: it is.
    """
    (about, numbers), seen = _unpack(data["first"]), see(model)
    _compare_sizes(about["sizes"], _sizes(model))
    is_alike = about == seen.about and numbers == seen.numbers
    saved = data["changed"] if is_alike else _arrays(data)
    first = _split(seen.numbers, seen.about) if saved else {}
    for name, array in saved.items():
        _require(model, name, array)
    others = [x for x in saved if x in first and _differ(saved[x], first[x])]
    assets = {x: digest(y) for x, y in _assets(model) if x not in data["changed"]}
    certain = [x for x, y in assets.items() if about["digests"].get(x, y) != y]
    unchanged = [x for x in others if x not in data["changed"]]
    certain += [x for x in unchanged if _DERIVED.fullmatch(x)]
    certain += [x for x in others if _is_structure(x, saved[x])]
    certain += [x for x in data["changed"] if _is_asset_of_indices(x, saved)]
    if certain:
        raise Unfit(
            f"another MuJoCo model was saved, which differs from the one here in "
            f"{_listed(certain)}"
        )
    told = [x for x in unchanged if not _PLACED.fullmatch(x)]
    if told:
        _logger.warning(_OTHER_NUMBERS, _listed(told))


def load(model: Any, data: Any) -> None:
    """Make a model what it was."""
    about, numbers = _unpack(data["first"])
    is_alike = about == see(model).about and not data["changed"]
    if not is_alike or numbers != b"".join(_numbers(model)):
        for name, array in _arrays(data).items():
            _put(model, name, array)


def see(model: Any) -> Seen:
    """Return a model as it was when it was first seen, which is now at the latest."""
    if model not in _seen:
        names, numbers = _names_of(model).numbers, _numbers(model)
        about = {
            "sizes": _sizes(model),
            "arrays": {
                name: [array.dtype.str, *array.shape]
                for name, array in zip(names, numbers, strict=True)
            },
            "digests": {name: digest(array) for name, array in _assets(model)},
        }
        content = b"".join(numbers)
        _seen[model] = Seen(about, content, _pack(about, content))
    return _seen[model]


def _arrays(data: Any) -> dict[str, Any]:
    """Return the arrays that were saved."""
    about, numbers = _unpack(data["first"])
    return {**_split(numbers, about), **data["changed"]}


def _changed(model: Any, seen: Seen) -> dict[str, Any]:
    changed = {}
    now = b"".join(_numbers(model))
    if now != seen.numbers:
        first, here = _split(seen.numbers, seen.about), _split(now, seen.about)
        changed = {x: y for x, y in here.items() if _differ(first[x], y)}
    for name, array in _assets(model):
        if digest(array) != seen.about["digests"][name]:
            changed[name] = array
    return changed


_OTHER_NUMBERS = (
    "A MuJoCo model is loaded as it was saved, and it differs from the one that is "
    "here in %s, which the program had not changed since Environment(env) saw the "
    "model: its XML is another one, or the program changes it before that."
)


def _compare_sizes(saved: dict[str, int], live: dict[str, int]) -> None:
    others = [x for x in saved if saved[x] != live.get(x, saved[x])]
    sizes = [x for x in others if x != "signature"][:3]
    if sizes:
        there = ", ".join(f"{x}={saved[x]}" for x in sizes)
        here = ", ".join(f"{x}={live[x]}" for x in sizes)
        raise Unfit(f"another MuJoCo model was saved, with {there}; here it has {here}")
    if others:
        raise Unfit(
            "another MuJoCo model was saved, of the same size: bodies, or their names, "
            "are others"
        )


def _require(model: Any, name: str, array: Any) -> None:
    """Refuse an array that does not fit, and numbers that MuJoCo would not survive."""
    if name not in _names_of(model).known:
        return  # Other versions of MuJoCo have other arrays.
    owner, last = _owner(model, name)
    live = np.asarray(getattr(owner, last))
    if live.shape != array.shape or live.dtype != array.dtype:
        raise Unfit(
            f"another MuJoCo model was saved, whose {name} has the shape "
            f"{list(array.shape)}; here it has {list(live.shape)}"
        )
    if name.endswith("condim") and not np.isin(array, (1, 3, 4, 6)).all():
        raise ValueError(f"{name} of no contact")
    if name.endswith("matid") and not ((array >= -1) & (array < model.nmat)).all():
        raise ValueError(f"{name} of no material")
    if array.dtype == np.int64 and not (np.abs(array) < 2**31).all():
        raise ValueError(f"{name} that is too large")


def _is_structure(name: str, array: Any) -> bool:
    """Return whether an array is of integers that programs do not change."""
    return array.dtype.kind == "i" and not _SETTABLE.fullmatch(name)


def _is_asset_of_indices(name: str, saved: Any) -> bool:
    return bool(_ASSETS.match(name)) and saved[name].dtype.kind == "i"


def _differ(one: Any, other: Any) -> bool:
    return bool(one.tobytes() != other.tobytes())


def _listed(names: list[str]) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    return ", ".join(shown[:3]) + more


# The arrays of a model


def _names_of(model: Any) -> _Names:
    cls = type(model)
    if cls not in _names:
        found = {x: getattr(model, x) for x in dir(model) if not x.startswith("_")}
        arrays = [x for x, y in found.items() if isinstance(y, np.ndarray)]
        visual = [f"vis.{x}" for x in dir(model.vis) if x[0].islower()]
        structs = {path: _numbers_in(model, path) for path in ["opt", "stat", *visual]}
        plain = [x for x in arrays if not _ASSETS.match(x)]
        assets = [x for x in arrays if _ASSETS.match(x)]
        numbers = [*plain, *(f"{x}.{y}" for x, own in structs.items() for y in own)]
        _names[cls] = _Names(
            plain,
            structs,
            assets,
            [x for x, y in found.items() if type(y) is int and x not in _MEMORY],
            numbers,
            frozenset([*numbers, *assets]),
        )
    return _names[cls]


def _numbers_in(model: Any, path: str) -> list[str]:
    struct = operator.attrgetter(path)(model)
    return [
        x
        for x in dir(struct)
        if not x.startswith("_")
        and isinstance(getattr(struct, x), (np.ndarray, int, float))
    ]


def _numbers(model: Any) -> list[Any]:
    """Return the arrays of numbers, and the numbers in structs as arrays."""
    names = _names_of(model)
    found = [getattr(model, name) for name in names.arrays]
    for path, inside in names.structs.items():
        struct = operator.attrgetter(path)(model)
        found += [np.asarray(getattr(struct, name)) for name in inside]
    return found


def _assets(model: Any) -> list[tuple[str, Any]]:
    found = [(name, getattr(model, name)) for name in _names_of(model).assets]
    return [(name, array) for name, array in found if array.size]


def _sizes(model: Any) -> dict[str, int]:
    return {name: getattr(model, name) for name in _names_of(model).sizes}


def _put(model: Any, name: str, array: Any) -> None:
    if name not in _names_of(model).known:
        return
    owner, last = _owner(model, name)
    live = getattr(owner, last, None)
    if isinstance(live, np.ndarray):
        live[...] = array
    elif live is not None and live != array:
        setattr(owner, last, array.item())


def _owner(model: Any, name: str) -> tuple[Any, str]:
    path, _, last = name.rpartition(".")
    return (operator.attrgetter(path)(model) if path else model), last


def _pack(about: dict[str, Any], numbers: bytes) -> Any:
    """Return both as an array that is a block of its own, which later saves reuse."""
    text = json.dumps(about, separators=(",", ":")).encode()
    lengths = np.array([len(text), len(numbers)], "<u8").tobytes()
    packed = b"".join([lengths, text, numbers])
    return np.frombuffer(packed.ljust(DEFAULT.small, b"\0"), np.uint8)


def _unpack(packed: Any) -> tuple[Any, bytes]:
    content = packed.tobytes()
    length, size = np.frombuffer(content[:16], "<u8").tolist()
    start = 16 + length
    return json.loads(content[16:start]), content[start : start + size]


def _split(numbers: Any, about: Any) -> dict[str, Any]:
    """Return the arrays that numbers are, by name, as views."""
    found, start = {}, 0
    for name, (dtype, *shape) in about["arrays"].items():
        found[name] = np.ndarray(shape, dtype, numbers, start)
        start += found[name].nbytes
    return found
