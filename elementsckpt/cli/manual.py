"""Prints the manual of the command line, made of what `--help` prints."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from . import completion, main
from .verbs import NAMES

_START = """# The command line

Made by `make manual` from the help of the program; do not edit it.

`elementsckpt VERB ...` and `python -m elementsckpt VERB ...` are the same.

A save is a folder, or an address: `DIR@latest`, `DIR@best`, `DIR@STEP`,
`DIR@#SEQUENCE` or `DIR@pin:NAME`, with `~N` for N saves before it. A `DIR` alone means
its newest save, to `verify` all of its saves, and to `rm` nothing.

A REGEX matches from the start of names of leaves in their component, as `params/` does;
if it matches none of the save, from the start of full names, as `agent/params/` does.
`.*bias` matches anywhere.

`--json` prints an object on each line, with `"schema": 1`; NaN and infinities are
text. Tables are as wide as the terminal, or as `COLUMNS` says that it is, and in a pipe
as wide as they need to be. `NO_COLOR`, `FORCE_COLOR` and `TERM=dumb` are obeyed.

The examples work in this order on the run that is made in
[Looking at saves](looking.md), in its folder.

| exit status | |
|---|---|
| 0 | fine |
| 1 | something was found: differences, damage, values that are not finite |
| 2 | bad usage, not found, damaged or unreadable, or nothing can be printed |
| 130 | interrupted |
| 141 | what reads its output has ended |
"""


def page() -> str:
    """Return the manual as Markdown."""
    verbs = completion.verbs_of(main.parser(NAMES))
    return "\n".join([_START, *(_section(*item) for item in verbs.items())])


def _section(name: str, parser: argparse.ArgumentParser) -> str:
    text, _, examples = (parser.description or "").partition("\nExamples:\n")
    rows = list(_rows(parser))
    lines = [f"## {name}", "", "```sh", _usage(name, parser), "```", "", text.strip()]
    if rows:
        lines += ["", "| option | |", "|---|---|", *rows]
    if examples:
        commands = [line.removeprefix("  ") for line in examples.rstrip().split("\n")]
        lines += ["", "```sh", *commands, "```"]
    return "\n".join([*lines, ""])


def _usage(name: str, parser: argparse.ArgumentParser) -> str:
    words = ["elementsckpt", name]
    for action in parser._actions:
        if not action.option_strings:
            words.append(_value(action) + ("..." if action.nargs == "+" else ""))
    options = [x for x in parser._actions if x.option_strings and x.dest != "help"]
    words += [f"[{_option(x, x.option_strings[0])}]" for x in options]
    return " ".join(words)


def _rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if action.option_strings and action.dest not in ("help", "json"):
            names = ", ".join(f"`{_option(action, x)}`" for x in action.option_strings)
            yield f"| {names} | {action.help} |".replace("max|min", "max\\|min")


def _option(action: argparse.Action, name: str) -> str:
    return name if action.nargs == 0 else f"{name} {_value(action)}"


def _value(action: argparse.Action) -> str:
    if action.choices and not action.metavar:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())


if __name__ == "__main__":
    print(page(), end="")
