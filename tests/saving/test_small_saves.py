"""Components of little data share segments, and a save of them takes few calls."""

import collections
import os
import shutil
import threading

import numpy as np
import pytest
import safetensors.numpy

import elementsckpt
from elementsckpt import Checkpoint, DamagedError
from elementsckpt.format.manifest import Head
from elementsckpt.storage import folders, segments

from support.boxes import Box, Stream
from support.faults import use_sizes
from support.folders import (
    Calls,
    bytes_new_in,
    check_folder,
    flip_block,
    forge,
    inodes_of,
    noise,
)
from support.strategies import assert_same

KEYS = [f"c{n}" for n in range(7)]


def states(start=0, size=100_000):
    return {key: {"w": noise(start + n, size)} for n, key in enumerate(KEYS)}


def make(directory, found=None, **options):
    cp = Checkpoint(directory, **{"fsync": False, "keep": None, **options})
    for key, state in (states() if found is None else found).items():
        setattr(cp, key, Box(state))
    return cp


def change(cp, *keys, seed=100):
    for n, key in enumerate(keys):
        getattr(cp, key).state["w"] = noise(seed + n)


def saved(cp):
    return {key: getattr(cp, key).state for key in KEYS}


def check(save, expected):
    """Check that a save has what it should, as a whole and each component alone."""
    check_folder(save)
    assert_same(elementsckpt.read(save), expected)
    for key, state in expected.items():
        assert_same(elementsckpt.read(save, keys=[key]), {key: state})


# One file


def test_small_components_share_a_segment(tmp_path):
    cp = make(tmp_path)
    save = cp.save().path
    assert list(inodes_of(save)) == ["c0-000001-00000.safetensors"]
    check(save, saved(cp))


def test_what_is_written_is_counted_once(tmp_path):
    cp = make(tmp_path)
    first = cp.save()
    assert first.bytes_written == bytes_new_in(first.path)
    change(cp, "c4")
    second = cp.save()
    assert second.bytes_written == bytes_new_in(second.path, first.path)
    assert second.bytes_reused == 600_000


@pytest.mark.parametrize("background", [False, True])
def test_shards_share_it_too(tmp_path, background):
    cp = make(tmp_path, background=background)
    cp.stream = Stream([{"w": noise(n, 100)} for n in range(5)])
    cp.last = Box({"w": noise(9)})
    cp.save()
    cp.wait()
    assert list(inodes_of(cp.latest())) == ["c0-000001-00000.safetensors"]
    other = make(tmp_path, dict.fromkeys(KEYS))
    other.stream, other.last = Stream(), Box()
    other.load()
    assert_same(other.stream.state, cp.stream.state)
    assert_same(saved(other), saved(cp))


def test_what_is_in_it_is_called_by_component_and_date(tmp_path):
    save = make(tmp_path).save().path
    (file,) = inodes_of(save)
    found = safetensors.numpy.load_file(save / file)
    assert {x for x in found if not x.startswith("__")} == {f"{x}/w@1" for x in KEYS}


def test_a_save_to_a_path_has_a_file_for_each_component(tmp_path):
    save = make(tmp_path / "run").save(tmp_path / "taken").path
    assert len(inodes_of(save)) == len(KEYS)
    found = safetensors.numpy.load_file(save / "c0-000001-00000.safetensors")
    assert list(found) == ["w"]


def test_one_small_component_has_a_segment_of_its_own_and_plain_names(tmp_path):
    cp = make(tmp_path, {"big": {"w": noise(1, 5_000_000)}, "c0": {"w": noise(2)}})
    save = cp.save().path
    assert len(inodes_of(save)) == 2
    assert list(safetensors.numpy.load_file(save / "c0-000001-00000.safetensors")) == [
        "w"
    ]


def test_what_compresses_shares_a_segment_too(tmp_path):
    cp = make(tmp_path, {key: {"w": np.full(50_000, n)} for n, key in enumerate(KEYS)})
    save = cp.save().path
    assert len(inodes_of(save)) == 1
    check(save, saved(cp))


def test_a_component_can_be_taken_away_alone(tmp_path):
    save = make(tmp_path / "run").save().path
    shutil.copytree(save, tmp_path / "alone")

    def leave_one(content):
        content["components"] = [x for x in content["components"] if x["key"] == "c3"]

    forge(tmp_path / "alone", leave_one)
    assert_same(elementsckpt.read(tmp_path / "alone"), {"c3": states()["c3"]})


@pytest.mark.parametrize("background", [False, True])
def test_shared_segments_end_where_they_are_full(tmp_path, monkeypatch, background):
    use_sizes(monkeypatch.setattr, segment_least=250_000)
    cp = make(tmp_path, background=background)
    cp.save()
    cp.wait()
    save = cp.latest()
    named = [f"c{n}-000001-00000.safetensors" for n in (0, 2, 4, 6)]
    assert sorted(inodes_of(save)) == named
    check(save, saved(cp))


class Steps(Box):
    """Changes the state of another component when it is saved."""

    def __init__(self, other):
        super().__init__({"w": noise(99)})
        self.other = other

    def save(self):
        self.other["w"][:] = 0
        return super().save()


@pytest.mark.parametrize("size", [100_000, 5_000_000])
def test_a_component_is_saved_as_it_was_before_the_next_one_is_asked(tmp_path, size):
    cp = Checkpoint(tmp_path)
    cp.first = Box({"w": noise(1, size)})
    cp.second = Steps(cp.first.state)
    save = cp.save().path
    assert_same(
        elementsckpt.read(save, keys=["first"]), {"first": {"w": noise(1, size)}}
    )


# Reuse


def test_the_segment_is_linked_once_while_half_of_it_is_live(tmp_path, inject):
    cp = make(tmp_path)
    first = cp.save().path
    change(cp, "c2", "c5")
    calls = inject(Calls())
    save = cp.save().path
    assert calls.counts["link"] == 1
    assert calls.counts["unlink"] == 0
    assert inodes_of(first).items() < inodes_of(save).items()
    check(save, saved(cp))


def test_what_is_much_smaller_than_the_gaps_is_linked_too(tmp_path):
    cp = make(tmp_path, {f"c{n}": {"w": np.arange(n, n + 1)} for n in range(30)})
    first = cp.save().path
    assert inodes_of(cp.save().path) == inodes_of(first)


def test_a_segment_that_is_mostly_dead_is_not_linked(tmp_path, inject):
    cp = make(tmp_path)
    first = cp.save().path
    change(cp, *KEYS[:5])
    calls = inject(Calls())
    save = cp.save().path
    assert not calls.counts["link"]
    assert not inodes_of(first).keys() & inodes_of(save).keys()
    check(save, saved(cp))
    check(first, states())


def test_in_the_background_it_is_given_up_once_all_is_known(tmp_path):
    cp = make(tmp_path, background=True)
    cp.save()
    cp.wait()
    change(cp, *KEYS[:5])
    cp.save()
    cp.wait()
    assert list(inodes_of(cp.latest())) == ["c0-000002-00000.safetensors"]
    check(cp.latest(), saved(cp))


def test_two_earlier_saves_may_have_segments_of_one_name(tmp_path):
    cp = make(tmp_path)
    cp.save()
    for keys in (KEYS[:4], KEYS[3:]):
        cp.save(keys=keys)
    save = cp.save().path
    check(save, saved(cp))
    change(cp, "c6")
    check(cp.save().path, saved(cp))


@pytest.mark.parametrize("background", [False, True])
def test_what_one_save_keeps_is_not_dropped_with_another_of_its_name(
    tmp_path, background
):
    found = {"a": {"w": noise(0, 100_000)}, "b": {"w": noise(1, 30_000)}}
    cp = make(tmp_path, found, background=background)
    for keys in (None, ["a"], None):
        cp.save(keys=keys)
        cp.wait()
    check(cp.latest(), found)


@pytest.mark.parametrize("segment_least", [4 << 20, 250_000])
@pytest.mark.parametrize("damaged", KEYS)
@pytest.mark.parametrize("background", [False, True])
def test_damage_in_it_is_not_handed_on(
    tmp_path, monkeypatch, damaged, segment_least, background
):
    cp = make(tmp_path)
    first = cp.save().path
    use_sizes(monkeypatch.setattr, segment_least=segment_least)
    cp = make(tmp_path, background=background)
    flip_block(first, 0, key=damaged)
    cp.save()
    cp.wait()
    assert cp.latest() != first
    check(cp.latest(), saved(cp))
    with pytest.raises(DamagedError):
        elementsckpt.read(first)


# Claims


def test_components_that_claim_the_same_bytes_are_refused(tmp_path):
    save = make(tmp_path).save().path

    def claim(content):
        one, other = content["components"][:2]
        other["blocks"] = one["blocks"]

    forge(save, claim)
    with pytest.raises(DamagedError, match="overlaps another"):
        elementsckpt.read(save)


@pytest.mark.parametrize("position", [1, 2, 3])
def test_components_that_differ_about_a_segment_are_refused(tmp_path, position):
    save = make(tmp_path).save().path

    def differ(content):
        entry = content["components"][1]["segments"][0]
        entry[position] = "0" * 32 if position == 3 else entry[position] + 64

    forge(save, differ)
    with pytest.raises(DamagedError, match=r"two descriptions of c0-|overlaps"):
        elementsckpt.read(save)


def test_its_header_is_verified_once_for_all_components(tmp_path, monkeypatch):
    found = {f"c{n}": {"w": noise(n, 100)} for n in range(50)}
    save = make(tmp_path, found).save().path
    counts = collections.Counter()
    real = segments.digest_of

    def count(read, size):
        counts["headers"] += 1
        return real(read, size)

    monkeypatch.setattr(segments, "digest_of", count)
    assert_same(elementsckpt.read(save, mmap=False), found)
    assert counts["headers"] == 1


# Calls


class Changes(Calls):
    """Notes, too, which files were made and which removed."""

    def __init__(self):
        super().__init__()
        self.made, self.removed = set(), set()

    def __call__(self, call, *args):
        name = call.__name__.strip("_")
        if name == "unlink":
            self.removed.add(os.lstat(args[0]).st_ino)
        result = super().__call__(call, *args)
        if name == "open":
            self.made.add(os.fstat(result).st_ino)
        return result


def test_seven_small_components_take_few_calls(tmp_path, inject, monkeypatch):
    cp = make(tmp_path, fsync=True, keep=1)
    cp.save()
    change(cp, *KEYS)
    cp.save()
    change(cp, *KEYS, seed=200)
    calls = inject(Changes())
    listed = []
    for name in ("names_in", "_entries"):
        real = getattr(folders, name)
        monkeypatch.setattr(
            folders, name, lambda path, real=real: listed.append(path) or real(path)
        )
    save = cp.save().path
    assert len(calls.synced) <= 7
    assert calls.counts["link"] == 0
    assert not calls.made & calls.removed, "something was made in vain"
    assert sum(calls.counts.values()) <= 33
    assert len(listed) <= 3
    assert inodes_of(save).keys() == {"c0-000003-00000.safetensors"}


def test_what_is_little_is_synced_at_the_same_time(tmp_path, inject):
    cp = make(tmp_path, fsync=True)
    cp.save()
    change(cp, *KEYS)
    both = threading.Barrier(2, timeout=30)
    synced = []

    def meet(call, *args):
        if call is os.fsync:
            synced.append(os.fstat(args[0]).st_ino)
            if len(synced) <= 2:
                both.wait()  # It breaks if one sync waits for the other.
        return call(*args)

    inject(meet)
    save = cp.save().path
    segment, found = save / "c0-000002-00000.safetensors", [save, *save.iterdir()]
    assert {x.stat().st_ino for x in found} <= {*synced[:-1]}
    assert segment.stat().st_ino in synced[:2]


def test_few_files_stay_open_until_they_are_synced(tmp_path, inject):
    found = {f"c{n}": {"w": noise(n, 100)} for n in range(12)}
    cp = make(tmp_path / "run", found, fsync=True)
    open_files = []

    def count(call, *args):
        if call is os.fsync:
            open_files.append(len(os.listdir("/dev/fd")))
        return call(*args)

    before = len(os.listdir("/dev/fd"))
    inject(count)
    save = cp.save(tmp_path / "taken").path  # A file for each component.
    assert len(inodes_of(save)) == 12
    assert len(open_files) > 12
    assert open_files[4] - before >= 8
    assert max(open_files[4:]) - before <= 16
    assert len(os.listdir("/dev/fd")) == before


def test_nothing_is_looked_up_for_each_component_in_all_saves(tmp_path, monkeypatch):
    counts = collections.Counter()
    real = Head.marks

    def marks(head):
        counts["marks"] += 1
        return real(head)

    monkeypatch.setattr(Head, "marks", marks)
    cp = make(tmp_path, {f"c{n}": {"w": noise(n, 100)} for n in range(50)})
    cp.save()
    cp.save()
    assert counts["marks"] <= 4


def test_the_calls_do_not_grow_with_the_number_of_components(tmp_path, inject):
    counts = []
    for number in (10, 80):
        found = {f"c{n}": {"w": np.arange(4)} for n in range(number)}
        cp = make(tmp_path / str(number), found)
        cp.save()
        for box in range(number):
            cp_box = getattr(cp, f"c{box}")
            cp_box.state = {"w": np.arange(4) + 1}
        calls = inject(Calls())
        cp.save()
        counts.append({k: v for k, v in calls.counts.items() if k != "pwrite"})
    assert counts[0] == counts[1]


# Many saves


@pytest.mark.parametrize("kind", ["ring", "rows"])
def test_blocks_that_many_saves_scattered_are_gathered(tmp_path, monkeypatch, kind):
    use_sizes(
        monkeypatch.setattr,
        block=4096,
        small=2048,
        segment=128 << 10,
        arena=8192,
        segments=20,
    )
    rows, count = 1600, 64  # 400 blocks, of which each save changes 16, or 4 %.
    dice = np.random.default_rng(0)
    state = dice.integers(0, 256, (rows, 1024), np.uint8)
    cp = make(tmp_path, {"replay": {"w": state}}, keep=1)
    cp.save()
    written = []
    for n in range(100):
        first = count * n % rows
        chosen = (
            dice.integers(0, rows, 8) if kind == "rows" else slice(first, first + count)
        )
        state[chosen] ^= 1
        report = cp.save()
        written.append(report.bytes_written / report.bytes_total)
        assert len(inodes_of(report.path)) <= 20 + 9
    assert len(inodes_of(cp.latest())) <= 20 + 2
    assert max(written[70:]) < 0.25, "all was gathered at once"
    assert np.mean(written) < 0.11
    assert_same(elementsckpt.read(cp.latest()), {"replay": {"w": state}})


def test_the_rest_of_a_large_leaf_is_divided(tmp_path, monkeypatch):
    use_sizes(monkeypatch.setattr, block=4096, small=2048, segment=32 << 10, arena=8192)
    state = noise(0, 400 * 1024).reshape(400, 1024)
    cp = make(tmp_path, {"replay": {"w": state}})
    first = cp.save().path
    assert len(inodes_of(first)) == 1
    for n in range(6):  # Of the segment less than half is live then.
        state[40 * n : 40 * (n + 1)] ^= 1
        cp.save()
    assert inodes_of(first).items() & inodes_of(cp.latest()).items()
    cp.save()  # Nothing of it was overwritten this time, so the rest stays.
    assert not inodes_of(first).items() & inodes_of(cp.latest()).items()
    sizes = [x.stat().st_size for x in cp.latest().glob("*.safetensors")]
    assert max(sizes) <= 44 << 10
    check_folder(cp.latest())
    assert_same(elementsckpt.read(cp.latest()), {"replay": {"w": state}})


def test_a_ring_takes_few_files_and_little_is_written_twice(tmp_path, monkeypatch):
    # As a replay of 2 GB in blocks of 1 MB, of which each save changes 1 %.
    use_sizes(
        monkeypatch.setattr,
        block=1024,
        small=512,
        shared_least=512,
        shared_more=256,
        segment=64 << 10,
        segment_least=4096,
        arena=1024,
    )
    rows, changed = 1910 * 16, 1910 * 16 // 100
    state = noise(0, rows * 64).reshape(rows, 64)
    cp = make(tmp_path, {"replay": {"w": state}}, keep=1)
    cp.save()
    written, files, sizes = [], [], []
    for n in range(200):
        state[np.arange(changed * n, changed * (n + 1)) % rows] ^= 1
        report = cp.save()
        written.append(1 - report.bytes_reused / report.bytes_total)
        found = [x.stat().st_size for x in report.path.iterdir()]
        files.append(len(found))
        sizes.append(sum(found) / report.bytes_total)
    assert max(files) <= 80
    assert np.mean(written) <= 0.015
    assert max(written) < 0.1, "half of it was written at once"
    assert max(sizes) < 2.2
    assert_same(elementsckpt.read(cp.latest()), {"replay": {"w": state}})
