"""What a path may be: no URL is taken for a folder, variables are never in a name."""

import contextlib
import os
import pathlib

import elements
import pytest

import elementsckpt
from elementsckpt import Checkpoint, Value

from support.boxes import make, make_boxes


class Cached:
    """A path as cloudpathlib has it, of which `os.fspath` makes a copy in a cache."""

    def __init__(self, url):
        self.url = url

    def __str__(self):
        return self.url

    def __fspath__(self):
        return os.path.abspath("copy")


class Spelt(os.PathLike):
    def __init__(self, text):
        self.text = text

    def __fspath__(self):
        return self.text


def verbs(path):
    """Return all that takes a path, each with this one."""
    cp, own = make(state=1), make("own", 1)
    return {
        "Checkpoint": lambda: Checkpoint(path),
        "save": lambda: cp.save(path),
        "load": lambda: cp.load(path),
        "exists": lambda: cp.exists(path),
        "copy_of": lambda: cp.copy_of("agent", path),
        "own.load": lambda: own.load(path),
        "own.exists": lambda: own.exists(path),
        "own.delete": lambda: own.delete(path),
        "info": lambda: elementsckpt.info(path),
        "read": lambda: elementsckpt.read(path),
        "save_pytree": lambda: elementsckpt.save_pytree(path, 1),
        "load_pytree": lambda: elementsckpt.load_pytree(path, 0),
        "checkpoint.save": lambda: elementsckpt.checkpoint.save(path, {"x": int}),
        "checkpoint.load": lambda: elementsckpt.checkpoint.load(path, {"x": print}),
        "checkpoint.exists": lambda: elementsckpt.checkpoint.exists(path),
    }


URLS = {
    "text": lambda: "gs://bucket/run",
    "pathlib": lambda: pathlib.Path("s3://bucket/run"),
    "absolute": lambda: pathlib.Path("gs://bucket/run").absolute(),
    "joined": lambda: os.path.join("logs", "hf://user/run"),
    "by hand": lambda: "az:/container/run",
    "upper case": lambda: "GS://bucket/run",
    "chained": lambda: pathlib.Path("simplecache::s3://bucket/run"),
    "space": lambda: pathlib.Path(" gs://bucket/run"),
    "scheme": lambda: pathlib.Path("memory://"),
    "file": lambda: pathlib.Path("file:///tmp/run"),
    "http": lambda: pathlib.PurePosixPath("http://host/run"),
    "one letter": lambda: "x://bucket/run",
    "elements": lambda: elements.Path("gs://bucket/run"),
    "any object": lambda: Spelt("dbfs:/mnt/run"),
    "cached": lambda: Cached("gs://bucket/run"),
    "variable": lambda: "$BUCKET/run",
}


@pytest.mark.parametrize("spelling", URLS)
def test_no_url_is_taken_for_a_folder(tmp_path, monkeypatch, spelling):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUCKET", "gs://bucket")
    path = URLS[spelling]()
    for name, verb in verbs(path).items():
        with pytest.raises(ValueError, match=r"URL.*only local paths.*copy"):
            pytest.fail(f"{name} returned {verb()}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["lr:0.1", "12:30:59", "a:b", "run:1/x", "C:", "gs", "x:y:z"]
)
def test_colons_elsewhere_are_fine(tmp_path, name):
    cp = make(tmp_path / name, 7)
    path = cp.save().path
    assert elementsckpt.read(path) == {"agent": 7}
    assert path.parent == tmp_path / name


@pytest.mark.parametrize("kind", [str, pathlib.Path, Spelt])
@pytest.mark.parametrize("text", ["$PLACE/run", "${PLACE}/run", "$HERE/x/run"])
def test_variables_are_expanded_wherever_a_path_is_taken(
    tmp_path, monkeypatch, text, kind
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.setenv("PLACE", str(tmp_path / "x"))
    path, single = kind(text), kind(f"{text}-tree")
    cp = make(path, 7)
    assert cp.save().path.parent == tmp_path / "x" / "run"
    elementsckpt.save_pytree(single, {"w": 7})
    assert elementsckpt.load_pytree(single, {"w": 0}) == {"w": 7}
    assert elementsckpt.read(path) == {"agent": 7}
    assert elementsckpt.info(path).components
    assert elementsckpt.checkpoint.exists(path)
    assert make().load(path).path == cp.latest()
    assert [x.name for x in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("text", ["$PLACE/run", "${PLACE}/run", "a/$PLACE", "${A:-b}"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_is_refused(tmp_path, monkeypatch, text, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PLACE", raising=False)
    if value is not None:
        monkeypatch.setenv("PLACE", value)
    for kind in (str, pathlib.Path):
        for name, verb in verbs(kind(text)).items():
            with pytest.raises(ValueError, match=r"variable .* is not set, or empty"):
                pytest.fail(f"{name} returned {verb()}")
    assert list(tmp_path.iterdir()) == []


def test_the_home_may_be_named_by_a_variable_and_must_be_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PLACE", "~/x")
    assert make("$PLACE/run", 1).save().path.parent == tmp_path / "home" / "x" / "run"
    for verb in verbs("~nobody-has-this-name/run").values():
        with pytest.raises(ValueError, match="home that was not found"):
            verb()
    assert [x.name for x in tmp_path.iterdir()] == ["home"]


def test_what_is_in_a_folder_with_a_dollar_in_its_name_is_found_again(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("b", "other")
    for name in ("a$b", "$c", "a$", "$", "$$", "a$-b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        cp = Checkpoint("run")
        cp.agent = Value(7)
        path = cp.save().path
        assert path.parent == tmp_path / name / "run"
        for known in (path, str(path), cp.latest(), tmp_path / name / "run"):
            assert elementsckpt.read(known) == {"agent": 7}
            cp.load(known)
        cp.save(tmp_path / name / "export")


def test_a_file_in_the_path_is_no_raw_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    assert_unusable(tmp_path / "file" / "ckpt")
    assert_unusable(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_name_that_is_too_long_is_no_raw_error(tmp_path):
    assert_unusable(tmp_path / ("x" * 300))


def assert_unusable(path):
    """Check that all that touches the path raises an error of this library."""
    cp = make_boxes(path, agent=1)
    repr(cp)
    calls = [cp.load, cp.save, cp.load_or_save]
    calls += [lambda: cp.save(path / "save"), lambda: cp.load(path / "save")]
    calls += [lambda: elementsckpt.info(path), lambda: elementsckpt.read(path)]
    for call in calls:
        with pytest.raises(elementsckpt.CheckpointError):
            call()
    for question in (cp.exists, cp.latest, cp.saves):
        with contextlib.suppress(elementsckpt.CheckpointError):
            assert not question()
    assert cp.agent.loads == 0
