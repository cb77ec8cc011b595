"""Proof that a run that was stopped and resumed equals a run that was never stopped.

A test needs functions that make the objects and train them, and one line:

    check_resume(make, step)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from ..components.rng import GlobalRNG
from ..errors import CheckpointError
from ..storage import disk
from ..user.arguments import shown
from . import fingerprints
from .runs import Prints, Record, Run, differing, generators, libraries

__all__ = ["ResumeError", "ResumeReport", "check_resume"]


def __dir__() -> list[str]:
    return __all__


Made = TypeVar("Made")


class ResumeError(CheckpointError, AssertionError):
    """A resumed run differs from one that was never stopped, or cannot be checked."""


class ResumeReport(Struct, frozen=True):
    """What was compared, bit for bit.

    Attributes:
      steps: After how many steps the resumed run was compared, besides the comparison
        right after loading.
      leaves: Number of leaves at the end.
    """

    steps: int
    leaves: int


def check_resume(
    make: Callable[[], Made], step: Callable[[Made], object], *, steps: int = 3
) -> ResumeReport:
    """Check that training goes on after a resume as if it had never been stopped.

    One run trains 2 x `steps` steps and is never saved. Another run trains half of
    them; new objects load its last save and train the other half. Both halves are saved
    to a temporary folder after each step, as a run may be. After loading, and after
    each step, all leaves that `save()` returns must be the same as in the first run,
    bit for bit. Saving and loading must not change a global generator.

    The resumed half runs with other states of the global generators of `random`, NumPy
    and torch, unless a registered `GlobalRNG` restores them. All other runs begin with
    the states at the call, which are restored at the end.

    Args:
      make: Makes new, equal objects that train, at each call: a `Checkpoint` with its
        components registered, a mapping of components by key, or a tuple with one of
        these and whatever else `step` needs.
      step: Trains one step with the result of `make`.
      steps: How many steps to train before the save, and after it. Choose enough steps
        that everything happens that training does.

    Raises:
      ResumeError: the runs differ. The message names the first leaf and step, and the
        cause: a component's `load()` forgets something; something is not in the save,
        such as an optimizer's state, a replay buffer or a generator; saving changes
        the run; or training is not deterministic by itself.
      Exception: what `make`, `step` and the components raise.
    """
    if type(steps) is not int or steps < 1:
        raise ValueError(f"steps={shown(steps)}: pass the number of steps, from 1 on.")
    for name, function in {"make": make, "step": step}.items():
        if not callable(function):
            raise ValueError(
                f"{name}={shown(function)}: pass a function, as in check_resume(make, "
                f"step)."
            )
    begin = GlobalRNG().save()
    try:
        with disk.scratch() as folder:
            try:
                return _Check(make, step, steps, begin, folder / "first").run()
            except ResumeError:
                if generators().keys() == fingerprints.take("", begin).keys():
                    raise
            # Training has imported torch or started CUDA, so the runs did not begin
            # with equal states of their generators.
            GlobalRNG().load(begin)
            begin = GlobalRNG().save()
            return _Check(make, step, steps, begin, folder / "second").run()
    finally:
        GlobalRNG().load(begin)


class _Check(Struct):
    """The runs, which are compared with the records of the straight run.

    Attributes:
      make: Makes the objects.
      step: Trains one step.
      half: Number of steps before the run is stopped, and after it.
      begin: States of the global generators with which a run begins.
      path: Directory for the saves.
      records: The record of the straight run at each step.
    """

    make: Callable[[], Any]
    step: Callable[[Any], object]
    half: int
    begin: Any
    path: Path
    records: list[Record] = []

    def run(self) -> ResumeReport:
        self.records = [run.record() for run in self._straight(2 * self.half)]
        self._require_change()
        self._compare_resumed(self._stop())
        return ResumeReport(self.half, len(self.records[-1].leaves))

    def _straight(self, count: int) -> Iterator[Run]:
        """Yield a run before its first step and after each step."""
        GlobalRNG().load(self.begin)
        run = Run(self.make)
        yield run
        for _ in range(count):
            self.step(run.made)
            yield run

    def _stop(self) -> Prints:
        """Train and save the first half; return the generators after the last save."""
        for at, run in enumerate(self._straight(self.half)):
            record = self._compare(at, run, _DISTURBED, "the run that saves")
            self._save(at, run)
        run.close()
        return record.generators

    def _compare_resumed(self, saved: Prints) -> None:
        run = Run(self.make)  # Draws from the generators that the stopped run left.
        moved = run.load(self.path, saved)
        loaded = self._compare(self.half, run, _INEXACT, "the resumed run")
        for at in range(self.half + 1, 2 * self.half + 1):
            self.step(run.made)
            self._compare(at, run, _INEXACT, "the resumed run", loaded)
            self._save(at, run)
        if moved:
            blamed = run.blame_load(self.path, saved, moved)
            raise ResumeError(_RESEEDED.format(blamed))
        run.close()

    def _save(self, at: int, run: Run) -> None:
        blamed = run.save(self.path)
        if blamed:
            raise ResumeError(_DRAWN.format(at, blamed))

    def _straight_again(self, count: int) -> Run:
        for at, run in enumerate(self._straight(count)):
            self._compare(at, run, _CHAOTIC)
        return run

    def _compare(
        self, at: int, run: Run, text: str, who: str = "", loaded: Record | None = None
    ) -> Record:
        """Return the record of a run; raise if it differs from the straight run's.

        Args:
          at: The step.
          run: The run.
          text: The message about a difference.
          who: Which run it is, if it has a checkpoint.
          loaded: The record right after loading, if there have been steps since.
        """
        record = run.record()
        names = differing(self.records[at].leaves, record.leaves)
        if names and not at:
            raise self._error(_UNEQUAL, at, names)
        if names:
            what = self._what(at, names[0], run, record, who) if who else ""
            hint = self._hint(at, names[0], loaded) if text is _INEXACT else ""
            raise self._error(text, at, names, what, hint)
        return record

    def _require_change(self) -> None:
        before, after = self.records[0].leaves, self.records[self.half].leaves
        if not differing(before, after):
            raise ResumeError(_IDLE.format(steps=self.half, leaves=len(after)))

    # Messages about differences

    def _error(self, text: str, at: int, names: list[str], *more: str) -> ResumeError:
        total = len({*self.records[at].leaves, *names})
        verb = "differs" if len(names) == 1 else "differ"
        found = f"{len(names)} of {total} leaves {verb}, first {names[0]}"
        when, after = f"At step {at}", at - self.half
        if text is _INEXACT:
            when = f"{when} ({after} after loading)" if after else "Right after loading"
        return ResumeError(text.format(*more, found=found, when=when, half=self.half))

    def _what(self, at: int, name: str, run: Run, record: Record, which: str) -> str:
        """Describe the difference; raise if it occurs without a checkpoint, too."""
        # Read first, as it may come from a global generator.
        found = run.leaf(name) if name in record.leaves else None
        straight = self._straight_again(at)
        if name not in self.records[at].leaves:
            return f"only {which} has it"
        if name not in record.leaves:
            return "only the straight run has it"
        return fingerprints.difference(straight.leaf(name), found)

    def _hint(self, at: int, name: str, loaded: Record | None) -> str:
        if loaded is None:
            return _FORGOTTEN.format(name.partition("/")[0])
        middle, now = self.records[self.half].generators, self.records[at].generators
        drawn, lost = differing(middle, now), differing(middle, loaded.generators)
        blamed = libraries({*drawn} & {*lost})
        return _UNSAVED + (_GLOBAL.format(blamed) if blamed else "")


_INEXACT = (
    "The run that was resumed at step {half} differs from the straight one. {when}, "
    "{found}: {0}. {1}"
)
_DISTURBED = (
    "Saving changes the run: one that saves after each step differs from the straight "
    "one. {when}, {found}: {0}. Let save() return the state and leave it unchanged; "
    "what it draws, clears or counts belongs to the training."
)
_DRAWN = (
    "Saving changes the run, as global generators are a part of it: after step {0}, "
    "{1}. Let save(), and the methods that pickle the state, draw from a generator of "
    "their own and seed no global one."
)
_RESEEDED = (
    "Loading leaves global generators in states that no run had: {0}. Register an "
    "elementsckpt.GlobalRNG(), which is loaded last and restores them, or let load() "
    "draw from a generator of its own and seed no global one."
)
_FORGOTTEN = (
    "The save has what save() returned, so load() of {!r} does not take all of it, or "
    "the load() of another component undoes it."
)
_UNSAVED = (
    "Right after loading no leaf differed, so training uses state that is not in the "
    "save. Is all of it registered, and returned by save(): the optimizer's state, the "
    "replay buffer, each random generator, those of environments too?"
)
_GLOBAL = (
    " Training draws from the global generators of {}, which nothing restores: "
    "register an elementsckpt.GlobalRNG()."
)
_IDLE = (
    "{steps} steps change none of the {leaves} registered leaves, so there is nothing "
    "to compare. Let step() train the objects that make() returned, and take more "
    "steps if it needs them."
)
_UNEQUAL = (
    "make() does not return equal objects each time, so runs cannot be compared: "
    "before the first step {found}. Return new objects, and seed the generators that "
    "they are made with."
)
_CHAOTIC = (
    "Training is not deterministic by itself, so resuming cannot be checked: two runs "
    "without a checkpoint are not the same. {when}, {found}. Seed each generator, let "
    "nothing depend on time, on the order of threads or on what outlives a run, and "
    "ask accelerators for deterministic kernels."
)
