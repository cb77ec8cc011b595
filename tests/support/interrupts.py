"""Ctrl-C at each place where Python handles it, and what must hold afterwards.

Python calls handlers of signals in the main thread, where the interpreter looks for
them: after most calls, at the start of functions, at the end of loops. `Interrupts` has
a signal come just before any of these, and `Attack` does so to the verbs of a
checkpoint.
"""

from __future__ import annotations

import _thread
import contextlib
import dis
import functools
import gc
import operator
import os
import shutil
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import elementsckpt
from elementsckpt import Checkpoint
from elementsckpt.directory import listing
from elementsckpt.run import signals

from support import library_threads
from support.boxes import Box, Stream
from support.faults import Policy, copy_with_links, files_of

# Before other instructions nobody looks, or just where one of these has just looked.
_LOOKS = ("CALL", "JUMP", "POP_JUMP", "RESUME", "PRECALL", "SEND", "FOR_ITER")
_CODES = frozenset(code for name, code in dis.opmap.items() if name.startswith(_LOOKS))


class _AtReturn(functools.partial):
    """Is called by C code alone, when the function that holds it has returned."""

    __del__ = property(operator.attrgetter("__call__"))


class Interrupts:
    """Raises KeyboardInterrupt in this thread, at chosen places of what it does.

    Args:
      places: Numbers of the places, ascending, as far as they are there.
      modules: Names of the modules in which they are; all by default.
      guard: A file. From the first interrupt on it is opened whenever the number of a
        descriptor becomes free, as a program would that goes on.

    Attributes:
      count: How many places have been passed.
      raised: How many interrupts were raised.
      where: Files, functions and lines in which that was, as text.
      lost: Exceptions that nobody got, as they were raised where Python drops them.
    """

    def __init__(self, *places, modules=None, guard=None):
        self.count = 0
        self.raised = 0
        self.where = []
        self.lost = []
        self._places = places
        self._modules = modules
        self._is_pending = False  # It came while this object looked.
        self._guard = guard
        self._guards = []
        self._top = -1
        self._opcodes = {}

    def __enter__(self):
        self._handler = signal.signal(signal.SIGINT, self._handle)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._note
        sys._getframe().f_trace_opcodes = True  # Or Python 3.12 never does.
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_):
        sys.settrace(None)
        sys.unraisablehook = self._hook
        signal.signal(signal.SIGINT, self._handler)

    def _note(self, unraisable):
        self.lost.append(f"{unraisable.exc_value!r} in {unraisable.object!r}")

    def _handle(self, number, frame):
        if frame.f_code.co_filename == __file__:
            self._is_pending = frame.f_code in _OWN  # Else it is over.
            return
        self.raised += 1
        self.where.append(_where(frame))
        raise KeyboardInterrupt

    def _enter(self, frame, event, _):
        if frame.f_code in _OWN:
            return None
        if self._modules and frame.f_globals.get("__name__") not in self._modules:
            return None
        frame.f_trace = self._step
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if self._is_pending:
            self._is_pending = False
            again = _AtReturn(_thread.interrupt_main)  # noqa: F841
        return self._step

    def _step(self, frame, event, _):
        comes = self._is_pending
        if event == "opcode":
            if self._opcode(frame) in _CODES:
                comes = comes or self.count in self._places
                self.count += 1
            if self.raised and self._guard is not None:
                self._occupy()
        if comes:
            self._is_pending = False
            signal_ = _AtReturn(_thread.interrupt_main)  # noqa: F841
        return self._step

    def _opcode(self, frame):
        code = self._opcodes.get(frame.f_code)
        if code is None:
            code = self._opcodes[frame.f_code] = frame.f_code.co_code
        return code[frame.f_lasti]

    def _occupy(self):
        """Open the guard as often as there are numbers that were open before."""
        while True:
            fd = os.open(self._guard, os.O_RDONLY)
            if fd >= self._top:
                self._top = fd
                os.close(fd)
                return
            self._guards.append(fd)

    @property
    def is_lost_by_python(self):
        """Whether all came in its own code for weak references, which drops errors."""
        return all("_weakrefset.py:" in x or "weakref.py:" in x for x in self.where)

    @property
    def is_in_seam(self):
        """Whether a file may have lost its number, as in Python 3.10 alone."""
        is_old = sys.version_info < (3, 11)
        return is_old and any(x.endswith(" syscall") for x in self.where)

    def closed(self):
        """Close the guards; return how many somebody else has closed already."""
        expected = os.stat(self._guard).st_ino
        count = 0
        for fd in self._guards:
            try:
                count += os.fstat(fd).st_ino != expected
            except OSError:
                count += 1
            else:
                os.close(fd)
        self._guards = []
        return count


def _where(frame):
    names = [
        f"{Path(x.filename).name}:{x.lineno} {x.name}"
        for x in traceback.extract_stack(frame)
    ]
    first = max(n for n, name in enumerate(names) if name.startswith("interrupts.py"))
    return " > ".join(names[first:])


_OWN = {
    value.__code__ for value in vars(Interrupts).values() if hasattr(value, "__code__")
}


# What must hold

# Those that open, lock, start threads or hand over, and what these rely on.
HOLDING = frozenset(
    {"threading", "contextlib", "elementsckpt.checkpoint"}
    | {
        f"elementsckpt.{package}.{name}"
        for package, modules in {
            "storage": "disk descriptors files folders drafts removal local segments "
            "component_files file_view reader",
            "directory": "listing",
            "saving": "save component component_writer writer segment_writer arenas "
            "reuse history",
            "loading": "component candidates decoding loaded open_save load",
            "system": "threads forks pace",
            "run": "saver background writer_lock provenance signals timing",
        }.items()
        for name in modules.split()
    }
)
_SIGNALS = signal.SIGTERM, signal.SIGUSR1
OLD, NEW, LAST = 2, 7, 9  # Values of the save before, of the one attacked, of the next.


class Verb(NamedTuple):
    """What is interrupted.

    Attributes:
      call: Does it, given a checkpoint and a path that is free.
      prepare: Is called with the checkpoint before.
      is_background: Whether the checkpoint saves in the background.
      saves: Whether a save may come of it.
    """

    call: Any
    prepare: Any = None
    is_background: bool = False
    saves: bool = False


def _stage(cp, _):
    with cp.staging("policy") as staged:
        cp.policy.write(staged)


def _watch_and_save(cp):
    cp.watch_signals(_SIGNALS)
    cp.save()


VERBS = {
    "save": Verb(lambda cp, _: cp.save(), saves=True),
    "save in the background": Verb(
        lambda cp, _: cp.save(), is_background=True, saves=True
    ),
    "save after a save in the background": Verb(
        lambda cp, _: cp.save(), Checkpoint.save, is_background=True, saves=True
    ),
    "save to a path": Verb(lambda cp, path: cp.save(path)),
    "staging": Verb(_stage, saves=True),
    "save_if_due": Verb(lambda cp, _: cp.save_if_due(final=True), saves=True),
    "load": Verb(lambda cp, _: cp.load()),
    "load, mapped": Verb(lambda cp, _: cp.load(mmap=True)),
    "load after a save in the background": Verb(
        lambda cp, _: cp.load(), Checkpoint.save, is_background=True, saves=True
    ),
    "load_or_save": Verb(lambda cp, _: cp.load_or_save()),
    "read": Verb(lambda cp, _: elementsckpt.read(cp.latest().parent, mmap=False)),
    "wait": Verb(lambda cp, _: cp.wait(), Checkpoint.save, True, saves=True),
    "close": Verb(lambda cp, _: cp.close(), _watch_and_save, True, saves=True),
    "prune": Verb(lambda cp, _: cp.prune()),
    "watch_signals": Verb(lambda cp, _: cp.watch_signals(_SIGNALS)),
}


class Attack:
    """A verb that is interrupted at places of one's choice, each time anew.

    Args:
      root: A folder that is there, in memory if possible.
      name: Of the verb.
      modules: As for `Interrupts`.
    """

    def __init__(self, root, name, *, modules=None):
        self._root = Path(root)
        self._verb = VERBS[name]
        self._modules = modules
        self._template = self._root / "template"
        for value in (1, OLD):
            checkpoint(self._template, value, keep=None).save()
        self._guard = self._root / "guard"
        self._guard.touch()
        watch = signals.Watch([])
        watch.begin()  # What that opens stays open.
        watch.stop()

    def run(self, *places):
        """Interrupt the verb and check what is left; return how many places it has."""
        directory = self._root / "ckpt"
        copy_with_links(self._template, directory)
        before = descriptors(), [signal.getsignal(x) for x in _SIGNALS]
        cp = checkpoint(directory, NEW, background=self._verb.is_background)
        if self._verb.prepare:
            self._verb.prepare(cp)
        interrupts = Interrupts(*places, modules=self._modules, guard=self._guard)
        error = self._interrupt(interrupts, cp)
        own, is_once = self._root / "own", len(places) < 2
        if not is_once:
            error = None
            gc.collect()  # Of what tracing has made keep itself.
        try:
            if is_once and not interrupts.is_in_seam and own.exists():
                assert elementsckpt.exists(own), "it left a trace"
            self._check(cp, directory)
            cp.close()
            del cp, error  # Which was kept until here, as notebooks keep the last one.
            library_threads.join()
            assert interrupts.closed() == 0, "it closed what is of somebody else"
            left = [x for x in descriptors().items() if x not in before[0].items()]
            assert left == [] or interrupts.is_in_seam
            assert [signal.getsignal(x) for x in _SIGNALS] == before[1]
        except BaseException as error:
            where = "".join(f"\n  {x}" for x in interrupts.where)
            raise AssertionError(f"Interrupted at {places}:{where}") from error
        shutil.rmtree(directory)
        shutil.rmtree(own, ignore_errors=True)
        return interrupts.count

    def _interrupt(self, interrupts, cp):
        try:
            with interrupts:
                self._verb.call(cp, self._root / "own")
        except KeyboardInterrupt as error:
            return error
        assert not interrupts.raised or interrupts.is_lost_by_python, interrupts.where
        return None

    def _check(self, cp, directory):
        library_threads.join()
        others = listing.Directory(directory)
        others.sweep(others.look())  # As another process would.
        names = [x for x in os.listdir(directory) if x[0] == "." and x != ".latest"]
        assert names == [], "a draft cannot be swept"
        possible = {OLD, NEW} if self._verb.saves else {OLD}
        found = loaded(directory)
        assert found in possible
        for info in checkpoint(directory, 0).saves():
            assert loaded(info.path) in {1, *possible}
        _in_another_thread(cp.load)
        assert value_of(cp) in possible
        parent = cp.latest()
        become(cp, LAST)
        _in_another_thread(cp.save)
        _in_another_thread(cp.wait)
        assert loaded(directory) == LAST
        saves = checkpoint(directory, 0).saves()
        assert [x.path for x in cp.saves()] == [x.path for x in saves]
        assert [x.lineage.parent for x in saves] == [str(parent)], "not all is pruned"
        assert set(os.listdir(directory)) == {saves[0].path.name, "latest"}
        names = {str(x.relative_to(saves[0].path)) for x in saves[0].path.rglob("*")}
        assert names == files_of(saves[0].path)


# A checkpoint whose components tell its value


def checkpoint(directory, value, **options):
    """Return a checkpoint of components whose states follow from a value."""
    cp = Checkpoint(directory, step=value, **options)
    cp.agent, cp.replay, cp.policy = Box(), Stream(), Policy({})
    become(cp, value)
    return cp


def become(cp, value):
    """Give the components the states of another value."""
    for key, state in _states(value).items():
        getattr(cp, key).state = state


def _states(value):
    table = np.arange(600.0)
    table[3] = value
    return {
        "agent": {"value": value, "table": table, "same": np.arange(500)},
        "replay": [np.full(100, value + n) for n in range(2)],
        "policy": {"config": b"%d" % value, "deep/same": b"same"},
    }


def value_of(cp):
    """Return the value whose states the components have, all of them."""
    value = cp.agent.state["value"]
    for key, state in _states(value).items():
        np.testing.assert_equal(getattr(cp, key).state, state)
    return value


def loaded(path):
    """Return the value that another process finds there."""
    cp = checkpoint(None, 0)
    cp.load(path)
    return value_of(cp)


def descriptors():
    """Return the numbers that are open, with what they lead to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def _in_another_thread(call):
    """Make a call that must not wait for what this thread may have kept locked."""
    errors = ["it waits for ever"]

    def work():
        try:
            call()
            errors.clear()
        except BaseException as error:
            errors[:] = [error]

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert errors == []
