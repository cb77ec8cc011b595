"""Names of what a save is made of: folders, manifests, segments.

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
HIDDEN = re.compile(rf"\.{SAVE.pattern}")
# What a component writes to, and what it writes itself, as manifests may name them.
SEGMENT = re.compile(r"[A-Za-z0-9_%~-]+-[0-9]{6,20}-[0-9]{5,20}\.safetensors")
FOLDER = re.compile(r"[A-Za-z0-9_%~-]+\.files")
_ANY_SEGMENT = re.compile(r".+-(\d{6,})-\d{5,}\.safetensors")
_STEM_LENGTH = 80  # File names may have 255 bytes.


def save_name(now: datetime, step: int | None) -> str:
    """Return the name of a save folder, as elements would."""
    stamp = now.strftime("%Y%m%dT%H%M%SF%f")
    return stamp if step is None else f"{stamp}-{step:012d}"


def step_of(save: str) -> int | None:
    """Return the step that is in the name of a save folder, or None."""
    match = SAVE.fullmatch(save)
    return int(match[1]) if match and match[1] else None


def segment(stem: str, sequence: int, index: int) -> str:
    """Return the name of a segment of the component with this stem."""
    return f"{stem}-{sequence:06d}-{index:05d}.safetensors"


def sequence_of(file: str) -> int | None:
    """Return the sequence of the save that wrote a segment; None for other files."""
    match = _ANY_SEGMENT.fullmatch(file)
    return int(match[1]) if match else None


def folder(stem: str) -> str:
    """Return the name of the folder of a component that writes files itself."""
    return f"{stem}.files"


def is_of_save(file: str) -> bool:
    """Return whether a file or folder in a save folder is a part of a save."""
    is_manifest = file in (MANIFEST, DRAFT)
    return is_manifest or sequence_of(file) is not None or bool(FOLDER.fullmatch(file))


def stems(keys: Sequence[str]) -> dict[str, str]:
    """Return a start of file names for each key, safe and different in any case."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for number, key in enumerate(keys):
        # What quote leaves as it is, without the dot: no hidden files, no "..".
        safe = quote(key, safe="", errors="surrogatepass").replace(".", "%2E")
        stem = re.sub(r"%[0-9A-F]?$", "", safe[:_STEM_LENGTH]) or "component"
        if stem.casefold() in taken or stem != safe:
            stem = f"{stem}~{number}"
        taken.add(stem.casefold())
        found[key] = stem
    return found
