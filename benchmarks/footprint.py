"""Rows about what a process has to spare: memory, and time to import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from . import child
from .cases import Case, Row, Sample, Setting, Target
from .states import large

ROOT = Path(__file__).parent.parent
NAMES = "elementsckpt", "elements", "orbax", "safetensors"
MODULES = "numpy", "elementsckpt", "elements", "safetensors.numpy", "orbax.checkpoint"


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

    def importing(module: str) -> Case:
        code = "import time; start = time.perf_counter(); "
        code += f"import {module}; print(1000 * (time.perf_counter() - start))"
        command = [sys.executable, "-c", code]

        def case(_: Path) -> Sample:
            run = subprocess.check_output(command, cwd=ROOT, env=environment)
            return {"ms": float(run)}

        return case

    names = {module: module.partition(".")[0] for module in MODULES}
    return Row(
        "import in a new process",
        "Byte code is there; the start of the interpreter does not count.",
        {
            module: None if setting.peers.get(name, True) is None else importing(module)
            for module, name in names.items()
        },
        [Target("elementsckpt", "numpy", 1.5)],
    )
