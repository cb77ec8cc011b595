"""Measure in a process of its own what it takes to ask a directory.

    python -m benchmarks.fresh <verb> <directory with one save> <directory with many>

It prints the processor's time for the second, and the KiB that it reads beyond those of
the first, as JSON.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import elementsckpt

METRIC = "return"


def load(directory: Path) -> object:
    loaded: dict[str, Any] = {}
    cp = elementsckpt.Checkpoint(directory)
    cp.state = elementsckpt.Saveable(save=lambda: loaded, load=loaded.update)
    return cp.load()


VERBS: dict[str, Callable[[Path], object]] = {
    "load": load,
    "info": elementsckpt.info,
    "saves": lambda directory: elementsckpt.Checkpoint(directory).saves(),
    "best": lambda directory: elementsckpt.Checkpoint(directory).best(),
    "exists": lambda directory: elementsckpt.Checkpoint(directory).exists(),
}


def main(verb: str, one: Path, many: Path) -> None:
    VERBS[verb](one)  # Imports what it needs.
    begin = read_bytes()
    VERBS[verb](one)
    between = read_bytes()
    start = time.process_time()
    assert VERBS[verb](many)
    sample = {"CPU ms": 1000 * (time.process_time() - start)}
    if begin is not None and between is not None:
        end = read_bytes()
        assert end is not None
        sample["KiB"] = (end - between - (between - begin)) / 1024
    print(json.dumps(sample))


def read_bytes() -> int | None:
    """Return the bytes that this process has read, None if the system does not say."""
    try:
        text = Path("/proc/self/io").read_text()
    except OSError:
        return None
    found = re.search(r"^rchar: (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else None


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
