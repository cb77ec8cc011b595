"""What `save`, `load` and `info` return."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec import Struct, field


class SaveReport(Struct, frozen=True):
    """What a save wrote.

    Attributes:
      path: The save folder, absolute.
      step: Step of the run, or None.
      sequence: Number of the save in its directory.
      is_finished: Whether the save is complete. A save in the background is not when
        `save` returns, and knows what it wrote and reused later: `wait` returns that.
      bytes_written: Size of the files written, 0 with `write=False`.
      bytes_reused: Size in the files of what an earlier save holds already.
      bytes_total: Size of all arrays and other leaves stored in blocks, as they are in
        memory, and of the files of components that write them themselves; the other
        two are sizes of files, compressed ones too.
      pickled: Leaves that only pickle could hold: they load from this directory, or
        with `allow_pickle=True`.
      seconds: Time it took, or so far.
      phases: Seconds by what was done, in the order in which that began. No second
        counts twice, so they add up to `seconds` at most; but for "wait", which is
        before. What did not happen is not there.

        - "wait": for the save before, in the background.
        - "begin": listing the directory, and making the folder.
        - "collect": in the components' own `save()`.
        - "flatten": taking states apart, and fetching arrays from devices.
        - "copy": copying what may change before it is written, and looking it up.
        - "find": hashing, and looking up what an earlier save holds.
        - "write": compressing and writing, while files that are complete are synced.
        - "sync": with `fsync`, waiting for the disk when all of that is written.
        - "commit": writing the manifest, and making it and the folders durable.
        - "prune": pointing `latest` to the save, and removing others.
    """

    path: Path
    step: int | None
    sequence: int
    is_finished: bool
    bytes_written: int
    bytes_reused: int
    bytes_total: int
    pickled: tuple[str, ...]
    seconds: float
    phases: Mapping[str, float]


class LoadReport(Struct, frozen=True):
    """What a load did, or with `dry_run=True` would do.

    Leaf names begin with their component's key: `agent/params/enc/w`.

    Attributes:
      path: The save folder that was loaded, absolute.
      step: Its step, or None.
      loaded: Leaves that were loaded, by their names in the component, and files.
      missing: Leaves that the component has and the save lacks.
      unexpected: Leaves that the save has and the component lacks.
      mismatched: Leaves whose shape or dtype differ; only a dry run returns any.
      renamed: Saved name to new name.
      plain: Containers that came back as a dict by field, and the class that was not
        found, as "module:qualname".
      fell_back_from: The newest save, if it is damaged and an older one was loaded.
      bytes_read: Size of the leaves and files that were read.
      seconds: Time it took, the components' own `load()` included.
      phases: Where that went, seconds by name, in this order: "wait" for a save in the
        background, "find" the saves, "open" one and its manifest, "compare" what it
        has with what was asked for and is there, "current" states of components, asked
        for meanwhile, "build" states, "read" and verify files, "load" by components.
        What did not happen is not there; saves that were damaged count, too.
    """

    path: Path
    step: int | None
    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    plain: Mapping[str, str] = field(default_factory=dict)
    fell_back_from: Path | None = None
    bytes_read: int = 0
    seconds: float = 0.0
    phases: Mapping[str, float] = field(default_factory=dict)


class ComponentInfo(Struct, frozen=True):
    """Size of a component in a save.

    Attributes:
      bytes: Size of the leaves stored in blocks, or of the files.
      leaves: Number of leaves, or of files if the component wrote them itself; None in
        a folder that elements wrote.
      shards: Number of shards if it was saved as a generator, else None.
    """

    bytes: int
    leaves: int | None
    shards: int | None


class Lineage(Struct, frozen=True):
    """Where a save comes from.

    Attributes:
      loaded_from: Path of the save that the writing object last loaded, or None.
      parent: Path of the save that it last loaded or wrote, or None.
      run: Identifies the run, which goes on in the process that resumes it.
      host: Name of the machine that wrote it.
      pid: Number of the process that wrote it.
      commit: Git commit of the program, if it is in a repository.
      libraries: Versions of Python and of the libraries that were imported.
    """

    loaded_from: str | None = None
    parent: str | None = None
    run: str | None = None
    host: str | None = None
    pid: int | None = None
    commit: str | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)


class SaveInfo(Struct, frozen=True):
    """What a save says about itself without any array being read.

    Attributes:
      path: The save folder.
      step: Step of the run, or None.
      sequence: Order of the saves of a directory; 0 for a folder of elements.
      time: When it was written, in UTC.
      metrics: Numbers given to `save`.
      metadata: Metadata given to `save`.
      components: Sizes by key.
      lineage: Where the state came from.
      pin: Name under which it is never pruned, or None.
    """

    path: Path
    step: int | None
    sequence: int
    time: datetime
    metrics: Mapping[str, float] = field(default_factory=dict)
    metadata: Any = field(default_factory=dict)
    components: Mapping[str, ComponentInfo] = field(default_factory=dict)
    lineage: Lineage = field(default_factory=Lineage)
    pin: str | None = None
