"""The heads of manifests: what a listing reads, and what it tells without the rest."""

import collections
import json
import os

import numpy as np
import pytest

import elementsckpt
from elementsckpt import DamagedError, Keep
from elementsckpt.format import codec, names
from elementsckpt.storage import files
from elementsckpt.storage.segments import SaveFolder

from support.boxes import make
from support.folders import flip, manifest_of, noise, sealed, texts_of

HEAD = 8 << 10
COUNT = 1000
LEAVES = {f"{'layer' * 8}/{number}": np.float32(number) for number in range(600)}


def write_many(directory, count=COUNT):
    """Write a save, and others that differ in their heads alone; return their paths."""
    first = keeping(directory).save(metrics={"m": 0}).path
    manifest = codec.decode((first / names.MANIFEST).read_bytes(), "")
    paths = [first]
    for number in range(1, count):
        path = directory / f"2100{first.name[4:-6]}{number:06}"
        manifest.name, manifest.metrics = path.name, {"m": -number}
        manifest.sequence = number + 1
        os.mkdir(path)
        for segment in first.glob("*.safetensors"):
            os.link(segment, path / segment.name)
        (path / names.MANIFEST).write_bytes(codec.encode(manifest))
        paths.append(path)
    return paths


def keeping(directory):
    return make(directory, LEAVES, keep=Keep(latest=9, metric="m"), fsync=False)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    directory = tmp_path_factory.mktemp("many")
    paths = write_many(directory)
    assert all((path / names.MANIFEST).stat().st_size > 3 * HEAD for path in paths)
    return paths


@pytest.fixture
def reads(monkeypatch):
    """Return the bytes that are read of each manifest, by the name of its save."""
    read, counts = files.File.read, collections.Counter()

    def counted(self, memory, offset):
        if self.path.name == names.MANIFEST:
            counts[self.path.parent.name] += len(memory)
        read(self, memory, offset)

    monkeypatch.setattr(files.File, "read", counted)
    return counts


@pytest.fixture
def calls(monkeypatch):
    """Return the calls of the system about what lies in a directory, by its name."""
    counts = collections.Counter()

    def count(name):
        call = getattr(os, name)

        def counted(path, *args, **options):
            if isinstance(path, (str, os.PathLike)):
                found = os.fspath(path).split("/")
                counts.update({part for part in found if names.is_save(part)})
            return call(path, *args, **options)

        monkeypatch.setattr(os, name, counted)

    for name in ("open", "stat", "lstat", "listdir", "scandir", "readlink"):
        count(name)
    return counts


ASKS = {
    "load": lambda cp, _: cp.load(),
    "latest": lambda cp, _: cp.latest(),
    "saves": lambda cp, _: cp.saves(),
    "best": lambda cp, _: cp.best(),
    "info": lambda _, directory: elementsckpt.info(directory),
}


@pytest.mark.parametrize("ask", ASKS)
def test_a_listing_reads_8_kib_of_each_save(many, reads, ask):
    newest = many[-1]
    ASKS[ask](keeping(newest.parent), newest.parent)
    whole = reads.pop(newest.name) - HEAD
    size = (newest / names.MANIFEST).stat().st_size
    assert whole == (size if ask in ("load", "latest") else 0)
    assert len(reads) == COUNT - 1
    assert set(reads.values()) == {HEAD}


def test_a_save_that_is_named_is_the_only_one_that_is_looked_at(many, calls, reads):
    keeping(many[0].parent).load(many[500])
    assert set(calls) == set(reads) == {many[500].name}


def test_whether_there_are_saves_is_told_by_one(many, calls, reads):
    cp, directory = keeping(many[0].parent), many[0].parent
    assert cp.exists()
    assert elementsckpt.checkpoint.exists(directory)
    assert reads == {many[-1].name: 2 * HEAD}
    calls.clear()
    assert cp.exists(many[500])
    assert set(calls) == {many[500].name}


def test_the_newest_is_told_by_one_if_the_others_were_seen(many, calls, reads):
    cp = keeping(many[0].parent)
    assert cp.latest() == many[-1]
    calls.clear()
    reads.clear()
    assert cp.latest() == many[-1]
    assert calls == {many[-1].name: 1}
    assert not reads


def test_each_save_is_opened_once_for_a_listing(many, calls):
    keeping(many[0].parent).saves()
    assert max(calls.values()) <= 2, "its manifest, and whether it is a link"


# What a head holds


def test_a_head_holds_what_info_shows_and_what_was_written(tmp_path):
    state = {"w": noise(0), "same": noise(1, 300_000), "few": [*range(3000)]}
    cp = make(tmp_path, state, keep=Keep(latest=2, metric="m"))
    cp.data = elementsckpt.Value(np.ones(3))
    cp.save(metrics={"m": 1})
    cp.agent.state["w"] = noise(2)
    report = cp.save(metadata={"lr": 0.5}, metrics={"m": 2}, pin="kept")
    content = (report.path / names.MANIFEST).read_bytes()
    start = content[: content.index(b'\n"components"')]
    head = codec.decode_head(start, len(content), "")
    assert head == codec.decode(content, "").head()
    assert head.bytes_written + len(content) == report.bytes_written
    assert 100_000 < head.bytes_written < 110_000
    (report.path / names.MANIFEST).write_bytes(start + bytes(len(content) - len(start)))
    info = elementsckpt.info(report.path)
    assert (info.metadata, info.metrics, info.pin) == ({"lr": 0.5}, {"m": 2}, "kept")
    assert info.components["agent"].bytes == 400_000
    assert info.components["data"].leaves == 1


@pytest.mark.parametrize("size", [HEAD, 300 << 10])
def test_a_listing_reads_on_where_a_head_is_larger(tmp_path, reads, size):
    cp = make(tmp_path, {str(x): np.float32(x) for x in range(20_000)})
    path = cp.save(metadata={"text": "x" * size}).path
    whole = (path / names.MANIFEST).stat().st_size
    assert whole > size + (256 << 10)
    assert elementsckpt.info(path).metadata == {"text": "x" * size}
    more = [] if size == HEAD else [whole]
    assert reads[path.name] == sum([HEAD, 256 << 10, *more])


def test_a_manifest_is_json_with_a_line_for_each_field(tmp_path):
    path = make(tmp_path, {"w": 1}).save(metadata={"a\n": '\n"rest_bytes":1'}).path
    lines = (path / names.MANIFEST).read_text().splitlines()
    head = lines[: lines.index('"components":[')]
    fields = json.loads("\n".join(head).rstrip(",") + "}")
    assert [line.split('"')[1] for line in head[1:]] == list(fields)
    assert list(fields)[-2:] == ["rest_bytes", "head_digest"]


# Damage


def test_each_flipped_bit_of_a_head_is_damage(tmp_path):
    path = make(tmp_path, LEAVES).save(metadata={"x": 1}, pin="kept").path
    content = (path / names.MANIFEST).read_bytes()
    end = content.index(b',\n"components"')
    for position in range(end * 8):
        changed = bytearray(content)
        changed[position // 8] ^= 1 << position % 8
        try:
            found = codec.decode_head(changed[:HEAD], len(changed), "")
        except DamagedError:
            continue
        assert found is None, f"bit {position}"
        with pytest.raises(DamagedError):
            codec.decode_head(changed, len(changed), "")


@pytest.mark.parametrize("place", ["format", "version", "sequence", "head_digest"])
def test_a_damaged_head_is_a_damaged_save(tmp_path, place):
    cp = make(tmp_path, LEAVES, keep=None)
    first, second = cp.save().path, cp.save().path
    content = (second / names.MANIFEST).read_bytes()
    flip(second / names.MANIFEST, content.index(place.encode()) + len(place) + 3)
    cp = make(tmp_path, LEAVES, keep=None)
    assert cp.latest() == first
    assert [info.path for info in cp.saves()] == [first]
    with pytest.raises(DamagedError):
        elementsckpt.info(second)
    assert cp.load().fell_back_from == second


@pytest.mark.parametrize("size", [-1, 1, -HEAD])
def test_a_manifest_of_another_size_is_damaged_for_a_listing(tmp_path, size):
    cp = make(tmp_path, LEAVES, keep=None)
    first, second = cp.save().path, cp.save().path
    whole = (second / names.MANIFEST).stat().st_size
    os.truncate(second / names.MANIFEST, whole + size)
    with pytest.raises(DamagedError, match=f"{whole + size} bytes, expected {whole}"):
        elementsckpt.info(second)
    assert make(tmp_path, LEAVES).latest() == first


def damaged_behind(path):
    """Damage a manifest behind its head, as a bad sector does."""
    flip(path / names.MANIFEST, (path / names.MANIFEST).stat().st_size // 2)


def test_damage_behind_a_head_is_found_before_it_matters(tmp_path, caplog):
    first, second = (make(tmp_path, LEAVES, keep=None).save().path for _ in range(2))
    damaged_behind(second)
    cp = make(tmp_path, LEAVES)
    assert elementsckpt.info(second).sequence == 2
    assert cp.latest() == first
    with pytest.raises(DamagedError):
        elementsckpt.read(second)
    assert cp.load().path == first
    assert "is damaged" in caplog.text


def test_a_save_that_is_damaged_behind_its_head_is_not_pruned(tmp_path):
    paths = [make(tmp_path, LEAVES, keep=None).save().path for _ in range(4)]
    damaged_behind(paths[1])
    assert make(tmp_path, LEAVES, keep=1).prune() == [paths[0], paths[2]]
    assert paths[1].exists()


def test_a_save_that_is_damaged_behind_its_head_does_not_count_as_the_newest(tmp_path):
    paths = [make(tmp_path, LEAVES, keep=None).save().path for _ in range(3)]
    damaged_behind(paths[2])
    assert make(tmp_path, LEAVES, keep=1).prune() == [paths[0]]
    with pytest.raises(ValueError, match="only complete save"):
        make(tmp_path, LEAVES).delete(paths[1])
    assert make(tmp_path, LEAVES).delete(paths[2]) == [paths[2]]


def test_a_process_does_not_read_again_what_it_prunes(tmp_path, reads):
    cp = make(tmp_path, LEAVES, keep=1)
    for _ in range(3):
        cp.save()
    assert not reads


def test_the_newest_is_the_one_that_another_process_makes_meanwhile(
    tmp_path, monkeypatch
):
    other = make(tmp_path, LEAVES, keep=1)
    other.save()
    verify, more = codec.verify, [1, 2, 3]

    def slow(content, where):
        if more:
            more.pop()
            other.save()
        verify(content, where)

    monkeypatch.setattr(codec, "verify", slow)
    assert make(tmp_path, LEAVES).latest() == other.latest()
    assert not more


# What a head claims


def test_a_field_that_is_there_twice_is_refused(tmp_path):
    path = make(tmp_path, {"w": np.ones(3)}).save(tmp_path / "save").path
    head, rest = texts_of(manifest_of(path))
    rest += b',\n"head_digest":"",\n"summaries":[],\n"sequence":9'
    (path / names.MANIFEST).write_bytes(sealed(head, rest))
    assert elementsckpt.info(path).sequence == 1
    with pytest.raises(DamagedError, match="is not what its head says"):
        elementsckpt.read(path)


LIES = {
    "leaves": lambda x: x[0].update(leaf_count=2),
    "bytes": lambda x: x[0].update(size_bytes=1 << 40),
    "shards": lambda x: x[0].update(shards=2),
    "key": lambda x: x[0].update(key="other"),
    "one more": lambda x: x.append({**x[0], "key": "other"}),
    "none": lambda x: x.clear(),
}


@pytest.mark.parametrize("change", LIES.values(), ids=LIES)
def test_a_head_that_says_of_components_what_they_are_not_is_refused(tmp_path, change):
    path = make(tmp_path, {"w": np.ones(3)}).save(tmp_path / "save").path
    content = manifest_of(path)
    change(content["summaries"])
    head, rest = texts_of(content, lies=True)
    (path / names.MANIFEST).write_bytes(sealed(head, rest))
    elementsckpt.info(path)
    with pytest.raises(DamagedError, match="is not what its head says"):
        elementsckpt.read(path)


def test_a_save_that_is_committed_while_it_is_looked_at_is_whole(tmp_path, monkeypatch):
    manifest = make(tmp_path, LEAVES).save().path / "manifest.json"
    start, calls = SaveFolder.start, []

    def before_the_commit(self, size):
        calls.append(size)
        if len(calls) > 1:
            return start(self, size)
        manifest.rename(tmp_path / "draft")
        try:
            return start(self, size)
        finally:
            (tmp_path / "draft").rename(manifest)

    monkeypatch.setattr(SaveFolder, "start", before_the_commit)
    (found,) = elementsckpt.saves(tmp_path)
    assert found.error is None
