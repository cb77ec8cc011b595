"""Names of the files and folders of a save.

directory/
  latest                            LATEST
  20260131T120000F000000-17/        SAVE
    agent-000017-00000.safetensors  SEGMENT
    policy.files/                   FOLDER
    manifest.json                   MANIFEST, or DRAFT before the commit
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote

MANIFEST = "manifest.json"
DRAFT = ".manifest.json"
LATEST = "latest"

SAVE = re.compile(r"\d{8}T\d{6}F\d{6}(?:-(-?\d+))?")
# Segments, and folders of files, by names that a manifest may have.
SEGMENT = re.compile(r"[A-Za-z0-9_%~-]+-[0-9]{6,20}-[0-9]{5,20}\.safetensors")
FOLDER = re.compile(r"[A-Za-z0-9_%~-]+\.files")
_ANY_SEGMENT = re.compile(r".+-(\d{6,})-\d{5,}\.safetensors")
_STEM_LENGTH = 80  # File names may have 255 bytes.


def save_name(now: datetime, step: int | None) -> str:
    """Return the name of a save folder, as elements forms it."""
    stamp = now.strftime("%Y%m%dT%H%M%SF%f")
    return stamp if step is None else f"{stamp}-{step:012d}"


def is_save(folder: str) -> bool:
    """Return whether this is the name of a save folder, as `save_name` forms it."""
    return SAVE.fullmatch(folder) is not None


def step_of(save: str) -> int | None:
    """Return the step in the name of a save folder, or None."""
    match = SAVE.fullmatch(save)
    return int(match[1]) if match and match[1] else None


def segment(stem: str, sequence: int, index: int) -> str:
    """Return the name of a segment of the component with this stem, and of others."""
    return f"{stem}-{sequence:06d}-{index:05d}.safetensors"


def sequence_of(file: str) -> int | None:
    """Return the sequence of the save that wrote a segment; None for other files."""
    match = _ANY_SEGMENT.fullmatch(file)
    return int(match[1]) if match else None


def folder(stem: str) -> str:
    """Return the name of the folder of a component that writes files itself."""
    return f"{stem}.files"


def is_of_save(file: str) -> bool:
    """Return whether this is the name of a file or folder that a save consists of."""
    is_manifest = file in (MANIFEST, DRAFT)
    return is_manifest or sequence_of(file) is not None or bool(FOLDER.fullmatch(file))


def stems(keys: Sequence[str]) -> dict[str, str]:
    """Return the start of file names for each key, safe and unique in any case."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for number, key in enumerate(keys):
        # `quote` keeps dots; without them there are no hidden files and no "..".
        safe = quote(key, safe="", errors="surrogatepass").replace(".", "%2E")
        stem = re.sub(r"%[0-9A-F]?$", "", safe[:_STEM_LENGTH]) or "component"
        if stem.casefold() in taken or stem != safe:
            stem = f"{stem}~{number}"
        taken.add(stem.casefold())
        found[key] = stem
    return found
