"""One object holds a run's whole training state, and brings it back.

cp = elementsckpt.Checkpoint("logdir/ckpt")
cp.step = step
cp.agent = agent
cp.load_or_save()
...
cp.save()
"""

__version__ = "0.1.0"

from . import checkpoint
from .checkpoint import Checkpoint, info, read
from .components import Counter, Saveable
from .errors import (
    CheckpointError,
    ComponentError,
    DamagedError,
    MetadataError,
    MismatchError,
    MissingKeyError,
    PickleError,
    ReadError,
    SaveExistsError,
    SaveNotFoundError,
    StateError,
    VersionError,
    WriteError,
)
from .reports import ComponentInfo, Lineage, LoadReport, SaveInfo, SaveReport

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "ComponentError",
    "ComponentInfo",
    "Counter",
    "DamagedError",
    "Lineage",
    "LoadReport",
    "MetadataError",
    "MismatchError",
    "MissingKeyError",
    "PickleError",
    "ReadError",
    "SaveExistsError",
    "SaveInfo",
    "SaveNotFoundError",
    "SaveReport",
    "Saveable",
    "StateError",
    "VersionError",
    "WriteError",
    "__version__",
    "checkpoint",
    "info",
    "read",
]
