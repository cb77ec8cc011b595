"""The rows of the benchmark. To add one, write a function and list it in ROWS.

Arrays hold random bits, which nothing can compress. Before each call the disk is
synced, garbage is collected and free memory goes back to the system, so that no call
pays for the one before, and a load gets fresh memory. Files are read from the page
cache. What was loaded is compared with what was saved, after the clock has stopped.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import elementsckpt

from .peers import Peer, State, leaves

RAW_FILES, RAW_THREADS = 8, 2 * (os.cpu_count() or 1)
Case = Callable[[Path], float]  # Measures once; may write to the empty folder.


class Row(NamedTuple):
    """One piece of work, and ways to do it that return milliseconds."""

    title: str
    note: str
    cases: dict[str, Case]
    targets: dict[tuple[str, str], float]  # The first takes at most x times the second.


class Setting(NamedTuple):
    """What rows are made of: installed peers, an empty folder, a divisor of sizes."""

    peers: dict[str, Peer]
    folder: Path
    divisor: int

    def saves(self, state: State, *names: str) -> dict[str, Case]:
        """Return a case for each peer that is installed."""
        return {x: timed(partial(self.peers[x].save, state)) for x in self.only(names)}

    def loads(self, state: State, *names: str) -> dict[str, Case]:
        """Save with each peer that is installed, and return its case."""
        return {
            x: loading(partial(self.peers[x].load, self.saved(state, x)), state)
            for x in self.only(names)
        }

    def saved(self, state: State, name: str) -> Path:
        """Save with one peer, and return where."""
        where = self.folder / name
        where.mkdir()
        self.peers[name].save(state, where)
        return where

    def only(self, names: Iterable[str]) -> list[str]:
        """Return those that are installed."""
        return [name for name in names if name in self.peers]


def timed(call: Callable[[Path], Any], check: Callable[[Any], object] = id) -> Case:
    """Return the case that measures a call, and then checks its result."""

    def case(folder: Path) -> float:
        os.sync()
        gc.collect()
        getattr(ctypes.CDLL(None), "malloc_trim", id)(0)  # Of glibc only.
        start = time.perf_counter()
        result = call(folder)
        seconds = time.perf_counter() - start
        check(result)
        return 1000 * seconds

    return case


def loading(call: Callable[[], State], expected: State) -> Case:
    """Return the case of a load that must give the arrays of `expected`."""

    def check(loaded: State) -> None:
        found, saved = dict(leaves(loaded)), dict(leaves(expected))
        assert found.keys() == saved.keys()
        for name, array in saved.items():
            assert np.array_equal(found[name].view("u1"), array.view("u1")), name

    return timed(lambda _: call(), check)


def noise(layers: int, parts: int, *shape: int) -> State:
    """Return random bits, float32[shape], as `layer000/part000` and so on."""
    bits = partial(np.random.default_rng(0).integers, 0, 2**32, shape, np.uint32)
    return {
        f"layer{i:03d}": {f"part{k:03d}": bits().view("f4") for k in range(parts)}
        for i in range(layers)
    }


def large(setting: Setting) -> tuple[State, str]:
    """Return 537 MB in 256 leaves, and that as text."""
    rows = 512 // setting.divisor
    state = noise(128, 2, rows, 1024)
    return state, f"{256 * rows * 4096 / 1e6:.0f} MB in 256 leaves"


def tiny(setting: Setting) -> tuple[State, str]:
    """Return 10,000 leaves, and that as text."""
    layers = 100 // setting.divisor
    return noise(layers, 100, 8), f"{100 * layers:,} leaves of 32 bytes"


def write_raw(state: State, folder: Path) -> None:
    """Write and sync all bytes in parallel, with nothing that tells what they are."""
    arrays = [array for _, array in leaves(state)]

    def write(number: int) -> None:
        with open(folder / str(number), "wb", buffering=0) as file:
            for array in arrays[number::RAW_FILES]:
                assert file.write(array.data.cast("B")) == array.nbytes
            os.fsync(file.fileno())

    with ThreadPoolExecutor(RAW_THREADS) as pool:
        list(pool.map(write, range(RAW_FILES)))


def save_large(setting: Setting) -> Row:
    state, size = large(setting)
    peers = setting.saves(state, "elementsckpt", "elements", "safetensors", "orbax")
    return Row(
        f"durable save, {size}",
        "raw is parallel write and fsync; elements and safetensors do not sync",
        {"raw": timed(partial(write_raw, state)), **peers},
        {("elementsckpt", "raw"): 1.15, ("elementsckpt", "elements"): 0.4},
    )


def load_large(setting: Setting) -> Row:
    state, size = large(setting)
    cases = setting.loads(state, "elementsckpt", "elements", "safetensors", "orbax")
    folder = setting.folder / "elementsckpt"
    mapped = partial(setting.peers["elementsckpt"].load, folder, mmap=True)
    return Row(
        f"load into fresh memory, {size}",
        "elementsckpt verifies every byte, mapped too; elements and safetensors none",
        {**cases, "elementsckpt mmap": loading(mapped, state)},
        {
            ("elementsckpt", "elements"): 0.25,
            ("elementsckpt", "safetensors"): 1.0,
            ("elementsckpt mmap", "elements"): 0.05,
        },
    )


def save_tiny(setting: Setting) -> Row:
    state, size = tiny(setting)
    cases = setting.saves(state, "elementsckpt", "elements", "pickle", "orbax")
    unsynced = partial(setting.peers["elementsckpt"].save, state, fsync=False)
    return Row(
        f"save, {size}",
        "elements and pickle do not sync",
        {**cases, "elementsckpt fsync=False": timed(unsynced)},
        {("elementsckpt", "elements"): 0.8},
    )


def load_tiny(setting: Setting) -> Row:
    state, size = tiny(setting)
    return Row(
        f"load, {size}",
        "elementsckpt verifies every byte; elements and pickle none",
        setting.loads(state, "elementsckpt", "elements", "pickle", "orbax"),
        {("elementsckpt", "elements"): 0.8},
    )


def load_layer(setting: Setting) -> Row:
    state, size = large(setting)
    layer = "layer064"
    blank = {x: {k: np.zeros_like(v) for k, v in y.items()} for x, y in state.items()}

    def matching(where: Path) -> State:
        loaded: State = {}
        transfer = elementsckpt.Checkpoint()
        transfer.state = elementsckpt.Saveable(save=lambda: blank, load=loaded.update)
        transfer.load(where / "save", regex=f"{layer}/.*")
        return {layer: loaded[layer]}

    def picked(where: Path) -> State:
        return {layer: setting.peers["elements"].load(where)[layer]}

    def opened(where: Path) -> State:
        from safetensors import safe_open

        with safe_open(where / "save", framework="numpy") as file:
            names = [name for name in file.keys() if name.startswith(layer)]  # noqa: SIM118
            return {name: file.get_tensor(name) for name in names}

    ways = {"elementsckpt": matching, "elements": picked, "safetensors": opened}
    return Row(
        f"load one layer of 128, {size}",
        "elements loads all of it; safetensors, by safe_open, verifies nothing",
        {
            x: loading(partial(ways[x], setting.saved(state, x)), {layer: state[layer]})
            for x in setting.only(ways)
        },
        {("elementsckpt", "elements"): 0.01},
    )


def import_module(setting: Setting) -> Row:
    # Byte code that is not there, or must not be written, is compiled at each import.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(setting.folder)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def case(module: str) -> Case:
        code = "import time; start = time.perf_counter(); "
        code += f"import {module}; print(1000 * (time.perf_counter() - start))"
        run = partial(subprocess.check_output, [sys.executable, "-c", code])
        run(env=environment)
        return lambda _: float(run(env=environment))

    return Row(
        "import in a new process",
        "without the start of the interpreter",
        {module: case(module) for module in ("numpy", "elementsckpt")},
        {("elementsckpt", "numpy"): 1.5},
    )


ROWS: list[Callable[[Setting], Row]] = [
    *(save_large, load_large, save_tiny, load_tiny, load_layer, import_module),
]
