"""The libraries that are compared, each in the plainest way that it documents."""

from __future__ import annotations

import importlib
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .states import State, leaves


class Peer(NamedTuple):
    """How to save into an empty folder, and how to load what was saved there.

    Attributes:
      save: Takes a state and the folder.
      load: Takes the folder and returns the state, in fresh memory.
      load_layer: Takes the folder, a state of the same shapes and the name of a layer,
        and returns that layer alone.
      syncs: Whether a save is on the disk when it returns: yes, no or what of it.
      verifies: Whether a load checks what it reads: yes, no or what of it.
    """

    save: Callable[..., Any]
    load: Callable[..., State]
    load_layer: Callable[[Path, State, str], State]
    syncs: str
    verifies: str


def elementsckpt() -> Peer:
    from elementsckpt import Checkpoint, Saveable

    save, load = functional_form("elementsckpt")

    def load_layer(folder: Path, current: State, layer: str) -> State:
        loaded: State = {}
        transfer = Checkpoint()
        transfer.state = Saveable(save=lambda: current, load=loaded.update)
        transfer.load(folder / "save", regex=f"{layer}/.*")
        return {layer: loaded[layer]}

    return Peer(save, load, load_layer, syncs="yes", verifies="yes")


def elements() -> Peer:
    save, load = functional_form("elements")
    return Peer(save, load, out_of_all(load), syncs="no", verifies="no")


def functional_form(
    library: str,
) -> tuple[Callable[..., Any], Callable[..., State]]:
    """Return how to save and load with elements or elementsckpt: the same calls."""
    functions = importlib.import_module(f"{library}.checkpoint")

    def save(state: State, folder: Path, **options: Any) -> Any:
        return functions.save(folder / "save", {"state": lambda: state}, **options)

    def load(folder: Path, **options: Any) -> State:
        loaded: State = {}
        functions.load(folder / "save", {"state": loaded.update}, **options)
        return loaded

    return save, load


def out_of_all(load: Callable[[Path], State]) -> Callable[[Path, State, str], State]:
    """Return `load_layer` of those that can only load all."""
    return lambda folder, current, layer: {layer: load(folder)[layer]}


def orbax() -> Peer:
    import orbax.checkpoint as ocp

    checkpointer = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())

    def save(state: State, folder: Path) -> None:
        checkpointer.save(folder / "save", args=ocp.args.PyTreeSave(state))
        checkpointer.wait_until_finished()

    def load_layer(folder: Path, current: State, layer: str) -> State:
        item = {layer: current[layer]}
        args = ocp.args.PyTreeRestore(item, partial_restore=True)
        return dict(checkpointer.restore(folder / "save", args=args))

    return Peer(
        save,
        lambda folder: checkpointer.restore(folder / "save"),
        load_layer,
        syncs="all but its metadata",
        verifies="no",
    )


def safetensors() -> Peer:
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    def load_layer(folder: Path, current: State, layer: str) -> State:
        with safe_open(folder / "save", framework="numpy") as file:
            names = [name for name in file.keys() if name.startswith(f"{layer}/")]  # noqa: SIM118
            return {name: file.get_tensor(name) for name in names}

    return Peer(
        lambda state, folder: save_file(dict(leaves(state)), folder / "save"),
        lambda folder: load_file(folder / "save"),
        load_layer,
        syncs="no",
        verifies="no",
    )


def torch_dcp() -> Peer:
    import torch
    import torch.distributed.checkpoint as dcp

    # It says each time that this is one process.
    warnings.filterwarnings("ignore", "torch.distributed is disabled")
    shapes: State = {}  # A load needs tensors like those that were saved last.

    def save(state: State, folder: Path) -> None:
        tensors = {name: torch.from_numpy(array) for name, array in leaves(state)}
        shapes.clear()
        shapes.update({name: (x.shape, x.dtype) for name, x in tensors.items()})
        dcp.save(tensors, checkpoint_id=folder / "save")

    def load(folder: Path, prefix: str = "") -> State:
        tensors = {
            name: torch.empty(shape, dtype=dtype)
            for name, (shape, dtype) in shapes.items()
            if name.startswith(prefix)
        }
        dcp.load(tensors, checkpoint_id=folder / "save")
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    return Peer(
        save,
        load,
        lambda folder, current, layer: load(folder, f"{layer}/"),
        syncs="yes",
        verifies="no",
    )


def flax_msgpack() -> Peer:
    from flax.serialization import msgpack_restore, msgpack_serialize

    def save(state: State, folder: Path) -> None:
        (folder / "save").write_bytes(msgpack_serialize(state))

    def load(folder: Path) -> State:
        return dict(msgpack_restore((folder / "save").read_bytes()))

    return Peer(save, load, out_of_all(load), syncs="no", verifies="no")


def plain_pickle() -> Peer:
    def save(state: State, folder: Path) -> None:
        (folder / "save").write_bytes(pickle.dumps(state))

    def load(folder: Path) -> State:
        return dict(pickle.loads((folder / "save").read_bytes()))

    return Peer(save, load, out_of_all(load), syncs="no", verifies="no")


# Each raises ImportError if the library is not installed.
PEERS: dict[str, Callable[[], Peer]] = {
    "elementsckpt": elementsckpt,
    "elements": elements,
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
