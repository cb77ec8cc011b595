"""What a row is made of: cases, which measure once, and targets."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from . import raw
from .peers import Peer
from .states import State, same

Sample = dict[str, float]  # What was measured: {"ms": 12.5, "MB written": 20.0}.
PHASE = "phase "  # Start of the names of measures that are a part of "ms".
Case = Callable[[Path], Sample]  # Measures once; may write to the empty folder.


class Target(NamedTuple):
    """`of` is at most `at_most` times `to`, or, without `to`, at most `at_most`.

    Attributes:
      of, to: Names of cases.
      at_most: The limit.
      measure: What is compared.
      why: Shown where the target is missed: what takes so long, and what was tried.
    """

    of: str
    to: str | None
    at_most: float
    measure: str = "ms"
    why: str = ""


class Row(NamedTuple):
    """One piece of work, and the ways to do it.

    Attributes:
      title: The work, or on a curve the size of it.
      note: What to know before comparing.
      cases: The ways; None stands for a library that is not installed.
      targets: What the design demands.
      curve: The work, if the row is one size of several.
      size: The number of it.
    """

    title: str
    note: str
    cases: dict[str, Case | None]
    targets: Sequence[Target] = ()
    curve: str = ""
    size: float = 0


class Setting(NamedTuple):
    """What rows are made of: peers, an empty folder, a divisor of sizes."""

    peers: dict[str, Peer | None]
    folder: Path
    divisor: int

    @property
    def ours(self) -> Peer:
        """The one that cannot be missing."""
        peer = self.peers["elementsckpt"]
        assert peer is not None
        return peer

    def saves(self, state: State, *names: str) -> dict[str, Case | None]:
        """Return a case for the raw limit, and one for each peer."""
        cases: dict[str, Case | None] = {"raw": timed(partial(raw.write, state))}
        for name in names:
            peer = self.peers[name]
            cases[name] = peer and timed(partial(peer.save, state))
        return cases

    def loads(
        self, state: State, *names: str, before: Callable[[Path], object] = id
    ) -> dict[str, Case | None]:
        """Save in each way, and return the cases that load it.

        Args:
          state: What is saved.
          names: The peers; the raw limit comes by itself.
          before: Called with the saved folder each time, before the clock starts.
        """
        where = self.folder / "raw"
        where.mkdir()
        raw.write(state, where)
        ways: dict[str, Callable[[], State] | None] = {
            "raw": partial(raw.read, state, where)
        }
        for name in names:
            peer = self.peers[name]
            ways[name] = peer and partial(peer.load, self.saved(state, name))
        return {
            name: way and loading(way, state, partial(before, self.folder / name))
            for name, way in ways.items()
        }

    def saved(self, state: State, name: str) -> Path:
        """Save with one peer, unless that has been done, and return where."""
        where = self.folder / name
        if not where.exists():
            where.mkdir()
            peer = self.peers[name]
            assert peer is not None
            peer.save(state, where)
        return where

    def lacking(self, ability: str, names: Iterable[str]) -> list[str]:
        """Return those whose `ability` is not "yes", and what it is."""
        found = [(name, getattr(self.peers[name], ability, "yes")) for name in names]
        texts = [f"{name} ({does})" for name, does in found if does != "yes"]
        return [text.removesuffix(" (no)") for text in texts]

    def not_durable(self, names: Iterable[str]) -> str:
        """Return a sentence about the peers that do not sync."""
        found = self.lacking("syncs", names)
        return f"Not durable: {', '.join(found)}." if found else ""

    def not_verified(self, names: Iterable[str]) -> str:
        """Return a sentence about the peers that do not verify."""
        return f"Not verified: {', '.join(['raw', *self.lacking('verifies', names)])}."


def settle() -> None:
    """Leave nothing for the next call to pay for.

    Writes dirty pages to the disk, collects garbage, and gives free memory back to
    the system, so that what is loaded gets fresh memory.
    """
    os.sync()
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", id)(0)  # Of glibc only.


def milliseconds(call: Callable[[], Any]) -> float:
    """Return how long a call took."""
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def timed(call: Callable[[Path], Any]) -> Case:
    """Return the case that measures a call."""

    def case(folder: Path) -> Sample:
        settle()
        start = time.perf_counter()
        report = call(folder)
        seconds = time.perf_counter() - start
        return {"ms": 1000 * seconds, **phases(report)}

    return case


def phases(report: Any) -> Sample:
    """Return the phases of a report of elementsckpt; none of other objects."""
    found: dict[str, float] = getattr(report, "phases", {})
    return {PHASE + name: 1000 * seconds for name, seconds in found.items()}


def loading(
    call: Callable[[], State], expected: State, before: Callable[[], object] = tuple
) -> Case:
    """Return the case of a load that must give the arrays of `expected`."""

    def case(_: Path) -> Sample:
        before()
        settle()
        start = time.perf_counter()
        loaded = call()
        seconds = time.perf_counter() - start
        assert same(loaded, expected)
        return {"ms": 1000 * seconds}

    return case
