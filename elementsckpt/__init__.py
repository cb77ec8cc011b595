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

__version__ = "0.2.0.dev0"

import importlib

TYPE_CHECKING = False  # As that of typing, which takes milliseconds to import.
if TYPE_CHECKING:
    from . import checkpoint as checkpoint
    from . import testing as testing
    from .checkpoint import Checkpoint as Checkpoint
    from .components.files import Files as Files
    from .components.rng import GlobalRNG as GlobalRNG
    from .components.value import Value as Value
    from .components.wrappers import Counter as Counter
    from .components.wrappers import Saveable as Saveable
    from .directory.retention import Keep as Keep
    from .environments.component import Environment as Environment
    from .environments.recorded import Recorded as Recorded
    from .errors import CheckpointError as CheckpointError
    from .errors import ComponentError as ComponentError
    from .errors import DamagedError as DamagedError
    from .errors import MetadataError as MetadataError
    from .errors import MismatchError as MismatchError
    from .errors import MissingKeyError as MissingKeyError
    from .errors import PickleError as PickleError
    from .errors import ReadError as ReadError
    from .errors import SaveExistsError as SaveExistsError
    from .errors import SaveNotFoundError as SaveNotFoundError
    from .errors import StateError as StateError
    from .errors import VersionError as VersionError
    from .errors import WriteError as WriteError
    from .functions import exists as exists
    from .functions import load_pytree as load_pytree
    from .functions import save_pytree as save_pytree
    from .inspection.conversion import convert as convert
    from .inspection.differences import diff as diff
    from .inspection.disk_usage import usage as usage
    from .inspection.exports import export as export
    from .inspection.following import follow as follow
    from .inspection.infos import info as info
    from .inspection.infos import saves as saves
    from .inspection.listed import leaves as leaves
    from .inspection.pins import pin as pin
    from .inspection.pins import unpin as unpin
    from .inspection.removal import delete as delete
    from .inspection.removal import prune as prune
    from .inspection.states import read as read
    from .inspection.statistics import stats as stats
    from .inspection.verification import verify as verify
    from .kinds.ring import Ring as Ring
    from .page.report import write_report as write_report
    from .reports import ComponentInfo as ComponentInfo
    from .reports import Lineage as Lineage
    from .reports import LoadReport as LoadReport
    from .reports import SaveInfo as SaveInfo
    from .reports import SaveReport as SaveReport
    from .reports.work import Progress as Progress
    from .run.schedule import Every as Every
    from .system.progress import progress as progress

# Names by the modules that have them, which are imported when the names are asked for:
# NumPy, which most of them need, takes longer than the rest of a short program.
_HOMES = {
    "checkpoint": ["Checkpoint"],
    "components.files": ["Files"],
    "components.rng": ["GlobalRNG"],
    "components.value": ["Value"],
    "components.wrappers": ["Counter", "Saveable"],
    "directory.retention": ["Keep"],
    "environments.component": ["Environment"],
    "environments.recorded": ["Recorded"],
    "errors": [
        "CheckpointError",
        "ComponentError",
        "DamagedError",
        "MetadataError",
        "MismatchError",
        "MissingKeyError",
        "PickleError",
        "ReadError",
        "SaveExistsError",
        "SaveNotFoundError",
        "StateError",
        "VersionError",
        "WriteError",
    ],
    "functions": ["exists", "load_pytree", "save_pytree"],
    "inspection.conversion": ["convert"],
    "inspection.differences": ["diff"],
    "inspection.disk_usage": ["usage"],
    "inspection.exports": ["export"],
    "inspection.following": ["follow"],
    "inspection.infos": ["info", "saves"],
    "inspection.listed": ["leaves"],
    "inspection.pins": ["pin", "unpin"],
    "inspection.removal": ["delete", "prune"],
    "inspection.states": ["read"],
    "inspection.statistics": ["stats"],
    "inspection.verification": ["verify"],
    "kinds.ring": ["Ring"],
    "page.report": ["write_report"],
    "reports": ["ComponentInfo", "Lineage", "LoadReport", "SaveInfo", "SaveReport"],
    "reports.work": ["Progress"],
    "run.schedule": ["Every"],
    "system.progress": ["progress"],
}
_NAMES = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = {"checkpoint", "errors", "functions", "inspection", "reports", "testing"}
__all__ = sorted([*_NAMES, "__version__", "checkpoint"])


if not TYPE_CHECKING:

    def __getattr__(name):
        if name in _MODULES:
            return importlib.import_module(f".{name}", __name__)
        if name in _NAMES:
            home = importlib.import_module(f".{_NAMES[name]}", __name__)
            found = globals()[name] = getattr(home, name)
            return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "testing"])
