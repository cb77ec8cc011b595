"""Ctrl-C between any two steps of the interpreter, and what must hold afterwards.

Python calls handlers of signals in the main thread, where the interpreter looks for
them: after most calls, at the start of functions, at the end of loops. `Interrupts` has
a signal come just before any of these.
"""

from __future__ import annotations

import _thread
import contextlib
import dis
import functools
import gc
import operator
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

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
        if frame.f_code in _OWN:
            self._is_pending = True
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
    stack = traceback.extract_stack(frame)
    return " > ".join(f"{Path(x.filename).name}:{x.lineno} {x.name}" for x in stack)


_OWN = {
    value.__code__ for value in vars(Interrupts).values() if hasattr(value, "__code__")
}


def descriptors():
    """Return the numbers that are open, with what they lead to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def settle():
    """Wait for the threads of the library, and let go of what nobody needs."""
    for thread in threading.enumerate():
        if thread.name == "elementsckpt" and thread.is_alive():
            thread.join()
    gc.collect()


def elsewhere(call):
    """Return what a call in another thread returns, which must end."""
    results = []

    def work():
        try:
            results.append((call(), None))
        except BaseException as error:
            results.append((None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert results, "it waits for ever for what another thread holds"
    ((value, error),) = results
    if error is not None:
        raise error
    return value
