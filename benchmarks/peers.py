"""The libraries that are compared, each in the plainest way that it documents."""

from __future__ import annotations

import importlib
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .states import State, leaves


class Peer(NamedTuple):
    """How to save into an empty folder, and how to load what was saved there.

    Attributes:
      save: Takes a state and the folder.
      load: Takes the folder and returns the state, in fresh memory.
      calls: What is called, for the documentation.
      package: The package that it comes in.
      syncs: Whether a save is on the disk when it returns: yes, no or what of it.
      verifies: Whether a load checks what it reads: yes, no or what of it.
    """

    save: Callable[..., Any]
    load: Callable[..., State]
    calls: str
    package: str
    syncs: str
    verifies: str


def checkpoint(library: str, calls: str, does: str) -> Peer:
    """Return elements or elementsckpt, whose functions are the same."""
    functions = importlib.import_module(f"{library}.checkpoint")

    def save(state: State, folder: Path, **options: Any) -> None:
        functions.save(folder / "save", {"state": lambda: state}, **options)

    def load(folder: Path, **options: Any) -> State:
        loaded: State = {}
        functions.load(folder / "save", {"state": loaded.update}, **options)
        return loaded

    return Peer(save, load, calls, library, does, does)


def orbax() -> Peer:
    import orbax.checkpoint as ocp

    checkpointer = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())

    def save(state: State, folder: Path) -> None:
        checkpointer.save(folder / "save", args=ocp.args.PyTreeSave(state))
        checkpointer.wait_until_finished()

    return Peer(
        save,
        lambda folder: checkpointer.restore(folder / "save"),
        "`AsyncCheckpointer.save`, `wait_until_finished`; `restore`",
        "orbax-checkpoint",
        "(all but its metadata)",
        "no",
    )


def safetensors() -> Peer:
    from safetensors.numpy import load_file, save_file

    return Peer(
        lambda state, folder: save_file(dict(leaves(state)), folder / "save"),
        lambda folder: load_file(folder / "save"),
        "`numpy.save_file`; `numpy.load_file`",
        "safetensors",
        "no",
        "no",
    )


def torch_dcp() -> Peer:
    import torch
    import torch.distributed.checkpoint as dcp

    # It says each time that this is one process.
    warnings.filterwarnings("ignore", "torch.distributed is disabled")
    shapes: State = {}  # A load needs tensors of the right shape, made when it begins.

    def save(state: State, folder: Path) -> None:
        tensors = {name: torch.from_numpy(array) for name, array in leaves(state)}
        shapes.clear()
        shapes.update({name: (x.shape, x.dtype) for name, x in tensors.items()})
        dcp.save(tensors, checkpoint_id=folder / "save")

    def load(folder: Path) -> State:
        tensors = {
            name: torch.empty(shape, dtype=dtype)
            for name, (shape, dtype) in shapes.items()
        }
        dcp.load(tensors, checkpoint_id=folder / "save")
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    calls = "`distributed.checkpoint.save`; `distributed.checkpoint.load`"
    return Peer(save, load, calls, "torch", "yes", "no")


def flax_msgpack() -> Peer:
    from flax import serialization

    def save(state: State, folder: Path) -> None:
        (folder / "save").write_bytes(serialization.msgpack_serialize(state))

    return Peer(
        save,
        lambda folder: serialization.msgpack_restore((folder / "save").read_bytes()),
        "`serialization.msgpack_serialize`; `serialization.msgpack_restore`",
        "flax",
        "no",
        "no",
    )


def plain_pickle() -> Peer:
    return Peer(
        lambda state, folder: (folder / "save").write_bytes(pickle.dumps(state)),
        lambda folder: pickle.loads((folder / "save").read_bytes()),
        "`pickle.dumps`; `pickle.loads`",
        "python",
        "no",
        "no",
    )


# Each raises ImportError if the library is not installed.
PEERS: dict[str, Callable[[], Peer]] = {
    "elementsckpt": partial(
        checkpoint, "elementsckpt", "`checkpoint.save`; `checkpoint.load`", "yes"
    ),
    "elements": partial(
        checkpoint, "elements", "`checkpoint.save`; `checkpoint.load`", "no"
    ),
    "orbax": orbax,
    "safetensors": safetensors,
    "torch DCP": torch_dcp,
    "flax msgpack": flax_msgpack,
    "pickle": plain_pickle,
}


def installed() -> dict[str, Peer | None]:
    """Return the peers, None for those that cannot be imported."""
    peers: dict[str, Peer | None] = {}
    for name, make in PEERS.items():
        try:
            peers[name] = make()
        except ImportError:
            peers[name] = None
    return peers
