"""One row in a process of its own, which runs its cases when told.

    python -m benchmarks.worker <row> <divisor of sizes> <empty folder>

It answers with lines of JSON: first the names of its cases, then, for each name that it
reads, what that case measured. What goes wrong is answered as `error`.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO

from .cases import Case, Sample

PACKAGE = "elementsckpt"


class Worker:
    """A process that measures a row with the library of a tree.

    Attributes:
      cases: The names of the row's cases.
      error: What went wrong last, or "".
    """

    def __init__(self, tree: Path, row: str, divisor: int, folder: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(dir=folder)
        command = [sys.executable, "-m", __name__, row, str(divisor), self._folder.name]
        self._process = subprocess.Popen(
            command, cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.error = ""
        answer = self._answer()
        self.cases: list[str] = answer.get("cases", [])
        library = Path(answer.get("library", tree / PACKAGE))
        assert library.is_relative_to(tree / PACKAGE), f"{library} is not of {tree}"

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # It ends.
        self._process.wait()
        self._folder.cleanup()

    def measure(self, case: str) -> Sample:
        """Return what a case measures; if it fails, nothing, and set `error`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{case}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline() or '{"error": "it ended"}'
        answer: dict[str, Any] = json.loads(line)
        self.error = answer.pop("error", "")
        return answer


def main(name: str, divisor: int, folder: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What is printed meanwhile is no answer.
    try:
        cases = cases_of(name, divisor, folder)
    except Exception as error:
        answer(answers, error=repr(error))
        return
    library = sys.modules[PACKAGE].__file__
    answer(answers, cases=list(cases), library=library)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        try:
            with tempfile.TemporaryDirectory(dir=folder) as empty:
                sample = cases[line.rstrip("\n")](Path(empty))
        except Exception as error:
            answer(answers, error=repr(error))
        else:
            answer(answers, **{x: float(sample[x]) for x in sample})


def answer(answers: TextIO, **values: Any) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


def cases_of(name: str, divisor: int, folder: Path) -> dict[str, Case]:
    """Make a row without peers, and return its cases."""
    from .cases import Setting
    from .peers import PEERS
    from .rows import ROWS

    peers = {x: PEERS[x]() if x == PACKAGE else None for x in PEERS}
    row = ROWS[name](Setting(peers, folder, divisor))
    return {x: case for x, case in row.cases.items() if case is not None}


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
