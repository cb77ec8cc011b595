"""What an earlier save holds is linked and not written again, wherever it has moved."""

import collections
import copy
import itertools
import shutil

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint
from elementsckpt.storage import disk

from support.boxes import Box, Stream, load_agent, make
from support.folders import (
    HEADERS,
    MB,
    Calls,
    bytes_new_in,
    check_folder,
    component_of,
    inodes_of,
    manifest_of,
    noise,
    segments_of,
)
from support.strategies import assert_same

CHUNK = 100_000
RAW = {"keep": None, "fsync": False, "compress": None}


def chunks(*seeds):
    return [{"x": noise(seed, CHUNK)} for seed in seeds]


def resaved(directory, first, then, kind=Box, **options):
    """Save one state and then another; return the two reports.

    The second save is checked to be right, and a good one by itself.
    """
    cp = Checkpoint(directory, **(RAW | options))
    cp.agent = kind(first)
    before = cp.save()
    cp.agent.state = then
    after = cp.save()
    assert_same(then, load_agent(after.path, kind))
    assert_same(first, load_agent(before.path, kind))
    check_folder(after.path)
    return before, after


# Nothing changed


def _large():
    return {"w": noise(1, 3 * MB, np.float32), "b": noise(2, CHUNK, np.float32)}


def _small():
    return {f"layer{n}": noise(n, 400, np.float32) for n in range(3000)}


def _mixed():
    state = {"zeros": np.zeros(300_000), "text": "a" * 100_000, "raw": b"b" * 200_000}
    state |= {"mutable": bytearray(100_000), "n": 3, "small": np.arange(9)}
    return state | {"f": np.asfortranarray(noise(3, 90_000).reshape(300, 300))}


STATES = {"large": _large, "small": _small, "mixed": _mixed}


@pytest.mark.parametrize("compress", ["auto", None, 3])
@pytest.mark.parametrize("state", STATES)
def test_a_save_with_nothing_changed_writes_its_manifest_alone(
    tmp_path, monkeypatch, state, compress
):
    calls = Calls()
    cp = make(tmp_path, STATES[state](), keep=None, compress=compress)
    first = cp.save()
    cp.agent.state = copy.deepcopy(cp.agent.state)
    monkeypatch.setattr(disk, "syscall", calls)
    second = cp.save()
    manifest = (second.path / "manifest.json").stat().st_size
    assert calls.bytes == manifest + len((tmp_path / "latest").read_bytes())
    assert calls.counts["open"] == 2  # These two.
    assert inodes_of(second.path) == inodes_of(first.path)
    assert second.bytes_written == manifest
    assert_same(cp.agent.state, load_agent(second.path))


def test_a_stream_that_is_the_same_again_is_reused_as_a_whole(tmp_path):
    shards = [{"x": noise(n, CHUNK), "n": np.arange(n)} for n in range(20)]
    before, after = resaved(tmp_path, shards, copy.deepcopy(shards), Stream)
    assert inodes_of(before.path) == inodes_of(after.path)


@pytest.mark.parametrize("fsync", [True, False])
def test_a_save_that_reuses_all_syncs_only_what_it_wrote(tmp_path, monkeypatch, fsync):
    cp = make(tmp_path, _large(), keep=None, fsync=fsync)
    cp.save()
    calls = Calls()
    monkeypatch.setattr(disk, "syscall", calls)
    path = cp.save().path
    expected = [path / "manifest.json", path, path, tmp_path, tmp_path.parent]
    inodes = sorted(x.stat().st_ino for x in expected) if fsync else []
    assert sorted(calls.synced) == inodes


# Found by content, wherever it is


def _moves():
    a, b, c, d, e, f = chunks(1, 2, 3, 4, 5, 6)
    yield "front dropped, new at the end", [a, b, c, d, e], [b, c, d, e, f], 1
    yield "new at the front", [a, b, c, d], [e, a, b, c, d], 1
    yield "in between", [a, b, c, d], [a, b, e, c, d], 1
    yield "reversed", [a, b, c, d, e], [e, d, c, b, a], 0
    yield "some dropped", [a, b, c, d, e], [a, c, e], 0
    yield "all new", [a, b, c], [d, e, f], 3
    yield "one twice", [a, b], [a, copy.deepcopy(a), b], 1
    yield "twice, then once", [a, copy.deepcopy(a), b], [b, a], 0
    yield "emptied", [a, b], [], 0


MOVES = {name: move for name, *move in _moves()}


@pytest.mark.parametrize("kind", [Box, Stream])
@pytest.mark.parametrize("name", MOVES)
def test_only_chunks_that_are_new_are_written(tmp_path, name, kind):
    first, then, count = copy.deepcopy(MOVES[name])
    _, after = resaved(tmp_path, first, then, kind)
    assert count * CHUNK <= after.bytes_written <= count * CHUNK + HEADERS
    assert after.bytes_reused == (len(then) - count) * CHUNK


@pytest.mark.parametrize("options", [{}, {"background": True}])
def test_a_deque_that_turns_over_writes_each_chunk_once(tmp_path, options):
    cp = Checkpoint(tmp_path, fsync=False, compress=None, **options)
    chunk = map(noise, itertools.count(), itertools.repeat(CHUNK))
    replay = collections.deque(itertools.islice(chunk, 10), maxlen=10)
    cp.agent = Box(replay)
    cp.save()
    cp.wait()
    for _ in range(20):
        replay.append(next(chunk))
        report = cp.save()
        report = cp.wait() or report
        moved = 10 * CHUNK - report.bytes_reused - CHUNK
        assert report.bytes_written <= CHUNK + moved + HEADERS
        assert moved <= 5 * CHUNK  # Of a segment that became less than half live.
        assert_same(replay, load_agent(report.path))
        check_folder(report.path)


def test_chunks_under_other_keys_are_not_written_again(tmp_path):
    first = {f"chunk{n}": noise(n, CHUNK) for n in range(8)}
    then = {f"renamed{n}": noise(n, CHUNK) for n in range(2, 10)}
    _, after = resaved(tmp_path, first, then)
    assert 2 * CHUNK <= after.bytes_written <= 2 * CHUNK + HEADERS


@pytest.mark.parametrize("order", ["C", "F"])
def test_of_a_ring_only_the_blocks_with_changes_are_written(tmp_path, order):
    ring = noise(1, 8 * MB).reshape(4096, 2048)
    ring = np.array(ring, order=order)
    then = ring.copy(order="K")
    (then if order == "C" else then.T)[1000:1010] += 1
    _, after = resaved(tmp_path, {"ring": ring}, {"ring": then})
    assert 0 < after.bytes_written <= 2 * MB + HEADERS
    assert after.bytes_reused >= 6 * MB


def test_a_ring_is_right_after_many_changed_ranges(tmp_path):
    ring = noise(1, 4 * MB).reshape(-1, 1024)
    cp = make(tmp_path, {"ring": ring}, fsync=False, compress=None)
    cp.save()
    for turn in range(12):
        start = 997 * turn % len(ring)
        ring[start : start + 40] = turn
        report = cp.save()
        assert report.bytes_written <= 4 * MB + HEADERS
        assert_same({"ring": ring}, load_agent(report.path))
        check_folder(report.path)


def small_leaves(*seeds):
    """Return chunks of 400 kB, each of 100 leaves that share blocks."""
    return [
        {str(n): x for n, x in enumerate(noise(seed, 400_000).reshape(100, -1))}
        for seed in seeds
    ]


@pytest.mark.parametrize("kind", [Box, Stream])
@pytest.mark.parametrize("change", ["front dropped", "inserted", "reordered"])
def test_most_blocks_of_small_leaves_are_found_where_they_moved(tmp_path, change, kind):
    first = small_leaves(*range(30))
    then = {
        "front dropped": first[1:],
        "inserted": [*first[:15], *small_leaves(99), *first[15:]],
        "reordered": [*first[20:], *first[:20]],
    }[change]
    _, after = resaved(tmp_path, first, then, kind)
    assert after.bytes_reused > after.bytes_written


def test_equal_small_leaves_do_not_make_blocks_without_end(tmp_path):
    state = [np.zeros(40_000, np.uint8) for _ in range(200)]
    _, after = resaved(tmp_path, state, copy.deepcopy(state[1:]))
    blocks = [block[2] for block in component_of(after.path)["blocks"]]
    assert max(blocks) <= MB
    assert len(blocks) <= 2 + 8 * MB // (512 << 10)


# Duplicates


@pytest.mark.parametrize("then", [5, 4, 1, 6, 12])
def test_equal_blocks_are_reused_as_often_as_there_are_some(tmp_path, then):
    first = [np.zeros(CHUNK, np.uint8) for _ in range(5)]
    second = [np.zeros(CHUNK, np.uint8) for _ in range(then)]
    _, after = resaved(tmp_path, first, second)
    moved = then < 3  # Of five.
    new = then if moved else max(0, then - 5)
    assert new * CHUNK <= after.bytes_written <= new * CHUNK + HEADERS
    offsets = [tuple(x[:2]) for x in component_of(after.path)["blocks"]]
    assert len(set(offsets)) == then


# Segments that are mostly dead


def test_a_segment_is_linked_while_half_of_it_is_live_and_rewritten_below(tmp_path):
    cp = make(tmp_path, [noise(n, CHUNK) for n in range(10)], **RAW)
    first = cp.save().path
    cp.agent.state = cp.agent.state[:6]
    second = cp.save()
    assert inodes_of(first) == inodes_of(second.path)
    assert second.bytes_written < HEADERS
    cp.agent.state = cp.agent.state[:4]
    third = cp.save()
    assert not set(inodes_of(third.path).values()) & set(inodes_of(first).values())
    assert 4 * CHUNK <= third.bytes_written <= 4 * CHUNK + HEADERS
    assert third.bytes_reused == 0
    assert_same(cp.agent.state, load_agent(third.path))
    assert inodes_of(third.path) == inodes_of(cp.save().path)


def test_blocks_of_several_dead_segments_are_rewritten_together(tmp_path):
    cp = make(tmp_path, [], **RAW)
    for turn in range(6):
        cp.agent.state = cp.agent.state + [
            noise(10 * turn + n, CHUNK) for n in range(4)
        ]
        cp.save()
    cp.agent.state = cp.agent.state[::4]
    path = cp.save().path
    check_folder(path)
    assert len(inodes_of(path)) == 1
    assert_same(cp.agent.state, load_agent(path))


@pytest.mark.parametrize("compress", ["auto", 1])
def test_moved_blocks_stay_packed(tmp_path, compress):
    def image(n):
        return np.tile(noise(n, 1000), 100)

    first = [image(n) for n in range(10)]
    _, after = resaved(tmp_path, first, first[::4], compress=compress)
    assert after.bytes_reused == 0
    blocks = component_of(after.path)["blocks"]
    assert [block[4] for block in blocks] == [CHUNK] * 3


# Which save it is taken from


def test_a_new_object_knows_what_is_saved_from_the_manifest(tmp_path):
    state = {**_large(), **_small()}
    first = make(tmp_path, state, **RAW).save().path
    cp = make(tmp_path, copy.deepcopy(state), **RAW)
    second = cp.save()
    assert second.bytes_written < (second.path / "manifest.json").stat().st_size + 1
    assert inodes_of(first) == inodes_of(second.path)


RESUME = """
import sys
import numpy as np
import elementsckpt

class Agent:
    def save(self):
        return {"w": np.arange(300_000), "n": int(sys.argv[2])}

    def load(self, data):
        pass

cp = elementsckpt.Checkpoint(sys.argv[1], keep=None, compress=None)
cp.agent = Agent()
print(cp.save().bytes_written)
"""


def test_a_new_process_knows_what_is_saved_from_the_manifest(tmp_path, forked):
    written = [int(forked(RESUME, tmp_path, n).stdout) for n in (1, 2)]
    assert written[0] >= 2_400_000
    assert written[1] <= HEADERS


def test_a_component_that_a_save_left_out_is_found_in_the_one_before(tmp_path):
    cp = Checkpoint(tmp_path, **RAW)
    cp.agent, cp.replay = Box(noise(1, 5 * MB)), Box(noise(2, 5 * MB))
    first = cp.save().path
    second = cp.save(keys=["agent"]).path
    third = cp.save().path
    assert inodes_of(third) == inodes_of(first)
    assert inodes_of(second).items() < inodes_of(first).items()


def test_a_component_that_is_renamed_is_written_again(tmp_path):
    cp = Checkpoint(tmp_path, **RAW)
    cp.agent = Box(noise(1))
    first = cp.save().path
    del cp.agent
    cp.other = Box(noise(1))
    second = cp.save().path
    assert not set(inodes_of(first).values()) & set(inodes_of(second).values())


@pytest.mark.parametrize("keep", [1, None])
def test_two_objects_that_alternate_reuse_what_the_other_saved(tmp_path, keep):
    one, two = (make(tmp_path, keep=keep, fsync=False, compress=None) for _ in "12")
    state = [noise(n, CHUNK) for n in range(8)]
    for turn in range(6):
        cp = (one, two)[turn % 2]
        state = [*state[1:], noise(100 + turn, CHUNK)]
        cp.agent.state = copy.deepcopy(state)
        report = cp.save()
        if turn:
            assert report.bytes_reused >= 3 * CHUNK  # Four are moved once.
            assert report.bytes_reused + report.bytes_written >= 8 * CHUNK
        assert_same(state, load_agent(report.path))
        check_folder(report.path)


def test_an_explicit_path_shares_no_file_with_any_save(tmp_path):
    cp = make(tmp_path / "own", noise(1), **RAW)
    own = cp.save().path
    copies = [cp.save(tmp_path / "a").path, cp.save(tmp_path / "own" / "b").path]
    later = cp.save().path
    inodes = [*map(inodes_of, (own, *copies))]
    assert len({n for found in inodes for n in found.values()}) == 3
    assert inodes_of(later) == inodes_of(own)


def test_a_durable_save_does_not_rely_on_what_was_never_synced(tmp_path):
    unsynced = make(tmp_path, noise(1), keep=None, fsync=False).save().path
    first = make(tmp_path, noise(1), keep=None, fsync=True).save()
    second = make(tmp_path, noise(1), keep=None, fsync=True).save()
    third = make(tmp_path, noise(1), keep=None, fsync=False).save()
    assert bytes_new_in(first.path, unsynced) >= 100_000
    assert second.bytes_written <= HEADERS
    assert inodes_of(first.path) == inodes_of(second.path) == inodes_of(third.path)


COMPRESS = [
    (None, None, "reused", "raw"),
    (None, "auto", "reused", "raw"),
    (None, 3, "written", "packed"),
    (3, 5, "reused", "packed"),
    (3, "auto", "reused", "packed"),
    (3, None, "written", "raw"),
    ("auto", "auto", "reused", "packed"),
    ("auto", 3, "reused", "packed"),
    ("auto", None, "written", "raw"),
]


@pytest.mark.parametrize(("first", "then", "outcome", "how"), COMPRESS)
def test_only_blocks_that_are_packed_as_wanted_are_reused(
    tmp_path, first, then, outcome, how
):
    state = {"w": np.tile(noise(1, 1000), 1000)}
    old = make(tmp_path, state, keep=None, fsync=False, compress=first).save().path
    new = make(tmp_path, state, keep=None, fsync=False, compress=then).save().path
    assert (inodes_of(old) == inodes_of(new)) == (outcome == "reused")
    blocks = component_of(new)["blocks"]
    assert {block[4] > 0 for block in blocks} == {how == "packed"}
    assert_same(state, load_agent(new))


# Saves stay independent


def history(directory, count=5):
    """Make saves that share segments; return their paths and states."""
    cp = make(directory, [noise(n, CHUNK) for n in range(8)], **RAW)
    saves = {}
    for turn in range(count):
        saves[cp.save().path] = copy.deepcopy(cp.agent.state)
        cp.agent.state = [*cp.agent.state[1:], noise(100 + turn, CHUNK)]
    return saves


def test_a_segment_has_as_many_links_as_saves_hold_it(tmp_path):
    saves = history(tmp_path)
    held = collections.Counter(n for path in saves for n in inodes_of(path).values())
    assert max(held.values()) > 1
    for path in saves:
        for segment in path.glob("*.safetensors"):
            assert segment.stat().st_nlink == held[segment.stat().st_ino]


@pytest.mark.parametrize("kept", range(5))
def test_removing_all_other_saves_harms_none(tmp_path, kept):
    saves = history(tmp_path)
    path = list(saves)[kept]
    for other in saves:
        if other != path:
            shutil.rmtree(other)
    assert_same(saves[path], load_agent(path))
    assert {x.stat().st_nlink for x in path.iterdir()} == {1}
    cp = make(tmp_path, saves[path], **RAW)
    assert cp.save().bytes_written <= HEADERS


def test_a_copy_of_a_save_is_a_save(tmp_path):
    saves = history(tmp_path / "own")
    for number, (path, state) in enumerate(saves.items()):
        shutil.copytree(path, tmp_path / str(number))
        shutil.rmtree(path)
        assert_same(state, load_agent(tmp_path / str(number)))


def test_pruned_saves_leave_only_files_of_the_kept_one(tmp_path):
    cp = make(tmp_path, [noise(n, CHUNK) for n in range(8)], fsync=False)
    for turn in range(8):
        path = cp.save().path
        cp.agent.state = [*cp.agent.state[1:], noise(100 + turn, CHUNK)]
        assert {x for x in tmp_path.iterdir() if x.is_dir()} == {path}
        assert {x.stat().st_nlink for x in path.iterdir()} == {1}


def test_a_file_has_the_number_of_the_save_that_wrote_it(tmp_path):
    saves = history(tmp_path)
    first = {}
    for path in saves:
        for name, inode in inodes_of(path).items():
            first.setdefault(inode, (name, manifest_of(path)["sequence"]))
    for name, sequence in first.values():
        assert name.startswith(f"agent-{sequence:06d}-")


# What the report says


def test_reports_agree_with_the_files(tmp_path):
    cp = make(tmp_path, [noise(n, CHUNK) for n in range(8)], **RAW)
    earlier = []
    for turn in range(6):
        report = cp.save()
        segments = segments_of(report.path)
        assert report.bytes_written == bytes_new_in(report.path, *earlier)
        old = {n for path in earlier for n in inodes_of(path)}
        reused = sum(facts.live for name, facts in segments.items() if name in old)
        assert report.bytes_reused == reused
        assert report.bytes_total == 8 * CHUNK
        assert elementsckpt.info(report.path).components["agent"].bytes == 8 * CHUNK
        earlier.append(report.path)
        cp.agent.state = [*cp.agent.state[1:], noise(100 + turn, CHUNK)]


def test_without_write_nothing_is_written_or_reused(tmp_path):
    make(tmp_path, noise(1), **RAW).save()
    before = sorted(tmp_path.rglob("*"))
    report = make(tmp_path, noise(1), write=False).save()
    assert (report.bytes_written, report.bytes_reused) == (0, 0)
    assert sorted(tmp_path.rglob("*")) == before
