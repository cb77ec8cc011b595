"""The libraries that are compared, each in the plainest way that it documents."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

State = dict[str, Any]  # Names to arrays, nested or flat.


class Peer(NamedTuple):
    """How to save into an empty folder, and how to load what was saved there."""

    save: Callable[..., Any]  # (state, folder)
    load: Callable[..., State]  # (folder)


def leaves(state: State, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and array of each leaf."""
    for key, value in state.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def checkpoint(library: str) -> Peer:
    """Return elements or elementsckpt, whose functions are the same."""
    functions = importlib.import_module(f"{library}.checkpoint")

    def save(state: State, folder: Path, **options: Any) -> None:
        functions.save(folder / "save", {"state": lambda: state}, **options)

    def load(folder: Path, **options: Any) -> State:
        loaded: State = {}
        functions.load(folder / "save", {"state": loaded.update}, **options)
        return loaded

    return Peer(save, load)


def safetensors() -> Peer:
    from safetensors.numpy import load_file, save_file

    return Peer(
        lambda state, folder: save_file(dict(leaves(state)), folder / "save"),
        lambda folder: load_file(folder / "save"),
    )


def orbax() -> Peer:
    from orbax.checkpoint import PyTreeCheckpointer

    checkpointer = PyTreeCheckpointer()
    return Peer(
        lambda state, folder: checkpointer.save(folder / "save", state),
        lambda folder: checkpointer.restore(folder / "save"),
    )


def plain_pickle() -> Peer:
    return Peer(
        lambda state, folder: (folder / "save").write_bytes(pickle.dumps(state)),
        lambda folder: pickle.loads((folder / "save").read_bytes()),
    )


# Each raises ImportError if the library is not installed.
PEERS: dict[str, Callable[[], Peer]] = {
    "elementsckpt": partial(checkpoint, "elementsckpt"),
    "elements": partial(checkpoint, "elements"),
    "safetensors": safetensors,
    "orbax": orbax,
    "pickle": plain_pickle,
}
