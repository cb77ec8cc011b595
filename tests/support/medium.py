"""A disk below the page cache, which loses what was not synced when the power fails."""

from __future__ import annotations

import os
import pathlib
from typing import NamedTuple


class Create(NamedTuple):
    """A file or folder came into being, or a file was emptied."""

    path: pathlib.Path
    inode: int
    is_folder: bool = False


class Write(NamedTuple):
    """Bytes were written to a file."""

    inode: int
    data: bytes
    offset: int


class Sync(NamedTuple):
    """The contents of a file, or the names in a folder, were made durable."""

    inode: int


class Rename(NamedTuple):
    """A file or folder got another name in the same folder."""

    source: pathlib.Path
    target: pathlib.Path


class Link(NamedTuple):
    """A file got a second name."""

    source: pathlib.Path
    target: pathlib.Path


class Remove(NamedTuple):
    """A file or folder lost its name."""

    path: pathlib.Path


class Mode(NamedTuple):
    """A file became read-only; nothing depends on that."""

    inode: int


class Medium:
    """What a disk holds, and what it has only been told.

    It assumes no more than POSIX promises. What was synced stays. What was not may be
    there or not after a power failure, each write and each change of a name by
    itself. A rename is there or not.

    Args:
      root: Folder whose present contents are durable.
    """

    def __init__(self, root):
        self.root = root
        self.folders = {}  # Names in each folder, as synced, and the changes since.
        self.files = {}  # Bytes of each file, as synced, and the writes since.
        self.names = {}  # Path to file or folder: what the system sees now.
        self.inodes = {}  # Inode to file or folder; the system uses inodes again.
        self._scan(root)

    def _scan(self, path):
        inode = self.names[path] = path.stat().st_ino
        self.inodes[inode] = inode
        if path.is_dir():
            content = {child.name: self._scan(child) for child in path.iterdir()}
            self.folders[inode] = content, []
        else:
            self.files[inode] = path.read_bytes(), []
        return inode

    def take(self, event):
        """Take one event in."""
        match event:
            case Write(inode, data, offset):
                self.files[self.inodes[inode]][1].append((data, offset))
            case Sync(inode):
                number = self.inodes.get(inode)
                if number is None:
                    return  # A folder above.
                if number in self.files:
                    self.files[number] = _written(*self.files[number]), []
                else:
                    self.folders[number] = _changed(*self.folders[number]), []
            case Create(path, inode) if path in self.names:
                self.files[self.inodes[inode]][1].append(None)
            case Create(path, inode, is_folder):
                number = inode if inode not in self.inodes else -1
                while number in self.files or number in self.folders:
                    number -= 1
                self.inodes[inode] = self.names[path] = number
                self._change(path.parent, {path.name: number})
                if is_folder:
                    self.folders[number] = {}, []
                else:
                    self.files[number] = b"", []
            case Rename(source, target):
                change = {source.name: None, target.name: self.names[source]}
                self._change(source.parent, change)
                moved = [x for x in self.names if x == source or source in x.parents]
                for path in moved:
                    new = target / path.relative_to(source)
                    self.names[new] = self.names.pop(path)
            case Link(source, target):
                self.names[target] = self.names[source]
                self._change(target.parent, {target.name: self.names[source]})
            case Remove(path):
                self._change(path.parent, {path.name: None})
                del self.names[path]

    def _change(self, folder, change):
        self.folders[self.names[folder]][1].append(change)

    def lose_power(self, target, keeps):
        """Write what is left after a power failure to another folder.

        Args:
          target: The folder to make.
          keeps: Called for each write ("data") and each change of names ("name") that
            was not synced; returns whether it is kept.
        """
        self._restore(self.names[self.root], target, keeps, {})

    def _restore(self, number, target, keeps, files):
        if number in files:
            os.link(files[number], target)
        elif number in self.files:
            content, pending = self.files[number]
            target.write_bytes(_written(content, [x for x in pending if keeps("data")]))
            os.utime(target, (0, 0))  # A segment is not younger than its manifest.
            files[number] = target
        else:
            content, pending = self.folders[number]
            target.mkdir()
            names = _changed(content, [x for x in pending if keeps("name")])
            for name, child in names.items():
                self._restore(child, target / name, keeps, files)


def _written(content, writes):
    content = bytearray(content)
    for write in writes:
        if write is None:
            content.clear()
            continue
        data, offset = write
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(data)] = data
    return bytes(content)


def _changed(content, changes):
    for change in changes:
        content = {**content, **change}
    return {name: number for name, number in content.items() if number is not None}
