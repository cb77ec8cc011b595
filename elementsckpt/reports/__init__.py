"""The results of functions: small frozen objects that people and programs can read.

A **report** has its fields, `to_dict()` for JSON, a `repr` that a person reads, and
HTML for notebooks. Its **outline** is what both show: a title, rows, and tables below.
**Figures** are numbers as text.
"""

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .report import Report as Report
    from .report import ReportList as ReportList
    from .saves import ComponentInfo as ComponentInfo
    from .saves import Lineage as Lineage
    from .saves import LoadReport as LoadReport
    from .saves import SaveInfo as SaveInfo
    from .saves import SaveList as SaveList
    from .saves import SaveReport as SaveReport

# Figures and outlines are all that the help of a command line needs, and take a third
# of the time to import.
_HOMES = {
    "report": ["Report", "ReportList"],
    "saves": [
        "ComponentInfo",
        "Lineage",
        "LoadReport",
        "SaveInfo",
        "SaveList",
        "SaveReport",
    ],
}
_NAMES = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [
    "checks",
    "differences",
    "disk",
    "figures",
    "leaves",
    "outline",
    "report",
    "work",
]


if not TYPE_CHECKING:

    def __getattr__(name):
        if name in _NAMES:
            home = importlib.import_module(f".{_NAMES[name]}", __name__)
            found = globals()[name] = getattr(home, name)
            return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
