"""Reuse when files are damaged, gone or replaced, and where there are no links."""

import contextlib
import errno
import itertools
import os
import shutil

import numpy as np
import pytest

from elementsckpt import Checkpoint, DamagedError, WriteError
from elementsckpt.format.digests import digest
from elementsckpt.saving.earlier_save import CHECK_EVERY
from elementsckpt.storage import disk

from support.boxes import Box, Stream, load_agent, make, make_boxes
from support.faults import Fails, Policy, is_link, unsynced
from support.folders import (
    HEADERS,
    check_folder,
    flip,
    flip_block,
    inodes_of,
    noise,
    use_small_blocks,
)
from support.strategies import assert_same

CHUNK = 100_000
SECOND = 1  # Which of the blocks the second save checks.
RAW = {"keep": None, "fsync": False, "compress": None}


def chunks(*seeds):
    return [noise(seed, CHUNK) for seed in seeds]


# Damage that shows


@pytest.fixture
def two_segments(tmp_path):
    """Return a checkpoint whose last save has a segment of 4 chunks and one of 2."""
    cp = make(tmp_path / "ckpt", chunks(1, 2, 3, 4), **RAW)
    cp.save()
    cp.agent.state = chunks(1, 2, 3, 4, 5, 6)
    cp.save()
    return cp


DAMAGES = {
    "first byte": lambda path: flip(path, 0),
    "header": lambda path: flip(path, 20, keep_time=True),
    "data": lambda path: flip(path, -1000),
    "shorter": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: os.truncate(path, path.stat().st_size + 1),
    "deleted": lambda path: path.unlink(),
    "link": lambda path: path.symlink_to(path.rename(path.with_suffix(".moved"))),
    "dangling": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "fifo": lambda path: (path.unlink(), os.mkfifo(path)),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_written_again(two_segments, damage, background, fresh):
    path = two_segments.latest()
    bad = sorted(path.glob("*.safetensors"))[0]
    state = two_segments.agent.state
    cp = two_segments
    if fresh or background:
        cp = make(path.parent, state, background=background, **RAW)
    DAMAGES[damage](bad)
    report = cp.save()
    report = cp.wait() or report
    check_folder(report.path)
    assert bad.name not in inodes_of(report.path)
    assert report.bytes_written >= 4 * CHUNK
    assert_same(state, load_agent(report.path))


def test_the_rest_is_reused_and_the_log_names_what_is_damaged(two_segments, warnings):
    path = two_segments.latest()
    bad, good = sorted(path.glob("*.safetensors"))
    flip(bad, -1000)
    report = two_segments.save()
    assert report.bytes_reused == 2 * CHUNK
    assert 4 * CHUNK <= report.bytes_written <= 4 * CHUNK + HEADERS
    assert inodes_of(report.path)[good.name] == good.stat().st_ino
    assert bad.name in warnings.text
    assert "written again" in warnings.text


def test_a_manifest_that_is_damaged_is_no_source(tmp_path):
    first = make(tmp_path, chunks(1, 2), **RAW).save().path
    flip(first / "manifest.json", 50)
    report = make(tmp_path, chunks(1, 2), **RAW).save()
    assert report.bytes_reused == 0
    assert_same(chunks(1, 2), load_agent(report.path))


def test_a_save_that_a_person_renamed_is_no_source(tmp_path):
    cp = make(tmp_path, chunks(1, 2), **RAW)
    first = cp.save().path
    first.rename(tmp_path / "mine")
    report = cp.save()
    assert report.bytes_reused == 0
    assert_same(chunks(1, 2), load_agent(report.path))


def test_all_is_written_when_the_last_save_was_removed(tmp_path):
    cp = make(tmp_path, chunks(1, 2), **RAW)
    shutil.rmtree(cp.save().path)
    report = cp.save()
    assert report.bytes_reused == 0
    assert_same(chunks(1, 2), load_agent(report.path))


# Damage that no time and no size shows


def _same(turn, state):
    return state


def _front_dropped(turn, state):
    return [*state[1:], noise(1000 + turn, CHUNK)]


def _new_at_the_front(turn, state):
    return [noise(1000 + turn, CHUNK), *state[:-1]]


def _reversed(turn, state):
    return state[::-1]


HISTORIES = [_same, _front_dropped, _new_at_the_front, _reversed]


def is_found(cp, change, number):
    """Damage a block; tell whether it is written again or gone in so many saves."""
    path = cp.latest()
    flip_block(path, number, keep_time=True)
    for turn in range(CHECK_EVERY):
        cp.agent.state = change(turn, cp.agent.state)
        saved = cp.save().path
    try:
        assert_same(cp.agent.state, load_agent(saved))
    except DamagedError:
        return False
    return True


@pytest.mark.parametrize("number", [0, 1, 7, 24, 39])
@pytest.mark.parametrize("change", HISTORIES)
def test_each_reused_block_is_read_within_16_saves(tmp_path, change, number):
    cp = make(tmp_path, chunks(*range(40)), fsync=False, compress=None)
    cp.save()
    assert is_found(cp, change, number)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("others", [1, 3])
def test_each_is_read_within_16_when_others_are_saved_in_between(
    tmp_path, number, others
):
    cp = Checkpoint(tmp_path, fsync=False, compress=None, keep=None)
    cp.agent, cp.other = Box(chunks(*range(4))), Box(1)
    cp.save()
    flip_block(cp.latest(), number, keep_time=True)
    for _ in range(CHECK_EVERY):
        path = cp.save(keys=["agent"]).path
        for _ in range(others):
            cp.save(keys=["other"])
    assert_same(cp.agent.state, load_agent(path))


def test_a_damaged_sample_is_reported_and_its_segment_written_again(tmp_path, warnings):
    cp = make(tmp_path, chunks(1, 2), **RAW)
    first = cp.save().path
    bad = flip_block(first, 0, keep_time=True)
    paths = [cp.save().path for _ in range(CHECK_EVERY)]
    found = [path for path in paths if bad.name not in inodes_of(path)]
    assert found == paths[-len(found) :]
    assert warnings.text.count("Not reused, but written again") == 1
    for path in found:
        assert_same(cp.agent.state, load_agent(path))
    with pytest.raises(DamagedError):
        load_agent(first)


# A block that is moved is read, and then it is too late to write it from memory


@pytest.fixture
def about_to_move(tmp_path):
    """Return a function that makes a checkpoint whose next save moves a bad block.

    The leaf gets another name, and so may not stay in a segment that has its old one.
    """

    def prepare(**options):
        arrays = (noise(seed, CHUNK) for seed in range(99))
        array = next(x for x in arrays if int(digest(x), 16) % CHECK_EVERY != SECOND)
        cp = make(tmp_path, {"old": array}, **(RAW | options))
        report = cp.save()
        flip_block((cp.wait() or report).path, 0, keep_time=True)
        cp.agent.state = {"new": array}
        return cp

    return prepare


def test_blocks_that_are_moved_are_written_from_memory(tmp_path, warnings):
    cp = make(tmp_path, chunks(*range(8)), **RAW)
    flip_block(cp.save().path, 2, keep_time=True)
    cp.agent.state = cp.agent.state[1:4]
    report = cp.save()
    assert report.bytes_reused == 0
    assert not warnings.text
    assert_same(cp.agent.state, load_agent(report.path))


def test_a_save_that_moves_a_damaged_block_is_made_again(about_to_move, warnings):
    cp = about_to_move()
    report = cp.save()
    assert report.bytes_reused == 0
    assert report.bytes_written >= CHUNK
    assert "Saving again without reuse" in warnings.text
    assert_same(cp.agent.state, load_agent(report.path))
    check_folder(report.path)
    assert len(cp.saves()) == len(names_of_folders(report.path.parent))


def test_the_save_after_it_reuses_what_was_made_again(about_to_move):
    cp = about_to_move()
    first = cp.save().path
    second = cp.save()
    assert inodes_of(first) == inodes_of(second.path)
    assert second.bytes_written <= HEADERS


def names_of_folders(directory):
    return [path.name for path in directory.iterdir() if path.is_dir()]


class Once(Box):
    """Saves a generator that it was given, which nobody can run twice."""

    def save(self):
        return self.state

    def load(self, data):
        self.state = list(data)


def test_a_stream_that_cannot_be_run_twice_is_not_saved_empty(tmp_path):
    cp = Checkpoint(tmp_path, **RAW)
    cp.agent = Once(chunk for chunk in chunks(*range(8)))
    flip_block(cp.save().path, 2, keep_time=True)
    cp.agent.state = (chunk for chunk in chunks(1, 2, 3))
    with contextlib.suppress(DamagedError):  # An error would be right, too.
        path = cp.save().path
        cp.load(path)
        assert_same(chunks(1, 2, 3), cp.agent.state)


def test_in_the_background_it_is_an_error_and_the_next_save_is_good(
    about_to_move, warnings
):
    cp = about_to_move(background=True)
    before = cp.latest()
    cp.save()
    with pytest.raises(DamagedError, match="the next one does without"):
        cp.wait()
    assert cp.latest() == before
    assert len(cp.saves()) == len(names_of_folders(before.parent))
    cp.save()
    report = cp.wait()
    assert report.bytes_reused == 0
    assert_same(cp.agent.state, load_agent(report.path))
    cp.save()
    assert cp.wait().bytes_written <= HEADERS


# What is found damaged is not counted by retention, and not removed


FOUND = {
    "header": lambda path: flip(path, 20),
    "data": lambda path: flip(path, -1000),
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("kind", [Box, Stream, Policy])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("damage", FOUND)
def test_a_save_that_reuse_found_damaged_neither_counts_nor_goes(
    tmp_path, kind, background, damage
):
    cp = Checkpoint(tmp_path, keep=2, background=background, compress=None)
    state = {str(n): chunk.tobytes() for n, chunk in enumerate(chunks(1, 2))}
    cp.agent, cp.other = kind(state if kind is Policy else [state]), Box(1)
    saves = []
    for cp.other.state in range(2):
        saves.append(cp.save().path)
        cp.wait()
    (shared, *_) = sorted(x for x in saves[1].rglob("*") if x.stat().st_size >= CHUNK)
    FOUND[damage](shared)
    for cp.other.state in range(2, 4):
        saves.append(cp.save().path)
        cp.wait()
    assert [path.exists() for path in saves] == [False, True, True, True]
    for cp.other.state in range(4, 6):
        saves.append(cp.save().path)
        cp.wait()
    exist = [path.exists() for path in saves]
    assert exist == [False, True, False, False, True, True]
    assert cp.delete(saves[1]) == [saves[1]]


def test_a_save_of_which_a_block_could_not_be_moved_neither_counts_nor_goes(
    about_to_move,
):
    cp = about_to_move(keep=1)
    bad = cp.latest()
    paths = [cp.save().path for _ in range(2)]
    assert [path.exists() for path in (bad, *paths)] == [True, False, True]


@pytest.mark.parametrize("change", [False, True])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_old_save_may_vanish_when_it_is_linked(
    tmp_path, inject, when, change, background
):
    rows = np.random.default_rng(0).integers(0, 256, (3, 100_000), np.uint8)
    cp = make_boxes(
        tmp_path, agent={"a": rows[:2], "b": rows[2]}, background=background
    )
    old = cp.save().path
    cp.wait()
    vanished = []

    def interleave(call, *args):
        is_link = call is disk._link and not vanished
        if is_link and when == "before":
            vanished.append(shutil.rmtree(old))
        result = call(*args)
        if is_link and when == "after":
            vanished.append(shutil.rmtree(old))
        return result

    inject(interleave)
    rows[2] += change
    report = cp.save()
    cp.wait()
    assert vanished
    again = make_boxes(tmp_path, agent=None)
    assert again.load().path == report.path
    assert (again.agent.state["a"] == rows[:2]).all()
    assert (again.agent.state["b"] == rows[2]).all()
    assert {p.name for p in tmp_path.iterdir()} == {"latest", report.path.name}


# No links


LINK_ERRORS = [errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.EACCES]


class NoLinks:
    """Refuses links from the n-th on; in the place of `disk.syscall`."""

    def __init__(self, code, n=1):
        self.code, self.left = code, n - 1

    def __call__(self, call, *args):
        if is_link(call):
            if not self.left:
                raise OSError(self.code, os.strerror(self.code))
            self.left -= 1
        return unsynced(call, *args)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("code", LINK_ERRORS)
def test_without_links_all_is_written(tmp_path, inject, warnings, code, background):
    inject(NoLinks(code))
    cp = make(tmp_path, chunks(1, 2, 3), background=background, **RAW)
    for _ in range(3):
        report = cp.save()
        report = cp.wait() or report
        assert report.bytes_reused == 0
        assert report.bytes_written >= 3 * CHUNK
        assert {x.stat().st_nlink for x in report.path.iterdir()} == {1}
        assert_same(cp.agent.state, load_agent(report.path))
    assert warnings.text == ""  # It is no fault of anybody.


@pytest.mark.parametrize("n", [1, 2, 3])
def test_what_was_linked_before_the_refusal_is_used(tmp_path, inject, n):
    cp = make(tmp_path, [], **RAW)
    for seed in range(4):
        cp.agent.state = cp.agent.state + chunks(2 * seed, 2 * seed + 1)
        cp.save()
    inject(NoLinks(errno.EMLINK, n))
    report = cp.save()
    assert report.bytes_reused <= (n - 1) * 2 * CHUNK
    assert_same(cp.agent.state, load_agent(report.path))
    check_folder(report.path)


# Each call fails


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("sticky", [False, True])
def test_any_call_may_fail_in_a_save_that_links_and_moves(
    tmp_path, monkeypatch, inject, sticky, background
):
    use_small_blocks(monkeypatch.setattr)
    for n in itertools.count(1):
        inject(unsynced)
        cp = make(tmp_path / str(n), keep=None, background=background)
        cp.agent.state = [noise(seed, 2000) for seed in range(6)]
        cp.save()
        cp.wait()
        old = cp.latest()
        before = {x.name: (x.stat().st_ino, x.read_bytes()) for x in old.iterdir()}
        cp.agent.state = [*cp.agent.state[2:], noise(9, 2000)]
        fault = Fails(n, OSError(errno.EIO, "injected"), sticky=sticky)
        inject(fault)
        with contextlib.suppress(WriteError):
            cp.save()
        with contextlib.suppress(WriteError):
            cp.wait()
        inject(unsynced)
        after = {x.name: (x.stat().st_ino, x.read_bytes()) for x in old.iterdir()}
        assert after == before
        cp.save()
        cp.wait()
        assert_same(cp.agent.state, load_agent(cp.latest()))
        for path in old.parent.glob("*/manifest.json"):
            check_folder(path.parent)
        if fault.count < n:
            break
    assert n > 10
