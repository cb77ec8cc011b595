"""One object holds a run's whole training state, and brings it back.

cp = elementsckpt.Checkpoint("logdir/ckpt")
cp.step = step
cp.agent = agent
cp.load_or_save()
...
cp.save()
"""

__version__ = "0.1.0"

from . import checkpoint as checkpoint
from .checkpoint import Checkpoint as Checkpoint
from .checkpoint import info as info
from .checkpoint import read as read
from .components import Counter as Counter
from .components import Saveable as Saveable
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
from .reports import ComponentInfo as ComponentInfo
from .reports import Lineage as Lineage
from .reports import LoadReport as LoadReport
from .reports import SaveInfo as SaveInfo
from .reports import SaveReport as SaveReport
