"""All errors, by what the caller can do about them.

    CheckpointError
    ├── SaveNotFoundError   FileNotFoundError  there is no save at this path
    ├── SaveExistsError     FileExistsError    the path to save to is taken
    ├── MissingKeyError     KeyError           no such component
    ├── ComponentError      ValueError         this object cannot be registered
    ├── StateError          ValueError         this state cannot be saved
    ├── MetadataError       ValueError         this metadata cannot be saved
    ├── MismatchError       ValueError         saved and current leaves differ
    ├── PickleError         ValueError         pickle is needed and not allowed
    ├── VersionError        ValueError         written by a newer elementsckpt
    ├── DamagedError        OSError            files of a save changed or vanished
    ├── ReadError           OSError            the system refused to open or read
    └── WriteError          OSError            the disk refused a change

Each is also the builtin exception that a caller would expect, so that
`except FileNotFoundError` works without an import from here.

Messages and logs quote the content of files. In both, characters that control a
terminal are escaped. In logs, where a record is one line, line breaks are escaped, too.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from typing import Any

from .user import attributes

_CONTROL = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f"  # Control characters except the line break.
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f"  # Line separators, text directions.
    "\xad\u200b\u2060-\u2065\ufeff\ufff9-\ufffb"  # What nothing shows, but joiners.
    "\ud800-\udfff]"  # Lone surrogates, which cannot be written.
)


def _printable(text: str) -> str:
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


class CheckpointError(Exception):
    """Base of all errors that elementsckpt raises itself.

    Args:
      message: What is wrong, where, what was expected and found, and the remedy.

    Attributes:
      message: The same, printable.
      subject: Words in it that stand for the key of the component, if it does not know
        that.
    """

    subject = ""

    def __init__(self, message: str) -> None:
        message = _printable(message)
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        # KeyError would quote the message, and OSError would look for an errno.
        return self.message


class SaveNotFoundError(CheckpointError, FileNotFoundError):
    """There is no save at this path."""


class SaveExistsError(CheckpointError, FileExistsError):
    """The path to save to holds a save or other files already."""


class MissingKeyError(CheckpointError, KeyError):
    """The save, or the checkpoint object, has no component under this key."""


class ComponentError(CheckpointError, ValueError):
    """The object, or the key, cannot be registered."""


class StateError(CheckpointError, ValueError):
    """A component's state holds something that cannot be saved."""


class MetadataError(CheckpointError, ValueError):
    """Metadata holds something that cannot be saved."""


class MismatchError(CheckpointError, ValueError):
    """Saved leaves do not fit the component's current state."""


class PickleError(CheckpointError, ValueError):
    """Loading needs pickle, which runs code and was not allowed."""


class VersionError(CheckpointError, ValueError):
    """The save was written in a newer version of the format."""


class DamagedError(CheckpointError, OSError):
    """Files of a save are truncated, changed, missing or not what they claim."""


class ReadError(CheckpointError, OSError):
    """The system refused to open or read a file; the save may be good.

    For example, permissions are missing or file descriptors are exhausted. An older
    save would not help, so a load does not fall back to one.
    """


class WriteError(CheckpointError, OSError):
    """The disk refused a change.

    Args:
      message: What could not be written, and the remedy.
      errno: The system's error number, such as `errno.ENOSPC`.
    """

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.errno)


def reason(error: BaseException) -> str:
    """Return the text of an exception on one line, without a period."""
    text = attributes.text(error, "strerror") or str(error)
    return " ".join(text.split()).rstrip(".?!") or type(error).__name__


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an exception, also before Python 3.11, which added `add_note`."""
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:
        error.__notes__ = [*getattr(error, "__notes__", []), note]


@contextlib.contextmanager
def naming(key: str) -> Iterator[None]:
    """Add the key to errors of this library's own components, which do not know it."""
    try:
        yield
    except (StateError, MismatchError) as error:
        named = f"Component {key!r}: {error.message}"
        if error.subject:
            named = error.message.replace(error.subject, repr(key), 1)
        error.message = _printable(named)
        error.args = (error.message,)
        raise


@contextlib.contextmanager
def damage(where: str) -> Iterator[None]:
    """Turn errors from decoding the content of a file into a DamagedError."""
    try:
        yield
    except CheckpointError:
        raise
    except ImportError as error:
        raise ReadError(
            f"{where} needs a package or version that is not installed here "
            f"({reason(error)}). Install it, or leave the leaf out with keys= or "
            f"regex=; elementsckpt.read returns tensors as NumPy arrays."
        ) from error
    except MemoryError as error:
        raise ReadError(
            f"{where} does not fit into memory. Load less of it at a time, or map its "
            f"arrays with mmap=True."
        ) from error
    except Exception as error:  # NumPy, torch and classes raise anything for nonsense.
        found = f"{type(error).__name__}: {reason(error)}"
        raise DamagedError(f"{where} is not a valid save ({found}).") from error


def one_line(text: str) -> str:
    """Return text of a file, or of the user, as it may be shown on one line."""
    return _printable(text).replace("\n", "\\n")


def _escape(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(map(_line, record.args))
    return True


def _line(value: object) -> object:
    text = str(value)
    line = one_line(text)
    return value if line == text else line


logging.getLogger("elementsckpt").addFilter(_escape)
