"""The results of functions: small frozen objects that people and programs can read.

A **report** has its fields, `to_dict()` for JSON, a `repr` that a person reads, and
HTML for notebooks. Its **outline** is what both show: a title, rows, and tables below.
**Figures** are numbers as text.
"""

from .report import Report as Report
from .report import ReportList as ReportList
from .saves import ComponentInfo as ComponentInfo
from .saves import Lineage as Lineage
from .saves import LoadReport as LoadReport
from .saves import SaveInfo as SaveInfo
from .saves import SaveList as SaveList
from .saves import SaveReport as SaveReport

__all__ = ["figures", "looking", "outline", "report"]
