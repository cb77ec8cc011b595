"""What wrote a save: which run, on which machine, from which commit of its program."""

from __future__ import annotations

import functools
import os
import re
import sys
from pathlib import Path

from ..storage import disk

_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FILE_BYTES = 1 << 26  # Of packed references in a very large repository.
_HOPS = 5  # From one reference to another; as many as git follows.


def new_run() -> str:
    """Return a name for a run that no other has."""
    return os.urandom(16).hex()


def host() -> str:
    """Return the name of this machine."""
    return os.uname().nodename


@functools.cache
def commit() -> str | None:
    """Return the git commit that is checked out where the program is.

    That is the repository that holds the script, or else the current directory. It is
    looked up once, as a long run goes on with the code that it started with.

    Returns:
      The commit's hash, or None if there is no repository, no commit, or anything that
      is not understood. Changes that are not committed leave no trace in it.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    try:
        here = Path(os.path.realpath(script)).parent if script else Path.cwd()
        for folder in (here, *here.parents):
            if os.path.lexists(folder / ".git"):
                return _head(folder / ".git")
    except (OSError, ValueError, TypeError):
        pass  # A save does not fail for it.
    return None


def _head(git: Path) -> str | None:
    """Return the commit of HEAD.

    Source: gitrepository-layout, the format with loose and packed references.
    """
    if not git.is_dir():  # Of a worktree or a submodule: a file that says where it is.
        git = git.parent / _read(git).removeprefix("gitdir: ")
    # A worktree has its own HEAD, and shares its branches with the others.
    common = git
    if (git / "commondir").exists():
        common = git / _read(git / "commondir")
    found = _read(git / "HEAD")
    for _ in range(_HOPS):
        if _HASH.fullmatch(found):
            return found
        name = found.removeprefix("ref:").lstrip()
        if not name.startswith("refs/") or ".." in name:
            return None
        found = _reference(name, common)
    return None


def _reference(name: str, common: Path) -> str:
    if (common / name).is_file():
        return _read(common / name)
    for line in _read(common / "packed-refs").splitlines():
        if line.endswith(f" {name}"):
            return line.partition(" ")[0]
    return ""


def _read(path: Path) -> str:
    content = disk.read_file(path, limit_bytes=_FILE_BYTES)
    return os.fsdecode(bytes(content)).rstrip("\r\n")
