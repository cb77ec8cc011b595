"""What only pickle can hold: marked, arrays kept out of it, and never run unasked."""

import collections
import datetime
import decimal
import enum
import fractions
import functools
import importlib
import json
import operator
import pathlib
import pickle
import sys
import uuid
from types import SimpleNamespace

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, PickleError

from support.boxes import Box, Stream, block_with, blocks, damage
from support.strategies import assert_same, round_trip


class Holder:
    """An object of no kind that the format knows."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1


class Size(int):
    pass


class Title(str):
    __slots__ = ("note",)


class Registry(dict):
    pass


class Series(list):
    pass


class Tagged(np.ndarray):
    """An array with an attribute, as NumPy's guide to subclassing has it."""

    def __array_finalize__(self, source):
        self.tag = getattr(source, "tag", None)

    def __reduce__(self):
        function, arguments, state = super().__reduce__()
        return function, arguments, (state, self.tag)

    def __setstate__(self, state):
        super().__setstate__(state[0])
        self.tag = state[1]


def leaves(folder):
    """Return the entries of the leaves of the only component of a save."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (component,) = manifest["components"]
    (tree,) = component["trees"]
    return tree["leaves"]


def stored(folder, leaf):
    """Return the bytes of a leaf that fits into one block, of the only component."""
    content = blocks(folder)[leaf["block"]].content
    return content[leaf.get("offset", 0) :]


def save(directory, state, key="box", **options):
    cp = Checkpoint(directory, fsync=False, **options)
    setattr(cp, key, Box(state))
    return cp.save().path


# What goes through pickle comes back

OBJECTS = {
    "enums": [Colour.RED, Colour.BLUE, Level.LOW, {Colour.RED: Level.LOW}],
    "times": [datetime.datetime(2026, 11, 20), datetime.timedelta(1, 2, 3)],
    "numbers": [decimal.Decimal("0.1"), fractions.Fraction(1, 3), Size(3)],
    "paths": [pathlib.PurePosixPath("a/b"), pathlib.Path("c")],
    "others": [uuid.UUID(int=7), range(1, 9, 2), slice(1, None), ..., NotImplemented],
    "bytearrays": [bytearray(b"\xff\0"), bytearray()],
    "frozen sets": [frozenset([1, "a"]), {frozenset([2])}, {Colour.RED}],
    "classes": [dict, np.float32, np.dtype(">i4"), Holder, operator.add, np.add, len],
    "dict of objects as keys": {Colour.RED: 1, (1, (2, Colour.BLUE)): 2},
    "sets of sets": {frozenset([frozenset([Colour.RED])])},
}


@pytest.mark.parametrize("name", OBJECTS)
def test_object_comes_back_the_same(name):
    assert_same(OBJECTS[name], round_trip(OBJECTS[name], own=True))


SUBCLASSES = [Size(3), Title("t"), Registry(a=1), Series([1]), Level.LOW]


@pytest.mark.parametrize("value", SUBCLASSES, ids=lambda value: type(value).__name__)
def test_subclass_of_a_builtin_is_not_taken_for_the_builtin(value):
    loaded = round_trip({"a": value}, own=True)["a"]
    assert type(loaded) is type(value)
    assert loaded == value


def test_attributes_of_subclasses_of_builtins_come_back():
    state = {"dict": Registry(a=np.ones(2)), "list": Series([np.zeros(1)])}
    state["dict"].note = state["list"].note = {"n": np.arange(2)}
    loaded = round_trip(state, own=True)
    for name in state:
        assert_same(state[name], loaded[name])
        assert_same(vars(state[name]), vars(loaded[name]))


def test_object_with_arrays_comes_back_the_same():
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    holder = Holder(array=array, again=array, nested=[Holder(big=np.ones(5, ">i4"))])
    loaded = round_trip({"holder": holder}, own=True)["holder"]
    assert type(loaded) is Holder
    assert_same([holder.array, holder.again], [loaded.array, loaded.again])
    assert_same(holder.nested[0].big, loaded.nested[0].big)


def test_object_array_comes_back_the_same():
    ragged = np.empty((2, 2), object)
    ragged[0, 0], ragged[0, 1] = np.arange(3), "text"
    ragged[1, 0], ragged[1, 1] = None, np.ones((2, 2), np.float32)
    state = {
        "ragged": ragged,
        "fortran": np.asfortranarray(ragged),
        "empty": np.empty((0, 3), object),
        "alone": np.array(Colour.RED, object),
        "big ints": np.array([2**100, -1], object),
        "fields": np.array([(1, [2])], [("a", "<i4"), ("b", object)]),
    }
    assert_same(state, round_trip(state, own=True))


def test_subclasses_of_arrays_keep_their_class():
    tagged = np.arange(4).view(Tagged)
    tagged.tag = "note"
    state = [
        tagged,
        np.ma.MaskedArray([1, 2, 3], [True, False, True]),
        np.rec.fromarrays([[1, 2], [0.5, 1.5]], names="a,b"),
    ]
    loaded = round_trip(state, own=True)
    for expected, actual in zip(state, loaded, strict=True):
        assert type(actual) is type(expected)
        assert actual.dtype == expected.dtype
        assert actual.tobytes() == expected.tobytes()
    assert loaded[0].tag == "note"
    np.testing.assert_array_equal(loaded[1].mask, state[1].mask)
    assert loaded[2].a.tolist() == [1, 2]


def test_functions_and_closures_compute_the_same():
    offset = np.arange(3)
    state = {
        "lambda": lambda x: x + offset,
        "partial": functools.partial(np.add, 1),
        "method": Box(3).save,
        "library": np.sin,
        "own": leaves,
    }
    loaded = round_trip(state, own=True)
    assert loaded["lambda"](1).tolist() == [1, 2, 3]
    assert loaded["partial"](2) == 3
    assert loaded["method"]() == 3
    assert loaded["library"] is np.sin
    assert loaded["own"] is leaves


def test_class_made_in_a_function_comes_back():
    class Local:
        def double(self):
            return 2 * self.x

    local = Local()
    local.x = np.arange(2)
    assert round_trip([local], own=True)[0].double().tolist() == [0, 2]


def test_default_factory_that_is_a_function_comes_back():
    from collections import defaultdict

    state = defaultdict(lambda: np.zeros(2), a=np.ones(2))
    loaded = round_trip({"d": state}, own=True)["d"]
    assert type(loaded) is defaultdict
    np.testing.assert_array_equal(loaded["a"], [1, 1])
    np.testing.assert_array_equal(loaded["new"], [0, 0])


# Arrays stay out of the pickle


def states_with(array):
    ragged = np.empty(2, object)
    ragged[:] = [array, "text"]
    return {
        "object": {"leaf": Holder(array=array)},
        "object array": {"leaf": ragged},
        "closure": {"leaf": lambda: array},
        "subclass of dict": {"leaf": Registry(array=array)},
        "object in an object": {"leaf": Holder(inner=[Holder(array=array)])},
        "namespace": {"leaf": SimpleNamespace(array=array)},
    }


@pytest.mark.parametrize("name", states_with(None))
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("compress", [None, 1])
def test_array_in_pickle_is_a_block_of_its_own(tmp_path, name, order, compress):
    data = np.random.default_rng(0).bytes(2**20)
    array = np.frombuffer(data, "<f4").reshape((512, 512), order=order)
    folder = save(tmp_path, states_with(array)[name], compress=compress)
    pickled = [leaf for leaf in leaves(folder) if leaf["kind"] == "pickle"]
    assert [leaf["names"] for leaf in pickled] == [["leaf"]]
    assert pickled[0]["shape"][0] < 20_000
    assert data[:64] not in stored(folder, pickled[0])
    (block,) = [x for x in leaves(folder) if x["kind"] == "numpy"]
    assert block["shape"] == [512, 512]
    assert block.get("order", "C") == order
    assert stored(folder, block) == data


def test_array_in_and_out_of_a_pickle_is_stored_once_and_comes_back_as_one(tmp_path):
    array = np.random.default_rng(0).random(2**16)
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box({"a": Holder(array=array), "b": array, "c": [Holder(other=array)]})
    assert cp.save().bytes_total < 1.5 * array.nbytes
    cp.load()
    loaded = cp.box.state
    assert loaded["a"].array is loaded["b"]
    assert loaded["c"][0].other is loaded["b"]
    np.testing.assert_array_equal(loaded["b"], array)


@pytest.mark.parametrize("mmap", [False, True])
def test_arrays_in_a_loaded_pickle_are_writable(mmap):
    state = {"a": Holder(small=np.ones(3), large=np.ones(100_000))}
    loaded = round_trip(state, own=True, mmap=mmap, compress=None)["a"]
    loaded.small[:] = loaded.large[:] = 2
    assert loaded.small.sum() == 6
    assert loaded.large.sum() == 200_000


@pytest.mark.parametrize("compress", [None, 1])
def test_damaged_array_in_a_pickle_is_noticed(tmp_path, compress):
    array = np.arange(2.0**17)
    folder = save(tmp_path, {"leaf": Holder(array=array)}, compress=compress)
    damage(block_with(folder, array[5000:5100].tobytes()))
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box()
    with pytest.raises(elementsckpt.DamagedError, match="box/leaf"):
        cp.load(folder)


# What goes through pickle is marked, and nothing else is


def test_only_what_needs_pickle_is_marked(tmp_path):
    folder = save(
        tmp_path,
        {
            "plain": [
                1,
                "a",
                {"b": np.ones(2)},
                (None, {3}),
                np.datetime64("NaT", "s"),
            ],
            "rng": np.random.default_rng(0),
            "object": Holder(x=1),
            "objects": np.array([None, 1], object),
        },
    )
    pickled = [leaf["names"] for leaf in leaves(folder) if leaf["kind"] == "pickle"]
    assert sorted(pickled) == [["object"], ["objects"]]


# Foreign paths


class Bomb:
    """Makes a file where its pickle is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(self.path),)


@pytest.fixture
def armed(tmp_path):
    """A save with a bomb, and the file that appears when it goes off."""
    went_off = tmp_path / "went off"
    state = {"safe": np.arange(3), "deep": [{"bomb": Bomb(went_off)}]}
    cp = Checkpoint(tmp_path / "run", fsync=False)
    cp.agent, cp.other = Box(state), Box({"x": 1})
    folder = cp.save().path
    assert not went_off.exists()
    return folder, went_off


LOADS = {
    "transient": lambda path, cp: cp.load(path),
    "directory": lambda path, cp: cp.load(path.parent),
    "text": lambda path, cp: cp.load(str(path)),
    "mapped": lambda path, cp: cp.load(path, mmap=True),
    "regex": lambda path, cp: cp.load(path, regex="deep"),
    "cast": lambda path, cp: cp.load(path, cast=True, strict=False),
    "dry": lambda path, cp: cp.load(path, dry_run=True),
    "functions": lambda path, cp: elementsckpt.checkpoint.load(
        path, {"agent": cp.agent.load}
    ),
}


@pytest.mark.parametrize("name", LOADS)
def test_foreign_pickle_is_refused_by_name_and_runs_no_code(armed, name):
    folder, went_off = armed
    cp = Checkpoint()
    untouched = Holder()
    cp.agent = Box({"safe": np.zeros(3, int), "deep": [{"bomb": untouched}]})
    with pytest.raises(PickleError, match="agent/deep/0/bomb") as caught:
        LOADS[name](folder, cp)
    assert "allow_pickle=True" in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert not went_off.exists()
    assert cp.agent.state["safe"].tolist() == [0, 0, 0]
    assert cp.agent.state["deep"] == [{"bomb": untouched}]


@pytest.mark.parametrize("name", ["transient", "functions", "read"])
def test_foreign_pickle_loads_when_allowed(armed, name):
    folder, went_off = armed
    cp = Checkpoint()
    cp.agent = Box()
    if name == "transient":
        cp.load(folder, allow_pickle=True)
    elif name == "functions":
        functions = {"agent": cp.agent.load}
        elementsckpt.checkpoint.load(folder, functions, allow_pickle=True)
    else:
        cp.agent.state = elementsckpt.read(folder, allow_pickle=True)["agent"]
    assert went_off.exists()
    assert cp.agent.state["safe"].tolist() == [0, 1, 2]


def test_own_directory_loads_pickles_without_being_asked(armed):
    folder, went_off = armed
    for path in (None, folder, str(folder), folder.parent):
        cp = Checkpoint(folder.parent)
        cp.agent = Box()
        cp.load(path)
        assert went_off.exists()
        went_off.unlink()


def test_own_directory_is_known_by_another_spelling(armed, monkeypatch):
    folder, went_off = armed
    monkeypatch.chdir(folder.parent.parent)
    for path in ("run", f"run/{folder.name}", f"./run/../run/{folder.name}/"):
        cp = Checkpoint(folder.parent)
        cp.agent = Box()
        cp.load(path)
        assert went_off.exists()
        went_off.unlink()


def test_own_directory_can_be_refused_too(armed):
    folder, went_off = armed
    cp = Checkpoint(folder.parent)
    cp.agent = Box("untouched")
    with pytest.raises(PickleError, match="agent/deep/0/bomb"):
        cp.load(allow_pickle=False)
    assert not went_off.exists()
    assert cp.agent.state == "untouched"


def test_directory_beside_the_own_one_is_foreign(armed, tmp_path):
    folder, went_off = armed
    for own in (tmp_path / "ru", tmp_path / "run2", folder, tmp_path / "other"):
        cp = Checkpoint(own)
        cp.agent = Box()
        with pytest.raises(PickleError, match="agent/deep/0/bomb"):
            cp.load(folder if own != folder else folder.parent)
    assert not went_off.exists()


def test_link_that_leads_out_of_the_own_directory_is_foreign(armed, tmp_path):
    folder, went_off = armed
    own = tmp_path / "own"
    own.mkdir()
    (own / folder.name).symlink_to(folder)
    cp = Checkpoint(own)
    cp.agent = Box()
    with pytest.raises(elementsckpt.CheckpointError):
        cp.load(own / folder.name)
    with pytest.raises(elementsckpt.CheckpointError):
        cp.load()
    assert not went_off.exists()


def test_path_out_of_the_own_directory_is_foreign(armed, tmp_path):
    folder, went_off = armed
    own = tmp_path / "own"
    own.mkdir()
    cp = Checkpoint(own)
    cp.agent = Box()
    with pytest.raises(PickleError, match="agent/deep/0/bomb"):
        cp.load(own / ".." / "run" / folder.name)
    assert not went_off.exists()


def test_what_needs_no_pickle_loads_beside_what_does(armed):
    folder, went_off = armed
    cp = Checkpoint()
    cp.other = Box()
    cp.load(folder)
    assert cp.other.state == {"x": 1}
    cp.agent = Box({"safe": np.zeros(3, int), "deep": 0})
    cp.load(folder, keys=["other"])
    cp.load(folder, keys=["agent"], regex="safe")
    assert cp.agent.state["safe"].tolist() == [0, 1, 2]
    found = elementsckpt.read(folder, keys=["agent"], regex="safe")
    assert found["agent"]["safe"].tolist() == [0, 1, 2]
    assert elementsckpt.read(folder, keys=["other"]) == {"other": {"x": 1}}
    assert not went_off.exists()


# Reading the rest


class Odd(collections.namedtuple("Odd", "a b")):
    pass


def read_with_log(path, caplog, **options):
    """Return what is read, and the names of what is left out by the log."""
    caplog.clear()
    state = elementsckpt.read(path, **options)
    logged = [record for record in caplog.records if "pickle" in record.msg]
    assert len(logged) <= 1
    return state, logged[0].args[0].split(", ") if logged else []


@pytest.mark.parametrize("options", [{}, {"mmap": False}, {"allow_pickle": False}])
def test_what_is_pickled_is_left_out_of_what_is_read(armed, caplog, options):
    folder, went_off = armed
    state, left_out = read_with_log(folder, caplog, **options)
    assert state["other"] == {"x": 1}
    assert state["agent"]["safe"].tolist() == [0, 1, 2]
    assert left_out == ["agent/deep/0/bomb"]
    assert folder.name in caplog.text
    assert not went_off.exists()


def test_what_is_read_keeps_its_place_and_its_type(tmp_path, caplog):
    odd = Holder(x=np.arange(5))
    state = {
        "list": [0, odd, np.arange(3)],
        "tuple": (odd, 1),
        "deque": collections.deque([1, odd, 3], 5),
        "only": [odd],
        "dict": {"odd": odd},
        "ordered": collections.OrderedDict(z=1, odd=odd, a=[]),
        "fields": Odd(odd, {}),
        "empty": {},
        3: odd,
    }
    cp = Checkpoint(tmp_path)
    cp.agent, cp.odd, cp.step = Box(state), Box(odd), Box(7)
    cp.save()
    found, left_out = read_with_log(tmp_path, caplog)
    agent = found["agent"]
    assert agent["list"].pop().tolist() == [0, 1, 2]
    assert agent == {
        "list": [0, None],
        "tuple": (None, 1),
        "deque": collections.deque([1, None, 3], 5),
        "only": [None],
        "dict": {},
        "ordered": collections.OrderedDict(z=1, a=[]),
        "fields": {"b": {}},
        "empty": {},
    }
    assert {key: type(agent[key]) for key in agent} == {
        **{key: type(state[key]) for key in agent},
        "fields": dict,
    }
    assert agent["deque"].maxlen == 5
    assert {*found} == {"agent", "step"}
    # The same object is one leaf, of which the log says all places.
    places = [
        "list/1",
        "tuple/0",
        "deque/1",
        "only/0",
        "dict/odd",
        "ordered/odd",
        "fields/a",
        "3",
    ]
    assert left_out == [*(f"agent/{place}" for place in places), "odd"]


def test_arrays_that_a_pickle_shares_with_the_rest_are_read(tmp_path, caplog):
    shared, own = np.arange(100_000), np.arange(100_000)[::-1].copy()
    cp = Checkpoint(tmp_path, compress=None)
    cp.agent = Box({"odd": Holder(a=shared, b=own), "a": shared})
    path = cp.save().path
    damage(block_with(path, own.tobytes()))  # Which need not be read.
    found, _ = read_with_log(path, caplog)
    assert [*found["agent"]] == ["a"]
    np.testing.assert_array_equal(found["agent"]["a"], shared)


def test_pickled_leaves_of_shards_are_left_out(tmp_path, caplog):
    odd = Holder()
    cp = Checkpoint(tmp_path)
    cp.replay = Stream([{"x": 1, "odd": odd}, odd, 3])
    cp.save()
    found, left_out = read_with_log(tmp_path, caplog)
    assert found == {"replay": [{"x": 1}, None, 3]}
    assert left_out == ["replay/0/odd", "replay/1"]


def test_a_pattern_selects_what_is_not_pickled(tmp_path, caplog):
    odd = Holder()
    cp = Checkpoint(tmp_path)
    cp.agent, cp.odd = Box({"x": 1, "y": [odd, 2], "odd": odd}), Box(odd)
    cp.save()
    found, left_out = read_with_log(tmp_path, caplog, regex="x|y|odd")
    assert found == {"agent": {"x": 1, "y": {1: 2}}}
    assert left_out == ["agent/y/0", "agent/odd"]
    found, left_out = read_with_log(tmp_path, caplog, regex="y/0")
    assert (found, left_out) == ({}, ["agent/y/0"])


def test_many_leaves_that_are_left_out_are_one_message(tmp_path, caplog):
    cp = Checkpoint(tmp_path)
    cp.agent = Box([Holder() for _ in range(100)])
    cp.save()
    assert elementsckpt.read(tmp_path) == {"agent": [None] * 100}
    assert "agent/19 and 80 more. Pass allow_pickle=True" in caplog.text


def test_nothing_is_said_where_all_is_read(tmp_path, caplog):
    cp = Checkpoint(tmp_path)
    cp.agent = Box({"odd": Holder(x=1), "y": [2]})
    cp.save()
    found, left_out = read_with_log(tmp_path, caplog, allow_pickle=True)
    assert (found["agent"]["odd"].x, left_out) == (1, [])


def test_looking_at_a_save_runs_no_code(armed):
    folder, went_off = armed
    assert set(elementsckpt.info(folder).components) == {"agent", "other"}
    cp = Checkpoint(folder.parent)
    assert cp.exists()
    assert cp.saves()[0].path == cp.latest() == folder
    assert elementsckpt.checkpoint.exists(folder)
    repr(cp)
    assert not went_off.exists()


def test_saving_over_a_directory_with_pickles_runs_no_code(armed):
    folder, went_off = armed
    cp = Checkpoint(folder.parent)
    cp.agent = Box(1)
    cp.save()
    assert not folder.exists()
    assert not went_off.exists()


def test_pickled_shard_of_a_foreign_generator_is_refused_before_any_load(tmp_path):
    went_off = tmp_path / "went off"

    class Stream(Box):
        def save(self):
            yield {"safe": 1}
            yield {"bomb": Bomb(went_off)}

        def load(self, data):
            self.state = list(data)

    cp = Checkpoint(tmp_path / "run", fsync=False)
    cp.a, cp.stream = Box(1), Stream()
    folder = cp.save().path
    foreign = Checkpoint()
    foreign.a, foreign.stream = Box("untouched"), Stream("untouched")
    with pytest.raises(PickleError, match=r"stream.*bomb"):
        foreign.load(folder)
    assert foreign.a.state == foreign.stream.state == "untouched"
    assert not went_off.exists()


# Pickles that do not load


class Fickle:
    """Can be pickled, and not any more when it is loaded."""

    def __reduce__(self):
        return _refuse, ("changed its mind",)


def _refuse(text):
    raise RuntimeError(text)


def test_pickle_that_fails_to_load_names_the_leaf_and_changes_nothing(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.first, cp.second = Box({"x": 1}), Box({"deep": [Fickle()]})
    cp.save()
    cp.first, cp.second = Box("untouched"), Box("untouched")
    with pytest.raises(elementsckpt.CheckpointError) as caught:
        cp.load()
    assert "second/deep/0" in str(caught.value)
    assert "changed its mind" in str(caught.value)
    assert cp.first.state == cp.second.state == "untouched"


def test_pickle_of_a_class_that_is_gone_names_the_leaf(tmp_path, monkeypatch):
    source = tmp_path / "module_that_goes.py"
    source.write_text("class Gone:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("module_that_goes")
    cp = Checkpoint(tmp_path / "run", fsync=False)
    cp.box = Box({"leaf": module.Gone()})
    cp.save()
    monkeypatch.delitem(sys.modules, "module_that_goes")
    source.unlink()
    importlib.invalidate_caches()
    cp.box = Box("untouched")
    with pytest.raises(elementsckpt.CheckpointError, match="box/leaf"):
        cp.load()
    assert cp.box.state == "untouched"


def test_protocol_is_one_that_every_supported_python_reads(tmp_path):
    folder = save(tmp_path, {"leaf": Holder(x=1)})
    (leaf,) = leaves(folder)
    payload = stored(folder, leaf)
    assert payload[:2] == pickle.PROTO + bytes([5])
