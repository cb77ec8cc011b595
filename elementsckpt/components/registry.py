"""Attributes that are components."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import ComponentError, MissingKeyError
from ..user import arguments, attributes
from ..user.hints import listed
from .files import Files

if TYPE_CHECKING:
    from .component import Component

# Names in other libraries, and what this library has in their place.
_CALLED_HERE = {
    **dict.fromkeys(
        ["restore", "restore_latest", "restore_checkpoint", "load_checkpoint"],
        "load(), with path= or step= for an older save",
    ),
    **dict.fromkeys(
        ["restore_or_initialize", "restore_or_save", "maybe_restore"],
        "load_or_save()",
    ),
    **dict.fromkeys(
        ["save_checkpoint", "save_async", "async_save"],
        "save(), which Checkpoint(background=True) lets return early",
    ),
    **dict.fromkeys(
        ["wait_until_finished", "check_for_errors", "is_saving_in_progress"],
        "wait()",
    ),
    "latest_step": "saves()[-1].step",
    "all_steps": "[save.step for save in saves()]",
    "best_step": "elementsckpt.info(best()).step",
    "latest_checkpoint": "latest()",
    "best_checkpoint": "best()",
    "checkpoints": "saves()",
    "should_save": "save_if_due(), and Checkpoint(every=...) for when it is due",
    "reached_preemption": "watch_signals() once, and then preempted",
    "metadata": "elementsckpt.info(path).metadata",
    "item_metadata": "elementsckpt.info(path).components",
    "metrics": "elementsckpt.info(path).metrics",
    "register": "cp.name = object",
}


class Registry:
    """Holds components as attributes, and refuses other objects.

    A subclass lists its other attributes in `_OWN`, and makes components.
    """

    _OWN: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._components: dict[str, Component] = {}

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "A Checkpoint can be neither pickled nor copied, as it holds what belongs "
            "to one process. Where another process or a copy needs one, make "
            "Checkpoint(directory, write=False) there; an object that holds one, such "
            "as a trainer, leaves it out in its __getstate__(); to evaluate a copy of "
            "a component use copy_of()."
        )

    def __setattr__(self, key: str, value: Any) -> None:
        if key in self._OWN or key == "_components":
            object.__setattr__(self, key, value)
            return
        if key.startswith("_") or hasattr(type(self), key):
            raise ComponentError(
                f"Cannot register {key!r}: names that begin with an underscore and "
                f"names of methods are taken. Choose another attribute name."
            )
        if not key.isidentifier():
            raise ComponentError(
                f"Cannot register {key!r}: a key must be an identifier. Choose "
                f"another, or use the functions in elementsckpt.checkpoint, which take "
                f"any text."
            )
        self._components[key] = self._component(key, value)

    def _component(self, key: str, value: Any) -> Component:
        raise NotImplementedError

    def __getattr__(self, key: str) -> Any:
        # copy and pickle also call this before __init__ has run.
        registered = self.__dict__.get("_components", {})
        if key in registered:
            return registered[key].value
        raise AttributeError(_unknown(key, registered))

    def __delattr__(self, key: str) -> None:
        if key not in self._components:
            raise AttributeError(_unknown(key, self._components))
        del self._components[key]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key in self._components

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._components))

    def __len__(self) -> int:
        return len(self._components)

    def __bool__(self) -> bool:
        return True  # Also without components.

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._components})

    def _require_components(self) -> None:
        """Refuse to save or to resume a run without any component."""
        if not self._components:
            raise ComponentError(
                "Nothing is registered. Assign the components first, such as "
                "cp.agent = agent; what is registered later is not loaded."
            )

    def _select(self, keys: Iterable[str] | None) -> dict[str, Component]:
        if keys is None:
            return dict(self._components)
        wanted = arguments.keys(keys)
        missing = [key for key in wanted if key not in self._components]
        if missing:
            raise MissingKeyError(
                f"Not registered: {', '.join(map(arguments.shown, missing))}. "
                f"Registered are: {listed(self._components, 'none')}. "
                f"{self._turned(keys) or _REGISTER}"
            )
        return {key: self._components[key] for key in wanted}

    def _staged_only(self) -> list[str]:
        """Return the keys whose files the program writes in `Checkpoint.staging`."""
        values = {key: component.value for key, component in self._components.items()}
        return [
            key
            for key, x in values.items()
            if attributes.is_instance(x, Files) and x.is_staged_only
        ]

    def _require_stageable(self, keys: Sequence[str]) -> None:
        """Refuse to stage components without files, or without all that need it."""
        if not all(isinstance(key, str) for key in keys):
            raise ValueError(
                f"staging({', '.join(map(arguments.shown, keys))}): pass keys one by "
                f"one, as in staging('policy', 'critic')."
            )
        selected = self._select(keys) if keys else {}
        if not selected or not all(x.target.takes_folder for x in selected.values()):
            raise ComponentError(
                f"Cannot stage {listed(keys)}: name components that have files, such "
                f"as cp.policy = elementsckpt.Files(load=function)."
            )
        others = [key for key in self._staged_only() if key not in keys]
        if others:
            raise ComponentError(
                f"The files of {listed(others)} are written in such a block, too: "
                f"name all of these, with staging({listed([*keys, *others])})."
            )

    def _turned(self, keys: Iterable[str]) -> str:
        """Return advice for a mapping in the wrong direction, or ""."""
        pairs = keys.items() if isinstance(keys, Mapping) else ()
        turned = {theirs: ours for ours, theirs in pairs if theirs in self}
        if not turned or len(turned) < len(pairs):
            return ""
        return f"Pass keys={turned}: it goes from keys here to those in the save."


_REGISTER = "Register the rest first, or leave it out of keys=."


def _unknown(key: str, registered: Iterable[str]) -> str:
    found = (
        f"No component {key!r} is registered; there are: {listed(registered, 'none')}."
    )
    here = _CALLED_HERE.get(key)
    return found if here is None else f"{found} If no component is meant, use {here}."
