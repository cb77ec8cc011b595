"""Rows about saving and loading all of a state, or one layer of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from . import raw
from .cases import Case, Row, Setting, Target, loading, timed
from .states import State, large, tiny

LARGE = "elementsckpt", "elements", "orbax", "safetensors", "torch DCP", "flax msgpack"
TINY = *LARGE, "pickle"

FRESH_MEMORY = (
    "What costs is that fresh memory is touched for the first time. Huge pages take a "
    "sixth of that for each byte, where the system gives them."
)
ONE_LAYER = (
    "Reading and hashing take a third, where the system gives huge pages, else half; "
    "the rest is reading and matching the names of all leaves."
)


def save_large(setting: Setting) -> Row:
    state, size = large(setting.divisor)
    return Row(
        f"save, {size}",
        f"Raw is parallel write and fsync. {setting.not_durable(LARGE)}",
        setting.saves(state, *LARGE),
        [
            Target("elementsckpt", "raw", 1.15),
            Target("elementsckpt", "elements", 0.4),
        ],
    )


def load_large(setting: Setting) -> Row:
    state, size = large(setting.divisor)
    cases = loads_and_maps(setting, state)
    saved = [*(setting.folder / "elementsckpt").rglob("*.safetensors")]
    cases["hashing of mapped files"] = timed(lambda _: hash_mapped(saved))
    return Row(
        f"load, {size}",
        f"Into fresh memory, from the page cache. Raw is parallel read. "
        f"{setting.not_verified(LARGE)}",
        cases,
        [
            Target("elementsckpt", "elements", 0.25, why=FRESH_MEMORY),
            Target("elementsckpt", "safetensors", 1.0),
            Target("elementsckpt", "torch DCP", 1.0),
            Target("elementsckpt mmap", "elements", 0.05),
            Target("elementsckpt mmap", "hashing of mapped files", 1.3),
        ],
    )


def hash_mapped(paths: Sequence[Path]) -> None:
    """Map files anew and hash all of them."""
    raw.digest({path.name: np.memmap(path, mode="r") for path in paths})


def load_cold(setting: Setting) -> Row:
    state, size = large(setting.divisor)
    return Row(
        f"cold load, {size}",
        "As above, but the files are not in the page cache. What is below the file "
        "system, such as the host of a virtual machine, may still hold them.",
        loads_and_maps(setting, state, before=evict),
    )


def loads_and_maps(
    setting: Setting, state: State, before: Callable[[Path], object] = id
) -> dict[str, Case | None]:
    """Return the cases that load, and those of elementsckpt that map."""
    cases = setting.loads(state, *LARGE, before=before)
    where = setting.folder / "elementsckpt"
    mapped = partial(setting.ours.load, where, mmap=True)
    ways = {"mmap": mapped, "mmap, verify=False": partial(mapped, verify=False)}
    for name, way in ways.items():
        cases[f"elementsckpt {name}"] = loading(way, state, partial(before, where))
    return cases


def evict(folder: Path) -> None:
    """Put the files out of the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())  # Dirty pages stay.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def save_tiny(setting: Setting) -> Row:
    state, size = tiny(setting.divisor)
    cases = setting.saves(state, *TINY)
    unsynced = partial(setting.ours.save, state, fsync=False)
    return Row(
        f"save, {size}",
        setting.not_durable(TINY),
        {**cases, "elementsckpt fsync=False": timed(unsynced)},
        [Target("elementsckpt", "elements", 0.8)],
    )


def load_tiny(setting: Setting) -> Row:
    state, size = tiny(setting.divisor)
    return Row(
        f"load, {size}",
        setting.not_verified(TINY),
        setting.loads(state, *TINY),
        [Target("elementsckpt", "elements", 0.8)],
    )


def load_layer(setting: Setting) -> Row:
    state, size = large(setting.divisor)
    current = {x: {k: np.zeros_like(v) for k, v in y.items()} for x, y in state.items()}
    name = "layer064"
    layer = {name: state[name]}
    where = setting.folder / "raw"
    where.mkdir()
    raw.write(layer, where)
    cases: dict[str, Case | None] = {}
    cases["raw"] = loading(partial(raw.read, layer, where), layer)
    for x in LARGE:
        peer = setting.peers[x]
        cases[x] = peer and loading(
            partial(peer.load_layer, setting.saved(state, x), current, name), layer
        )
    return Row(
        f"load one layer of 128, {size}",
        "elements and flax msgpack can only load all of it. "
        f"{setting.not_verified(LARGE)}",
        cases,
        [
            Target("elementsckpt", "elements", 0.01, why=ONE_LAYER),
            Target("elementsckpt", "safetensors", 1.5, why=ONE_LAYER),
        ],
    )
