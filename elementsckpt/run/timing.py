"""Whether it is time for a run to save, and to end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..components.protocols import Component
from ..components.value import Value
from ..errors import ComponentError, reason
from .schedule import Every
from .signals import Watch


class Timing:
    """What a checkpoint knows of time: steps, a schedule, signals, what was saved when.

    Args:
      every: The schedule, or None.
      step: As for `Checkpoint`.
      components: Where a component named `step` may be, by key.
    """

    def __init__(
        self, every: Every | None, step: Any, components: Mapping[str, Component]
    ) -> None:
        self._every = every
        self._given_step = step
        self._components = components
        self._watch: Watch | None = None
        self._is_safe = False  # All was saved since the run was preempted.
        self._step: int | None = None  # Of the last save.

    def current_step(self) -> int | None:
        """Return the step of the run now, or None if it has none.

        Raises:
          ComponentError: what the user gave is not a number.
        """
        if self._given_step is not None:
            given = self._given_step
            step = given() if callable(given) else given
            try:
                return int(step)
            except (TypeError, ValueError, OverflowError) as error:
                raise ComponentError(
                    f"The step of this Checkpoint is no number: {reason(error)}. Pass "
                    f"as step= what int() accepts, such as a Counter."
                ) from error
        if "step" in self._components:
            value = self._components["step"].value
            try:
                return int(value.value if isinstance(value, Value) else value)
            except (TypeError, ValueError, OverflowError):
                return None
        return None

    def watch(self, signals: Iterable[int]) -> None:
        """Begin to notice signals, instead of those of before."""
        begun = Watch(signals)
        before, self._watch = self._watch, begun
        try:
            begun.begin()
        except BaseException:
            begun.stop()
            self._watch = before
            raise
        if before is not None:
            before.stop()

    def unwatch(self) -> None:
        """Leave signals alone; those that came are not forgotten."""
        if self._watch is not None:
            self._watch.stop()

    @property
    def is_over(self) -> bool:
        """Whether a watched signal came, or the deadline is past."""
        if self._watch is not None and self._watch.received is not None:
            return True
        return self._every is not None and self._every.is_past_deadline

    @property
    def is_urgent(self) -> bool:
        """Whether the run is to end, and not all was saved since that is known."""
        return self.is_over and not self._is_safe

    def is_due(self, *, final: bool) -> bool:
        """Return whether to save at the current step.

        Args:
          final: Whether all that counts is that this step was not saved.

        Raises:
          ComponentError: as for `current_step`.
          ValueError: there is no schedule, or it needs a step.
        """
        step = self.current_step()
        if final:
            return step is None or step != self._step
        if self._every is None:
            raise ValueError(
                "save_if_due() needs to know when: pass every=Every(steps=1000), for "
                "example, to Checkpoint()."
            )
        return self._every.is_due(step) or self.is_urgent

    def saved(self, step: int | None, seconds: float, *, was_over: bool) -> None:
        """Take note of a save of everything.

        Args:
          step: Its step.
          seconds: For how long it kept the caller.
          was_over: Whether `is_over` when it began.
        """
        self._is_safe = was_over
        self._step = step
        if self._every is not None:
            self._every.mark(step, seconds)

    def failed(self, seconds: float) -> None:
        """Take note of a save that was not made; `seconds` is what it cost."""
        self._is_safe = False
        self._step = None
        if self._every is not None:
            self._every.unmark(seconds)

    def resumed(self, schedule: Any, step: int | None) -> None:
        """Go on as after the save that has this schedule and step."""
        self._step = step
        if self._every is not None:
            saved = schedule if type(schedule) is dict else {}
            self._every.load({**saved, "step": step})

    def schedule(self, step: int | None) -> Any:
        """Return the schedule's state for the manifest of a save of this step."""
        return None if self._every is None else self._every.save(step)
