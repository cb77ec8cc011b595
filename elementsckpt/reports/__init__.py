"""The results of functions: small frozen objects that people and programs can read.

A **report** has its fields, `to_dict()` for JSON, a `repr` that a person reads, and
HTML for notebooks. Its **outline** is what both show: a title, rows, and tables below.
**Figures** are numbers as text.
"""

from .report import Report, ReportList
from .saves import ComponentInfo, Lineage, LoadReport, SaveInfo, SaveList, SaveReport

__all__ = ["figures", "looking", "outline", "report"]
