"""Rows about what a process has to spare: memory, and time to import."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median

from . import child
from .cases import Case, Row, Sample, Setting, Target
from .states import large

ROOT = Path(__file__).parent.parent
NAMES = "elementsckpt", "elements", "orbax", "safetensors"
MODULES = "numpy", "elementsckpt", "elements", "safetensors.numpy", "orbax.checkpoint"
CHILDREN = 5  # In a round, of each kind.


def memory_save(setting: Setting) -> Row:
    _, size = large(setting.divisor)
    return Row(
        f"memory that a save adds, {size}",
        "Peak of the resident memory of a new process, less what it was before the "
        "save. What the library imports for it counts. In the background, the copy of "
        "NumPy arrays counts: up to the size of the state.",
        {
            **{name: setting.peers[name] and saving(setting, name) for name in NAMES},
            "elementsckpt background": saving(setting, "background"),
        },
        [Target("elementsckpt", None, 64, "MiB")],
    )


def memory_load(setting: Setting) -> Row:
    state, size = large(setting.divisor)
    return Row(
        f"memory that a load adds beyond the data, {size}",
        "Peak of the resident memory of a new process, less what it was before the "
        "load, less the data.",
        {
            name: setting.peers[name]
            and loading(setting, name, setting.saved(state, name))
            for name in NAMES
        },
        [Target("elementsckpt", None, 64, "MiB")],
    )


def saving(setting: Setting, name: str) -> Case:
    return lambda folder: in_child("save", name, folder, setting.divisor)


def loading(setting: Setting, name: str, saved: Path) -> Case:
    return lambda _: in_child("load", name, saved, setting.divisor)


def in_child(verb: str, name: str, folder: Path, divisor: int) -> Sample:
    arguments = [verb, name, str(folder), str(divisor)]
    command = [sys.executable, "-m", child.__name__, *arguments]
    return {"MiB": float(subprocess.check_output(command, cwd=ROOT))}


def import_module(setting: Setting) -> Row:
    # Byte code that is not there, or must not be written, is compiled at each import.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(setting.folder)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def running(code: str) -> Case:
        def case(_: Path) -> Sample:
            bare, whole = [], []
            for _number in range(CHILDREN):
                bare.append(processor_ms("pass", environment))
                whole.append(processor_ms(code, environment))
            return {"CPU ms": median(whole) - median(bare)}

        return case

    cases: dict[str, Case | None] = {}
    for module in MODULES:
        name = {"orbax.checkpoint": "orbax"}.get(module, module.partition(".")[0])
        is_there = setting.peers.get(name, True) is not None
        cases[module] = running(f"import {module}") if is_there else None
    first = "elementsckpt, first Checkpoint()"
    cases[first] = running("import elementsckpt; elementsckpt.Checkpoint()")
    return Row(
        "import in a new process",
        "The processor's time of a process that does nothing else, less that of one "
        f"that does nothing at all; medians of {CHILDREN}. Byte code is there.",
        cases,
        [
            Target("elementsckpt", "numpy", 1.5, "CPU ms"),
            Target("elementsckpt", None, 12, "CPU ms"),
            Target(first, "numpy", 1.3, "CPU ms"),
        ],
    )


def processor_ms(code: str, environment: dict[str, str]) -> float:
    """Return the processor's time that a new process takes to run this."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return 1000 * (user + system)
