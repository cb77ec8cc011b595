"""The rows by name. To add one, write a function that returns it and list it here."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from . import (
    background,
    directories,
    environments,
    footprint,
    many,
    replay,
    scaling,
    small,
    whole,
)
from .cases import Row, Setting

ROWS: dict[str, Callable[[Setting], Row]] = {
    "save": whole.save_large,
    "load": whole.load_large,
    "cold": whole.load_cold,
    "tiny-save": whole.save_tiny,
    "tiny-load": whole.load_tiny,
    "tiny-again": many.save_again,
    "tiny-jax": many.load_jax,
    "torch": many.torch_tensors,
    "dopamine": many.dopamine,
    "layer": whole.load_layer,
    "background-jax": background.background_jax,
    "background-numpy": background.background_numpy,
    "steps": background.step_times,
    "small-7": partial(small.small, count=7, size_bytes=100_000, at_most=2.5),
    "small-1": partial(small.small, count=1, size_bytes=10_000, at_most=3.0),
    "components": small.components,
    "newest": directories.newest,
    "siblings": directories.siblings,
    "numbered": directories.numbered,
    "replay": replay.replay,
    "scattered": replay.scattered,
    "cartpole": environments.cartpole,
    "ant": environments.ant,
    "pong": environments.pong,
    "ants-in-workers": environments.ants_in_workers,
    "compress-frames": replay.compress_frames,
    "compress-weights": replay.compress_weights,
    "memory-save": footprint.memory_save,
    "memory-load": footprint.memory_load,
    "import": footprint.import_module,
}
for count in scaling.megabytes():
    ROWS[f"size-{count}"] = partial(scaling.size, megabytes=count)
for count in scaling.LEAVES:
    ROWS[f"leaves-{count}"] = partial(scaling.leaf_count, count=count)
# What only Linux can tell.
if not hasattr(os, "posix_fadvise"):
    del ROWS["cold"]
if not os.path.exists("/proc/self/clear_refs"):
    del ROWS["memory-save"], ROWS["memory-load"]
