"""One object holds a run's whole training state, and brings it back.

    cp = elementsckpt.Checkpoint("logdir/ckpt")
    cp.agent, cp.step = agent, step  # Anything with save() and load(data).
    cp.load_or_save()  # Resumes, or writes the first save.
    while step < 1000:
        train()
        cp.save()

`help(elementsckpt.Checkpoint)` says what can be registered and what can be called.
`elementsckpt.testing` proves that a run resumes exactly.
"""

__version__ = "0.1.0"

import importlib

TYPE_CHECKING = False  # As that of typing, which takes milliseconds to import.
if TYPE_CHECKING:
    from . import checkpoint as checkpoint
    from . import testing as testing
    from .checkpoint import Checkpoint
    from .components.files import Files
    from .components.rng import GlobalRNG
    from .components.value import Value
    from .components.wrappers import Counter, Saveable
    from .directory.retention import Keep
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
    from .functions import exists, load_pytree, save_pytree
    from .inspection.differences import diff
    from .inspection.disk_usage import usage
    from .inspection.exports import export
    from .inspection.following import follow
    from .inspection.infos import info, saves
    from .inspection.listed import leaves
    from .inspection.removal import delete, prune
    from .inspection.states import read
    from .inspection.statistics import stats
    from .inspection.verification import verify
    from .kinds.ring import Ring
    from .page.report import write_report
    from .reports import ComponentInfo, Lineage, LoadReport, SaveInfo, SaveReport
    from .run.schedule import Every

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
    "Ring",
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
    "delete",
    "diff",
    "exists",
    "export",
    "follow",
    "info",
    "leaves",
    "load_pytree",
    "prune",
    "read",
    "save_pytree",
    "saves",
    "stats",
    "usage",
    "verify",
    "write_report",
]

# Modules by the names that they have, which are imported when they are asked for:
# NumPy, which most of them need, takes longer than the rest of a short program.
_HOMES = {
    "checkpoint": ["Checkpoint"],
    "components.files": ["Files"],
    "components.rng": ["GlobalRNG"],
    "components.value": ["Value"],
    "components.wrappers": ["Counter", "Saveable"],
    "directory.retention": ["Keep"],
    "errors": [name for name in __all__ if name.endswith("Error")],
    "functions": ["exists", "load_pytree", "save_pytree"],
    "inspection.differences": ["diff"],
    "inspection.disk_usage": ["usage"],
    "inspection.exports": ["export"],
    "inspection.following": ["follow"],
    "inspection.infos": ["info", "saves"],
    "inspection.listed": ["leaves"],
    "inspection.removal": ["delete", "prune"],
    "inspection.states": ["read"],
    "inspection.statistics": ["stats"],
    "inspection.verification": ["verify"],
    "kinds.ring": ["Ring"],
    "page.report": ["write_report"],
    "reports": ["ComponentInfo", "Lineage", "LoadReport", "SaveInfo", "SaveReport"],
    "run.schedule": ["Every"],
}
_MODULES = {"checkpoint", "errors", "functions", "inspection", "reports", "testing"}


if not TYPE_CHECKING:

    def __getattr__(name):
        if name in _MODULES:
            return importlib.import_module(f".{name}", __name__)
        for home, names in _HOMES.items():
            if name in names:
                found = getattr(importlib.import_module(f".{home}", __name__), name)
                globals()[name] = found
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "testing"])
