"""Compare the library here with that of another revision: what became slower?

The rows of this tree measure both, each in a process of its own that holds the state of
one row. The processes take turns, and the other one begins in the next round, so what
else the machine does strikes both alike.

**Noise.** A measure grew if its median here is above that of the base by more than the
noise of the run: what lies between the quartiles of the rounds here, and of those of
the base, together; at least a fiftieth of the base. A row in which a measure grew is
measured once more, and what grew both times is reported. In five rounds, that happens
by chance to one measure in some two thousand.
"""

from __future__ import annotations

import argparse
import io
import random
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

from .cases import PHASE, Sample
from .rounds import SLOW_MS, SLOW_ROUNDS, by_measure
from .worker import Worker

ROOT = Path(__file__).parent.parent
LEAST = 0.02  # Of the base, or of one: what grew by less is not worth a report.
MORE_IS_NOT_WORSE = {"steps"}
# What these cases do is not done by this library; peers are not run at all.
YARDSTICK = re.compile(
    r"(raw|memcpy|device_get|device_put|no save|hashing|copying|numpy|pickle|orbax)\b"
)

Samples = dict[str, list[float]]  # By measure, what each round gave.


class Growth(NamedTuple):
    """A measure of a case, medians, and how much of the difference may be noise."""

    row: str
    case: str
    measure: str
    base: float
    here: float
    noise: float

    @property
    def what(self) -> tuple[str, str, str]:
        return self.row, self.case, self.measure

    def __str__(self) -> str:
        return (
            f"{self.row}: {self.case}, {self.measure}: {self.base:.4g} -> "
            f"{self.here:.4g} (noise {self.noise:.2g})"
        )


def compare(revision: str, rows: Sequence[str], options: argparse.Namespace) -> bool:
    """Measure rows with both libraries; print what grew, and return whether any did."""
    found = []
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary).absolute()
        base = checked_out(revision, folder / "base")
        for name in rows:
            grown = measured(name, base, folder, options)
            if grown:
                print("  measured once more:")
                again = {x.what for x in measured(name, base, folder, options)}
                found += [x for x in grown if x.what in again]
    print(f"\nSlower than {revision}, by more than the noise of this run:")
    print("\n".join(f"  {x}" for x in found) or "  nothing")
    return bool(found)


def checked_out(revision: str, folder: Path) -> Path:
    """Put the library of a revision, and the benchmarks that are here, into a folder.

    Raises:
      SystemExit: git does not know the revision.
    """
    command = ["git", "archive", "--format=tar", revision, "elementsckpt"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True)
    if run.returncode:
        raise SystemExit(f"--against {revision}: {run.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(run.stdout)) as archive:
        archive.extractall(folder)
    left_out = shutil.ignore_patterns("results", "__pycache__")
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks", ignore=left_out)
    return folder


def measured(
    name: str, base: Path, folder: Path, options: argparse.Namespace
) -> list[Growth]:
    """Measure one row with both, print it, and return what grew."""
    divisor = 10 if options.quick else 1
    with (
        Worker(base, name, divisor, folder) as theirs,
        Worker(ROOT, name, divisor, folder) as ours,
    ):
        print(f"\n{name}", flush=True)
        if ours.error:
            raise RuntimeError(f"{name}: {ours.error}")
        if theirs.error:
            print(f"  not possible with the base: {theirs.error}")
            return []
        cases = [x for x in ours.cases if not YARDSTICK.match(x)]
        samples = rounds(cases, theirs, ours, options.rounds)
    grown = []
    for case, (before, now) in samples.items():
        print(f"  {case}: {shown(before, now)}")
        grown += growth(name, case, before, now)
    return grown


def rounds(
    cases: Sequence[str], theirs: Worker, ours: Worker, count: int
) -> dict[str, tuple[Samples, Samples]]:
    """Run the rounds, of which the first warms up; return what base and here gave."""
    order = random.Random(0)
    left = dict.fromkeys(cases, count)
    turns: dict[str, list[tuple[Sample, Sample]]] = {case: [] for case in cases}
    for number in range(count + 1):
        due = [case for case in left if number <= left[case]]
        for case in order.sample(due, len(due)):
            found = turn(case, theirs, ours, is_ours_first=number % 2 == 1)
            if found is None:
                del left[case], turns[case]
            elif number:
                turns[case].append(found)
            elif max(sample.get("ms", 0) for sample in found) > SLOW_MS:
                left[case] = min(count, SLOW_ROUNDS)
    return {
        case: (by_measure([x for x, _ in found]), by_measure([x for _, x in found]))
        for case, found in turns.items()
    }


def turn(
    case: str, theirs: Worker, ours: Worker, *, is_ours_first: bool
) -> tuple[Sample, Sample] | None:
    """Run a case with both, and return what base and here gave; None without a base."""
    workers = [ours, theirs] if is_ours_first else [theirs, ours]
    found = {worker: worker.measure(case) for worker in workers}
    if ours.error:
        raise RuntimeError(f"{case}: {ours.error}")
    if theirs.error:
        print(f"  {case}: not possible with the base: {theirs.error}")
        return None
    return found[theirs], found[ours]


def growth(row: str, case: str, before: Samples, now: Samples) -> list[Growth]:
    """Return the measures of a case that grew by more than the noise."""
    grown = []
    for measure in before.keys() & now.keys() - MORE_IS_NOT_WORSE:
        if PHASE in measure:
            continue
        base, here = median(before[measure]), median(now[measure])
        noise = max(
            spread(before[measure]) + spread(now[measure]), LEAST * max(abs(base), 1)
        )
        if here - base > noise:
            grown.append(Growth(row, case, measure, base, here, noise))
    return sorted(grown)


def spread(values: Sequence[float]) -> float:
    """Return what lies between the quartiles."""
    if len(values) < 2:
        return 0.0
    low, _, high = quantiles(values, n=4, method="inclusive")
    return high - low


def shown(before: Samples, now: Samples) -> str:
    """Return the medians of both, by measure."""
    found = [x for x in now if x in before and PHASE not in x]
    parts = [f"{x} {median(before[x]):.4g} -> {median(now[x]):.4g}" for x in found]
    return "; ".join(parts)
