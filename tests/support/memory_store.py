"""A store in memory, which does what `elementsckpt.storage.store` asks for."""

import errno
import itertools
import threading
from pathlib import Path

import numpy as np

from elementsckpt.errors import DamagedError, SaveExistsError, WriteError
from elementsckpt.format import names
from elementsckpt.format.digests import digest_of
from elementsckpt.storage.store import Start, StoredFile

TIME = iter(range(1, 1 << 40))


class MemoryStore:
    """Saves by name; each is a dict of files by name, with when they were written."""

    def __init__(self, path="memory"):
        self.path = Path("/") / path
        self.saves = {}
        self.latest = None
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def names(self):
        return list(self.saves)

    def open(self, name):
        return Source(self, name)

    def begin(self, step, *, fsync):
        with self._lock:
            name = f"20260101T000000F{next(self._numbers):06d}"
        return self._begin(name if step is None else f"{name}-{step:012d}", fsync)

    def begin_at(self, name, *, fsync):
        if name in self.saves:
            raise SaveExistsError(f"Cannot save to {name}: it holds a save already.")
        return self._begin(name, fsync)

    def _begin(self, name, fsync):
        self.saves[name] = {names.DRAFT: (next(TIME), b"")}
        return Draft(self, name, fsync)

    def remove(self, name, *, fsync):
        self.saves.pop(name, None)
        return True

    def sweep(self, name):
        """Nothing dies in the middle of a save without this store."""

    def rewrite(self, name, content):
        if names.MANIFEST not in self.saves.get(name, {}):
            raise DamagedError(f"{name} has no manifest.")
        self.saves[name][names.MANIFEST] = next(TIME), bytes(content)

    def point_latest(self, name):
        self.latest = name


class Draft:
    def __init__(self, store, name, fsync):
        self.path = store.path / name
        self.source = Source(store, name)
        self.fsync = fsync
        self._store = store
        self._name = name

    @property
    def _files(self):
        return self._store.saves[self._name]

    @property
    def is_committed(self):
        return names.MANIFEST in self._store.saves.get(self._name, {})

    def unlock(self):
        """There is no lock."""

    def require_room(self, size_bytes):
        if size_bytes > 1 << 40:
            raise WriteError("The memory has no room.")

    def segment(self, name, size_bytes):
        return Sink(self._files, name)

    def reuse(self, source, segment):
        if source.lacks(segment):
            raise WriteError(f"{segment.file} is gone.", errno.ENOENT)
        self._files[segment.file] = source.files[segment.file]

    def drop(self, segment):
        self._files.pop(segment, None)

    def commit(self, content):
        del self._files[names.DRAFT]
        self._files[names.MANIFEST] = next(TIME), bytes(content)

    def abandon(self):
        if not self.is_committed:
            self._store.saves.pop(self._name, None)


class Sink:
    def __init__(self, files, name):
        self._files = files
        self._name = name
        self._content = bytearray()
        self._lock = threading.Lock()

    def write(self, data, offset):
        data = memoryview(data)
        with self._lock:
            end = offset + len(data)
            self._content.extend(bytes(max(0, end - len(self._content))))
            self._content[offset:end] = data

    def finish(self):
        self._files[self._name] = next(TIME), bytes(self._content)

    def close(self):
        """There is nothing to close."""


class Source:
    is_link = is_dangling = False

    def __init__(self, store, name):
        self.path = store.path / name
        self._store = store
        self._name = name

    @property
    def files(self):
        return self._store.saves.get(self._name, {})

    def is_missing(self):
        return not self.files

    def stored_files(self):
        return [
            StoredFile(name, len(content), (name, time), 1)
            for name, (time, content) in self.files.items()
        ]

    def signature(self):
        return self.files.get(names.MANIFEST, (None,))[0]

    def has_no_manifest(self):
        return names.MANIFEST not in self.files

    def start(self, size_bytes):
        content = self.manifest()
        return Start(content[:size_bytes], len(content), self.signature())

    def manifest(self):
        if self.has_no_manifest():
            raise DamagedError(f"Cannot read {self.path}: it has no manifest.")
        return bytearray(self.files[names.MANIFEST][1])

    def names(self):
        return list(self.files)

    def lacks(self, segment):
        return segment.file not in self.files

    def may_have_changed(self, segment):
        return self.files[segment.file][0] > self.signature()

    def open(self, segment, *, is_verified=False):
        if self.lacks(segment):
            raise DamagedError(f"{self.path} has no {segment.file}.")
        file = OpenSegment(self.path / segment.file, self.files[segment.file][1])
        if len(file.content) != segment.size:
            raise DamagedError(f"{file.path} is damaged: its size differs.")
        if not is_verified and digest_of(file.read, segment.start) != segment.digest:
            raise DamagedError(f"{file.path} is damaged: its header differs.")
        return file


class OpenSegment:
    def __init__(self, path, content):
        self.path = path
        self.content = content

    def read(self, memory, offset):
        memory = memoryview(memory)
        found = self.content[offset : offset + len(memory)]
        if len(found) < len(memory):
            raise DamagedError(f"{self.path} is truncated.")
        memory[:] = found

    def map(self):
        return np.frombuffer(bytearray(self.content), np.uint8)

    def sync(self):
        """Memory is as durable as it gets."""

    def close(self):
        """There is nothing to close."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """There is nothing to close."""
