"""The benchmarks run, and tell what became slower from what is noise."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def against(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import against

    return against


@pytest.fixture
def tracing(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import tracing

    return tracing


def grown(against, base, here, measure="ms"):
    return against.growth("row", "case", {measure: base}, {measure: here})


def test_what_differs_by_less_than_the_rounds_do_is_noise(against):
    assert not grown(against, [10, 11, 12, 13, 14], [11, 12, 13, 14, 15])
    assert not grown(against, [10, 10, 10], [10.1, 10.1, 10.1])
    assert not grown(against, [0.001, 0.001], [0.003, 0.003])


def test_what_differs_by_more_than_the_rounds_do_is_slower(against):
    (found,) = grown(against, [10, 11, 12, 13, 14], [20, 21, 22, 23, 24])
    assert found.what == ("row", "case", "ms")
    assert (found.base, found.here, found.noise) == (12, 22, 4)
    assert str(found) == "row: case, ms: 12 -> 22 (noise 4)"


def test_a_count_that_is_one_more_has_grown(against):
    assert grown(against, [8, 8], [9, 9], "fsyncs")
    assert grown(against, [0, 0], [1, 1], "made in vain")


def test_one_slow_round_is_noise(against):
    assert not grown(against, [10, 10, 10, 10, 10], [10, 10, 10, 10, 99])


def test_what_became_faster_is_not_reported(against):
    assert not grown(against, [20, 20], [10, 10])


def test_phases_and_what_is_better_if_it_is_more_are_not_compared(against):
    assert not grown(against, [10, 10], [20, 20], "phase sync")
    assert not grown(against, [10, 10], [20, 20], "steps")


def call(tracing, name, text):
    return tracing.Call(name, text)


def test_what_is_made_and_removed_again_is_in_vain(tracing):
    calls = [
        call(tracing, "mkdir", '("/a/.draft", 0777) = 0'),
        call(tracing, "openat", '(AT_FDCWD</w>, "/a/.draft/x", O_CREAT, 0666) = 3'),
        call(tracing, "rename", '("/a/.draft", "/a/save") = 0'),
        call(tracing, "unlink", '("/a/save/x") = 0'),
        call(tracing, "unlink", '("/a/old/x") = 0'),
        call(tracing, "unlink", '("/a/save/y") = -1 ENOENT (No such file)'),
    ]
    assert tracing.summary(calls) == {
        "calls": 6,
        "fsyncs": 0,
        "listings": 0,
        "made in vain": 1,
    }


def test_calls_are_counted_between_marks_and_on_files_alone(tracing):
    lines = [
        '7 openat(AT_FDCWD</w>, "before") = 3',
        '7 newfstatat(AT_FDCWD</w>, "/begin", 0x1, 0) = -1 ENOENT',
        "7 getdents64(3</a>, 0x2 /* 9 entries */, 32768) = 300",
        "8 fsync(4</a/x> <unfinished ...>",
        "7 getdents64(3</a>, 0x2 /* 0 entries */, 32768) = 0",
        "8 <... fsync resumed>) = 0",
        "7 read(5<pipe:[1]>, 1) = 1",
        "7 +++ exited with 0 +++",
        '7 newfstatat(AT_FDCWD</w>, "/end", 0x1, 0) = -1 ENOENT',
    ]
    found = tracing.summary(tracing.between(lines, "/begin", "/end"))
    assert (found["calls"], found["fsyncs"], found["listings"]) == (2, 1, 1)


def git(tree, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    subprocess.run(["git", *identity, *arguments], cwd=tree, check=True)


@pytest.fixture
def tree(tmp_path):
    """Return a repository with what is here as its only commit."""
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    tree = tmp_path / "tree"
    for name in ("elementsckpt", "benchmarks"):
        left_out = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / name, tree / name, ignore=left_out)
    git(tree, "init", "--quiet")
    git(tree, "add", ".")
    git(tree, "commit", "--quiet", "--no-verify", "-m", "Base")
    return tree


def run(tree, *flags, folder=None):
    folder = folder or tree.parent
    command = [sys.executable, "-m", "benchmarks", "--quick", "--folder", folder]
    return subprocess.run(
        [*command, *flags], cwd=tree, capture_output=True, text=True, timeout=300
    )


def test_a_measure_that_grew_is_told_with_the_exit_status(tree):
    (tree / "benchmarks" / "rows.py").write_text(COUNTING_ROW)
    equal = run(tree, "--against", "HEAD")
    assert equal.returncode == 0, equal.stderr
    assert "\n  nothing\n" in equal.stdout
    with (tree / "elementsckpt" / "reports" / "__init__.py").open("a") as file:
        file.write(MORE_BYTES)
    slower = run(tree, "--against", "HEAD")
    assert slower.returncode == 1, slower.stderr
    assert "\n  count: save, bytes: 5 -> 7 (noise 0.1)\n" in slower.stdout
    assert run(tree).stdout.count("\n  save ") == 1  # The row itself goes on.


# A row that counts what the library says, and takes no time.
COUNTING_ROW = """
from elementsckpt import reports
from .cases import Row

def count(setting):
    case = lambda folder: {"bytes": getattr(reports, "EXTRA", 0) + 5}
    return Row("count", "", {"raw": case, "save": case})

ROWS = {"count": count}
"""
MORE_BYTES = "\n\nEXTRA = 2\n"


@pytest.mark.slow
def test_a_save_that_makes_more_calls_is_told_by_name(tree, tracing):
    if tracing.note():
        pytest.skip("there is no strace, or it may not attach")
    flags = "--against", "HEAD", "--only", "^small-1$"
    equal = run(tree, *flags)
    syncs = re.search(r"fsyncs (\d+) -> \1\b", equal.stdout)[1]
    assert ", fsyncs: " not in equal.stdout
    with (tree / "elementsckpt" / "checkpoint.py").open("a") as file:
        file.write(ONE_MORE_SYNC)
    slower = run(tree, *flags)
    assert slower.returncode == 1, slower.stderr
    told = f"\n  small-1: elementsckpt, fsyncs: {syncs} -> {int(syncs) + 1} "
    assert told in slower.stdout
    assert "listings: " not in slower.stdout


ONE_MORE_SYNC = """

def save(self, *args, before=Checkpoint.save, **kwargs):
    import os
    folder = os.open(".", os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    return before(self, *args, **kwargs)

Checkpoint.save = save
"""


def test_a_revision_that_git_does_not_know_is_refused(tmp_path):
    found = run(ROOT, "--against", "nothing-like-it", folder=tmp_path)
    assert found.returncode == 1
    assert "--against nothing-like-it: fatal: " in found.stderr


def test_comparing_rewrites_nothing(tmp_path):
    found = run(ROOT, "--against", "HEAD", "--write", folder=tmp_path)
    assert found.returncode == 2
    assert "--against compares, and --write rewrites" in found.stderr
