"""Proof that a run that was stopped and resumed is the run that never was.

A test needs the functions that make the objects and train them, and one line:

    check_resume(make, step)
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Any, TypeVar

import numpy as np
from msgspec import Struct

from . import components, disk, fingerprints
from .checkpoint import Checkpoint
from .errors import CheckpointError
from .files import Folder
from .fingerprints import Fingerprint
from .rng import GlobalRNG

__all__ = ["ResumeError", "ResumeReport", "check_resume"]


def __dir__() -> list[str]:
    return __all__


Made = TypeVar("Made")
_SEED = 0x5EED_0FF1CE  # With which no program is likely to begin.


class ResumeError(CheckpointError, AssertionError):
    """A resumed run is not the run that was never stopped, or nothing can be said."""


class ResumeReport(Struct, frozen=True):
    """What was compared, bit for bit.

    Attributes:
      steps: How many steps the resumed run was compared after, besides right after
        loading.
      leaves: How many leaves there were in the end.
    """

    steps: int
    leaves: int


def check_resume(
    make: Callable[[], Made], step: Callable[[Made], object], *, steps: int = 3
) -> ResumeReport:
    """Check that training goes on after a resume as if it had never been stopped.

    One run trains 2 x `steps` steps. Another trains half of them and is saved to a
    temporary folder; new objects load that and train the other half. After loading, and
    after each step, all leaves of what `save()` returns must be the same as in the
    first run, bit for bit.

    The resumed half runs with other states of the global generators of `random`, NumPy
    and torch, unless a registered `GlobalRNG` restores them. All other runs begin with
    the states at the call, which are put back in the end.

    Args:
      make: Makes the objects that train, each time anew and equal: a `Checkpoint` with
        its components registered, a mapping of components by key, or a tuple with one
        of these and whatever else `step` needs.
      step: Trains one step with what `make` returned.
      steps: How many steps to train before the save, and after it. Take as many as it
        needs until all that training does has happened.

    Raises:
      ResumeError: the runs differ. The message names the first leaf and step, and tells
        what a component's `load()` forgets from what is not in the save, such as an
        optimizer's state, a replay buffer or a generator, and both from training that
        is not deterministic by itself.
      Exception: what `make`, `step` and the components raise.
    """
    if type(steps) is not int or steps < 1:
        raise ValueError(f"steps={steps!r}: pass the number of steps, from 1 on.")
    begin = GlobalRNG().save()
    try:
        with disk.scratch() as folder:
            try:
                return _Check(make, step, steps, begin, folder / "first").run()
            except ResumeError:
                if _names(GlobalRNG().save()) == _names(begin):
                    raise
            # Training imported torch or started CUDA, so the runs before did not begin
            # with equal states of their generators.
            GlobalRNG().load(begin)
            begin = GlobalRNG().save()
            return _Check(make, step, steps, begin, folder / "second").run()
    finally:
        GlobalRNG().load(begin)


def _names(state: Any) -> set[str]:
    return {name for name, _ in fingerprints.leaves_of("", state)}


class _Record(Struct):
    """A run at one of its steps.

    Attributes:
      leaves: Fingerprints of what its components save, by name.
      generators: Fingerprints of the global generators' states.
    """

    leaves: dict[str, Fingerprint]
    generators: dict[str, Fingerprint]


class _Run:
    """Objects that train, and the checkpoint that they are registered with."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.made = make()
        self.checkpoint = _checkpoint_in(self.made)

    def record(self) -> _Record:
        leaves: dict[str, Fingerprint] = {}
        for key, state in self._states():
            leaves |= fingerprints.take(key, state)
        return _Record(leaves, fingerprints.take("", GlobalRNG().save()))

    def leaf(self, name: str) -> Any:
        named = (fingerprints.leaves_of(*state) for state in self._states())
        return next(
            value for leaves in named for found, value in leaves if found == name
        )

    def _states(self) -> Iterator[tuple[str, Any]]:
        for key in self.checkpoint:
            component = components.component(key, getattr(self.checkpoint, key))
            state = component.save()
            yield key, _written(state) if isinstance(state, Folder) else state


def _written(folder: Folder) -> dict[str, bytes]:
    """Return the files that a component writes, by their paths."""
    with disk.scratch() as path:
        if folder.write is not None:
            folder.write(path)
        found = (name for name, status in disk.below(path) if S_ISREG(status.st_mode))
        return {name: bytes(disk.read_file(path / name)) for name in found}


def _checkpoint_in(made: Any) -> Checkpoint:
    parts = made if isinstance(made, tuple) else (made,)
    for part in parts:
        if isinstance(part, Checkpoint):
            return part
    for part in parts:
        if isinstance(part, Mapping):
            checkpoint = Checkpoint()
            for key, value in part.items():
                setattr(checkpoint, key, value)
            return checkpoint
    raise ValueError(
        f"make() returned an object of type {type(made).__name__}: return a "
        f"Checkpoint, a mapping of components by key, or a tuple with one of these."
    )


class _Check:
    """The runs, compared with the records of the straight one.

    Args:
      make: Makes the objects.
      step: Trains one step.
      half: Number of steps before the save, and of those after it.
      begin: States of the global generators with which a run begins.
      path: Where the save goes.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        step: Callable[[Any], object],
        half: int,
        begin: Any,
        path: Path,
    ) -> None:
        self._make = make
        self._step = step
        self._half = half
        self._begin = begin
        self._path = path
        self._records: list[_Record] = []

    def run(self) -> ResumeReport:
        self._records = [run.record() for run in self._straight(2 * self._half)]
        self._require_change()
        stopped = self._straight_again(self._half)
        stopped.checkpoint.save(self._path)
        stopped.checkpoint.wait()
        del stopped
        self._compare_resumed()
        return ResumeReport(self._half, len(self._records[-1].leaves))

    def _straight(self, count: int) -> Iterator[_Run]:
        """Yield a run before its first step and after each."""
        GlobalRNG().load(self._begin)
        run = _Run(self._make)
        yield run
        for _ in range(count):
            self._step(run.made)
            yield run

    def _straight_again(self, count: int) -> _Run:
        for at, run in enumerate(self._straight(count)):
            names = self._differing(at, run.record())
            if names:
                text = _CHAOTIC if at else _UNEQUAL
                raise ResumeError(self._message(text, at, names))
        return run

    def _compare_resumed(self) -> None:
        run = _Run(self._make)  # Which draws from where the stopped run has ended.
        _scramble()
        run.checkpoint.load(self._path, allow_pickle=True)
        loaded = record = run.record()
        for at in range(self._half, 2 * self._half + 1):
            if at > self._half:
                self._step(run.made)
                record = run.record()
            names = self._differing(at, record)
            if names:
                what = self._what(at, names[0], run, record)
                hint = self._hint(at, names[0], loaded)
                raise ResumeError(self._message(_INEXACT, at, names, what, hint))

    def _differing(self, at: int, record: _Record) -> list[str]:
        return _differing(self._records[at].leaves, record.leaves)

    def _require_change(self) -> None:
        before, after = self._records[0].leaves, self._records[self._half].leaves
        if not _differing(before, after):
            raise ResumeError(_IDLE.format(steps=self._half, leaves=len(after)))

    # What is said about a difference

    def _message(self, text: str, at: int, names: list[str], *more: str) -> str:
        total = len({*self._records[at].leaves, *names})
        verb = "differs" if len(names) == 1 else "differ"
        found = f"{len(names)} of {total} leaves {verb}, first {names[0]}"
        when, after = f"At step {at}", at - self._half
        if text is _INEXACT:
            when = f"{when} ({after} after loading)" if after else "Right after loading"
        return text.format(*more, found=found, when=when, half=self._half)

    def _what(self, at: int, name: str, run: _Run, record: _Record) -> str:
        """Describe the difference; raise if it is there without a checkpoint, too."""
        # Taken first, as it may be of a global generator.
        resumed = run.leaf(name) if name in record.leaves else None
        straight = self._straight_again(at)
        if name not in self._records[at].leaves:
            return "only the resumed run has it"
        if name not in record.leaves:
            return "only the straight run has it"
        return fingerprints.difference(straight.leaf(name), resumed)

    def _hint(self, at: int, name: str, loaded: _Record) -> str:
        if at == self._half:
            return _FORGOTTEN.format(name.partition("/")[0])
        middle, now = self._records[self._half].generators, self._records[at].generators
        drawn, lost = _differing(middle, now), _differing(middle, loaded.generators)
        libraries = sorted({x.partition("/")[0] for x in {*drawn} & {*lost}})
        return _UNSAVED + (_GLOBAL.format(", ".join(libraries)) if libraries else "")


_INEXACT = (
    "The run that was resumed at step {half} is not the straight one. {when}, {found}: "
    "{0}. {1}"
)
_FORGOTTEN = (
    "The save has what save() returned, so load() of {!r} does not take all of it, or "
    "the load() of another component undoes it."
)
_UNSAVED = (
    "Right after loading nothing did, so training uses what is not in the save. Is "
    "all of it registered, and returned by save(): the optimizer's state, the replay "
    "buffer, each random generator, those of environments too?"
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


def _differing(
    first: dict[str, Fingerprint], second: dict[str, Fingerprint]
) -> list[str]:
    return [
        name
        for name in {**first, **second}
        if name not in first
        or name not in second
        or not first[name].matches(second[name])
    ]


def _scramble() -> None:
    """Set the global generators to states that no other run has had."""
    random.seed(_SEED)
    generators: Any = np.random
    bits = type(generators.get_bit_generator())
    generators.set_state(bits(_SEED).state)
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "manual_seed"):
        torch.manual_seed(_SEED)
