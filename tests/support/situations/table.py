"""The table of situations, and what functions need to be put into it."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from elementsckpt.storage import disk

from support.boxes import make

CHECK = " Check the path, or make a save there first."
TAKEN = " Choose another path or remove it first; it was not touched."
NOTHING = "; nothing was loaded."


class Situation(NamedTuple):
    """What to do, the class of the error, and its message."""

    steps: Any
    error: type[Exception]
    message: str


ALL: dict[str, Situation] = {}


def says(error, *message):
    """Add a function to the table, with the error that it ends with."""

    def add(steps):
        ALL[steps.__name__] = Situation(steps, error, "".join(message))
        return steps

    return add


def refuse(monkeypatch, call, number, name=""):
    """Have one system call fail on paths that contain a name."""

    def syscall(function, *args):
        if function is call and name in str(args[0]):
            raise OSError(number, os.strerror(number))
        return function(*args)

    monkeypatch.setattr(disk, "syscall", syscall)


def refused(error, *message):
    """Add a situation that needs no setting up; its name is that of the function."""

    def add(call):
        @says(error, *message)
        def steps(tmp, _):
            cp = make(tmp, 1)
            yield
            call(tmp, cp)

        ALL[call.__name__] = ALL.pop("steps")
        return call

    return add


def failing(error):
    def fail(*_):
        raise error

    return fail


def fail(text):
    raise RuntimeError(text)
