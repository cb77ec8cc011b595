"""Measure in a process of its own how much memory a save or a load adds.

    python -m benchmarks.child save|load <peer> <folder> <divisor of sizes>

It prints the mebibytes, for a load without those of the data.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import elementsckpt

from .peers import PEERS
from .states import State, large, size_bytes


def main(verb: str, name: str, folder: Path, divisor: int) -> None:
    call: Callable[[], Any]
    if verb == "load":
        call = partial(PEERS[name]().load, folder)
    else:
        state, _ = large(divisor)
        save = save_in_background if name == "background" else PEERS[name]().save
        call = partial(save, state, folder)
    Path("/proc/self/clear_refs").write_text("5")  # Resets the peak.
    before = resident("VmRSS")
    result = call()
    added = resident("VmHWM") - before
    print(added - size_bytes(result) / 2**20 if verb == "load" else added)


def save_in_background(state: State, folder: Path) -> None:
    with elementsckpt.Checkpoint(folder, background=True) as cp:
        cp.state = elementsckpt.Saveable(save=lambda: state, load=lambda _: None)
        cp.save()


def resident(field: str) -> float:
    """Return the mebibytes that Linux gives for a field."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
