"""What a save records of the caller's information: JSON → metadata and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..format import scalars


def decode(code: Any) -> Any:
    """Return the metadata that `metadata.encode` encoded as `code`.

    Tuples come back as lists, dataclasses, namespaces and mappings as dicts, paths as
    strings, enumerations as their values, scalars as Python's.
    """
    if isinstance(code, list):
        return [decode(item) for item in code]
    if not isinstance(code, dict):
        return code
    if "$dict" in code:
        items = [(scalars.decode(k), decode(v)) for k, v in code["$dict"]]
        return scalars.build_dict([k for k, _ in items], [v for _, v in items])
    if len(code) == 1 and next(iter(code)).startswith("$"):
        return scalars.decode(code)
    return {key: decode(item) for key, item in code.items()}


def decode_metrics(code: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that `metadata.encode_metrics` encoded as `code`.

    Raises:
      ValueError, TypeError, KeyError: some are not numbers.
    """
    values = scalars.decode_all(code.values())
    if not {*map(type, values)} <= {int, float}:
        raise ValueError("metrics that are not numbers")
    return dict(zip(code, values, strict=True))
