"""Components whose `save()` is a generator: streamed to the disk and back."""

import gc
import inspect
import os
import re
import shutil

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, CheckpointError

from support.boxes import Box, LazyStream, Stream, make_boxes


class Replay(LazyStream):
    """Saves a stream and keeps the generator that load() is given."""

    def load(self, data):
        assert inspect.isgenerator(data)
        super().load(data)


def test_no_shard_comes_back_as_an_empty_generator(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.replay = Replay()
    cp.save()
    cp.load()
    assert list(cp.replay.got) == []


def test_one_shard_comes_back_as_a_generator_of_one(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.replay = Replay([{"x": np.arange(3)}])
    cp.save()
    cp.load()
    (shard,) = cp.replay.got
    assert np.array_equal(shard["x"], np.arange(3))


def test_a_generator_of_none_is_not_an_empty_one(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.replay = Replay([None, None])
    cp.save()
    cp.load()
    assert list(cp.replay.got) == [None, None]


def test_20_000_shards_come_back_in_order(tmp_path):
    count = 20_000
    cp = Checkpoint(tmp_path)
    cp.replay = Replay({"i": i, "x": np.full(4, i)} for i in range(count))
    cp.save()
    cp.load()
    order = [(shard["i"], int(shard["x"][3])) for shard in cp.replay.got]
    assert order == [(i, i) for i in range(count)]
    assert elementsckpt.info(tmp_path).components["replay"].shards == count


def test_each_shard_may_be_of_another_kind(tmp_path):
    shards = [1, "text", None, [], {}, {"a": (1, [b"x"])}, np.float32(0.5), True]
    cp = Checkpoint(tmp_path)
    cp.replay = Replay(shards)
    cp.save()
    cp.load()
    got = list(cp.replay.got)
    assert got == shards
    assert [type(x) for x in got] == [type(x) for x in shards]


def test_a_shard_larger_than_a_block_comes_back_whole(tmp_path):
    big = np.arange(5_000_000)  # 40 MB
    cp = Checkpoint(tmp_path, fsync=False)
    cp.replay = Replay([np.zeros(3), big, np.ones(3)])
    cp.save()
    cp.load()
    first, second, third = cp.replay.got
    assert np.array_equal(second, big)
    assert (first.tolist(), third.tolist()) == ([0, 0, 0], [1, 1, 1])


def test_a_buffer_may_be_reused_between_shards(tmp_path):
    def reuse():
        buffer = {"big": np.zeros(200_000), "small": np.zeros(2)}
        for i in range(5):
            buffer["big"][:] = buffer["small"][:] = i
            yield buffer
        buffer["big"][:] = buffer["small"][:] = -1

    cp = Checkpoint(tmp_path)
    cp.replay = Replay(reuse())
    cp.save()
    cp.load()
    shards = list(cp.replay.got)
    assert [set(x["big"]) for x in shards] == [{i} for i in range(5)]
    assert [set(x["small"]) for x in shards] == [{i} for i in range(5)]


def test_loaded_shards_are_kept_apart_and_writable(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.replay = Replay([np.full(50_000, i) for i in range(4)])
    cp.save()
    cp.load()
    shards = []
    for shard in cp.replay.got:
        shard += 10
        shards.append(shard)
    assert [set(x) for x in shards] == [{10}, {11}, {12}, {13}]


def test_generators_of_two_components_are_independent_when_read_late(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.one = Replay([f"one {i}" for i in range(3)])
    cp.two = Replay([f"two {i}" for i in range(3)])
    cp.save()
    cp.load()
    assert next(cp.two.got) == "two 0"
    assert next(cp.one.got) == "one 0"
    assert list(cp.one.got) == ["one 1", "one 2"]
    assert list(cp.two.got) == ["two 1", "two 2"]


def test_generators_of_two_loads_are_independent(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.replay = Replay(range(4))
    cp.save()
    cp.load()
    first = cp.replay.got
    assert next(first) == 0
    cp.load()
    assert list(cp.replay.got) == [0, 1, 2, 3]
    assert list(first) == [1, 2, 3]


def test_a_save_is_pruned_only_when_its_generator_has_been_read(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.replay = Replay([np.full(100_000, i) for i in range(4)])
    path = cp.save().path
    cp.load()
    kept = cp.replay.got
    assert set(next(kept)) == {0}
    cp.replay.shards = ["other"]
    for _ in range(3):
        newest = cp.save().path
        assert saves_in(tmp_path) == {path, newest}
    assert [set(x) for x in kept] == [{1}, {2}, {3}]
    assert saves_in(tmp_path) == {path, newest}
    newest = cp.save().path
    assert saves_in(tmp_path) == {newest}


def test_an_untouched_generator_keeps_its_save_from_being_pruned(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.replay = Replay([np.full(3, i) for i in range(4)])
    path = cp.save().path
    cp.load()
    kept = cp.replay.got
    cp.replay.shards = ["other"]
    cp.save()
    assert path in saves_in(tmp_path)
    assert [set(x) for x in kept] == [{0}, {1}, {2}, {3}]


def test_a_generator_that_nobody_wants_does_not_keep_its_save(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.replay = Replay([1, 2])
    cp.save()
    cp.load()
    cp.replay.got = None
    newest = cp.save().path
    assert saves_in(tmp_path) == {newest}


def test_a_generator_is_good_after_a_person_removed_its_save(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.replay = Replay([np.full(100_000, i) for i in range(4)])
    path = cp.save().path
    cp.load()
    shutil.rmtree(path)
    assert [set(x) for x in cp.replay.got] == [{0}, {1}, {2}, {3}]


def saves_in(directory):
    return {path for path in directory.iterdir() if path.is_dir()}


def test_the_state_is_streamed_on_from_a_loaded_generator(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.replay = Replay(range(5))
    cp.save()
    cp.load()
    cp.replay.shards = cp.replay.got
    cp.save()
    cp.load()
    assert list(cp.replay.got) == [0, 1, 2, 3, 4]


@pytest.fixture
def no_collection():
    """Leave it to reference counts alone to close what nobody holds."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_generator_that_is_not_read_to_its_end_leaves_no_file_open(
    tmp_path, no_collection
):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.replay = Replay([np.zeros(50_000)] * 4)
    cp.save()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        cp.load()
        next(cp.replay.got)
        cp.replay.got.close()
        cp.load()  # Never started at all.
        cp.replay.got = None
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_stream_that_fails_half_way_leaves_no_trace(tmp_path):
    class Unlucky(Exception):
        pass

    def failing():
        yield np.zeros(3_000_000)
        yield np.zeros(3_000_000)
        raise Unlucky("no more")

    cp = Checkpoint(tmp_path)
    cp.agent, cp.replay = Box(1), Replay(range(3))
    path = cp.save().path
    before = sorted(tmp_path.rglob("*"))
    cp.replay.shards = failing()
    with pytest.raises(Unlucky, match="no more") as error:
        cp.save()
    assert any("replay" in note for note in error.value.__notes__)
    assert sorted(tmp_path.rglob("*")) == before
    assert cp.latest() == path


def test_all_shards_are_verified_before_any_component_is_loaded(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.agent = Box("old")
    cp.replay = Replay([np.full(100_000, i) for i in range(4)])
    path = cp.save().path
    cp.agent.state = "new"
    (segment,) = path.glob("replay-*.safetensors")
    with segment.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(b"damage")
    with pytest.raises(CheckpointError) as error:
        cp.load(path)
    assert segment.name in str(error.value)
    assert (cp.agent.state, cp.agent.loads, cp.replay.got) == ("new", 0, None)


def test_a_regex_on_a_generator_component_is_an_error_that_names_keys(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.agent = Box({"w": np.ones(2)})
    cp.replay = Replay([{"w": np.ones(2)}])
    cp.save()
    for arguments in ({"regex": "w"}, {"regex": "w", "keys": ["replay"]}):
        with pytest.raises(CheckpointError) as error:
            cp.load(**arguments)
        assert "replay" in str(error.value)
        assert "keys=" in str(error.value)
        assert (cp.agent.loads, cp.replay.got) == (0, None)
    cp.load(keys=["agent"], regex="w")
    assert cp.agent.loads == 1


MEMORY = r"""
import gc, pathlib, re, sys
import numpy as np
import elementsckpt

MB = 2 ** 20
path, verb, values, count = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])

def peak_mb():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024

class Replay:
    def save(self):
        x = np.random.default_rng(0).integers(0, values, 4 * MB, np.uint8)
        for i in range(count):
            x[:] += 1  # Every block is another one.
            x[-1] = i
            yield {"x": x}

    def load(self, data):
        self.seen = [int(shard["x"][-1]) for shard in data]

cp = elementsckpt.Checkpoint(path, fsync=False)
cp.replay = Replay()
if verb == "save":
    next(cp.replay.save())
else:
    np.full(4 * MB, 1, np.uint8)
before = peak_mb()
getattr(cp, verb)()
if verb == "load":
    assert cp.replay.seen == list(range(count))
print(peak_mb() - before)
"""


@pytest.mark.parametrize(("values", "least_mb"), [(256, 120), (4, 30)])
def test_memory_is_bounded_by_one_shard_and_one_segment_not_by_the_stream(
    tmp_path, forked, values, least_mb
):
    count = 30
    for verb in ("save", "load"):
        child = forked(MEMORY, tmp_path, verb, values, count)
        assert child.returncode == 0, child.stderr
        grown_mb = float(re.search(r"[\d.]+", child.stdout)[0])
        assert grown_mb < 96, f"{verb}: {grown_mb:.0f} MB for a stream of {4 * count}"
    (folder,) = (x for x in tmp_path.iterdir() if x.is_dir())
    size_mb = sum(x.stat().st_size for x in folder.iterdir()) / 2**20
    assert least_mb <= size_mb < 1.5 * least_mb


@pytest.mark.parametrize("fault", ["pickle", "jax"])
def test_a_shard_that_cannot_be_built_stops_all_loads(tmp_path, fault):
    shards = [{"x": np.zeros(3)}, {"x": np.zeros(3)}]
    error = elementsckpt.PickleError
    cp = make_boxes(tmp_path, agent=1)
    cp.replay = Stream(shards)
    if fault == "pickle":
        shards.append({"x": lambda: 0})
        cp.save()
    else:
        jax = pytest.importorskip("jax")
        error = elementsckpt.MismatchError
        jax.config.update("jax_enable_x64", True)
        try:
            shards.append({"x": jax.numpy.zeros(3, "float64")})
            cp.save()
        finally:
            jax.config.update("jax_enable_x64", False)
    mine = make_boxes(agent=0)
    mine.replay = Stream()
    with pytest.raises(error, match="replay"):
        mine.load(tmp_path)
    assert mine.agent.loads == mine.replay.loads == 0
    assert mine.agent.state == 0
