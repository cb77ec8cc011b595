"""Print a line for each new save of a directory.

The first line is about the newest save that there is; then none is left out. It waits
for a directory that is not there yet. With --exec, a command runs for each save, with
its path as the last argument; it is split as a shell would, but no shell runs. Ctrl-C
ends it.

Examples:
  elementsckpt watch runs/walker
  elementsckpt watch runs/walker --exec 'python evaluate.py --save'
"""

from __future__ import annotations

import argparse

from ...errors import one_line
from .. import shown
from ..screen import FAILED, Screen, say
from .ls import listed_object


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("--exec", metavar="CMD", help="run this for each save")


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Watch a directory."""
    from ...inspection import following

    command = _split(options.exec) if options.exec is not None else []
    here = following.checked(options.directory)
    if not here.saves():
        say(f"elementsckpt: waiting for the first save in {one_line(str(here.path))}.")
    for info in following.watch(here):
        if screen.is_json:
            screen.json(listed_object(options.directory, info))
        else:
            screen.print(shown.line(info))
        if command and not _run([*command, str(info.path)]):
            return FAILED
    return 0


def _split(command: str) -> list[str]:
    import shlex

    try:
        found = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"--exec {command!r}: {error}") from error
    if not found:
        raise ValueError("--exec is empty: pass a command, or leave it out")
    return found


def _run(command: list[str]) -> bool:
    """Run a command, and say how it ended; False if it cannot run at all."""
    import subprocess

    try:
        status = subprocess.run(command, check=False).returncode
    except OSError as error:
        say(f"elementsckpt: cannot run {one_line(command[0])}: {error.strerror}.")
        return False
    if status:
        say(f"elementsckpt: {one_line(command[0])} ended with {status}.")
    return True
