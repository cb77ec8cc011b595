"""Rows about saving in the background: how long the training loop is held up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import elementsckpt

from . import raw
from .cases import Case, Row, Sample, Setting, Target, milliseconds, phases, settle
from .states import FRAME_BYTES, Replay, State, large, leaves, weights

SAVES = 8  # In a round of the steps' times.
ALONE_STEPS = 200  # Without a save.


class Saver(NamedTuple):
    """Saves in the background, like AsyncCheckpointer of Orbax.

    Attributes:
      save: Begins a save, to an empty folder.
      wait: Returns when it is finished.
      watch: Returns what says whether the save that has begun is finished.
    """

    save: Callable[[Path], Any]
    wait: Callable[[], Any]
    watch: Callable[[], Callable[[], bool]]


def elementsckpt_saver(state: Callable[[], State], directory: Path) -> Saver:
    cp = elementsckpt.Checkpoint(directory, background=True)
    cp.state = elementsckpt.Saveable(save=state, load=lambda _: None)
    return Saver(lambda _: cp.save(), cp.wait, lambda: has_ended)


def has_ended() -> bool:
    """Return whether no save is under way; to wait for one would hurry it."""
    return not any(
        thread.name == "elementsckpt" and not thread.daemon
        for thread in threading.enumerate()
    )


def orbax_saver(state: Callable[[], State]) -> Saver | None:
    try:
        import orbax.checkpoint as ocp
    except ImportError:
        return None
    checkpointer = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())

    def save(folder: Path) -> None:
        checkpointer.save(folder / "save", args=ocp.args.PyTreeSave(state()))

    def watch() -> Callable[[], bool]:
        waiting = threading.Thread(target=checkpointer.wait_until_finished)
        waiting.start()
        return lambda: not waiting.is_alive()

    return Saver(save, checkpointer.wait_until_finished, watch)


def blocked(saver: Saver | None, change: Callable[[], object]) -> Case | None:
    """Return the case that measures how long `save` takes, and then all of it."""
    if saver is None:
        return None

    def case(folder: Path) -> Sample:
        change()
        settle()
        start = time.perf_counter()
        saver.save(folder)
        returned = time.perf_counter()
        report = saver.wait()
        waited = time.perf_counter() - returned
        blocked = 1000 * (returned - start)
        return {
            "ms": blocked,
            "ms until saved": blocked + 1000 * waited,
            **phases(report),
        }

    return case


def copied(arrays: list[np.ndarray], threads: int) -> Case:
    """Return the case that copies arrays into memory that is there already."""
    targets = [np.ones_like(array) for array in arrays]

    def case(_: Path) -> Sample:
        settle()
        return {"ms": milliseconds(partial(raw.copy, arrays, targets, threads=threads))}

    return case


def fetched(state: Callable[[], State], change: Callable[[], object]) -> Case:
    """Return the case that brings arrays from an accelerator."""

    def case(_: Path) -> Sample:
        change()
        settle()
        return {"ms": milliseconds(lambda: jax.device_get(state()))}

    return case


def background_jax(setting: Setting) -> Row:
    arrays, size = large(setting.divisor, weights)
    train = jax.jit(partial(jax.tree.map, lambda x: x + 1), donate_argnums=0)
    box = {"state": jax.tree.map(jnp.asarray, arrays)}

    def change() -> None:
        box["state"] = jax.block_until_ready(train(box["state"]))

    ours = elementsckpt_saver(lambda: box["state"], setting.folder / "elementsckpt")
    is_far = jax.default_backend() != "cpu"
    return Row(
        f"background save of JAX arrays, time blocked, {size}",
        "Each array is donated to a jitted function and changed between saves.",
        {
            "elementsckpt": blocked(ours, change),
            "orbax": blocked(orbax_saver(lambda: box["state"]), change),
            "memcpy, 1 thread": copied([x for _, x in leaves(arrays)], 1),
            **({"device_get": fetched(lambda: box["state"], change)} if is_far else {}),
        },
        [Target("elementsckpt", "orbax", 0.25)],
    )


def background_numpy(setting: Setting) -> Row:
    state, size = large(setting.divisor, weights)
    arrays = [array for _, array in leaves(state)]

    def change() -> None:
        for array in arrays:
            array += 1

    ours = elementsckpt_saver(lambda: state, setting.folder / "elementsckpt")
    parallel = f"memcpy, {max(2, raw.CORES)} threads"
    return Row(
        f"background save of NumPy arrays, time blocked, {size}",
        "Each array is changed in place between saves. memcpy is `np.copyto` into "
        "memory that was written before.",
        {
            "elementsckpt": blocked(ours, change),
            "orbax": blocked(orbax_saver(lambda: state), change),
            "memcpy, 1 thread": copied(arrays, 1),
            parallel: copied(arrays, max(2, raw.CORES)),
        },
        [Target("elementsckpt", x, 1.6) for x in ("memcpy, 1 thread", parallel)],
    )


class Training:
    """A loop that trains a model in JAX and fills a replay in NumPy; a component.

    Args:
      capacity: Of the replay, in frames.
    """

    def __init__(self, capacity: int) -> None:
        random = np.random.default_rng(0)
        params = [random.normal(0, 0.03, (1024, 1024)).astype("f4") for _ in range(4)]
        momentum = [np.zeros_like(x) for x in params]
        self._carry = jax.tree.map(jnp.asarray, (params, momentum))
        self._batch = jnp.asarray(random.standard_normal((32, 1024), "f4"))
        self._update = jax.jit(descend, donate_argnums=0)
        self._replay = Replay(capacity)
        self.step()

    def save(self) -> State:
        params, momentum = self._carry
        return {"params": params, "momentum": momentum, "replay": self._replay.save()}

    def step(self) -> float:
        """Train once, and return the milliseconds."""
        start = time.perf_counter()
        self._carry = jax.block_until_ready(self._update(self._carry, self._batch))
        return 1000 * (time.perf_counter() - start)

    def refill(self) -> None:
        """Change all of the replay, as if much time had passed."""
        self._replay.overwrite(1.0)


def descend(carry: Any, batch: jax.Array) -> Any:
    """Return parameters and momentum after one step of training an autoencoder."""

    def loss(params: list[jax.Array]) -> jax.Array:
        x = batch
        for kernel in params:
            x = jnp.tanh(x @ kernel)
        return jnp.square(x - batch).mean()

    params, momentum = carry
    momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, jax.grad(loss)(params))
    return jax.tree.map(lambda p, m: p - 0.01 * m, params, momentum), momentum


def step_times(setting: Setting) -> Row:
    capacity = 18_000 // setting.divisor
    training = Training(capacity)

    def alone(_: Path) -> Sample:
        settle()
        return percentiles([training.step() for _ in range(ALONE_STEPS)])

    def saving(saver: Saver | None) -> Case | None:
        return saver and partial(beside, saver)

    def beside(saver: Saver, folder: Path) -> Sample:
        blocked, saved, times = [], [], []
        for number in range(SAVES):
            training.refill()
            settle()
            where = folder / str(number)
            where.mkdir()
            start = time.perf_counter()
            saver.save(where)
            blocked.append(1000 * (time.perf_counter() - start))
            is_finished = saver.watch()
            while not is_finished():
                times.append(training.step())
            saved.append(1000 * (time.perf_counter() - start))
            saver.wait()
        means = {"ms blocked": median(blocked), "ms until saved": median(saved)}
        return {**percentiles(times), **means}

    ours = elementsckpt_saver(training.save, setting.folder / "elementsckpt")
    return Row(
        "time of a training step while a background save runs",
        f"JAX trains four layers of 1024 with momentum, on all cores. Each of the "
        f"{SAVES} saves of a round holds 34 MB of JAX arrays and "
        f"{capacity * FRAME_BYTES / 1e6:.0f} MB of NumPy frames, all changed. The "
        "steps that begin between the return of the save and its end count. Nobody "
        "waits for the save.",
        {
            "no save": alone,
            "elementsckpt": saving(ours),
            "orbax": saving(orbax_saver(training.save)),
        },
        [
            Target("elementsckpt", "no save", 1.15, "ms p50"),
            Target("elementsckpt", "no save", 2.0, "ms p99"),
        ],
    )


def percentiles(times: list[float]) -> Sample:
    p50, p99 = np.percentile(times, [50, 99])
    return {"ms p50": p50, "ms p99": p99, "steps": len(times)}
