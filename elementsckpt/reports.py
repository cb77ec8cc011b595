"""The results of `save`, `load` and `info`."""

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
      is_finished: Whether the save is complete. A save in the background is not
        complete when `save` returns; `wait` returns its complete report.
      bytes_written: Size of the files written, 0 with `write=False`.
      bytes_reused: Size in the files of the blocks that an earlier save holds already.
      bytes_total: Size in memory of all leaves stored in blocks, plus the size of the
        files of components that write files themselves. The other two are sizes in the
        files, after compression.
      pickled: Leaves that only pickle could hold. They load from this directory, or
        with `allow_pickle=True`.
      seconds: Time that the save took, or has taken so far.
      phases: Seconds by the name of the phase, in the order in which phases began. No
        second counts twice, so they add up to at most `seconds`, apart from "wait",
        which comes before. A phase that did not happen is absent.

        - "wait": waiting for the save before, in the background.
        - "begin": listing the directory, and making the folder.
        - "collect": in the components' own `save()`.
        - "flatten": flattening states, and fetching arrays from devices.
        - "copy": copying leaves that may change before they are written, and looking
          up blocks.
        - "find": hashing, looking up blocks that an earlier save holds, and linking,
          checking and syncing its segments; hashing and syncing files of `Files`.
        - "write": compressing and writing, while complete files are synced.
        - "sync": with `fsync`, waiting for the disk after everything is written.
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
      mismatched: Leaves whose shape or dtype differs; only a dry run returns any.
      renamed: Saved names to new names.
      plain: Containers that came back as a dict by field, to the class that was not
        found, as "module:qualname".
      fell_back_from: The newest save, if it is damaged and an older one was loaded.
      bytes_read: Size of the leaves and files that were read.
      seconds: Time that the load took, the components' own `load()` included.
      phases: Seconds by the name of the phase, in the order in which phases began. No
        second counts twice, so they add up to at most `seconds`. A phase that did not
        happen is absent. Work on damaged saves counts, too.

        - "wait": waiting for a save in the background.
        - "find": looking up the saves that may be loaded.
        - "open": reading the manifest.
        - "compare": selecting leaves, and comparing them with the current ones.
        - "current": in the components' own `save()`, for the current state.
        - "build": decoding leaves, copying arrays to devices, and rebuilding states.
        - "read": reading and verifying files.
        - "load": in the components' own `load()`.
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
      parent: Path of the save that the object last loaded or wrote, or None.
      run: Identifies the run. A process that resumes the run keeps it.
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
    """The description of a save, from its manifest alone.

    Attributes:
      path: The save folder.
      step: Step of the run, or None.
      sequence: Number of the save in its directory; 0 if elements wrote it.
      time: When it was written, in UTC.
      metrics: Numbers given to `save`.
      metadata: Metadata given to `save`.
      components: Sizes by key.
      lineage: Where the save comes from.
      pin: Name of the pin, which keeps the save from being pruned, or None.
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
