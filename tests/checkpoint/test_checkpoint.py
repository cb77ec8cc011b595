"""The verbs of `Checkpoint` and the functional forms, on an undamaged disk."""

import dataclasses
import datetime
import functools
import gc
import os
import pathlib
import re
import threading
import types

import elements
import numpy as np
import pytest

import elementsckpt
from elementsckpt import (
    Checkpoint,
    CheckpointError,
    LoadReport,
    MetadataError,
    MissingKeyError,
    SaveExistsError,
    SaveInfo,
    SaveNotFoundError,
    SaveReport,
)

from support.boxes import Box, make, python, visible


class Shards:
    """A component whose state is a stream."""

    def __init__(self, shards=()):
        self.shards = list(shards)
        self.drawn = 0

    def save(self):
        for shard in self.shards:
            self.drawn += 1
            yield shard

    def load(self, data):
        self.shards = list(data)


def saved_values(directory):
    """What each save in the directory holds, oldest first."""
    infos = Checkpoint(directory).saves()
    return [elementsckpt.read(info.path)["agent"] for info in infos]


# The first save and the resume.


def test_load_or_save_writes_the_first_save_and_says_so(tmp_path):
    cp = make(tmp_path / "run" / "ckpt", 1)
    assert cp.load_or_save() is False
    assert cp.agent.loads == 0
    assert elementsckpt.read(cp.latest())["agent"] == 1


def test_load_or_save_resumes_from_the_newest_save_and_says_so(tmp_path):
    cp = make(tmp_path)
    for value in (1, 2, 3):
        cp.agent.state = value
        cp.save()
    cp = make(tmp_path, 9)
    assert cp.load_or_save() is True
    assert cp.agent.state == 3
    assert cp.agent.saves == 0
    assert len(cp.saves()) == 1


def test_a_save_before_anything_is_registered_replaces_nothing(tmp_path):
    path = make(tmp_path, 1).save().path
    with pytest.raises(ValueError, match=r"Nothing is registered.*cp\.agent = agent"):
        Checkpoint(tmp_path, keep=1).save()
    assert Checkpoint(tmp_path).latest() == path
    with pytest.raises(ValueError, match=r"Nothing is registered.*cp\.agent = agent"):
        Checkpoint().load(path)


def test_resuming_before_anything_is_registered_is_an_error(tmp_path):
    make(tmp_path, 1).save()
    with pytest.raises(ValueError, match=r"Nothing is registered.*cp\.agent = agent"):
        Checkpoint(tmp_path).load_or_save()


def test_the_report_of_a_save_names_what_went_through_pickle(tmp_path):
    cp = make(tmp_path, {"w": np.zeros(3), "odd": [np.dtype("f4")]})
    assert cp.save().pickled == ("agent/odd/0",)
    cp.agent.state = {"w": np.zeros(3)}
    assert cp.save().pickled == ()


def test_two_checkpoint_objects_on_one_directory_see_each_others_saves(tmp_path):
    one, two = make(tmp_path, 1), make(tmp_path, 2)
    one.save()
    assert two.exists()
    two.save()
    one.load()
    assert one.agent.state == 2


def test_a_checkpoint_is_a_context_manager_and_can_be_closed_twice(tmp_path):
    with make(tmp_path, 1) as cp:
        cp.save()
        cp.wait()
    cp.close()
    cp.close()
    with make(tmp_path) as cp:
        cp.load()
        assert cp.agent.state == 1


def test_nothing_is_printed(tmp_path, capfd):
    cp = make(tmp_path, 1)
    cp.load_or_save()
    cp.exists()
    cp.save(tmp_path / "other")
    cp.load()
    elementsckpt.info(tmp_path)
    assert capfd.readouterr() == ("", "")


# What is on the disk.


def test_the_directory_holds_latest_and_the_save_folders(tmp_path):
    cp = make(tmp_path, np.ones(3), keep=2)
    paths = [cp.save().path for _ in range(4)]
    assert visible(tmp_path) == sorted([x.name for x in paths[-2:]] + ["latest"])


def test_latest_holds_the_bare_folder_name(tmp_path):
    cp = make(tmp_path, 1)
    for _ in range(3):
        path = cp.save().path
        assert (tmp_path / "latest").read_bytes() == path.name.encode()


def test_a_folder_is_named_by_time_and_step(tmp_path):
    before = datetime.datetime.now(datetime.timezone.utc)
    path = make(tmp_path, 1, step=1234).save().path
    after = datetime.datetime.now(datetime.timezone.utc)
    time, step = path.name.rsplit("-", 1)
    assert step == "000000001234"
    written = datetime.datetime.strptime(time, "%Y%m%dT%H%M%SF%f")
    assert before <= written.replace(tzinfo=datetime.timezone.utc) <= after


def test_a_folder_without_step_is_named_by_time_alone(tmp_path):
    path = make(tmp_path, 1).save().path
    assert re.fullmatch(r"\d{8}T\d{6}F\d{6}", path.name)


def test_a_save_folder_holds_segments_named_by_key_and_a_manifest(tmp_path):
    cp = make(tmp_path, {"w": np.ones(3)})
    cp.replay = Shards([np.ones(3)])
    report = cp.save()
    names = visible(report.path)
    assert "manifest.json" in names
    segments = [x for x in names if x != "manifest.json"]
    pattern = rf"(agent|replay)-{report.sequence:06d}-\d{{5}}\.safetensors"
    assert segments
    assert all(re.fullmatch(pattern, x) for x in segments), segments


def test_names_never_collide_and_sequences_count_up(tmp_path):
    cp = make(tmp_path, 1, keep=None, fsync=False)
    reports = [cp.save() for _ in range(30)]
    assert len({x.path for x in reports}) == 30
    sequences = [x.sequence for x in reports]
    assert sequences == sorted(set(sequences))
    assert [x.path for x in cp.saves()] == [x.path for x in reports]


def test_a_relative_directory_and_each_kind_of_path_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kinds = [str, pathlib.Path, elements.Path]
    for number, kind in enumerate(kinds):
        cp = make(kind(f"run/ckpt{number}"), number)
        assert cp.load_or_save() is False
        cp.save(kind(f"copies/{number}"))
    for number, kind in enumerate(kinds):
        for path in (f"run/ckpt{number}", tmp_path / "copies" / str(number)):
            cp = make()
            cp.load(kind(str(path)))
            assert cp.agent.state == number
            assert cp.exists(kind(str(path)))
            assert elementsckpt.read(kind(str(path)))["agent"] == number


def test_a_tilde_is_the_home_as_it_is_for_elements(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert str(elements.Path("~/run")) == str(tmp_path / "home" / "run")
    cp = make("~/run", 1)
    report = cp.save()
    assert report.path.parent == tmp_path / "home" / "run"
    cp.save("~/explicit")
    assert (tmp_path / "home" / "explicit" / "manifest.json").is_file()
    for path in ("~/run", "~/explicit"):
        assert cp.exists(path)
        cp.load(path)
        assert elementsckpt.read(path) == {"agent": 1}
    assert [x.name for x in tmp_path.iterdir()] == ["home"]


# keep.


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_keep_keeps_the_newest(tmp_path, keep):
    cp = make(tmp_path, keep=keep)
    for value in range(5):
        cp.agent.state = value
        cp.save()
        expected = list(range(value + 1))[-keep:]
        assert saved_values(tmp_path) == expected


def test_keep_is_one_unless_said_otherwise(tmp_path):
    cp = make(tmp_path, 1)
    for _ in range(3):
        cp.save()
    assert len(cp.saves()) == 1


def test_keep_none_keeps_all(tmp_path):
    cp = make(tmp_path, 1, keep=None)
    for _ in range(5):
        cp.save()
    assert len(cp.saves()) == 5


@pytest.mark.parametrize("keep", [0, -1])
def test_keep_below_one_is_refused(tmp_path, keep):
    with pytest.raises(ValueError, match="keep"):
        Checkpoint(tmp_path, keep=keep)


def test_the_arguments_of_the_constructor_have_the_order_of_elements(tmp_path):
    cp = Checkpoint(tmp_path, 2, 77, False)
    cp.agent = Box(1)
    report = cp.save()
    assert report.step == 77
    assert not cp.exists()
    cp = Checkpoint(tmp_path, 2, 77, True)
    cp.agent = Box(1)
    for _ in range(4):
        cp.save()
    assert len(cp.saves()) == 2


# step.


class IntLike:
    def __init__(self, value):
        self.value = value

    def __int__(self):
        return self.value


@pytest.mark.parametrize(
    "step",
    [
        0,
        42,
        np.int64(42),
        np.array(42),
        IntLike(42),
        elements.Counter(42),
        elementsckpt.Counter(42),
    ],
    ids=lambda x: f"{type(x).__module__}.{type(x).__name__}",
)
def test_any_int_like_is_a_step(tmp_path, step):
    cp = make(tmp_path, 1, step=step)
    report = cp.save()
    assert report.step == int(step)
    assert type(report.step) is int
    assert report.path.name.endswith(f"-{int(step):012d}")
    assert elementsckpt.info(report.path).step == int(step)
    assert cp.load().step == int(step)


def test_the_step_is_read_at_each_save(tmp_path):
    step = elements.Counter()
    cp = make(tmp_path, 1, step=step, keep=None)
    for _ in range(3):
        cp.save()
        step.increment(10)
    assert [x.step for x in cp.saves()] == [0, 10, 20]


def test_a_component_named_step_that_int_accepts_is_the_step(tmp_path):
    cp = make(tmp_path, 1)
    cp.step = elements.Counter(17)
    report = cp.save()
    assert report.step == 17
    assert report.path.name.endswith("-000000000017")


def test_a_component_named_step_that_int_refuses_is_just_a_component(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.step = Box("not a number")
    report = cp.save()
    assert report.step is None
    cp.step.state = None
    assert cp.load().step is None
    assert cp.step.state == "not a number"


def test_the_argument_goes_before_the_component(tmp_path):
    cp = Checkpoint(tmp_path, step=5)
    cp.step = elementsckpt.Counter(6)
    assert cp.save().step == 5


def test_a_component_named_step_counts_for_explicit_paths_too(tmp_path):
    cp = Checkpoint()
    cp.step = elementsckpt.Counter(6)
    assert cp.save(tmp_path / "a").step == 6
    assert elementsckpt.info(tmp_path / "a").step == 6


def test_a_step_that_goes_back_makes_no_save_older(tmp_path):
    cp = make(tmp_path, step=elements.Counter(100))
    cp.agent.state = "old"
    cp.save()
    cp = make(tmp_path, "new", step=elements.Counter(1))
    report = cp.save()
    assert cp.latest() == report.path
    assert saved_values(tmp_path) == ["new"]


# keys.


def test_save_with_keys_stores_only_those(tmp_path):
    cp = make(tmp_path, 1)
    cp.replay, cp.env = Box(2), Box(3)
    cp.save(keys=["replay", "agent"])
    assert elementsckpt.read(tmp_path) == {"agent": 1, "replay": 2}
    assert cp.env.saves == 0


@pytest.mark.parametrize("kind", [list, tuple, set, iter])
def test_load_with_keys_touches_only_those(tmp_path, kind):
    cp = make(tmp_path, 1)
    cp.replay = Box(2)
    cp.save()
    cp.agent.state, cp.replay.state = 8, 9
    report = cp.load(keys=kind(["agent"]))
    assert (cp.agent.state, cp.replay.state) == (1, 9)
    assert cp.replay.loads == 0
    assert {name.split("/")[0] for name in report.loaded} <= {"agent"}


def test_a_save_may_hold_more_than_what_is_registered(tmp_path):
    cp = make(tmp_path, 1)
    cp.replay = Box(2)
    cp.save()
    cp = make(tmp_path)
    cp.load()
    assert cp.agent.state == 1


def test_a_key_that_is_not_registered_is_a_key_error(tmp_path):
    cp = make(tmp_path, 1)
    cp.save()
    for verb in (cp.save, cp.load):
        with pytest.raises(MissingKeyError) as error:
            verb(keys=["agent", "repaly"])
        assert isinstance(error.value, KeyError)
        assert "repaly" in str(error.value)
        assert "agent" in str(error.value)
        assert not str(error.value).startswith(("'", '"'))
    assert len(cp.saves()) == 1
    assert (cp.agent.saves, cp.agent.loads) == (1, 0)


def test_a_key_that_is_not_in_the_save_is_a_key_error_and_nothing_is_loaded(tmp_path):
    make(tmp_path, 1).save()
    cp = make(tmp_path, 5)
    cp.replay = Box(6)
    with pytest.raises(MissingKeyError) as error:
        cp.load()
    assert "replay" in str(error.value)
    assert "agent" in str(error.value)
    assert (cp.agent.state, cp.replay.state) == (5, 6)
    assert cp.agent.loads == 0


# write=False.


def test_write_false_runs_every_save_and_writes_nothing(tmp_path):
    cp = Checkpoint(tmp_path / "ckpt", write=False)
    cp.agent, cp.replay = Box(np.ones(3)), Shards([1, 2, 3])
    report = cp.save(metadata={"a": 1})
    assert isinstance(report, SaveReport)
    assert report.bytes_written == 0
    assert (cp.agent.saves, cp.replay.drawn) == (1, 3)
    cp.save(tmp_path / "explicit")
    assert cp.agent.saves == 2
    assert cp.load_or_save() is False
    assert cp.agent.saves == 3
    assert list(tmp_path.iterdir()) == []


def test_write_false_still_loads(tmp_path):
    make(tmp_path, 1).save()
    cp = make(tmp_path, 2, write=False)
    assert cp.load_or_save() is True
    assert cp.agent.state == 1
    cp.save()
    assert len(cp.saves()) == 1


# Explicit paths.


def test_save_to_a_path_writes_that_very_folder(tmp_path):
    path = tmp_path / "a" / "b" / "checkpoint_100.ckpt"
    report = make(tmp_path / "ckpt", 1).save(path)
    assert report.path == path
    assert (path / "manifest.json").is_file()
    assert not (tmp_path / "ckpt").exists()
    assert visible(path.parent) == ["checkpoint_100.ckpt"]


def test_save_to_a_path_may_use_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    make(None, 1).save(tmp_path / "empty")
    assert elementsckpt.read(tmp_path / "empty") == {"agent": 1}


def test_save_to_a_path_neither_moves_latest_nor_counts_for_keep(tmp_path):
    cp = make(tmp_path / "ckpt", 1, keep=2)
    regular = [cp.save().path, cp.save().path]
    outside, inside = tmp_path / "outside", tmp_path / "ckpt" / "best"
    for path in (outside, inside):
        cp.agent.state = f"explicit {path.name}"
        cp.save(path)
        assert cp.latest() == regular[-1]
        assert (tmp_path / "ckpt" / "latest").read_text() == regular[-1].name
        assert all(x.exists() for x in regular)
    cp.load()
    assert cp.agent.state == 1
    for _ in range(4):
        regular.append(cp.save().path)
    assert [x.exists() for x in regular] == [False] * 4 + [True] * 2
    assert cp.latest() == regular[-1]
    for path in (outside, inside):
        cp.load(path)
        assert cp.agent.state == f"explicit {path.name}"


def test_load_from_the_path_of_a_directory_means_its_newest_save(tmp_path):
    cp = make(tmp_path / "ckpt", keep=None)
    for value in (1, 2, 3):
        cp.agent.state = value
        cp.save()
    cp = make()
    report = cp.load(tmp_path / "ckpt")
    assert cp.agent.state == 3
    assert report.path == make(tmp_path / "ckpt").latest()


def test_load_from_the_path_of_an_older_save_means_that_save(tmp_path):
    cp = make(tmp_path, keep=None)
    for value in (1, 2, 3):
        cp.agent.state = value
        cp.save()
    report = cp.load(cp.saves()[0].path)
    assert cp.agent.state == 1
    assert report.path == cp.saves()[0].path


def test_a_folder_that_a_person_copied_or_renamed_is_loadable_and_never_pruned(
    tmp_path,
):
    cp = make(tmp_path, "precious")
    cp.save().path.rename(tmp_path / "precious")
    cp.agent.state = "new"
    for _ in range(3):
        cp.save()
    cp.load(tmp_path / "precious")
    assert cp.agent.state == "precious"


def test_a_run_directory_behind_a_symbolic_link_is_a_run_directory(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    cp = make(tmp_path / "link", 1)
    cp.save()
    assert make(tmp_path / "link").load_or_save() is True
    assert make(tmp_path / "real").load_or_save() is True


def test_a_transient_checkpoint_saves_and_loads_paths(tmp_path):
    cp = make(None, 1)
    report = cp.save(tmp_path / "here")
    assert report.path == tmp_path / "here"
    other = make()
    assert other.exists(tmp_path / "here")
    other.load(str(tmp_path / "here"), keys=["agent"])
    assert other.agent.state == 1


def test_a_transient_checkpoint_asks_for_a_path(tmp_path):
    cp = make(None, 1)
    for verb in (cp.save, cp.load, cp.load_or_save, cp.exists):
        with pytest.raises((ValueError, CheckpointError), match="path"):
            verb()
    assert cp.agent.loads == 0


# exists, latest, saves.


def test_nothing_exists_before_the_first_save(tmp_path):
    for directory in (tmp_path, tmp_path / "missing"):
        cp = make(directory)
        assert cp.exists() is False
        assert cp.latest() is None
        assert cp.saves() == []
        assert cp.exists(directory / "nope") is False
        assert elementsckpt.checkpoint.exists(directory) is False
    assert not (tmp_path / "missing").exists()


def test_exists_knows_saves_and_directories(tmp_path):
    cp = make(tmp_path / "ckpt", 1)
    path = cp.save().path
    for other in (path, tmp_path / "ckpt"):
        assert cp.exists(other) is True
        assert elementsckpt.checkpoint.exists(str(other)) is True
    assert cp.exists() is True
    assert cp.exists(tmp_path) is False


def test_latest_is_a_pathlib_path_and_does_not_trust_the_file(tmp_path):
    cp = make(elements.Path(str(tmp_path)), 1, keep=None)
    old, new = cp.save().path, cp.save().path
    assert type(cp.latest()) is type(pathlib.Path())
    for content in (old.name, "", "gibberish\n", "../../etc", "a\0b", "x" * 300):
        (tmp_path / "latest").write_text(content)
        assert cp.latest() == new
    (tmp_path / "latest").unlink()
    assert cp.latest() == new
    cp.agent.state = 2
    cp.load()
    assert cp.agent.state == 1


def test_saves_are_listed_oldest_first(tmp_path):
    cp = make(tmp_path, 1, keep=None, step=elements.Counter())
    reports = []
    for step in (30, 10, 20):
        cp = make(tmp_path, 1, keep=None, step=step)
        reports.append(cp.save())
    infos = cp.saves()
    assert all(isinstance(x, SaveInfo) for x in infos)
    assert [x.path for x in infos] == [x.path for x in reports]
    assert [x.sequence for x in infos] == [x.sequence for x in reports]
    assert [x.step for x in infos] == [30, 10, 20]


# The reports.


def test_the_save_report_says_what_was_written(tmp_path):
    noise = np.random.default_rng(0).random((100, 100))
    cp = make(tmp_path, {"w": noise, "b": 1}, step=3)
    report = cp.save()
    assert isinstance(report, SaveReport)
    assert type(report.path) is type(pathlib.Path())
    assert report.path == cp.latest()
    assert report.step == 3
    assert report.sequence == elementsckpt.info(report.path).sequence
    assert report.bytes_total >= 80_000
    assert 80_000 <= report.bytes_written <= 2 * 80_000
    files = [x for x in report.path.iterdir() if x.is_file()]
    assert report.bytes_written == sum(x.stat().st_size for x in files)
    assert report.bytes_reused == 0
    assert report.is_finished
    assert 0 < report.seconds < 60


def test_the_load_report_says_what_was_loaded(tmp_path):
    cp = make(tmp_path, {"params": {"enc/w": np.zeros((100, 100))}, "n": 1}, step=3)
    cp.replay = Box([np.ones(3), "text"])
    path = cp.save().path
    report = cp.load()
    assert isinstance(report, LoadReport)
    assert report.path == path
    assert report.step == 3
    assert set(report.loaded) == {
        "agent/params/enc/w",
        "agent/n",
        "replay/0",
        "replay/1",
    }
    assert len(report.loaded) == 4
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())
    assert (report.renamed, report.plain) == ({}, {})
    assert report.fell_back_from is None
    assert report.bytes_read >= 80_000
    assert 0 < report.seconds < 60


def test_reports_and_infos_have_a_readable_repr(tmp_path):
    cp = make(tmp_path, {"w": np.zeros(3)}, step=12321)
    texts = [repr(cp.save()), repr(cp.load()), repr(elementsckpt.info(tmp_path))]
    assert all("12,321" in text and "path" in text for text in texts)


# What comes back.


@pytest.mark.parametrize("compress", [None, 1])
def test_loaded_arrays_are_writable_and_not_shared_between_loads(tmp_path, compress):
    state = {"big": np.zeros(100_000), "small": np.zeros(3)}
    cp = make(tmp_path, state, compress=compress)
    cp.save()
    for mmap in (False, True):
        cp.load(mmap=mmap)
        for array in cp.agent.state.values():
            array += 1
        cp.load(mmap=mmap)
        assert all((x == 0).all() for x in cp.agent.state.values())


def test_a_mapped_array_outlives_the_pruning_of_its_save(tmp_path):
    cp = make(tmp_path, np.arange(100_000), compress=None)
    path = cp.save().path
    cp.load(mmap=True)
    mapped = cp.agent.state
    cp.agent.state = np.zeros(3)
    for _ in range(3):
        cp.save()
    assert not path.exists()
    assert np.array_equal(mapped, np.arange(100_000))


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -(2**70), 2.5, "text", b"bytes", np.int64(3), np.float32(0.5), ()],
    ids=repr,
)
def test_a_bare_scalar_comes_back_of_the_same_type(tmp_path, value):
    cp = make(tmp_path, value)
    cp.save()
    cp.agent.state = "something else"
    cp.load()
    assert cp.agent.loads == 1
    assert type(cp.agent.state) is type(value)
    assert cp.agent.state == value


def test_save_does_not_change_the_state(tmp_path):
    state = {"w": np.arange(3.0), "list": [1, (2, 3)], 4: None}
    cp = make(tmp_path, state)
    cp.save()
    assert cp.agent.state is state
    assert list(state) == ["w", "list", 4]
    assert np.array_equal(state["w"], np.arange(3.0))


# metadata.


@dataclasses.dataclass
class Optimizer:
    name: str
    rate: float


METADATA = {
    "none": None,
    "flag": True,
    "int": 3,
    "float": 0.1,
    "text": "ünï \N{SNOWMAN} \n",
    "list": [1, [2, {"deep": []}]],
    "empty": {},
    "tuple": (1, (2,)),
    "mapping": types.MappingProxyType({"a": 1}),
    "dataclass": Optimizer("adam", 3e-4),
    "numpy": [np.float32(0.5), np.int64(7), np.bool_(True), np.str_("s")],
    "path": pathlib.PurePosixPath("/some/where"),
    "elements": elements.Path("/some/where"),
}

METADATA_BACK = {
    **METADATA,
    "tuple": [1, [2]],
    "mapping": {"a": 1},
    "dataclass": {"name": "adam", "rate": 3e-4},
    "numpy": [0.5, 7, True, "s"],
    "path": "/some/where",
    "elements": "/some/where",
}


def same(left, right):
    """Equality of value and of type, all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def test_metadata_comes_back_without_reading_arrays(tmp_path):
    report = make(tmp_path, 1).save(metadata=METADATA)
    assert same(elementsckpt.info(report.path).metadata, METADATA_BACK)


def test_metadata_and_metrics_are_empty_when_none_were_given(tmp_path):
    report = make(tmp_path, 1).save()
    info = elementsckpt.info(report.path)
    assert (info.metadata, info.metrics) == ({}, {})


@pytest.mark.parametrize(
    "value",
    [object(), np.zeros(2), {1, 2}, b"bytes", len, 1j],
    ids=lambda x: type(x).__name__,
)
def test_metadata_that_cannot_be_stored_is_an_error_that_says_where(tmp_path, value):
    cp = make(tmp_path / "ckpt", 1)
    with pytest.raises(MetadataError) as error:
        cp.save(metadata={"run": {"tags": ["a", value]}})
    assert isinstance(error.value, ValueError)
    for part in ("run", "tags", "1", type(value).__name__):
        assert part in str(error.value)
    assert not (tmp_path / "ckpt").exists()
    assert cp.latest() is None


# info and read.


def test_info_tells_a_save_without_its_objects(tmp_path):
    before = datetime.datetime.now(datetime.timezone.utc)
    cp = make(tmp_path, {"w": np.zeros(1000, np.float32), "b": 1}, step=9)
    cp.replay = Shards([np.ones(10)] * 3)
    report = cp.save()
    after = datetime.datetime.now(datetime.timezone.utc)
    info = elementsckpt.info(report.path)
    assert isinstance(info, SaveInfo)
    assert info.path == report.path
    assert type(info.path) is type(pathlib.Path())
    assert (info.step, info.sequence) == (9, report.sequence)
    assert before <= info.time <= after
    assert info.time.utcoffset() == datetime.timedelta(0)
    assert set(info.components) == {"agent", "replay"}
    assert info.components["agent"].leaves == 2
    assert info.components["agent"].bytes >= 4000
    assert info.components["replay"].shards == 3
    assert info.components["replay"].bytes >= 240


def test_info_of_a_directory_is_that_of_its_newest_save(tmp_path):
    cp = make(tmp_path, 1, keep=None)
    cp.save(metadata={"n": 1})
    path = cp.save(metadata={"n": 2}).path
    info = elementsckpt.info(tmp_path)
    assert (info.path, info.metadata) == (path, {"n": 2})


def test_info_and_read_of_nothing_say_so(tmp_path):
    for function in (elementsckpt.info, elementsckpt.read):
        with pytest.raises(SaveNotFoundError, match=re.escape(str(tmp_path))):
            function(tmp_path)


def test_lineage_is_the_save_that_was_loaded_from(tmp_path):
    first = make(tmp_path / "a", 1)
    origin = first.save().path
    assert elementsckpt.info(origin).lineage.loaded_from is None
    second = make(tmp_path / "b", keep=None)
    second.load(origin)
    own = second.save().path
    assert str(origin) in elementsckpt.info(own).lineage.loaded_from


def test_read_gives_plain_states_without_objects(tmp_path):
    cp = make(tmp_path, {"params": {"enc/w": np.arange(6).reshape(2, 3)}, "n": (1, 2)})
    cp.replay = Shards([{"x": np.full(2, i)} for i in range(3)])
    cp.save()
    state = elementsckpt.read(tmp_path)
    assert list(state) == ["agent", "replay"]
    assert state["agent"]["n"] == (1, 2)
    assert np.array_equal(state["agent"]["params"]["enc/w"], [[0, 1, 2], [3, 4, 5]])
    assert type(state["replay"]) is list
    assert [shard["x"].tolist() for shard in state["replay"]] == [
        [0, 0],
        [1, 1],
        [2, 2],
    ]


def test_read_with_keys_and_regex_gives_only_those(tmp_path):
    cp = make(tmp_path, {"enc": {"w": np.ones(2)}, "dec": {"w": np.zeros(2)}})
    cp.step = elements.Counter(3)
    cp.save()
    assert list(elementsckpt.read(tmp_path, keys=["step"])) == ["step"]
    state = elementsckpt.read(tmp_path, keys=["agent"], regex="enc/")
    assert list(state) == ["agent"]
    assert list(state["agent"]) == ["enc"]
    assert np.array_equal(state["agent"]["enc"]["w"], np.ones(2))
    with pytest.raises(MissingKeyError, match="nope"):
        elementsckpt.read(tmp_path, keys=["nope"])


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("compress", [None, 1])
def test_what_read_gives_can_be_written_without_changing_the_save(
    tmp_path, mmap, compress
):
    make(tmp_path, np.zeros(100_000), compress=compress).save()
    elementsckpt.read(tmp_path, mmap=mmap)["agent"][:] = 1
    assert (elementsckpt.read(tmp_path, mmap=mmap)["agent"] == 0).all()


# The functional forms.


def test_functions_save_and_load_without_a_checkpoint(tmp_path):
    got = {}
    path = tmp_path / "run" / "save"
    savefns = {
        "agent": lambda: {"w": np.arange(3)},
        "stream": lambda: (i for i in range(3)),
        "none": lambda: None,
    }
    report = elementsckpt.checkpoint.save(path, savefns, metadata={"a": 1})
    assert isinstance(report, SaveReport)
    assert report.path == path
    assert elementsckpt.checkpoint.exists(path)
    assert elementsckpt.info(path).metadata == {"a": 1}

    def put(key, data):
        got[key] = list(data) if key == "stream" else data

    loadfns = {key: functools.partial(put, key) for key in savefns}
    report = elementsckpt.checkpoint.load(str(path), loadfns)
    assert isinstance(report, LoadReport)
    assert np.array_equal(got["agent"]["w"], np.arange(3))
    assert (got["stream"], got["none"]) == ([0, 1, 2], None)


def test_a_function_may_load_a_part_of_what_a_checkpoint_saved(tmp_path):
    cp = make(tmp_path / "ckpt", {"enc/w": 1, "dec/w": 2})
    cp.replay = Box("untouched")
    cp.save()
    got = {}

    def load(data, regex):
        got.update({k: v for k, v in data.items() if re.match(regex, k)})

    elementsckpt.checkpoint.load(
        tmp_path / "ckpt", {"agent": functools.partial(load, regex="enc/")}
    )
    assert got == {"enc/w": 1}


def test_the_functional_load_calls_nothing_when_a_key_is_missing(tmp_path):
    elementsckpt.checkpoint.save(tmp_path / "a", {"x": lambda: 1})
    got = []
    with pytest.raises(MissingKeyError) as error:
        elementsckpt.checkpoint.load(tmp_path / "a", {"x": got.append, "y": got.append})
    assert "y" in str(error.value)
    assert "x" in str(error.value)
    assert got == []


def test_the_functional_save_writes_nothing_when_told_so(tmp_path):
    drawn = []

    def stream():
        for i in range(3):
            drawn.append(i)
            yield i

    report = elementsckpt.checkpoint.save(tmp_path / "a", {"x": stream}, False)
    assert isinstance(report, SaveReport)
    assert drawn == [0, 1, 2]
    assert list(tmp_path.iterdir()) == []


def test_the_functional_save_never_overwrites(tmp_path):
    elementsckpt.checkpoint.save(tmp_path / "a", {"x": lambda: 1})
    with pytest.raises(SaveExistsError):
        elementsckpt.checkpoint.save(tmp_path / "a", {"x": lambda: 2})
    assert elementsckpt.read(tmp_path / "a") == {"x": 1}


ODD_KEYS = [
    "plain",
    "Plain",  # Differs only by case.
    "",
    " ",
    ".",
    "..",
    "../../escape",
    "/absolute",
    "a/b",
    "a\\b",
    "a\nb",
    "a\0b",
    "-flag",
    "*?[]",
    "C:\\con",
    "manifest.json",
    ".manifest.json",
    "latest",
    "done",
    "key-000001-00000",
    "key-000001-00000.safetensors",
    "%2F",
    "_",
    "save",
    "ünï",
    "u\N{COMBINING DIAERESIS}",
    "\xfc",  # The same character as the one above, composed.
    "\N{SNOWMAN}\N{GRINNING FACE}",
    "\ud800",  # A lone surrogate: no UTF-8 can hold it.
    "\x7f\x1b[31m",
    "x" * 1000,
    "\N{SNOWMAN}" * 300,
]


def test_keys_of_the_functional_form_may_be_any_text(tmp_path):
    got = {}
    savefns = {k: functools.partial(int, i) for i, k in enumerate(ODD_KEYS)}
    report = elementsckpt.checkpoint.save(tmp_path / "run" / "a", savefns)
    loadfns = {key: functools.partial(got.__setitem__, key) for key in ODD_KEYS}
    elementsckpt.checkpoint.load(report.path, loadfns)
    assert got == {key: number for number, key in enumerate(ODD_KEYS)}
    assert elementsckpt.read(report.path) == got
    assert list(elementsckpt.info(report.path).components) == ODD_KEYS
    assert [x.name for x in tmp_path.iterdir()] == ["run"]
    assert [x.name for x in (tmp_path / "run").iterdir()] == ["a"]
    assert all(x.is_file() for x in report.path.iterdir())


@pytest.mark.parametrize("key", ODD_KEYS, ids=ascii)
def test_a_stream_may_have_any_key(tmp_path, key):
    elementsckpt.checkpoint.save(
        tmp_path / "a", {key: lambda: (np.full(2, i) for i in range(2))}, fsync=False
    )
    got = []
    elementsckpt.checkpoint.load(tmp_path / "a", {key: got.extend})
    assert [x.tolist() for x in got] == [[0, 0], [1, 1]]


@pytest.mark.parametrize("key", [3, None, b"bytes", ("a",)], ids=repr)
def test_a_key_that_is_no_text_is_refused(tmp_path, key):
    with pytest.raises((ValueError, TypeError)):
        elementsckpt.checkpoint.save(tmp_path / "a", {key: lambda: 1})
    assert list(tmp_path.iterdir()) == []


def test_fsync_false_saves_the_same(tmp_path):
    cp = make(tmp_path, {"w": np.arange(10)}, fsync=False)
    cp.save()
    cp.agent.state = None
    cp.load()
    assert np.array_equal(cp.agent.state["w"], np.arange(10))


def test_the_exported_names_are_these():
    names = {
        *("Checkpoint", "Counter", "Saveable", "checkpoint", "info", "read"),
        *("SaveInfo", "SaveReport", "LoadReport", "CheckpointError"),
        *("SaveNotFoundError", "SaveExistsError", "MissingKeyError", "MismatchError"),
        *("DamagedError", "VersionError", "PickleError", "StateError"),
        *("ComponentError", "MetadataError", "WriteError"),
    }
    assert names <= set(dir(elementsckpt))
    assert re.match(r"\d+\.\d+", elementsckpt.__version__)


@pytest.fixture
def no_collection():
    """Leave it to reference counts alone to close what nobody holds."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_many_saves_and_loads_leave_no_file_open(tmp_path, no_collection):
    cp = make(tmp_path, {"w": np.zeros(100_000)}, fsync=False)
    cp.replay = Shards([np.zeros(10)] * 3)
    cp.load_or_save()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        cp.save()
        cp.load()
    assert len(os.listdir("/proc/self/fd")) <= before


# Threads and processes.


def test_saves_from_several_threads_do_not_disturb_each_other(tmp_path):
    cp = make(tmp_path, {str(i): np.full(30_000, i) for i in range(4)}, keep=3)
    reports = []
    start = threading.Barrier(4)

    def work():
        start.wait()
        for _ in range(5):
            reports.append(cp.save())

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len({x.path for x in reports}) == 20
    assert len({x.sequence for x in reports}) == 20
    newest = sorted(reports, key=lambda x: x.sequence)[-3:]
    assert [x.path for x in cp.saves()] == [x.path for x in newest]
    assert sorted(visible(tmp_path)) == sorted(
        [*(x.path.name for x in newest), "latest"]
    )
    cp.load()
    assert all((cp.agent.state[str(i)] == i).all() for i in range(4))


LATE_AND_ELSEWHERE = """
import atexit, os, sys, threading
import numpy as np
import elementsckpt

class Box:
    def __init__(self):
        self.state = {str(i): np.full(3_000_000, i, np.uint8) for i in range(4)}

    def save(self):
        return self.state

    def load(self, data):
        self.state = data

def save(name):
    cp.save(sys.argv[1] + "/" + name)
    cp.load(sys.argv[1] + "/" + name)
    assert all((cp.box.state[str(i)] == i).all() for i in range(4))

def outlive():
    threading.main_thread().join()
    save("thread")

cp = elementsckpt.Checkpoint()
cp.box = Box()
save("main")
child = os.fork()
if not child:
    save("fork")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
threading.Thread(target=outlive).start()
atexit.register(save, "atexit")
"""


def test_a_save_whose_key_is_no_utf_8_harms_no_other_in_a_directory(tmp_path):
    odd = "\ud800"
    elementsckpt.checkpoint.save(tmp_path / "odd", {odd: lambda: 1, "agent": lambda: 2})
    assert elementsckpt.read(tmp_path / "odd") == {odd: 1, "agent": 2}
    cp = make(tmp_path, 3)
    assert cp.exists()
    for _ in range(2):
        cp.save()
    cp.load()
    assert cp.agent.state == 3


def test_forks_exit_hooks_and_threads_that_outlive_the_main_one_can_save(tmp_path):
    child = python(LATE_AND_ELSEWHERE, tmp_path)
    assert child.returncode == 0, child.stderr
    assert "Error" not in child.stderr, child.stderr
    names = ["atexit", "fork", "main", "thread"]
    assert visible(tmp_path) == names
    assert all(elementsckpt.checkpoint.exists(tmp_path / name) for name in names)
