"""Takes the command line apart, calls the verb, and returns the exit status."""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import NoReturn

from .. import __version__
from . import completion
from .screen import BROKEN_PIPE, FAILED, INTERRUPTED, Screen, columns, say, wrapped
from .verbs import NAMES

_EPILOG = """examples:
  elementsckpt ls runs/walker      its saves, with metrics, the best, the latest
  elementsckpt diff runs/walker@best runs/walker    what changed since the best
  elementsckpt verify runs/walker  every byte of every save
  elementsckpt report runs/walker  a page about the run

A save is a folder, or an address: DIR@latest, DIR@best, DIR@STEP, DIR@#SEQUENCE or
DIR@pin:NAME, with ~N for N saves before it. A DIR alone means its newest save.
"""
# Arguments of functions, as their errors name them.
_OPTIONS = {"keys= or regex=": "-r", "regex=": "-r ", "format=": "--to "}
_COLLECT_AFTER = 50_000  # New objects.
_MOST_COLUMNS = 80  # Of help, which is harder to read if it is wider.


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are as those of the library: what, and the remedy."""

    def error(self, message: str) -> NoReturn:
        say(f"{self.prog}: {message}. See {self.prog} --help.")
        sys.exit(FAILED)


class _Help(argparse.HelpFormatter):
    """Help as wide as the terminal: paragraphs are wrapped, and lines of examples."""

    def __init__(self, prog: str) -> None:
        width = min(columns(sys.stdout), _MOST_COLUMNS)
        super().__init__(prog, max_help_position=min(24, width // 4), width=width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = [""]
        for line in text.split("\n"):
            if line and lines[-1] and line[0] != " " and lines[-1][0] != " ":
                lines[-1] += f" {line}"
            else:
                lines.append(line)
        return "\n".join(x for line in lines[1:] for x in wrapped(line, width))

    def format_help(self) -> str:
        lines = super().format_help().split("\n")
        return "\n".join(x for line in lines for x in wrapped(line, self._width))

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += self._indent_increment  # Of the verbs.


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Args:
      arguments: Those after the name of the program; of this process by default.

    Returns:
      The exit status: 0 fine, 1 something was found, 2 it failed, 130 interrupted, 141
      what reads its output has ended.
    """
    if sys.stderr is None:  # A program may be started without some streams.
        sys.stderr = io.StringIO()
    if sys.stdout is None:
        say("elementsckpt: cannot print: standard output is closed.")
        return FAILED
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _few_collections():
            status = _run(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except OSError as error:
        if not _is_of_output(error):
            raise
        _drop_output()
        say(f"elementsckpt: cannot print: {error.strerror}.")
        return FAILED


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """Look for garbage less often: what lists a thousand saves makes little of it."""
    before = gc.get_threshold()
    gc.set_threshold(_COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _run(arguments: Sequence[str] | None) -> int:
    line = os.environ.get(completion.VARIABLE)
    if line is not None and not (arguments or sys.argv[1:]):
        print("\n".join(completion.words(line, parser(NAMES))))
        return 0
    words = sys.argv[1:] if arguments is None else arguments
    # Only the verb that is called is imported, if there is one.
    top = parser([x for x in NAMES if words and x == words[0]] or NAMES)
    options = top.parse_args(arguments)
    if not hasattr(options, "verb"):
        top.print_help()
        return FAILED
    from ..errors import CheckpointError

    try:
        status: int = options.verb.run(options, Screen(is_json=options.json))
        return status
    except (CheckpointError, ValueError) as error:
        say(f"elementsckpt: {_with_options(str(error))}")
    return FAILED


def _with_options(text: str) -> str:
    """Return what a function says of its arguments, as options of a verb."""
    for name, option in _OPTIONS.items():
        text = re.sub(rf"(?<![\w/]){re.escape(name)}", option, text)
    return text


def parser(names: Iterable[str]) -> argparse.ArgumentParser:
    """Return the parser of the command line, with these verbs."""
    top = _Parser(
        prog="elementsckpt",
        description="Looks at the saves of a run, and tidies them up.",
        epilog=_EPILOG,
        formatter_class=_Help,
    )
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(title="verbs", metavar="VERB")
    for name in names:
        verb = importlib.import_module(f".verbs.{name}", __package__)
        _add(verbs, name, verb)
    return top


def _add(
    verbs: argparse._SubParsersAction[_Parser], name: str, verb: ModuleType
) -> None:
    text, _, rest = (verb.__doc__ or "").partition("\n")
    added = verbs.add_parser(
        name,
        help=text[:1].lower() + text[1:].rstrip("."),
        description=f"{text}\n{rest}".rstrip(),
        formatter_class=_Help,
    )
    verb.configure(added)
    added.add_argument("--json", action="store_true", help="print objects for programs")
    added.set_defaults(verb=verb)


def _is_of_output(error: OSError) -> bool:
    return error.filename is None and error.errno is not None


def _drop_output() -> None:
    """Close the output, so that the end of the process prints nothing more."""
    with contextlib.suppress(OSError):  # What is still to be printed.
        sys.stdout.close()
