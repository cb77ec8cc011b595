"""What holds for all tests."""

import collections
import functools
import os
import pathlib
import re
import signal
import stat
import types

import pytest

# Most of what JAX's tests take is compiling, and what it computes here is small.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

_fsync, _fstat = os.fsync, os.fstat  # Which tests replace, too.


def fsync(descriptor):
    """Sync what is no file and no folder alone: a disk takes milliseconds for those.

    That it is called, and when, is what tests look at: none of them cuts the power.
    What they start as another process syncs for real.
    """
    mode = _fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        _fsync(descriptor)


os.fsync = fsync

pytest_plugins = ["support.fixtures"]

# Installed for `make test-torch` only.
TORCH = re.compile(r"\b(torch|stable_baselines3|tensordict|torchrl)\b")


def pytest_addoption(parser):
    what = "let each system call of a save fail, not only some in each test"
    parser.addoption("--every-call", action="store_true", help=what)
    what = "run the tests that are marked as slow, too"
    parser.addoption("--slow", action="store_true", help=what)


def pytest_configure():
    """Let interrupts interrupt: what a script runs in the background ignores them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # Before tests are selected by their marks.
def pytest_collection_modifyitems(config, items):
    """Mark the tests of modules that import torch, or that run an example that does.

    Slow tests are left out, unless they are asked for.
    """
    if not config.getoption("slow"):
        slow = [x for x in items if x.get_closest_marker("slow") is not None]
        config.hook.pytest_deselected(items=slow)
        items[:] = [x for x in items if x not in slow]
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
        given = [x for value in parameters for x in make_list(value)]
        scripts = [x for x in given if isinstance(x, pathlib.Path)]
        if imports_torch(item.module) or any(
            TORCH.search(x.read_text("utf-8")) for x in scripts if x.suffix == ".py"
        ):
            item.add_marker("torch")


def make_list(value):
    return value if isinstance(value, list) else [value]


@functools.cache
def imports_torch(module):
    return any(map(is_of_torch, vars(module).values()))


def is_of_torch(value):
    return isinstance(value, types.ModuleType) and TORCH.match(value.__name__)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Let a test fail that is skipped here for want of torch, and by its mark there."""
    report = yield
    is_marked = item.get_closest_marker("torch") is not None
    if report.skipped and not is_marked and TORCH.search(reason(report)):
        report.outcome = "failed"
        report.longrepr = "Mark it with pytest.mark.torch, or nothing ever runs it."
    return report


def reason(report):
    """Return why a test was skipped; nothing if it was to fail, and did."""
    is_skipped = isinstance(report.longrepr, tuple)
    return report.longrepr[2].removeprefix("Skipped: ") if is_skipped else ""


def pytest_terminal_summary(terminalreporter):
    """Name the tests that were skipped, by reason."""
    skipped = collections.defaultdict(collections.Counter)
    for report in terminalreporter.getreports("skipped"):
        skipped[reason(report)][report.nodeid.partition("[")[0]] += 1
    skipped.pop("", None)
    if skipped:
        terminalreporter.section("skipped")
    for why, names in sorted(skipped.items()):
        terminalreporter.line(f"{names.total()} because {why}:")
        for name, count in sorted(names.items()):
            terminalreporter.line(f"  {name}" + (f" ({count} times)" * (count > 1)))
