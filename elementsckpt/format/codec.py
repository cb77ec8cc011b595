"""A manifest ⇄ the content of `manifest.json`, and what a manifest must not claim.

The file is one JSON object. Each field and each component has a line of its own, so
that people can read it. The last field is the digest of all bytes before it.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

from msgspec import MsgspecError, Struct, json

from ..errors import DamagedError, VersionError, reason
from .digests import digest
from .manifest import MAX_BLOCK_BYTES, VERSION, Component, Files, Head, Manifest
from .names import FOLDER, SEGMENT

T = TypeVar("T", bound=Head)
_TAIL = b',\n"digest":"%s"}\n'
_PLACE_OF = operator.attrgetter("segment", "offset")
_TAIL_BYTES = len(_TAIL) - 2 + 32


class _Version(Struct):
    version: int


_HEAD = json.Decoder(Head)
_MANIFEST = json.Decoder(Manifest)


class _InvalidError(Exception):
    """A manifest has a good digest and claims what cannot be; says what that is."""


def encode(manifest: Manifest) -> bytes:
    """Return the content of a manifest file."""
    lines = []
    for field in manifest.__struct_fields__:
        value = getattr(manifest, field)
        if field == "components":
            lines.append(
                b'"components":[\n%s\n]' % b",\n".join(map(json.encode, value))
            )
        elif field != "digest":
            lines.append(b'"%s":%s' % (field.encode(), json.encode(value)))
    body = b"{\n" + b",\n".join(lines)
    return body + _TAIL % digest(body).encode()


def decode(content: bytes | bytearray, where: str) -> Manifest:
    """Decode and check a manifest; errors call it `where`.

    Raises:
      DamagedError: it is not what was written.
      VersionError: it is in a newer version of the format.
    """
    manifest = _decode(_MANIFEST, content, where)
    try:
        for component in manifest.components:
            if component.files is None:
                _check_blocks(component)
            else:
                _check_files(component, component.files)
        _refuse_twice(x.file for item in manifest.components for x in item.segments)
        _refuse_twice(x.files.folder for x in manifest.components if x.files)
    except _InvalidError as error:
        raise DamagedError(
            f"{where} is damaged, or not what it claims to be: it {error}."
        ) from error
    return manifest


def decode_head(content: bytes | bytearray, where: str) -> Head:
    """Decode a manifest like `decode`, without the contents of its components."""
    return _decode(_HEAD, content, where)


def _decode(decoder: json.Decoder[T], content: bytes | bytearray, where: str) -> T:
    body, tail = memoryview(content)[:-_TAIL_BYTES], content[-_TAIL_BYTES:]
    if tail != _TAIL % digest(body).encode():  # All versions have it.
        raise DamagedError(f"{where} is damaged: its digest does not match.")
    try:
        version = json.decode(content, type=_Version).version
        if version > VERSION:
            raise VersionError(
                f"{where} is in version {version} of the format, and this elementsckpt "
                f"reads versions up to {VERSION}: update elementsckpt to load it."
            )
        return decoder.decode(content)
    except (MsgspecError, RecursionError, UnicodeError) as error:
        raise DamagedError(f"{where} is not a manifest: {reason(error)}.") from error


def _refuse_twice(names: Iterable[str]) -> None:
    """Refuse a name that occurs twice: the file would be loaded twice."""
    for name, count in Counter(names).items():
        if count > 1:
            raise _InvalidError(f"names {name!r} twice")


def _check_blocks(component: Component) -> None:
    """Refuse files outside the folder, blocks outside their file, and overlaps.

    As each byte is in one block at most, this also bounds the memory of a load.
    """
    for segment in component.segments:
        if not SEGMENT.fullmatch(segment.file):
            raise _InvalidError(f"names {segment.file!r}, which is not a segment")
        if segment.start > segment.size:
            raise _InvalidError(f"has data of {segment.file} beyond its end")
    ends = [segment.start for segment in component.segments]
    content, leaves = 0, component.size_bytes
    for block in sorted(component.blocks, key=_PLACE_OF):
        if block.segment >= len(ends):
            raise _InvalidError("has a block in a segment that it lacks")
        size, end = block.unpacked or block.size, block.offset + block.size
        content += size
        if size > MAX_BLOCK_BYTES:
            raise _InvalidError(
                f"has a block of {size} bytes, more than {MAX_BLOCK_BYTES}"
            )
        segment = component.segments[block.segment]
        if block.offset < ends[block.segment] or end > segment.size:
            raise _InvalidError(
                f"has a block at bytes {block.offset} to {end} of {segment.file} that "
                f"overlaps another, or an end of the file"
            )
        ends[block.segment] = end
    # Gaps align the leaves; a gap is never larger than the leaf after it.
    if not leaves <= content <= 2 * leaves:
        raise _InvalidError(f"has blocks of {content} bytes, for leaves of {leaves}")
    count = 1 if component.shards is None else component.shards
    if len(component.trees) != count:
        raise _InvalidError(f"has {len(component.trees)} trees, expected {count}")


def _check_files(component: Component, files: Files) -> None:
    """Refuse paths outside the folder, and paths that occur twice."""
    if component.segments or component.blocks or component.trees or component.shards:
        raise _InvalidError("has a component with files and a state")
    if not FOLDER.fullmatch(files.folder):
        raise _InvalidError(f"names {files.folder!r}, which is not a folder of files")
    paths = [file.path for file in files.files]
    _refuse_twice(paths)
    for path in paths:
        if "\0" in path or {"", ".", ".."} & set(path.split("/")):
            raise _InvalidError(f"names a file {path!r} outside of {files.folder}")
