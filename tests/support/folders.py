"""Save folders looked into, damaged and forged, and calls that are counted."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import pathlib
import tempfile
import threading
from datetime import datetime
from typing import NamedTuple

import numpy as np
import xxhash

from elementsckpt.saving import save as saving
from elementsckpt.storage import drafts

from support.faults import BLOCK_BYTES, use_small_segments

MB = 1 << 20
ALIGN = 64  # Of blocks in a segment.
HEADERS = 16 << 10  # More than the headers and the manifest of the saves here take.


def noise(seed, size=100_000, dtype=np.uint8):
    """Return an array of so many bytes that no compression makes smaller."""
    return np.frombuffer(np.random.default_rng(seed).bytes(size), dtype).copy()


# Where the tests write


@contextlib.contextmanager
def folder_in_memory(other=None):
    """Give an empty folder that is in memory, or else in the other one."""
    memory = pathlib.Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else other
    with tempfile.TemporaryDirectory(dir=parent) as path:
        yield pathlib.Path(path)


# Whom modes hold back


@contextlib.contextmanager
def unprivileged():
    """Give a folder of a user whom modes hold back, who this process is meanwhile."""
    with tempfile.TemporaryDirectory() as path:
        if os.geteuid() != 0:
            yield pathlib.Path(path)
            return
        os.chown(path, 65534, -1)
        os.seteuid(65534)
        try:
            yield pathlib.Path(path)
        finally:
            os.seteuid(0)


# Looking


class SegmentFacts(NamedTuple):
    """A segment: path, size without the header, bytes and number of live blocks."""

    path: pathlib.Path
    data: int
    live: int
    count: int


def manifest_of(save):
    return json.loads((save / "manifest.json").read_bytes())


def component_of(save, key="agent"):
    (found,) = (x for x in manifest_of(save)["components"] if x["key"] == key)
    return found


def segments_of(save):
    """Return facts about each segment that the manifest names, by file name."""
    facts = {}
    for component in manifest_of(save)["components"]:
        for number, (name, size, start, _) in enumerate(component["segments"]):
            live = [x[2] for x in component["blocks"] if x[0] == number]
            others = facts.get(name, SegmentFacts(save / name, size - start, 0, 0))
            bytes_, count = others.live + sum(live), others.count + len(live)
            facts[name] = others._replace(live=bytes_, count=count)
    return facts


def inodes_of(save):
    """Return the inode of each segment in the folder, by file name."""
    return {x.name: x.stat().st_ino for x in save.glob("*.safetensors")}


def bytes_new_in(save, *others):
    """Return the size of the files, the manifest too, that none of the others has."""
    old = {x.stat().st_ino for other in others for x in other.iterdir()}
    return sum(x.stat().st_size for x in save.iterdir() if x.stat().st_ino not in old)


def check_folder(save):
    """Check what holds for every save: nothing superfluous, no component half dead."""
    facts = segments_of(save)
    assert {x.name for x in save.iterdir()} == {*facts, "manifest.json"}
    for component in manifest_of(save)["components"]:
        found = [facts[name] for name, *_ in component["segments"]]
        for path, *_ in found:
            assert path.is_file(), path
            assert not path.is_symlink(), path
        data = sum(x.data for x in found)
        live = sum(x.live for x in found)
        padding = ALIGN * sum(x.count for x in found)
        assert data <= 2 * live + padding, f"{live} of {data} bytes are live"


class Clock:
    """The time of day as new saves see it; set `now` to change it."""

    def __init__(self, monkeypatch, now):
        self.now = now

        class Datetime(datetime):
            @classmethod
            def now(cls, tz=None):
                return self.now.astimezone(tz)

        for module in (drafts, saving):
            monkeypatch.setattr(module, "datetime", Datetime)


# Damaging


def flip(path, offset=-1, *, keep_time=False):
    """Change one byte, without a trace in the file's time if it is kept."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    # A minute later, as clocks of file systems may be coarse.
    later = status.st_mtime_ns + (0 if keep_time else 60 * 10**9)
    os.utime(path, ns=(status.st_atime_ns, later))


def flip_block(save, number, *, key="agent", keep_time=False):
    """Change the first byte of a block; returns the segment that it is in."""
    component = component_of(save, key)
    segment, offset = component["blocks"][number][:2]
    path = save / component["segments"][segment][0]
    flip(path, offset, keep_time=keep_time)
    return path


def forge(save, change):
    """Change a manifest and sign it, as somebody would who knows the format.

    Args:
      save: The save folder.
      change: Function that changes the decoded manifest in place.
    """
    file = save / "manifest.json"
    content = json.loads(file.read_bytes())
    change(content)
    file.write_bytes(signed(content))


def signed(content):
    """Encode a manifest with the digests that docs/format.md asks for."""
    return sealed(*texts_of(content))


def texts_of(content, *, lies=False):
    """Return the head and the rest of a manifest, without what `sealed` adds.

    Unless it lies, the head says of components what the rest says.
    """
    fields = {key: content[key] for key in content if key not in _LAST}
    is_list = isinstance(content.get("components"), list)
    if "summaries" in fields and is_list and not lies:
        found = [x for x in content["components"] if isinstance(x, dict)]
        fields["summaries"] = [{k: x[k] for k in _SUMMARY if k in x} for x in found]
    head = ",\n".join(f"{json.dumps(k)}:{json.dumps(v)}" for k, v in fields.items())
    found = content.get("components")
    rest = f',\n"components":{json.dumps(found)}' if "components" in content else ""
    return b"{\n" + head.encode(), rest.encode()


_LAST = "rest_bytes", "head_digest", "components", "digest"
_SUMMARY = "key", "shards", "leaf_count", "size_bytes"


def sealed(head, rest):
    """Return a manifest of which this is the content, with its digests."""
    tail = b',\n"digest":"%s"}\n'
    head += b',\n"rest_bytes":%d' % (len(rest) + len(tail % bytes(32)))
    head += b',\n"head_digest":"%s"' % xxhash.xxh3_128_hexdigest(head).encode()
    return head + rest + tail % xxhash.xxh3_128_hexdigest(head + rest).encode()


# Calls, each class in the place of `disk.syscall`


class Calls:
    """Makes the calls, but no syncs, and counts them and the bytes they write."""

    def __init__(self):
        self.counts = collections.Counter()
        self.bytes = 0
        self.synced = []  # Inodes.
        self._lock = threading.Lock()

    def __call__(self, call, *args):
        result = None if call is os.fsync else call(*args)
        with self._lock:
            self.counts[call.__name__.strip("_")] += 1
            if call is os.pwrite:
                self.bytes += result
            elif call is os.fsync:
                self.synced.append(os.fstat(args[0]).st_ino)
        return result


class Gate:
    """Holds the thread of a save in the background until it is opened.

    Other threads pass: the one that made the gate, and those that do parts of the
    work for it, which are daemons.
    """

    def __init__(self):
        self._caller = threading.current_thread()
        self._opened = threading.Event()

    def open(self):
        self._opened.set()

    def __call__(self, call, *args):
        thread = threading.current_thread()
        if thread is not self._caller and not thread.daemon:
            self._opened.wait()
        return None if call is os.fsync else call(*args)


class Reads:
    """Counts the bytes that are read, by file name; in the place of `os.preadv`."""

    def __init__(self):
        self.bytes = collections.Counter()
        self._lock = threading.Lock()
        self._preadv = os.preadv

    def __call__(self, fd, buffers, offset):
        done = self._preadv(fd, buffers, offset)
        name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
        with self._lock:
            self.bytes[name] += done
        return done

    @property
    def segments(self):
        """Bytes that were read from segments, their headers included."""
        return sum(n for name, n in self.bytes.items() if "safetensors" in name)


# Small blocks, so that a few kB are many


def use_small_blocks(setattr=setattr):
    """Make blocks of 2 KiB, several in a segment, and of small leaves some shorter."""
    shared = {"shared_least": BLOCK_BYTES // 2, "shared_more": BLOCK_BYTES // 4}
    use_small_segments(setattr, **shared)
