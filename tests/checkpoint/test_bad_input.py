"""Bad input: what each message says, and that nothing is changed by it.

Every message says what went wrong, where, what was expected against what was found,
and what to do about it.
"""

import re
import threading

import jax
import numpy as np
import pytest

import elementsckpt
from elementsckpt import (
    Checkpoint,
    CheckpointError,
    MismatchError,
    MissingKeyError,
    SaveExistsError,
    SaveNotFoundError,
    StateError,
)

from support.boxes import Box, make, python


def tree(directory):
    """Everything below a directory, hidden names and contents included."""
    return {
        str(x.relative_to(directory)): x.read_bytes() if x.is_file() else None
        for x in directory.rglob("*")
    }


def check_family(error, builtin):
    assert isinstance(error, CheckpointError)
    assert isinstance(error, builtin)
    assert str(error)[0] not in "'\"", "KeyError quotes its message unless told not to"


# No save there.


def test_load_from_an_empty_directory_says_which(tmp_path):
    cp = make(tmp_path)
    with pytest.raises(SaveNotFoundError) as error:
        cp.load()
    check_family(error.value, FileNotFoundError)
    assert str(tmp_path) in str(error.value)
    assert "empty" in str(error.value)
    assert cp.agent.loads == 0


def test_load_from_a_directory_without_saves_says_what_is_in_it(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "videos").mkdir()
    for cp, path in ((make(tmp_path), None), (make(), tmp_path)):
        with pytest.raises(SaveNotFoundError) as error:
            cp.load(path)
        for part in (str(tmp_path), "notes.txt", "videos"):
            assert part in str(error.value)
        assert cp.agent.loads == 0


def test_load_from_a_crowded_directory_keeps_the_message_short(tmp_path):
    for i in range(500):
        (tmp_path / f"file{i:03d}").touch()
    with pytest.raises(SaveNotFoundError) as error:
        make(tmp_path).load()
    assert "file000" in str(error.value)
    assert len(str(error.value)) < 2000


def test_load_from_a_missing_directory_says_that_it_is_missing(tmp_path):
    path = tmp_path / "mistyped"
    for cp, argument in ((make(path), None), (make(), path)):
        with pytest.raises(SaveNotFoundError) as error:
            cp.load(argument)
        assert str(path) in str(error.value)
        assert re.search("not exist|no such|missing", str(error.value), re.IGNORECASE)
    assert not path.exists()


def test_load_from_a_file_is_not_a_save(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    for function in (make().load, elementsckpt.info, elementsckpt.read):
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            function(path)
    assert make().exists(path) is False


def test_load_from_the_parent_of_a_directory_finds_nothing(tmp_path):
    make(tmp_path / "ckpt", 1).save()
    with pytest.raises(SaveNotFoundError, match="ckpt"):
        make().load(tmp_path)


# A key that is not in the save.


def test_a_missing_key_lists_what_is_there_and_loads_nothing(tmp_path):
    cp = make(tmp_path, "old")
    cp.replay = Box("old")
    path = cp.save().path
    cp.agent.state = cp.replay.state = "new"
    cp.norm = Box("new")
    for arguments in ({}, {"keys": ["agent", "norm"]}, {"path": path}):
        with pytest.raises(MissingKeyError) as error:
            cp.load(**arguments)
        check_family(error.value, KeyError)
        for part in ("norm", "agent", "replay", str(path)):
            assert part in str(error.value)
        assert {x.state for x in (cp.agent, cp.replay, cp.norm)} == {"new"}
        assert cp.agent.loads == cp.replay.loads == cp.norm.loads == 0


def test_all_missing_keys_are_in_one_error(tmp_path):
    make(tmp_path, 1).save()
    cp = make(tmp_path)
    cp.one, cp.two = Box(), Box()
    with pytest.raises(MissingKeyError) as error:
        cp.load()
    assert "one" in str(error.value)
    assert "two" in str(error.value)


# A pattern that matches nothing.


def test_a_pattern_without_a_match_names_itself_and_its_neighbours(tmp_path):
    cp = make(tmp_path, {"params": {"encoder": {"kernel": np.ones(2)}, "head": 1}})
    cp.save()
    before = cp.agent.state
    with pytest.raises(MismatchError) as error:
        cp.load(regex="params/encodr/kernel")
    check_family(error.value, ValueError)
    assert "params/encodr/kernel" in str(error.value)
    assert "params/encoder/kernel" in str(error.value)
    assert cp.agent.state is before
    with pytest.raises(MismatchError) as error:
        elementsckpt.read(tmp_path, regex="params/encodr/kernel")
    assert "params/encoder/kernel" in str(error.value)


def test_a_pattern_that_is_no_regex_is_an_error_that_shows_it(tmp_path):
    cp = make(tmp_path, {"w": 1})
    cp.save()
    for arguments in ({"regex": "w("}, {"regex": "w", "rename": {"w(": "x"}}):
        with pytest.raises((CheckpointError, re.error), match=r"\("):
            cp.load(**arguments)
    assert cp.agent.loads == 0


# Shapes and dtypes.


def test_a_mismatch_tells_leaf_saved_expected_and_remedy(tmp_path):
    make(tmp_path, {"w": np.ones((2, 3)), "b": np.ones(7), "n": np.ones(5)}).save()
    current = {"w": np.zeros((4, 3)), "b": np.zeros(7, np.float32), "n": np.zeros(5)}
    cp = make(tmp_path, current)
    with pytest.raises(MismatchError) as error:
        cp.load(regex=".*")
    check_family(error.value, ValueError)
    lines = str(error.value).splitlines()
    (shape,) = (line for line in lines if "agent/w" in line)
    assert "[2,3]" in shape
    assert "[4,3]" in shape
    (dtype,) = (line for line in lines if "agent/b" in line)
    assert "float64" in dtype
    assert "float32" in dtype
    assert "cast=True" in str(error.value)
    assert "agent/n" not in str(error.value)
    assert cp.agent.state is current
    assert cp.agent.loads == 0


def test_a_leaf_that_is_no_array_on_one_side_is_a_mismatch(tmp_path):
    make(tmp_path, {"w": "text"}).save()
    cp = make(tmp_path, {"w": np.ones(2)})
    with pytest.raises(MismatchError, match="agent/w"):
        cp.load(regex="w")
    assert cp.agent.loads == 0


# A path that is taken.


def test_save_to_a_path_that_holds_a_save_is_refused(tmp_path):
    path = tmp_path / "save"
    cp = make(tmp_path / "ckpt", "old")
    cp.save(path)
    before = tree(tmp_path)
    cp.agent.state = "new"
    with pytest.raises(SaveExistsError) as error:
        cp.save(path)
    check_family(error.value, FileExistsError)
    assert str(path) in str(error.value)
    assert tree(tmp_path) == before
    assert elementsckpt.read(path) == {"agent": "old"}


def test_save_to_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SaveExistsError, match=re.escape(str(tmp_path))):
        make(None, 1).save(tmp_path)
    assert tree(tmp_path) == {"notes.txt": b"mine"}


def test_save_to_a_path_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        make(None, 1).save(path)
    assert path.read_text() == "mine"


def test_save_to_a_run_directory_is_refused(tmp_path):
    cp = make(tmp_path, 1)
    cp.save()
    before = tree(tmp_path)
    with pytest.raises(SaveExistsError):
        cp.save(tmp_path)
    assert tree(tmp_path) == before


def test_the_refusal_comes_before_any_component_is_asked(tmp_path):
    make(None, 1).save(tmp_path / "save")

    class Counting(Box):
        asked = 0

        def save(self):
            self.asked += 1

    cp = Checkpoint()
    cp.agent = Counting()
    with pytest.raises(SaveExistsError):
        cp.save(tmp_path / "save")
    assert cp.agent.asked == 0


# A component that fails.


class Unlucky(Exception):
    pass


class Failing(Box):
    def save(self):
        raise Unlucky("out of luck")


def test_an_exception_of_save_passes_with_a_note_and_leaves_no_trace(tmp_path):
    cp = make(tmp_path, np.zeros(1_000_000))
    cp.save()
    before = tree(tmp_path)
    cp.replay = Failing()
    for path in (None, tmp_path / "explicit"):
        with pytest.raises(Unlucky, match="out of luck") as error:
            cp.save(path)
        assert any("replay" in note for note in error.value.__notes__)
        assert tree(tmp_path) == before


def test_an_exception_of_the_first_save_leaves_no_trace(tmp_path):
    cp = Checkpoint(tmp_path / "ckpt")
    cp.replay = Failing()
    for verb in (cp.save, cp.load_or_save):
        with pytest.raises(Unlucky):
            verb()
    with pytest.raises(Unlucky):
        elementsckpt.checkpoint.save(tmp_path / "other", {"replay": cp.replay.save})
    assert not list((tmp_path / "ckpt").glob("*"))
    assert not (tmp_path / "other").exists()
    assert cp.exists() is False


def test_keyboard_interrupt_in_save_leaves_no_trace(tmp_path):
    class Interrupted(Box):
        def save(self):
            yield np.zeros(1_000_000)
            raise KeyboardInterrupt

    cp = make(tmp_path, 1)
    cp.save()
    before = tree(tmp_path)
    cp.replay = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        cp.save()
    assert tree(tmp_path) == before


def test_an_exception_of_load_passes_with_a_note(tmp_path):
    class Picky(Box):
        def load(self, data):
            raise Unlucky("not this")

    cp = Checkpoint(tmp_path)
    cp.agent = Picky(1)
    cp.save()
    with pytest.raises(Unlucky, match="not this") as error:
        cp.load()
    assert any("agent" in note for note in error.value.__notes__)


# A state that cannot be saved.


def unpicklable():
    lock = threading.Lock()
    return {"lock": lock, "generator": (i for i in ()), "closure": lambda: lock}


@pytest.mark.parametrize("name", list(unpicklable()))
def test_a_leaf_that_cannot_be_saved_is_named_and_no_save_appears(tmp_path, name):
    cp = make(tmp_path, {"w": np.zeros(1_000_000)})
    cp.save()
    before = tree(tmp_path)
    cp.agent.state = {"w": np.zeros(1_000_000), "misc": [0, {"x": unpicklable()[name]}]}
    with pytest.raises(StateError) as error:
        cp.save()
    check_family(error.value, ValueError)
    assert "agent/misc/1/x" in str(error.value)
    assert tree(tmp_path) == before


def test_a_deleted_jax_array_is_named_and_no_save_appears(tmp_path):
    array = jax.device_put(np.ones(3, np.float32))
    array.delete()
    cp = make(tmp_path / "ckpt", {"params": {"w": array}})
    with pytest.raises(StateError) as error:
        cp.save()
    assert "agent/params/w" in str(error.value)
    assert re.search("deleted|donated", str(error.value))
    assert not list((tmp_path / "ckpt").glob("*"))


def test_a_bad_shard_of_a_stream_is_named_and_no_save_appears(tmp_path):
    class Stream(Box):
        def save(self):
            yield {"x": 1}
            yield {"x": threading.Lock()}

    cp = Checkpoint(tmp_path / "ckpt")
    cp.replay = Stream()
    with pytest.raises(StateError) as error:
        cp.save()
    assert "replay" in str(error.value)
    assert "x" in str(error.value)
    assert not list((tmp_path / "ckpt").glob("*"))


# Files and folders of others.


def test_strays_are_ignored_and_never_removed(tmp_path):
    directory = tmp_path / "ckpt"
    elsewhere = tmp_path / "elsewhere"
    make(elsewhere, "elsewhere").save()
    directory.mkdir()
    (directory / "000.txt").write_text("mine")
    (directory / "zzz.txt").write_text("mine")
    (directory / ".hidden").write_text("mine")
    (directory / "20990101T000000F000000-000000000001").mkdir()
    (directory / "20990101T000000F000000-000000000001" / "config.yaml").touch()
    (directory / "empty").mkdir()
    (directory / "20980101T000000F000000").write_text("a file")
    (directory / "20970101T000000F000000").mkdir()
    (directory / "20970101T000000F000000" / "mine.txt").write_text("mine")
    (directory / "replay" / "deep").mkdir(parents=True)
    (directory / "replay" / "deep" / "chunk.npz").write_bytes(b"\0\1")
    (directory / "link").symlink_to(make(elsewhere).latest())
    (directory / "20960101T000000F000000").symlink_to(make(elsewhere).latest())
    (directory / "dangling").symlink_to("nowhere")
    before = tree(directory)
    other = tree(elsewhere)

    cp = make(directory, 0)
    assert cp.load_or_save() in (True, False)
    for value in range(1, 4):
        cp.agent.state = value
        report = cp.save()
        assert cp.latest() == report.path
        after = tree(directory)
        assert {name: after.get(name, "gone") for name in before} == before
        assert tree(elsewhere) == other
    cp.agent.state = None
    cp.load()
    assert cp.agent.state == 3


@pytest.mark.parametrize("names", [["manifest.json"], ["done", "agent.pkl"]])
def test_strays_that_look_like_a_save_do_not_hide_the_saves(tmp_path, names):
    cp = make(tmp_path, "saved")
    path = cp.save().path
    for name in names:
        (tmp_path / name).write_text("{}")
    cp.agent.state = None
    assert cp.load().path == path
    assert cp.agent.state == "saved"
    assert make(tmp_path).load_or_save() is True
    assert cp.latest() == path


def test_a_folder_whose_manifest_is_of_another_tool_is_never_removed(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "manifest.json").write_text('{"name": "a web page"}')
    cp = make(tmp_path, 1)
    for _ in range(3):
        cp.save()
    assert cp.load_or_save() is True
    assert (tmp_path / "site" / "manifest.json").read_text() == '{"name": "a web page"}'


# python -O.


ALL_AT_ONCE = r"""
import pathlib, sys, threading
import numpy as np
import elementsckpt
from elementsckpt import Checkpoint

class Box:
    def __init__(self, state=None):
        self.state = state

    def save(self):
        return self.state

    def load(self, data):
        print("LOADED", data)

class Failing(Box):
    def save(self):
        raise RuntimeError("own exception")

def attempt(name, function, *args, **kwargs):
    try:
        print(name, "passed:", function(*args, **kwargs))
    except Exception as error:
        print(name, type(error).__name__, error, getattr(error, "__notes__", ""))

cp = Checkpoint("ckpt")
attempt("keep", Checkpoint, "ckpt", keep=0)
attempt("register", setattr, cp, "agent", 3)
attempt("method", setattr, cp, "save", Box())
attempt("private", setattr, cp, "_x", Box())
attempt("nothing", cp.load)
attempt("attribute", getattr, cp, "nope")
attempt("transient", Checkpoint().save)
cp.agent = Box({"w": np.ones(3), "b": 1})
attempt("metadata", cp.save, metadata={"a": object})
path = cp.save("here").path
attempt("taken", cp.save, path)
attempt("regex", cp.load, path, regex="x")
cp.agent.state = {"w": np.ones(4), "c": 1}
attempt("mismatch", cp.load, path, regex=".*")
cp.agent.state = threading.Lock
cp.agent.state = {"x": threading.Lock()}
attempt("lock", cp.save)
cp.replay = Failing()
attempt("missing", cp.load, path)
attempt("unregistered", cp.load, path, keys=["other"])
attempt("failing", cp.save)
(manifest,) = pathlib.Path(path).glob("manifest.json")
segments = list(pathlib.Path(path).glob("*.safetensors"))
for file in [*segments, manifest]:
    content = file.read_bytes()
    for bad in (b"", content[:-1], content + b"x", content[:-1] + b"x"):
        file.write_bytes(bad)
        attempt(file.name, Checkpoint.load, cp, path, keys=["agent"])
    file.write_bytes(content)
manifest.unlink()
attempt("incomplete", cp.load, path, keys=["agent"])
print(sorted(str(x) for x in pathlib.Path().rglob("*")))
"""


def test_python_o_makes_no_difference(tmp_path):
    outputs = {}
    for flags in ((), ("-OO",)):
        directory = tmp_path / "".join(("run", *flags))
        directory.mkdir()
        child = python(ALL_AT_ONCE, flags=flags, cwd=directory)
        assert child.returncode == 0, child.stderr
        text = child.stdout.replace(str(directory), "<cwd>")
        text = re.sub(r"0x[0-9a-f]+", "<id>", text)
        outputs[flags] = re.sub(r"\d{8}T\d{6}F\d{6}", "<time>", text)
    assert "passed" not in outputs[()]
    assert "LOADED" not in outputs[()]
    assert outputs[("-OO",)] == outputs[()]
