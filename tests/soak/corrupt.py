"""Files of a save are changed at random, in every way that disks and people know."""

from __future__ import annotations

import collections
import contextlib
import os
import pathlib
import random
import resource
import shutil
import signal
import warnings

import elementsckpt
from elementsckpt import CheckpointError

from support.faults import use_small_segments

from .corruptions import KINDS, OF_FILES, is_file
from .processes import Process
from .run import Run, Warnings, require, same

_STEPS = 29, 30, 31  # Of the saves that are there.
_PROCESSES = 2
_LIMIT_S = 60  # For one corruption, which takes much less than a second.
# For saves of 200 kB: memory of threads, and what they read files with.
_MOST_BYTES = 32 << 20
_ADDRESSES = 4 << 30  # Threads have a lot that they never use.


def corrupt(root, rng, *, saves):
    """Corrupt a copy of a save and load it in all ways, again and again.

    Args:
      root: An empty folder.
      rng: Source of chance.
      saves: How many copies.

    Returns:
      The figures, in words.
    """
    share = -(-saves // _PROCESSES)
    processes = [
        Process(_corrupt_copies, root / str(n), rng.getrandbits(64), share)
        for n in range(_PROCESSES)
    ]
    counts, peaks = collections.Counter(), []
    for process in processes:
        (figures,) = process.end()
        peaks.append(figures.pop("peak"))
        counts.update(figures)
    total = sum(counts[kind] for kind in KINDS)
    return (
        f"{share * _PROCESSES:,} saves had {total:,} corruptions of {len(KINDS)} "
        f"kinds. {counts['refused']:,} were refused, and the directory fell back to "
        f"the newest good save; {counts['right']:,} were right all the same. There was "
        f"no wrong data, no other error than a CheckpointError, and nothing took "
        f"{_LIMIT_S} s or more than {max(peaks) / 1e6:.0f} MB of memory. The next save "
        f"was whole each time; {counts['reused']:,} reused what was left."
    )


def _corrupt_copies(report, root, seed, count):
    warnings.simplefilter("error")
    use_small_segments()
    rng, counts = random.Random(seed), collections.Counter()
    copy = _Copy(root)
    copy.renew()
    copy.check(rng)  # What is imported and cached is so from now on.
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, resource.RLIM_INFINITY))
    peak = 0
    for _ in range(count):
        signal.alarm(_LIMIT_S)
        copy.renew()
        kinds = [copy.corrupt(rng) for _ in range(rng.choice([1, 1, 1, 2, 5]))]
        before = _resident("VmRSS")
        try:
            counts.update(copy.check(rng))
        except BaseException as error:
            raise AssertionError(f"after {kinds} in {copy.save}") from error
        counts.update(kinds)
        peak = max(peak, _resident("VmHWM") - before)
        require(peak < _MOST_BYTES, f"it took {peak} bytes of memory after {kinds}")
    report({**counts, "peak": peak})


def _resident(field):
    """Return the bytes in memory, or the most since the call for the former."""
    if not pathlib.Path("/proc/self/clear_refs").exists():
        return 0
    if field == "VmRSS":
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{field}:")[2].split()[0])


class _Copy:
    """A copy of a directory of three saves, of which the newest is corrupted.

    Args:
      root: A folder to make.

    Attributes:
      save: The newest save.
    """

    def __init__(self, root):
        self._good, self._directory = root / "good", root / "copy"
        run = Run(step=_STEPS[0] - 1)
        cp = run.checkpoint(self._good, keep=None, fsync=False)
        for _ in _STEPS:
            run.advance()
            saved = cp.save()
        require(saved.bytes_reused > 0, "nothing is shared")
        names = [save.path.name for save in cp.saves()]
        _, self._before, self.save = (self._directory / name for name in names)
        self._is_mixed = False  # Files of the save before are in this one.
        self._warnings = Warnings()

    def renew(self):
        """Make the copy anew, without what is wrong with it."""
        shutil.rmtree(self._directory, ignore_errors=True)
        shutil.copytree(self._good, self._directory, symlinks=True)
        self._is_mixed = False
        self._warnings.clear()

    def corrupt(self, rng):
        """Corrupt something in the newest save.

        Returns:
          What was done.
        """
        kind = rng.choice(list(KINDS))
        here = sorted(self.save.rglob("*"))
        files = [path for path in here if is_file(path)]
        paths = files if kind in OF_FILES else here
        if not files:
            return "nothing"
        others = files
        if kind in ("swap", "duplicate", "link") and rng.random() < 0.2:
            others = [x for x in sorted(self._before.rglob("*")) if is_file(x)]
            self._is_mixed = True
        KINDS[kind](rng, rng.choice(paths), rng.choice(others))
        # Damage that leaves no trace in the files' times is found only after a while.
        with contextlib.suppress(OSError):
            os.utime(self.save / "manifest.json", (0, 0), follow_symlinks=False)
        return kind

    def check(self, rng):
        """Load the save, and the directory, and save once more.

        Returns:
          What happened: names of figures.
        """
        is_good = self._load_by_name()
        self._load_directory(is_good)
        _look(self.save if rng.random() < 0.5 else self._directory, rng)
        return ["right" if is_good else "refused", *self._save_again(rng)]

    def _load_by_name(self):
        run = Run()
        try:
            run.checkpoint().load(self.save)
        except CheckpointError as error:
            require(str(self.save) in str(error), f"it does not say where: {error}")
            require(run.check() == 0, "what was refused has changed something")
            return False
        step = run.check()
        require(step == _STEPS[-1] or self._is_mixed, f"it is of step {step}")
        return True

    def _load_directory(self, is_good):
        run = Run()
        report = run.checkpoint(self._directory).load()
        step = run.check()
        require(step == report.step, "the report is of another step")
        if self._is_mixed:  # The one before may be damaged, or the newer one, now.
            return
        if is_good:
            require(report.path == self.save, "the newest save is good")
            require(report.fell_back_from is None, "it says that it is damaged")
            return
        require(report.path == self._before, "that is not the newest good save")
        if os.path.lexists(self.save / "manifest.json"):  # Else it is no save.
            require(report.fell_back_from == self.save, "the report does not say so")
            said = any(str(self.save) in x for x in self._warnings)
            require(said, "nothing is logged")

    def _save_again(self, rng):
        run = Run(step=rng.choice(_STEPS))
        is_background = rng.random() < 0.5
        cp = run.checkpoint(
            self._directory, keep=None, fsync=False, background=is_background
        )
        report = cp.save()
        report = cp.wait() or report
        found = Run()
        require(found.checkpoint().load(report.path).path == report.path, "another")
        require(found.check() == run.step, "the next save is of another step")
        newest = Run().checkpoint(self._directory).load().path
        require(newest == report.path, "the next save is not the newest")
        return ["reused"] * (report.bytes_reused > 0)


def _look(path, rng):
    """Load the save in one of the other ways; any `CheckpointError` will do."""
    run = Run()
    cp = run.checkpoint()
    way = rng.choice(["mmap", "partly", "read", "info", "list"])
    try:
        if way == "read":
            keys = ["step", "agent", "replay", "episodes"]
            states = elementsckpt.read(path, keys)
            expected = Run(step=states["step"])
            require(same(states["agent"], expected.agent), "read: the agent")
            require(same(states["replay"], expected.replay), "read: replay")
        elif way == "info":
            require(len(elementsckpt.info(path).components) == 5, "info")
        elif way == "list":
            cp = run.checkpoint(path.parent)
            cp.saves(), cp.latest(), cp.exists(), repr(cp)
        elif way == "partly":
            cp.load(path, keys=["agent"], regex="layer|step")
            expected = Run(step=run.agent["step"])
            layers = [x for x in run.agent if x.startswith("layer")]
            require(all(same(run.agent[x], expected.agent[x]) for x in layers), way)
        else:
            cp.load(path, mmap=True)
            run.check()
    except CheckpointError:
        pass
