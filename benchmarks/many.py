"""Rows about very many leaves, saved again and again by one object."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .cases import Case, Row, Sample, Setting, Target, phases, settle, timed
from .replay import checkpoint, loaded_from
from .states import State, leaves, tiny

TORCH_LEAVES = 1_000_000
TRANSITIONS = 20_000
AGAIN = (
    "It takes 15 ms of the processor, and pickle.dumps 24. To see that no array is "
    "in the memory of another takes 3, comparing keys, types and forms with the last"
    " save's 3, the header that makes each leaf readable elsewhere 3, and finding "
    "where blocks end 1; each looks at 10,000 objects that are not in the "
    "processor's cache. The rest is the disk, which pickle.dumps does not use."
)
CODECS = 50  # Sizes of frames that were compressed, and so dtypes.


def save_again(setting: Setting) -> Row:
    state, size = tiny(setting.divisor)
    cp = checkpoint(setting.folder / "elementsckpt", lambda: state)
    elements = setting.peers["elements"]

    def change() -> None:
        for _, array in leaves(state):
            array.view("u4")[:] += 1

    return Row(
        f"save again, {size}",
        "One object saves the same structure again and again; each array is changed "
        "between two saves. pickle.dumps makes bytes in memory, and elements syncs "
        "nothing.",
        {
            "elementsckpt": after(change, lambda _: cp.save()),
            "elements": elements and after(change, partial(elements.save, state)),
            "pickle.dumps": after(change, lambda _: pickle.dumps(state)),
        },
        [
            Target("elementsckpt", "elements", 0.5),
            Target("elementsckpt", "pickle.dumps", 0.4, why=AGAIN),
        ],
    )


def after(change: Callable[[], object], call: Callable[[Path], Any]) -> Case:
    """Return the case that measures a call, after a change each time."""

    def case(folder: Path) -> Sample:
        change()
        return timed(call)(folder)

    return case


def load_jax(setting: Setting) -> Row:
    state, size = tiny(setting.divisor)
    arrays = [array for _, array in leaves(state)]
    placed = jax.tree.map(jnp.asarray, state)
    many = setting.folder / "jax"
    cp = checkpoint(many, lambda: placed)
    cp.save()
    checkpoint(setting.folder / "numpy", lambda: state).save()
    return Row(
        f"load of JAX arrays, {size}",
        "On the default device. It is compared with the load of the same as NumPy "
        "arrays, and with one `jax.device_put` of each, from memory.",
        {
            "elementsckpt": timed(lambda _: placed_from(many)),
            "elementsckpt, NumPy": timed(lambda _: loaded_from(many.parent / "numpy")),
            "device_put of each": timed(lambda _: put_each(arrays)),
        },
        [
            Target("elementsckpt", "elementsckpt, NumPy", 10),
            Target("elementsckpt", "device_put of each", 0.35),
        ],
    )


def placed_from(directory: Path) -> None:
    jax.block_until_ready(loaded_from(directory))


def put_each(arrays: list[np.ndarray]) -> None:
    jax.block_until_ready([jax.device_put(array) for array in arrays])


def torch_tensors(setting: Setting) -> Row:
    count = TORCH_LEAVES // setting.divisor
    cases: dict[str, Case | None] = {"save, torch": None, "load, torch": None}
    for name, make in {"NumPy": numpy_array, "torch": torch_tensor()}.items():
        if make is not None:
            state = in_dicts([make(number) for number in range(count)])
            cases |= saved_and_loaded(state, setting.folder / name, name)
    return Row(
        f"{count:,} tensors",
        "On the processor, each of 8 bytes, in 1,000 dicts. They are compared with "
        "NumPy arrays. Nothing changes between saves, and the disk confirms nothing.",
        cases,
        [Target(f"{x}, torch", f"{x}, NumPy", 3) for x in ("save", "load")],
    )


def saved_and_loaded(state: State, directory: Path, name: str) -> dict[str, Case]:
    """Save, and return the cases that save again, and that load."""
    cp = checkpoint(directory, lambda: state, fsync=False)
    cp.save()
    return {
        f"save, {name}": timed(lambda _: cp.save()),
        f"load, {name}": timed(lambda _: loaded_from(directory)),
    }


def numpy_array(number: int) -> np.ndarray:
    return np.array([number, number], "f4")


def torch_tensor() -> Callable[[int], Any] | None:
    """Return what makes a tensor of a number; None if torch is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return lambda number: torch.tensor([number, number], dtype=torch.float32)


def in_dicts(arrays: list[Any]) -> State:
    """Return 1,000 dicts of these."""
    size = len(arrays) // 1000
    return {
        f"dict{i:03d}": {
            f"leaf{k:03d}": x for k, x in enumerate(arrays[i * size :][:size])
        }
        for i in range(1000)
    }


class DopamineReplay:
    """A replay as Dopamine's: lists of transitions, whose frames are compressed.

    Each frame is a scalar of a structured dtype with the compressed bytes, their shape
    and dtype, as `elements.compress` of dopamine.jax.replay_memory makes it.
    """

    def __init__(self, capacity: int) -> None:
        self._random = np.random.default_rng(0)
        self._kinds = [frame_dtype(2_000 - n) for n in range(CODECS)]
        self._added = capacity
        self.transitions = [self._transition(n) for n in range(capacity)]

    def _transition(self, number: int) -> list[Any]:
        frames = [self._frame(), self._frame()]
        return [frames[0], number % 18, 0.5 * (number % 3), frames[1], number % 99 == 0]

    def _frame(self) -> np.ndarray:
        kind = self._kinds[int(self._random.integers(CODECS))]
        data = self._random.integers(0, 256, kind["data"].shape, np.uint8)
        return np.array((data, (84, 84, 4), "|u1"), kind)

    def overwrite(self, fraction: float) -> None:
        """Put other transitions in the place of the oldest."""
        capacity = len(self.transitions)
        for _ in range(round(fraction * capacity)):
            self.transitions[self._added % capacity] = self._transition(self._added)
            self._added += 1


def frame_dtype(size: int) -> np.dtype:
    return np.dtype([("data", "u1", (size,)), ("shape", "i4", (3,)), ("dtype", "S3")])


def dopamine(setting: Setting) -> Row:
    buffer = DopamineReplay(TRANSITIONS // setting.divisor)
    state = {"memory": buffer.transitions}
    change = partial(buffer.overwrite, 0.02)
    ours = checkpoint(setting.folder / "foreground", lambda: state)
    behind = checkpoint(setting.folder / "background", lambda: state, background=True)

    def blocked(_: Path) -> Sample:
        change()
        settle()
        sample = timed(lambda _: behind.save())(setting.folder)
        return {"ms": sample["ms"], **phases(behind.wait())}

    return Row(
        f"replay as Dopamine's, {len(buffer.transitions):,} transitions",
        f"Lists of {2 * len(buffer.transitions):,} structured arrays of 2,000 bytes, "
        f"with {CODECS} dtypes, of which 2 % are others at each save. In the "
        "background, the time that the caller is blocked.",
        {
            "elementsckpt": after(change, lambda _: ours.save()),
            "elementsckpt, background": blocked,
            "pickle.dumps": after(change, lambda _: pickle.dumps(state)),
        },
        [
            Target("elementsckpt", "pickle.dumps", 1.5),
            Target("elementsckpt, background", "pickle.dumps", 1),
        ],
    )
