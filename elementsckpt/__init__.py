"""One object holds a run's whole training state, and brings it back.

Register components as attributes of a `Checkpoint`, call `load_or_save()` before the
training loop and `save()` in it. README.md shows how, docs/ says what is promised.
"""

__version__ = "0.1.0"

from . import checkpoint
from .checkpoint import Checkpoint
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
from .look import info, read
from .reports import ComponentInfo, Lineage, LoadReport, SaveInfo, SaveReport
from .rng import GlobalRNG
from .wrappers import Counter, Saveable

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "ComponentError",
    "ComponentInfo",
    "Counter",
    "DamagedError",
    "GlobalRNG",
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
