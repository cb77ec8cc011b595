"""Damaged and hostile files: the right data or an error naming them, never a hang."""

import collections
import contextlib
import functools
import json
import logging
import os
import shutil

import numpy as np
import pytest

import elementsckpt
from elementsckpt import (
    Checkpoint,
    CheckpointError,
    DamagedError,
    SaveNotFoundError,
    VersionError,
)

from support.boxes import Box, LazyStream, block_with, make_boxes, protected
from support.deadlines import deadline
from support.faults import use_one_thread, use_sizes
from support.folders import forge, manifest_of, signed


class Stream(LazyStream):
    """Saves a stream and keeps the list of what load() is given."""

    def load(self, data):
        super().load(list(data))


# 80 kB: alone in its block, and nothing that compression makes smaller.
BIG = np.random.default_rng(0).random(20_000, np.float32)


def make(directory=None, value=0, **options):
    """Return a checkpoint; no two values have a block in common."""
    cp = Checkpoint(directory, keep=None, step=value, fsync=False, **options)
    cp.agent = Box({"big": BIG + value, "small": np.arange(3) + value, "text": "ünï"})
    cp.replay = Stream([{"x": np.full(4, i + value)} for i in range(3)])
    return cp


def loaded(cp, value=0):
    """Whether exactly what make() saves has been loaded."""
    state = cp.agent.state
    shards = [shard["x"].tolist() for shard in cp.replay.got]
    return (
        cp.agent.loads == 1
        and list(state) == ["big", "small", "text"]
        and np.array_equal(state["big"], BIG + value)
        and state["small"].tolist() == [value, value + 1, value + 2]
        and state["text"] == "ünï"
        and shards == [[value + i] * 4 for i in range(3)]
    )


def untouched(cp):
    return cp.agent.loads == 0 and cp.replay.got is None


@pytest.fixture(autouse=True)
def no_hang():
    """Turn waiting for ever into a failure."""
    with deadline(60):
        yield


@pytest.fixture(autouse=True)
def apart(monkeypatch):
    """Give each component segments of its own; see `test_small_saves` for the rest."""
    use_sizes(monkeypatch.setattr, segment_least=1)


LAYOUTS = {"raw": {"compress": None}, "packed": {"compress": 3}}


@pytest.fixture(params=["raw", "packed", "linked"])
def save(tmp_path, request):
    """The folder of a small save: raw, of zstd frames, or mostly of an earlier one.

    The last has a link to a file of which it needs the larger part, and one of its own.
    """
    directory = tmp_path / "ckpt"
    if request.param != "linked":
        return make(directory, **LAYOUTS[request.param]).save().path
    before = make(directory)
    before.agent.state["small"] += 1
    old = before.save().path
    save = make(directory).save().path
    linked = [file.name for file in old.iterdir() if (save / file.name).is_file()]
    assert {name.partition("-")[0] for name in linked} == {
        *("agent", "replay", "manifest.json")
    }
    assert len(list(save.glob("agent-*"))) == 2
    return save


def test_an_undamaged_save_loads(save):
    cp = make()
    cp.load(save)
    assert loaded(cp)


def attempt(function, *args, **kwargs):
    """Call a function; return the CheckpointError that it raises, if it does."""
    try:
        function(*args, **kwargs)
    except CheckpointError as error:
        return error
    return None


def check(save, file, what):
    """Load a damaged save: right data, or an error that names the file."""
    cp = make()
    error = attempt(cp.load, save)
    if error is None:
        assert loaded(cp), f"{what}: wrong data, and no error"
        return None
    # Where nothing is a save, or one of another version, the folder is the culprit.
    of_the_folder = isinstance(error, (SaveNotFoundError, VersionError))
    culprit = save.name if of_the_folder else file.name
    assert culprit in str(error), f"{what}: the message does not name it: {error}"
    assert untouched(cp), what
    return error


def positions(start, end):
    """Both ends of a range byte by byte, and a sample of what is between."""
    inside = range(start, end)
    return sorted({*inside[:40], *inside[:: len(inside) // 100 + 1], *inside[-40:]})


def test_no_flipped_byte_goes_unnoticed(save):
    for file, _, start, end, block in protected(save):
        content = file.read_bytes()
        is_frame = block is not None and block != content[start:end]
        noticed = 0
        for position in positions(start, end):
            damaged = bytearray(content)
            damaged[position] ^= 1 << position % 8
            file.write_bytes(damaged)
            noticed += check(save, file, f"flipped byte {position}") is not None
        # A frame can say the same in several ways: then it is read as it was.
        least = 0.8 if is_frame else 1
        assert noticed >= least * len(positions(start, end)), file.name
        file.write_bytes(content)
    test_an_undamaged_save_loads(save)


def test_bytes_that_nothing_needs_do_not_matter(save):
    ranges = protected(save)
    for file in save.glob("*.safetensors"):
        content = bytearray(file.read_bytes())
        needed = {n for x in ranges if x.file == file for n in range(x.start, x.end)}
        for position in set(range(len(content))) - needed:
            content[position] ^= 1
        file.write_bytes(content)
    test_an_undamaged_save_loads(save)


def test_a_flipped_byte_of_data_names_the_leaf(save):
    names = {
        "agent/big": BIG.tobytes()[1000:1016],
        "agent/small": np.arange(3).tobytes(),
        "replay": np.full(4, 2).tobytes(),
    }
    for name, pattern in names.items():
        block = block_with(save, pattern)
        content = block.file.read_bytes()
        damaged = bytearray(content)
        where = content.find(pattern)  # Not in a frame.
        damaged[where if where >= 0 else (block.start + block.end) // 2] ^= 1
        block.file.write_bytes(damaged)
        error = check(save, block.file, name)
        assert isinstance(error, DamagedError)
        assert isinstance(error, OSError)
        assert name in str(error)
        with pytest.raises(DamagedError, match=name):
            elementsckpt.read(save)
        with pytest.raises(DamagedError, match=name):
            make().load(save, mmap=True)
        block.file.write_bytes(content)


def test_no_truncation_goes_unnoticed(save):
    for file in sorted(save.iterdir()):
        content = file.read_bytes()
        size = len(content)
        for length in (0, 1, 7, 8, 9, size // 2, size - 65, size - 8, size - 1):
            file.write_bytes(content[:length])
            error = check(save, file, f"truncated to {length}")
            assert isinstance(error, DamagedError), length
        file.write_bytes(content)


def test_no_extension_goes_unnoticed_or_matters(save):
    for file in sorted(save.iterdir()):
        content = file.read_bytes()
        for more in (b"\0", b"x" * 100, content):
            file.write_bytes(content + more)
            check(save, file, f"extended by {len(more)}")
            file.write_bytes(more + content)
            assert check(save, file, f"preceded by {len(more)}") is not None
        file.write_bytes(content)


def test_a_hole_of_zeros_is_noticed(save):
    # What some file systems leave after a power loss: the size is right.
    for file in sorted(save.iterdir()):
        content = file.read_bytes()
        file.write_bytes(bytes(len(content)))
        assert isinstance(check(save, file, "zeros"), DamagedError)
        file.write_bytes(content)


def test_no_missing_file_goes_unnoticed(save):
    for file in sorted(save.iterdir()):
        content = file.read_bytes()
        file.unlink()
        error = check(save, file, "deleted")
        expected = SaveNotFoundError if file.name == "manifest.json" else DamagedError
        assert isinstance(error, expected)
        file.write_bytes(content)


def test_swapped_files_are_noticed(save, tmp_path):
    other = make(tmp_path / "other", value=1).save().path
    files = sorted(save.iterdir())
    for i, file in enumerate(files):
        content = file.read_bytes()
        for source in (*files[:i], *files[i + 1 :], *other.iterdir()):
            if source.read_bytes() == content:
                continue
            file.write_bytes(source.read_bytes())
            cp = make()
            error = attempt(cp.load, save)
            assert isinstance(error, DamagedError), f"{file.name} is {source.name}"
            assert untouched(cp)
            # A manifest of another save is sound; what it tells of is not there.
            name = "agent" if source.name == "manifest.json" else file.name
            assert (name if file.name == "manifest.json" else file.name) in str(error)
            file.write_bytes(content)


def test_no_file_is_opened_outside_of_the_folder(save, tmp_path):
    for file in sorted(save.iterdir()):
        outside = tmp_path / file.name
        shutil.move(file, outside)
        for target in (outside, os.path.relpath(outside, save)):
            file.symlink_to(target)
            error = check(save, file, "a symbolic link")
            assert isinstance(error, CheckpointError)
            file.unlink()
        for target in ("/dev/zero", "/dev/tty", "/proc/self/mem", "nowhere", file.name):
            file.symlink_to(target)
            assert isinstance(check(save, file, target), CheckpointError)
            file.unlink()
        shutil.move(outside, file)
    test_an_undamaged_save_loads(save)


def test_special_files_neither_hang_nor_crash(save):
    for file in sorted(save.iterdir()):
        content = file.read_bytes()
        for create in (os.mkfifo, os.mkdir):
            file.unlink()
            create(file)
            error = check(save, file, create.__name__)
            assert isinstance(error, CheckpointError)
            assert make().exists(save) in (True, False)
            for function in (elementsckpt.info, elementsckpt.read):
                if file.name == "manifest.json" or function is elementsckpt.read:
                    with pytest.raises(CheckpointError):
                        function(save)
            shutil.rmtree(file) if file.is_dir() else file.unlink()
            file.write_bytes(content)


def test_a_fifo_in_the_place_of_latest_neither_hangs_nor_matters(tmp_path):
    make(tmp_path).save()
    (tmp_path / "latest").unlink()
    os.mkfifo(tmp_path / "latest")
    cp = make(tmp_path)
    assert cp.load_or_save() is True
    assert loaded(cp)
    path = cp.save().path
    assert (tmp_path / "latest").read_text() == path.name


def test_nonsense_manifests_are_damaged_saves(save):
    manifest = save / "manifest.json"
    sound = json.loads(manifest.read_bytes())
    nonsense = [
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe\0",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"9" * 100_000,
        json.dumps({**sound, "extra": 1}).encode(),
        json.dumps(sound, indent=3).encode() + b"}",
        *(json.dumps({**sound, key: None}).encode() for key in sound),
        *(json.dumps({**sound, key: -1}).encode() for key in sound),
        *(json.dumps({**sound, key: []}).encode() for key in sound),
        *(json.dumps({**sound, key: "x"}).encode() for key in sound),
        *(
            json.dumps({k: v for k, v in sound.items() if k != key}).encode()
            for key in sound
        ),
    ]
    for content in nonsense:
        manifest.write_bytes(content)
        check(save, manifest, repr(content[:60]))
        for function in (elementsckpt.info, elementsckpt.read):
            error = attempt(function, save)
            assert error is None or save.name in str(error)


def places(value, path=()):
    """Yield the path of every value inside a JSON document."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in items:
        if isinstance(child, (dict, list)):
            yield from places(child, (*path, key))
        else:
            yield (*path, key)


@contextlib.contextmanager
def replaced(document, path, value):
    """Have a document hold something else there, meanwhile."""
    inner = functools.reduce(lambda x, key: x[key], path[:-1], document)
    before, inner[path[-1]] = inner[path[-1]], value
    yield document
    inner[path[-1]] = before


HOSTILE = [
    *(None, True, -1, 1, 7, 2**61, 2**63, 10**30, 1e308),
    *("", "../../etc/passwd", "\ud800", [], [[]], {}, {"a": 1}, [-1], [2**61]),
]


def test_no_well_signed_manifest_crashes_the_reader(tmp_path, monkeypatch):
    use_one_thread(monkeypatch.setattr)  # To start more takes the most time.
    state = {
        "array": np.ones((2, 3)),
        "packed": np.zeros(1 << 16, np.uint8),
        "scalars": (float("nan"), 10**30, 1j, b"\xff", "\ud800", None, np.int8(1)),
        ("odd", 1): {frozenset({2}): np.random.default_rng(0)},
    }
    cp = Checkpoint(tmp_path)
    cp.agent, cp.replay = Box(state), Stream([{"x": 1}])
    save = cp.save(metadata={"a": [1.5, float("inf")]}).path
    manifest = save / "manifest.json"
    sound = json.loads(manifest.read_bytes())
    manifest.write_bytes(signed(sound))
    reader = make()
    reader.load(save)
    for path in [*places(sound)]:
        for value in HOSTILE:
            manifest.unlink()  # A file that was emptied some systems write out at once.
            with replaced(sound, path, value) as changed:
                manifest.write_bytes(signed(changed))
            for function in (reader.load, elementsckpt.info):
                try:
                    function(save)
                except CheckpointError:
                    continue
                except Exception as error:
                    pytest.fail(f"{path} = {value!r}: {function.__name__}: {error!r}")


def test_a_failing_current_state_does_not_make_a_save_damaged(tmp_path, warnings):
    class Breaks(Box):
        def save(self):
            raise ValueError("not built yet")

    Point = collections.namedtuple("Point", "x y")
    theirs = make_boxes(tmp_path, keep=2, agent=Point(0, 0))
    theirs.save()
    theirs.agent.state = Point(1, 2)
    newest = theirs.save().path
    cp = Checkpoint()
    cp.agent = Breaks()
    report = cp.load(tmp_path)
    assert report.path == newest
    assert report.fell_back_from is None
    assert cp.agent.state == {"x": 1, "y": 2}
    assert list(report.plain) == ["agent"]
    assert "not built yet" in warnings.text


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("fault", ["truncated", "gone"])
@pytest.mark.parametrize("compress", [None, 1])
def test_errors_about_a_segment_name_the_leaf(tmp_path, mmap, fault, compress):
    cp = make_boxes(tmp_path, agent={"w": np.zeros(100_000)}, compress=compress)
    save = cp.save().path
    (segment,) = save.glob("agent-*.safetensors")
    if fault == "gone":
        segment.unlink()
    else:
        os.truncate(segment, segment.stat().st_size // 2)
    with pytest.raises(elementsckpt.DamagedError, match="agent/w"):
        make_boxes(tmp_path, agent=None).load(mmap=mmap)


def test_a_huge_sparse_manifest_is_damage(tmp_path):
    save = tmp_path / "20200101T000000F000000"
    save.mkdir()
    with open(save / "manifest.json", "wb") as file:
        file.truncate(8 << 30)
    cp = make_boxes(tmp_path, agent=1)
    for call in (cp.load, cp.load_or_save, lambda: cp.load(save)):
        with pytest.raises(elementsckpt.DamagedError, match="8589934592 bytes"):
            call()
    assert cp.latest() is None
    assert cp.saves() == []
    cp.save()
    assert cp.load().fell_back_from is None


# A newer format.


def counting(directory):
    """Return a checkpoint whose saves have no segments."""
    cp = Checkpoint(directory, keep=None, fsync=False)
    cp.step = elementsckpt.Counter()
    return cp


def test_a_newer_format_says_so_with_both_versions(save):
    manifest = save / "manifest.json"
    content = json.loads(manifest.read_bytes())
    current = content["version"]
    content["version"] = 987
    content["something new"] = {"no reader": "of today knows"}
    manifest.write_bytes(signed(content))
    for function in (make().load, elementsckpt.info, elementsckpt.read):
        with pytest.raises(VersionError) as error:
            function(save)
        assert isinstance(error.value, ValueError)
        assert "987" in str(error.value)
        assert str(current) in str(error.value)
        assert str(save) in str(error.value)


def test_a_run_whose_newest_save_is_of_a_newer_format_never_starts_afresh(tmp_path):
    path = make(tmp_path).save().path
    manifest = path / "manifest.json"
    content = {**json.loads(manifest.read_bytes()), "version": 9}
    manifest.write_bytes(signed(content))
    cp = make(tmp_path)
    with pytest.raises(VersionError, match="version"):
        cp.load_or_save()
    assert untouched(cp)
    assert [x.name for x in tmp_path.iterdir() if x.is_dir()] == [path.name]


def test_a_newest_save_of_a_later_version_is_not_replaced_by_an_older(tmp_path):
    cp = counting(tmp_path)
    newest = [cp.save().path for _ in range(3)][-1]
    forge(newest, lambda x: x.update(version=9))
    again = counting(tmp_path)
    with pytest.raises(elementsckpt.VersionError, match="version 9"):
        again.load()
    with pytest.raises(elementsckpt.VersionError):
        again.load_or_save()
    assert again.save().sequence == 4


def test_all_functions_refuse_a_newest_save_of_a_later_version(tmp_path):
    cp = make_boxes(tmp_path, keep=3, agent=0)
    newest = [cp.save().path for _ in range(3)][-1]
    forge(newest, lambda x: x.update(version=9))
    again = make_boxes(tmp_path, agent=None)
    for call in (again.load, again.latest, lambda: elementsckpt.info(tmp_path)):
        with pytest.raises(elementsckpt.VersionError, match="version 9"):
            call()


# The directory falls back.


def flip(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # Data: a header in front of it is for other tools.
    file.write_bytes(content)


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def swap_for_a_link(file):
    shutil.copy(file, file.parent.parent / ".copy")
    file.unlink()
    file.symlink_to("../.copy")


def swap_for_a_fifo(file):
    file.unlink()
    os.mkfifo(file)


IN_PLACE = [flip, truncate]
DAMAGES = [*IN_PLACE, swap_for_a_link, swap_for_a_fifo, os.unlink]
CASES = [
    (kind, damage)
    for kind in ("manifest", "agent", "replay")
    for damage in DAMAGES
    if (kind, damage) != ("manifest", os.unlink)  # That is not a save any more.
]


def damage_one(path, kind, damage):
    (file,) = path.glob(f"{kind}*")
    damage(file)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("kind", "damage"), CASES, ids=lambda x: getattr(x, "__name__", x)
)
def test_a_directory_falls_back_to_the_newest_good_save(
    tmp_path, caplog, kind, damage, layout
):
    options = LAYOUTS[layout]
    paths = [make(tmp_path, value, **options).save().path for value in (1, 2, 3)]
    damage_one(paths[2], kind, damage)
    with caplog.at_level(logging.WARNING, logger="elementsckpt"):
        cp = make(tmp_path)
        report = cp.load()
    assert loaded(cp, value=2)
    assert report.path == paths[1]
    assert report.step == 2
    assert report.fell_back_from == paths[2]
    warnings = [x for x in caplog.records if x.name.split(".")[0] == "elementsckpt"]
    assert any(
        x.levelno >= logging.WARNING and paths[2].name in x.getMessage()
        for x in warnings
    )
    cp = make(tmp_path)
    assert cp.load_or_save() is True
    assert loaded(cp, value=2)
    cp = make()
    assert cp.load(tmp_path).fell_back_from == paths[2]
    assert loaded(cp, value=2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["agent", "replay"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_directory_falls_back_past_all_saves_that_share_a_damaged_file(
    tmp_path, kind, damage, layout
):
    options = LAYOUTS[layout]
    paths = [make(tmp_path, value, **options).save().path for value in (1, 2, 2, 2)]
    damage_one(paths[3], kind, damage)
    cp = make(tmp_path)
    report = cp.load()
    # What happens to a name happens to one save.
    expected = 1 if damage in IN_PLACE else 2
    assert loaded(cp, value=expected)
    assert report.path == paths[0 if damage in IN_PLACE else 2]
    assert report.fell_back_from == paths[3]


def test_falling_back_passes_over_several_damaged_saves(tmp_path):
    paths = [make(tmp_path, value).save().path for value in (1, 2, 3, 4)]
    for path, kind in zip(paths[1:], ("manifest", "agent", "replay"), strict=True):
        damage_one(path, kind, flip)
    cp = make(tmp_path)
    report = cp.load()
    assert loaded(cp, value=1)
    assert (report.path, report.fell_back_from) == (paths[0], paths[3])


def test_an_unfinished_newest_save_is_no_damage(tmp_path, caplog):
    paths = [make(tmp_path, value).save().path for value in (1, 2)]
    (paths[1] / "manifest.json").rename(paths[1] / ".manifest.json")
    cp = make(tmp_path)
    report = cp.load()
    assert loaded(cp, value=1)
    assert report.fell_back_from is None
    assert cp.latest() == paths[0]


def test_a_save_whose_manifest_was_removed_is_told_of(tmp_path, caplog):
    paths = [make(tmp_path, value).save().path for value in (1, 2)]
    (paths[1] / "manifest.json").unlink()
    cp = make(tmp_path)
    assert cp.load().path == paths[0]
    assert cp.latest() == paths[0]
    assert loaded(cp, value=1)
    said = f"{paths[1]} is not a save: it has no manifest.json"
    assert [said in message for message in caplog.messages].count(True) == 1
    (paths[0] / "manifest.json").unlink()
    assert not cp.load_or_save()
    assert f"{paths[0]} is not a save" in caplog.text
    assert all(path.exists() for path in paths)


def test_the_next_save_after_a_fall_back_is_the_newest(tmp_path):
    paths = [make(tmp_path, value).save().path for value in (1, 2)]
    damage_one(paths[1], "agent", flip)
    cp = Checkpoint(tmp_path, keep=1)
    cp.agent, cp.replay = Box(), Stream()
    cp.load()
    cp.agent.loads = 0
    new = cp.save().path
    assert cp.latest() == new
    assert not paths[0].exists()
    cp.load()
    assert cp.agent.loads == 1


def test_damage_of_another_component_does_not_keep_one_from_loading(tmp_path):
    path = make(tmp_path).save().path
    damage_one(path, "replay", flip)
    cp = make()
    report = cp.load(tmp_path, keys=["agent"])
    assert cp.agent.loads == 1
    assert np.array_equal(cp.agent.state["big"], BIG)
    assert (report.path, report.fell_back_from) == (path, None)


@pytest.mark.parametrize("values", [(1, 2, 3), (1, 2, 2)], ids=["own", "shared"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("kind", "damage"), CASES, ids=lambda x: getattr(x, "__name__", x)
)
def test_an_explicit_path_is_never_substituted(tmp_path, kind, damage, layout, values):
    options = LAYOUTS[layout]
    paths = [make(tmp_path, value, **options).save().path for value in values]
    damage_one(paths[1], kind, damage)
    for cp in (make(tmp_path), make()):
        with pytest.raises(DamagedError, match=paths[1].name):
            cp.load(paths[1])
        assert untouched(cp)
    load = functools.partial(
        elementsckpt.checkpoint.load,
        paths[1],
        {"agent": cp.agent.load, "replay": cp.replay.load},
    )
    with pytest.raises(DamagedError):
        load()
    assert untouched(cp)


@pytest.mark.parametrize("kind", ["manifest", "agent", "replay"])
def test_a_run_whose_saves_are_all_damaged_never_starts_afresh(tmp_path, kind):
    paths = [make(tmp_path, value).save().path for value in (1, 2)]
    for path in paths:
        damage_one(path, kind, flip)
    before = sorted(tmp_path.rglob("*"))
    cp = make(tmp_path)
    for verb in (cp.load_or_save, cp.load):
        with pytest.raises(DamagedError) as error:
            verb()
        for path in paths:
            assert path.name in str(error.value)
        assert untouched(cp)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("value", [2, 3, 4])
def test_damaged_saves_do_not_stop_a_save(tmp_path, value, layout, background):
    options = LAYOUTS[layout]
    paths = [make(tmp_path, x, **options).save().path for x in (1, 2, 3)]
    for path, kind in zip(paths, ("manifest", "agent", "replay"), strict=True):
        damage_one(path, kind, flip)
    cp = make(tmp_path, value=value, background=background, **options)
    new = cp.save().path
    cp.wait()
    assert cp.latest() == new
    cp = make(tmp_path)
    assert cp.load().path == new
    assert loaded(cp, value=value)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["agent", "replay"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("again", [False, True], ids=["new object", "same object"])
def test_what_is_damaged_is_not_reused(tmp_path, kind, damage, layout, again):
    cp = make(tmp_path, **LAYOUTS[layout])
    damage_one(cp.save().path, kind, damage)
    if not again:
        cp = make(tmp_path, **LAYOUTS[layout])
    report = cp.save()
    cp = make(tmp_path)
    assert cp.load().path == report.path
    assert loaded(cp)
    # The other component is fine.
    assert report.bytes_reused > 0
    assert not [x for x in report.path.glob(f"{kind}-*") if "000001" in x.name]


def test_a_save_is_listed_even_beside_a_damaged_one(tmp_path):
    paths = [make(tmp_path, value).save().path for value in (1, 2, 3)]
    damage_one(paths[1], "manifest", truncate)
    listed = [x.path for x in make(tmp_path).saves()]
    assert listed == [paths[0], paths[2]]
    assert make(tmp_path).latest() == paths[2]


def flipped(content, position, bit):
    return (
        content[:position] + bytes([content[position] ^ bit]) + content[position + 1 :]
    )


def test_any_flipped_bit_in_the_newest_manifest_falls_back(tmp_path, warnings):
    cp = counting(tmp_path)
    paths = []
    for _ in range(3):
        cp.step.increment()
        paths.append(cp.save().path)
    file = paths[-1] / "manifest.json"
    content = file.read_bytes()
    flips = {(position, 1 << position % 8) for position in range(len(content))}
    for name in (b'"version":', b'"sequence":'):
        digit = content.index(name) + len(name)
        flips |= {(digit, 1 << n) for n in range(8)}
    wrong = []
    for position, bit in sorted(flips):
        file.write_bytes(flipped(content, position, bit))
        warnings.clear()
        again = counting(tmp_path)
        around = content[max(position - 20, 0) : position + 2]
        try:
            report = again.load()
            if (again.step.value, report.fell_back_from) != (2, paths[-1]):
                wrong.append((around, bit, report))
            elif str(paths[-1]) not in warnings.text:
                wrong.append((around, bit, "no warning"))
        except elementsckpt.CheckpointError as error:
            wrong.append((around, bit, error))
    assert not wrong


def test_saves_after_a_damaged_one_are_newer_than_all(tmp_path):
    cp = counting(tmp_path)
    first, _, newest = [cp.save().path for _ in range(3)]
    content = (newest / "manifest.json").read_bytes()
    digit = content.index(b'"sequence":') + len(b'"sequence":')
    for bit in range(8):
        damaged = flipped(content, digit, 1 << bit)
        (newest / "manifest.json").write_bytes(damaged)
        again = counting(tmp_path)
        again.step.value = 10 + bit
        report = again.save()
        assert report.sequence > 3
        assert counting(tmp_path).load().path == report.path
        shutil.rmtree(report.path)
    assert manifest_of(first)["sequence"] == 1


def test_all_functions_agree_on_the_newest_save(tmp_path):
    cp = make_boxes(tmp_path, keep=3, agent=0)
    paths = []
    for number in range(3):
        cp.agent.state = number
        paths.append(cp.save().path)
    file = paths[-1] / "manifest.json"
    file.write_bytes(file.read_bytes()[:-10])
    again = make_boxes(tmp_path, agent=None)
    assert again.latest() == paths[1]
    assert elementsckpt.info(tmp_path).path == paths[1]
    assert again.load().path == paths[1]
    assert again.saves()[-1].path == paths[1]
    assert again.agent.state == 1


def test_metadata_that_speaks_of_a_sequence_does_not_mislead(tmp_path):
    cp = make_boxes(tmp_path, keep=None, agent=1)
    old = cp.save(metadata={"sequence": 900}).path
    manifest = old / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-5])
    cp.agent.state = 2
    assert cp.save().sequence == 2
    report = cp.load()
    assert report.fell_back_from is None
    assert cp.agent.state == 2
