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
from .files import Files
from .functions import exists, load_pytree, save_pytree
from .look import info, read
from .reports import ComponentInfo, Lineage, LoadReport, SaveInfo, SaveReport
from .retention import Keep
from .rng import GlobalRNG
from .schedule import Every
from .value import Value
from .wrappers import Counter, Saveable

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "ComponentError",
    "ComponentInfo",
    "Counter",
    "DamagedError",
    "Every",
    "Files",
    "GlobalRNG",
    "Keep",
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
    "Value",
    "VersionError",
    "WriteError",
    "__version__",
    "checkpoint",
    "exists",
    "info",
    "load_pytree",
    "read",
    "save_pytree",
]
