"""The rows by name. To add one, write a function that returns it and list it here."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from . import background, footprint, replay, scaling, whole
from .cases import Row, Setting

ROWS: dict[str, Callable[[Setting], Row]] = {
    "save": whole.save_large,
    "load": whole.load_large,
    "cold": whole.load_cold,
    "tiny-save": whole.save_tiny,
    "tiny-load": whole.load_tiny,
    "layer": whole.load_layer,
    "background-jax": background.background_jax,
    "background-numpy": background.background_numpy,
    "steps": background.step_times,
    "replay": replay.replay,
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
