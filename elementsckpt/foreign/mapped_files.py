"""Files of arrays that others wrote, mapped; what is wrong with one is one error."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from ..errors import CheckpointError, DamagedError, ReadError, reason
from ..storage import pool
from ..storage.files import File

_MOST_AXES = 64  # As NumPy has.


class Arrays(Struct):
    """What is in a file.

    Attributes:
      values: Arrays by name. They are mapped: the file must stay as it is.
      metadata: Texts by name.
      left_out: Names of what only a pickle would bring back.
    """

    values: dict[str, np.ndarray]
    metadata: dict[str, str] = {}
    left_out: list[str] = []


@contextlib.contextmanager
def opened(path: Path, form: str) -> Iterator[tuple[File, np.ndarray]]:
    """Open and map a file; turn what its content raises into a DamagedError.

    Args:
      path: The file.
      form: Name of its format, for errors.

    Yields:
      The file, and its content, uint8[n].

    Raises:
      DamagedError: the content is not valid.
      ReadError: the system refused, or something is missing to read it.
    """
    with File(path) as file:
        try:
            yield file, map_file(file)
        except CheckpointError:
            raise
        except (MemoryError, ImportError) as error:
            raise ReadError(
                f"{path} cannot be read here ({reason(error)}). It may be fine: free "
                f"memory, or install ml_dtypes, and try again."
            ) from error
        except Exception as error:  # Parsers raise anything for nonsense.
            raise DamagedError(
                f"{path} is not a valid {form} file: {reason(error)}. Restore it from "
                f"a copy, or write it again."
            ) from error


def map_file(file: File) -> np.ndarray:
    """Return the content of a file, uint8[n], mapped if the system can."""
    content = pool.map_file(file) if file.size else None
    if content is None:
        content = np.empty(file.size, np.uint8)
        file.read(content, 0)
    return content


def array(
    content: np.ndarray, begin: int, end: int, dtype: np.dtype[Any], shape: Any
) -> np.ndarray:
    """Return an array in mapped content.

    Args:
      content: uint8[n].
      begin: Where it begins.
      end: Where it ends.
      dtype: Its dtype.
      shape: Its shape; what a file says.

    Raises:
      ValueError: its size is another one.
    """
    wanted = size_bytes(dtype, shape)
    if end - begin != wanted:
        raise ValueError(f"{end - begin} bytes, where its shape needs {wanted}")
    return np.ndarray(tuple(shape), dtype, content[begin:end].data)


def size_bytes(dtype: np.dtype[Any], shape: Any) -> int:
    """Return the size of an array.

    Raises:
      ValueError: there is no such shape.
    """
    if len(shape) > _MOST_AXES or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"no array has the shape {str(shape)[:80]}")
    if math.prod(shape) * max(1, dtype.itemsize) >= 1 << 62:
        raise ValueError("an array larger than any memory")
    return int(math.prod(shape) * dtype.itemsize)
