"""What all reports have in common: fields, JSON, a text and HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePath
from typing import Any, Generic, TypeVar

from msgspec import Struct

from .outline import Outline

T = TypeVar("T", bound="Report")


class Report(Struct, frozen=True):
    """An immutable result. Fields whose names begin with "_" are not for users."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types.

        Paths are text, points in time ISO 8601, tuples lists, and floats that JSON
        lacks "nan", "inf" and "-inf".
        """
        names = [name for name in self.__struct_fields__ if name[0] != "_"]
        return {name: to_json(getattr(self, name)) for name in names}

    def outline(self) -> Outline:
        """Return what to show of it."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.outline().text()

    def _repr_html_(self) -> str:
        return self.outline().html()


class ReportList(list[T], Generic[T]):
    """A list of reports, shown as a table."""

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the reports as JSON types, as `to_dict` of each does."""
        return [report.to_dict() for report in self]

    def outline(self) -> Outline:
        """Return what to show of it."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.outline().text()

    def _repr_html_(self) -> str:
        return self.outline().html()


def to_json(value: Any) -> Any:
    """Return a value of JSON types; what has no such type becomes text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(float(value))
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Report):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return str(value)
