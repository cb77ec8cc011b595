"""Values that stay what they are while the run goes on."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from ..format.digests import digest
from ..format.manifest import Component, Manifest
from ..user.notices import Notices

_STEPS = 3  # At fewer, a value may just be slow to change.


class _Still(Struct):
    """A value: its identity, its content, and at which steps it was saved last."""

    identity: int
    content: str
    steps: list[int] = []


class Still:
    """Tells of values that are saved again and again, as if the new ones were lost."""

    def __init__(self) -> None:
        self._last: dict[str, _Still] = {}

    def saved(
        self, identities: Mapping[str, int], saved: Manifest, notices: Notices
    ) -> None:
        """Take note of a save, and warn of what is still the same.

        Args:
          identities: What the values were, by key.
          saved: The manifest.
          notices: What was said of the run before.
        """
        if saved.step is None:
            return
        for component in saved.components:
            if component.key in identities:
                self._saved(identities[component.key], component, saved.step, notices)

    def _saved(
        self, identity: int, component: Component, step: int, notices: Notices
    ) -> None:
        key, content = component.key, _digest(component)
        last = self._last.get(key)
        if last is None or (last.identity, last.content) != (identity, content):
            last = self._last[key] = _Still(identity, content)
        if not last.steps or step > last.steps[-1]:
            last.steps = [*last.steps[1 - _STEPS :], step]
        if len(last.steps) < _STEPS:
            notices.settle(("still", key))
            return
        notices.warn(
            ("still", key),
            "The value of %r has been the same object at steps %s and %s. If training "
            "makes new values, assign each to its .value, or it is not saved; if the "
            "value is constant, nothing is wrong.",
            key,
            ", ".join(map(str, last.steps[:-1])),
            step,
        )


def _digest(component: Component) -> str:
    """Return a digest of all that a component's state holds."""
    parts = [bytes(tree) for tree in component.trees]
    parts += [block.digest.encode() for block in component.blocks]
    return digest(b"\n".join(parts))
