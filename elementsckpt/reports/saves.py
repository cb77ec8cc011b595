"""The results of `save`, `load`, `info` and `saves`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec import field

from ..errors import one_line
from . import figures
from .outline import Column, Outline, Section, Table, names_section, table_section
from .report import Report, ReportList


class SaveReport(Report, frozen=True):
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

    def outline(self) -> Outline:
        verb = "Saved" if self.is_finished else "Saving"
        return Outline(
            f"{verb} {_named(self.step, self.sequence)}: "
            f"{figures.size(self.bytes_written)} written, "
            f"{figures.size(self.bytes_reused)} reused, "
            f"in {figures.seconds(self.seconds)}",
            [("path", one_line(str(self.path)))],
            [
                *names_section("pickled", self.pickled, is_open=True),
                *_phases(self.phases),
            ],
        )


class LoadReport(Report, frozen=True):
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

    def outline(self) -> Outline:
        rows = [("path", one_line(str(self.path)))]
        if self.fell_back_from is not None:
            newest = one_line(str(self.fell_back_from))
            rows.append(("fell back from", f"{newest}, which is damaged"))
        of_step = "" if self.step is None else f" step {figures.step(self.step)}:"
        return Outline(
            f"Loaded{of_step} {figures.count(len(self.loaded), 'leaf')}, "
            f"{figures.size(self.bytes_read)} in {figures.seconds(self.seconds)}",
            rows,
            [
                *names_section("missing", self.missing, is_open=True),
                *names_section("unexpected", self.unexpected, is_open=True),
                *names_section("mismatched", self.mismatched, is_open=True),
                *_pairs("renamed", self.renamed),
                *_pairs("in plain containers", self.plain),
                *names_section("loaded", self.loaded),
                *_phases(self.phases),
            ],
        )


class ComponentInfo(Report, frozen=True):
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

    def outline(self) -> Outline:
        leaves = "" if self.leaves is None else figures.count(self.leaves, "leaf")
        shards = "" if self.shards is None else figures.count(self.shards, "shard")
        return Outline(
            ", ".join(x for x in (figures.size(self.bytes), leaves, shards) if x)
        )


class Lineage(Report, frozen=True):
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

    def outline(self) -> Outline:
        known = [
            (name.replace("_", " "), one_line(str(getattr(self, name))))
            for name in self.__struct_fields__[:-1]
            if getattr(self, name) is not None
        ]
        versions = [f"{x} {y}" for x, y in self.libraries.items()]
        known.append(("libraries", one_line(", ".join(versions)) or "-"))
        return Outline("Where the save comes from", known)


class SaveInfo(Report, frozen=True):
    """The description of a save, from the head of its manifest alone.

    Attributes:
      path: The save folder.
      step: Step of the run, or None.
      sequence: Number of the save in its directory; 0 if elements wrote it, None if its
        manifest cannot be read.
      time: When it was written, in UTC; None if its manifest cannot be read.
      metrics: Numbers given to `save`.
      metadata: Metadata given to `save`.
      components: Sizes by key.
      lineage: Where the save comes from.
      pin: Name of the pin, which keeps the save from being pruned, or None.
      error: What is wrong with the manifest, or None. Only `saves` returns such saves.
    """

    path: Path
    step: int | None
    sequence: int | None
    time: datetime | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    metadata: Any = field(default_factory=dict)
    components: Mapping[str, ComponentInfo] = field(default_factory=dict)
    lineage: Lineage = field(default_factory=Lineage)
    pin: str | None = None
    error: str | None = None

    @property
    def size_bytes(self) -> int:
        """Size of the state: of all components."""
        return sum(component.bytes for component in self.components.values())

    def details(self) -> list[tuple[str, str]]:
        """Return what it records besides its state: labels, and their texts."""
        rows = [("path", one_line(str(self.path)))]
        rows += [("written", figures.time(self.time))] if self.time is not None else []
        rows += [("pin", one_line(self.pin))] if self.pin is not None else []
        rows += [("metrics", figures.metrics(self.metrics))] if self.metrics else []
        rows += self.lineage.outline().rows
        return [*rows, *_flat("metadata", self.metadata)]

    def outline(self) -> Outline:
        title = f"Save {_named(self.step, self.sequence)}"
        if self.time is not None:
            title += f", {figures.time(self.time)}"
        rows = [("path", one_line(str(self.path)))]
        rows += [("damaged", one_line(self.error))] if self.error else []
        rows += [("pin", one_line(self.pin))] if self.pin is not None else []
        rows += [("metrics", figures.metrics(self.metrics))] if self.metrics else []
        rows += [("metadata", one_line(repr(self.metadata)))] if self.metadata else []
        sizes = sorted(self.components.items(), key=lambda x: -x[1].bytes)
        return Outline(
            title,
            rows,
            [
                Section("", Table(_COMPONENT, [_component(*item) for item in sizes])),
                Section("lineage", Table(_PAIR, self.lineage.outline().rows)),
            ],
        )


class SaveList(ReportList[SaveInfo]):
    """Saves, the oldest first.

    Args:
      infos: The saves.
      notes: What tables show besides, where it is known, by path: the size of the
        files that the save wrote, and words such as "best".
    """

    def __init__(
        self,
        infos: Iterable[SaveInfo] = (),
        notes: Mapping[Path, tuple[int | None, str]] | None = None,
    ) -> None:
        super().__init__(infos)
        self._notes = notes or {}

    def outline(self) -> Outline:
        names = dict.fromkeys(name for save in self for name in save.metrics)
        columns = [*_SAVE, *(Column(one_line(name), is_right=True) for name in names)]
        nothing = None, ""
        rows = [
            [
                "-" if save.sequence is None else str(save.sequence),
                figures.step(save.step),
                "-" if save.time is None else figures.time(save.time),
                figures.size(save.size_bytes),
                _size(self._notes.get(save.path, nothing)[0]),
                *(figures.number(save.metrics.get(name)) for name in names),
                one_line(save.pin or ""),
                self._notes.get(save.path, nothing)[1]
                or ("damaged" if save.error else ""),
            ]
            for save in self
        ]
        columns += [Column("pin"), Column("")]
        title = figures.count(len(self), "save")
        return Outline(title, (), table_section(columns, rows, is_newest_last=True))


_PAIR = Column(""), Column("")
_COMPONENT = Column(""), Column("", is_right=True), Column("")
_SAVE = (
    Column("#", is_right=True),
    Column("step", is_right=True),
    Column("time"),
    Column("size", is_right=True),
    Column("new", is_right=True),
)


def _size(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else figures.size(size_bytes)


def _flat(label: str, value: Any) -> list[tuple[str, str]]:
    """Return a row for each value in nested metadata; its label leads to it."""
    if not isinstance(value, dict):
        return [(one_line(label), one_line(repr(value)))]
    return [row for key, item in value.items() for row in _flat(f"{label}.{key}", item)]


def _named(step: int | None, sequence: int | None) -> str:
    number = "of an unknown number" if sequence is None else f"#{sequence}"
    return number if step is None else f"{number} of step {figures.step(step)}"


def _component(key: str, info: ComponentInfo) -> list[str]:
    size, _, rest = info.outline().title.partition(", ")
    return [one_line(key), size, rest]


def _pairs(
    heading: str, pairs: Mapping[str, str], *, is_open: bool = False
) -> list[Section]:
    rows = [[one_line(x), one_line(y)] for x, y in pairs.items()]
    return (
        [Section(f"{len(rows):,} {heading}", Table(_PAIR, rows), is_open)]
        if rows
        else []
    )


def _phases(phases: Mapping[str, float]) -> list[Section]:
    rows: Sequence[Sequence[str]] = [[x, figures.seconds(y)] for x, y in phases.items()]
    columns = Column(""), Column("", is_right=True)
    return [Section("phases", Table(columns, rows))] if rows else []
