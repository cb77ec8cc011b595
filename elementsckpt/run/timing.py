"""Decides whether it is time for a run to save, and to end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ComponentError, reason
from ..user.arguments import shown
from .schedule import Every
from .signals import Watch

if TYPE_CHECKING:
    from ..components.component import Component


class Timing:
    """The step, the schedule and the signals of a run, and its last save.

    Args:
      every: The schedule, or None.
      step: As for `Checkpoint`.
      components: All components by key; one named `step` can have the step.

    Raises:
      ValueError: `every` is something else.
    """

    def __init__(
        self, every: Every | None, step: Any, components: Mapping[str, Component]
    ) -> None:
        if every is not None and not isinstance(every, Every):
            raise ValueError(
                f"every={shown(every)}: pass elementsckpt.Every(steps=1000), for "
                f"example."
            )
        self._every = every
        self._given_step = step
        self._components = components
        self._watch: Watch | None = None
        self._is_safe = False  # A whole save was made after the preemption.
        self._step: int | None = None  # Step of the last whole save.

    def current_step(self) -> int | None:
        """Return the step of the run now, or None if it has none.

        Raises:
          ComponentError: the `step` of the Checkpoint is not a number.
        """
        given = self._given_step
        if given is not None:
            step = given() if callable(given) else given
            try:
                return int(step)
            except (TypeError, ValueError, OverflowError) as error:
                raise ComponentError(
                    f"The step of this Checkpoint is not a number: {reason(error)}. "
                    f"Pass as step= what int() accepts, such as a Counter."
                ) from error
        if "step" in self._components:
            with contextlib.suppress(TypeError, ValueError, OverflowError):
                return int(self._components["step"].content)
        return None

    def watch(self, signals: Iterable[int]) -> None:
        """Watch these signals instead of earlier ones."""
        begun = Watch(signals)
        try:
            begun.begin()
        except BaseException:
            begun.stop()
            raise
        before, self._watch = self._watch, begun
        if before is not None:
            before.stop()

    def unwatch(self) -> None:
        """Stop watching signals; one that came is still known."""
        if self._watch is not None:
            self._watch.stop()

    @property
    def is_over(self) -> bool:
        """Whether a watched signal came, or the deadline has passed."""
        is_told = self._watch is not None and self._watch.received is not None
        return is_told or (self._every is not None and self._every.is_past_deadline)

    @property
    def is_urgent(self) -> bool:
        """Whether the run is to end, and no whole save was made since."""
        return self.is_over and not self._is_safe

    def is_due(self, *, final: bool) -> bool:
        """Return whether to save at the current step.

        Args:
          final: Whether a save is due unless this step was saved.

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
        """Note that a whole save was made.

        Args:
          step: The step of the save.
          seconds: How long the caller waited for it.
          was_over: What `is_over` was when it began.
        """
        self._is_safe = was_over
        self._step = step
        if self._every is not None:
            self._every.mark(step, seconds)

    def failed(self, seconds: float) -> None:
        """Note that a save failed, for which the caller waited so many seconds."""
        self._is_safe = False
        self._step = None
        if self._every is not None:
            self._every.unmark(seconds)

    def resumed(self, schedule: Any, step: int | None) -> None:
        """Go on as after the save with this schedule and step."""
        self._step = step
        if self._every is not None:
            saved = schedule if type(schedule) is dict else {}
            self._every.load({**saved, "step": step})

    def schedule(self, step: int | None) -> Any:
        """Return the schedule's state for the manifest of a save of this step."""
        return None if self._every is None else self._every.save(step)
