"""A manifest ⇄ the content of `manifest.json`, and what a manifest must not claim.

The file is one JSON object. Each field and each component has a line of its own, so
that people can read it. The last field is the digest of all bytes before it. The fields
before the components are the head, which ends with such a digest, too, so that a
directory is listed without reading the rest.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import MsgspecError, Struct, json

from ..errors import DamagedError, VersionError, reason
from .digests import digest
from .manifest import (
    MAX_BLOCK_BYTES,
    VERSION,
    Block,
    Component,
    File,
    Files,
    Head,
    Manifest,
    Segment,
    Summary,
)
from .names import FOLDER, SEGMENT

T = TypeVar("T", bound=Struct)
_TAIL = b',\n"digest":"%s"}\n'
_PLACE_OF = operator.attrgetter("segment", "offset")
_SEGMENT_OF = operator.attrgetter("segment")
_DIGEST_OF = operator.attrgetter("digest")
_TAIL_BYTES = len(_TAIL) - 2 + 32
_HEAD_TAIL = b',\n"head_digest":"%s"'
# In JSON, lines end only between fields: those within text are escaped.
_HEAD_END = re.compile(rb',\n"rest_bytes":(\d{1,12}),\n"head_digest":"([^"]*)"')


class _Version(Struct):
    version: int


class _Headless(Head, kw_only=True):
    components: list[Summary]


_VERSION = json.Decoder(_Version)
_HEAD = json.Decoder(Head)
_HEADLESS = json.Decoder(_Headless)
_MANIFEST = json.Decoder(Manifest)


class _InvalidError(Exception):
    """A manifest has a good digest and claims what cannot be; says what that is."""


def encode(manifest: Manifest) -> bytes:
    """Return the content of a manifest file."""
    head = manifest.head()
    fields: dict[str, Any] = {x: getattr(head, x) for x in head.__struct_fields__}
    # Components can be large, so they are copied once.
    parts = [x for item in manifest.components for x in (b",\n", json.encode(item))]
    parts = [b',\n"components":[\n', *parts[1:], b"\n]"]
    fields["rest_bytes"] = sum(map(len, parts)) + _TAIL_BYTES
    lines = [b'"%s":%s' % (x.encode(), json.encode(y)) for x, y in fields.items()]
    start = b"{\n" + b",\n".join(lines)
    parts = [start, _HEAD_TAIL % digest(start).encode(), *parts]
    return b"".join([*parts, _TAIL % digest(*parts).encode()])


def decode(content: bytes | bytearray, where: str) -> Manifest:
    """Decode and check a manifest; errors call it `where`.

    Raises:
      DamagedError: it is not what was written.
      VersionError: it is in a newer version of the format.
    """
    head = decode_head(content, len(content), where)  # Refuses a newer version.
    manifest = _parse(_MANIFEST, content, where)
    try:
        if head != manifest.head():
            raise _InvalidError("is not what its head says")
        for component in manifest.components:
            if component.files is None:
                _check_blocks(component)
            else:
                _check_files(component, component.files)
        _check_shared(manifest.components)
        _refuse_twice(x.files.folder for x in manifest.components if x.files)
    except _InvalidError as error:
        raise DamagedError(
            f"{where} is damaged, or not what it claims to be: it {error}."
        ) from error
    return manifest


def decode_head(start: bytes | bytearray, size: int, where: str) -> Head | None:
    """Decode the head of a manifest, from its first bytes.

    Args:
      start: The first bytes.
      size: Size of the manifest.
      where: What errors call it.

    Returns:
      The head; or None if its end is not in these bytes, or it has none, as in version
      1: then all of the manifest is needed.

    Raises:
      DamagedError, VersionError: as from `decode`; of what is in these bytes alone.
    """
    end = _HEAD_END.search(start)
    if len(start) == size:
        verify(start, where)
    elif end is None:
        return None
    if end is None:
        _refuse_newer(start, where)
        old = _parse(_HEADLESS, start, where)
        old.summaries = old.components
        return msgspec.convert(old, Head, from_attributes=True)
    body = memoryview(start)[: end.end(1)]
    if end[2] != digest(body).encode():
        raise DamagedError(f"{where} is damaged: the digest of its head differs.")
    expected = end.end() + int(end[1])
    if size != expected:
        raise DamagedError(
            f"{where} is damaged: it has {size} bytes, expected {expected}."
        )
    content = bytes(body) + b"}"
    _refuse_newer(content, where)
    return _parse(_HEAD, content, where)


def verify(content: bytes | bytearray, where: str) -> None:
    """Verify the digest of a manifest, which is there in all versions.

    Raises:
      DamagedError: it does not match.
    """
    body, tail = memoryview(content)[:-_TAIL_BYTES], content[-_TAIL_BYTES:]
    if tail != _TAIL % digest(body).encode():
        raise DamagedError(f"{where} is damaged: its digest does not match.")


def _refuse_newer(content: bytes | bytearray, where: str) -> None:
    version = _parse(_VERSION, content, where).version
    if version > VERSION:
        raise VersionError(
            f"{where} is in version {version} of the format, and this elementsckpt "
            f"reads versions up to {VERSION}: update elementsckpt to load it."
        )


def _parse(decoder: json.Decoder[T], content: bytes | bytearray, where: str) -> T:
    try:
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
    _refuse_twice(segment.file for segment in component.segments)
    for segment in component.segments:
        if not SEGMENT.fullmatch(segment.file):
            raise _InvalidError(f"names {segment.file!r}, which is not a segment")
        if segment.start > segment.size:
            raise _InvalidError(f"has data of {segment.file} beyond its end")
    blocks, leaves = component.blocks, component.size_bytes
    _check_digests(blocks)
    if max(map(_SEGMENT_OF, blocks), default=-1) >= len(component.segments):
        raise _InvalidError("has a block in a segment that it lacks")
    sizes = [block.unpacked or block.size for block in blocks]
    content, largest = sum(sizes), max(sizes, default=0)
    if largest > MAX_BLOCK_BYTES:
        raise _InvalidError(
            f"has a block of {largest} bytes, more than {MAX_BLOCK_BYTES}"
        )
    _check_overlap(component.segments, blocks)
    # Gaps align the leaves; a gap is never larger than the leaf after it.
    if not leaves <= content <= 2 * leaves:
        raise _InvalidError(f"has blocks of {content} bytes, for leaves of {leaves}")
    count = 1 if component.shards is None else component.shards
    if len(component.trees) != count:
        raise _InvalidError(f"has {len(component.trees)} trees, expected {count}")


def _check_digests(items: Iterable[Block | File]) -> None:
    """Refuse digests with anything but digits in them; the schema has their length."""
    digits = "".join(map(_DIGEST_OF, items)).encode(errors="replace")
    if digits.translate(None, b"0123456789abcdef"):
        raise _InvalidError("has a digest that is not hexadecimal")


def _check_overlap(segments: Sequence[Segment], blocks: Sequence[Block]) -> None:
    """Refuse blocks that overlap others, or lie outside of their segment."""
    found = _overlapping(segments, blocks)  # Most are in order.
    found = found and _overlapping(segments, sorted(blocks, key=_PLACE_OF))
    if found:
        end, file = found.offset + found.size, segments[found.segment].file
        raise _InvalidError(
            f"has a block at bytes {found.offset} to {end} of {file} that overlaps "
            f"another, or an end of the file"
        )


def _overlapping(segments: Sequence[Segment], blocks: Iterable[Block]) -> Block | None:
    """Return the first block that begins before the one ahead of it ends, or None."""
    ends = [segment.start for segment in segments]
    sizes = [segment.size for segment in segments]
    for block in blocks:
        number, offset = block.segment, block.offset
        end = offset + block.size
        if offset < ends[number] or end > sizes[number]:
            return block
        ends[number] = end
    return None


def _check_shared(components: Iterable[Component]) -> None:
    """Refuse components that differ about a segment, or claim the same bytes of it."""
    components = [x for x in components if x.segments]
    users = Counter(segment.file for x in components for segment in x.segments)
    shared: dict[str, int] = {}
    segments: list[Segment] = []
    blocks: list[Block] = []
    for component in components:
        for segment in component.segments:
            if users[segment.file] > 1:
                number = shared.setdefault(segment.file, len(segments))
                if number == len(segments):
                    segments.append(segment)
                if segments[number] != segment:
                    raise _InvalidError(f"has two descriptions of {segment.file}")
        files = [segment.file for segment in component.segments]
        for block in component.blocks:
            number = shared.get(files[block.segment], -1)
            if number >= 0:
                blocks.append(Block(number, block.offset, block.size, block.digest))
    _check_overlap(segments, blocks)


def _check_files(component: Component, files: Files) -> None:
    """Refuse paths outside the folder, and paths that occur twice."""
    if component.segments or component.blocks or component.trees or component.shards:
        raise _InvalidError("has a component with files and a state")
    if not FOLDER.fullmatch(files.folder):
        raise _InvalidError(f"names {files.folder!r}, which is not a folder of files")
    _check_digests(files.files)
    paths = [file.path for file in files.files]
    _refuse_twice(paths)
    for path in paths:
        if "\0" in path or {"", ".", ".."} & set(path.split("/")):
            raise _InvalidError(f"names a file {path!r} outside of {files.folder}")
