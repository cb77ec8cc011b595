"""State that cannot be saved is a clear error that leaves nothing on the disk."""

import collections
import os
import socket
import sys
import threading
import types

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, StateError

from support.boxes import Box
from support.strategies import Pair, Point, Slotted, assert_same


class Refusing:
    """Says itself that it cannot be pickled."""

    def __reduce__(self):
        raise TypeError("not me")


class Breaking:
    """Fails in its own way when it is pickled."""

    def __getstate__(self):
        raise ZeroDivisionError("in my own code")


class Node:
    def __init__(self, value=None):
        self.value = value
        self.next = None


def closing_over(thing):
    return lambda: thing


@pytest.fixture
def things():
    """What nothing can save, by description."""
    lock, event = threading.Lock(), threading.Event()
    with socket.socket() as one, open(os.devnull, "w") as file:
        yield {
            "lock": lock,
            "recursive lock": threading.RLock(),
            "event": event,
            "socket": one,
            "file": file,
            "thread": threading.current_thread(),
            "thread local": threading.local(),
            "generator": (x for x in [1]),
            "frame": sys._getframe(),
            "lambda over a lock": closing_over(lock),
            "lambda over a socket": closing_over([one]),
            "method of one that holds a lock": Point(lock).__eq__,
            "object that holds a lock": types.SimpleNamespace(a={"b": lock}),
            "object array of locks": np.array([lock, None], object),
            "object that refuses": Refusing(),
            "object that breaks": Breaking(),
            "default factory over a lock": collections.defaultdict(closing_over(lock)),
        }


def assert_no_trace(directory):
    """Fail if the directory holds a save, or any part of one, hidden or not."""
    assert not Checkpoint(directory, fsync=False).saves()
    assert not Checkpoint(directory, fsync=False).exists()
    if directory.exists():
        assert [path for path in directory.iterdir() if path.is_dir()] == []
        shown = [path for path in directory.iterdir() if path.name[0] != "."]
        assert shown == []


def save_or_refusal(cp):
    """Save, or return the message of the error that says why not."""
    try:
        cp.save()
    except ValueError as error:
        return str(error)
    return None


NAMES = [
    *("lock", "recursive lock", "event", "socket", "file", "thread", "thread local"),
    *("generator", "frame", "lambda over a lock", "lambda over a socket"),
    *("method of one that holds a lock", "object that holds a lock"),
    *("object array of locks", "object that refuses", "object that breaks"),
    "default factory over a lock",
]


@pytest.mark.parametrize("name", NAMES)
def test_unsaveable_leaf_is_an_error_that_names_it_and_leaves_no_trace(
    tmp_path, things, name
):
    directory = tmp_path / "run"
    cp = Checkpoint(directory, fsync=False)
    cp.first = Box({"w": np.ones(300_000)})
    cp.agent = Box({"w": np.ones(300_000), "deep": [0, {"leaf": things[name]}]})
    with pytest.raises(StateError, match=r"agent/deep/1/leaf") as caught:
        cp.save()
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, elementsckpt.CheckpointError)
    assert_no_trace(directory)


def test_unsaveable_leaf_is_an_error_also_when_nothing_is_written(tmp_path):
    cp = Checkpoint(tmp_path / "run", write=False)
    cp.agent = Box({"leaf": threading.Lock()})
    with pytest.raises(StateError, match="agent/leaf"):
        cp.save()
    assert not (tmp_path / "run").exists()


def test_unsaveable_state_itself_is_an_error_that_names_the_key(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.agent = Box(threading.Lock())
    with pytest.raises(StateError, match="agent"):
        cp.save()
    assert_no_trace(tmp_path)


@pytest.mark.parametrize("make", [list, tuple, Pair._make, Point, Slotted])
def test_unsaveable_leaf_in_any_container_is_named(tmp_path, make):
    lock = threading.Lock()
    state = make(1, lock) if make in (Point, Slotted) else make([1, lock])
    name = "y" if make in (Point, Slotted) else "second" if make == Pair._make else "1"
    cp = Checkpoint(tmp_path, fsync=False)
    cp.agent = Box({"a": state})
    with pytest.raises(StateError, match=f"agent/a/{name}"):
        cp.save()
    assert_no_trace(tmp_path)


def test_the_cause_is_in_the_error(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.agent = Box({"leaf": Breaking()})
    with pytest.raises(StateError, match="in my own code") as caught:
        cp.save()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_older_saves_and_the_next_one_are_not_harmed(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.agent = Box({"x": 1})
    first = cp.save().path
    cp.agent.state = {"x": threading.Lock()}
    with pytest.raises(StateError):
        cp.save()
    assert cp.latest() == first
    assert (tmp_path / "latest").read_text() == first.name
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [first]
    cp.agent.state = {"x": 2}
    second = cp.save().path
    cp.load()
    assert cp.agent.state == {"x": 2}
    assert [save.path for save in cp.saves()] == [second]


def test_explicit_path_does_not_appear(tmp_path):
    cp = Checkpoint()
    cp.agent = Box({"x": threading.Lock()})
    with pytest.raises(StateError, match="agent/x"):
        cp.save(tmp_path / "parent" / "save")
    assert not (tmp_path / "parent" / "save").exists()
    functions = {"any key": lambda: {"x": threading.Lock()}}
    with pytest.raises(StateError, match="any key/x"):
        elementsckpt.checkpoint.save(tmp_path / "save", functions)
    assert not (tmp_path / "save").exists()


def test_explicit_folder_that_was_there_stays_and_stays_empty(tmp_path):
    cp = Checkpoint()
    cp.agent = Box({"x": threading.Lock()})
    with pytest.raises(StateError):
        cp.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unsaveable_leaf_of_a_late_shard_leaves_no_trace(tmp_path):
    class Stream(Box):
        def save(self):
            for _ in range(40):
                yield {"x": np.ones(100_000)}
            yield {"x": threading.Lock()}

    cp = Checkpoint(tmp_path, fsync=False)
    cp.replay = Stream()
    with pytest.raises(StateError, match=r"replay.*x"):
        cp.save()
    assert_no_trace(tmp_path)


# Cycles


def cycle_of_list():
    state = [1, np.ones(2)]
    state.append(state)
    return state, lambda loaded: loaded[2] is loaded


def cycle_of_dict():
    state = {"x": np.ones(2)}
    state["self"] = state
    return state, lambda loaded: loaded["self"] is loaded


def cycle_of_two():
    parent, child = {"name": "parent"}, ["child"]
    parent["child"] = child
    child.append(parent)
    return parent, lambda loaded: loaded["child"][1] is loaded


def cycle_through_tuple():
    inner = []
    state = (inner, 1)
    inner.append(state)
    return state, lambda loaded: loaded[0][0] is loaded


def cycle_through_named_tuple():
    inner = []
    state = Pair(inner, {"x": 1})
    inner.append({"back": state})
    return state, lambda loaded: loaded.first[0]["back"] is loaded


def cycle_of_dataclass():
    state = Point(1)
    state.y = [state]
    return state, lambda loaded: loaded.y[0] is loaded


def cycle_of_deque():
    state = collections.deque([1])
    state.append(state)
    return state, lambda loaded: loaded[1] is loaded


def cycle_of_default_dict():
    state = collections.defaultdict(list)
    state["self"].append(state)
    return state, lambda loaded: loaded["self"][0] is loaded


def cycle_of_ordered_dict():
    state = collections.OrderedDict(a=1)
    state["self"] = {"b": state}
    return state, lambda loaded: loaded["self"]["b"] is loaded


def cycle_of_objects():
    one, two = Node(np.ones(2)), Node()
    one.next, two.next = two, one
    return one, lambda loaded: loaded.next.next is loaded


def cycle_of_object_array():
    state = np.empty(2, object)
    state[0] = {"back": state}
    return state, lambda loaded: loaded[0]["back"] is loaded


def cycle_inside():
    inner = [1]
    inner.append(inner)
    state = {"good": np.arange(3), "again": [inner, inner], "inner": inner}
    return (
        state,
        lambda loaded: (
            loaded["inner"][1] is loaded["inner"]
            and loaded["again"][0] is loaded["inner"]
            and loaded["again"][1] is loaded["inner"]
            and loaded["good"].tolist() == [0, 1, 2]
        ),
    )


def cycle_crossing_another():
    one, two = [], []
    one.extend([one, two])
    two.extend([one, two])
    return (
        {"one": one, "two": two},
        lambda loaded: (
            loaded["one"][0] is loaded["one"] and loaded["one"][1][0] is loaded["one"]
        ),
    )


def cycle_through_shared_array():
    array = np.arange(5)
    inner = {"x": array}
    inner["self"] = inner
    return (
        {"x": array, "inner": inner},
        lambda loaded: (
            loaded["inner"]["self"] is loaded["inner"]
            and loaded["inner"]["x"].tolist() == [0, 1, 2, 3, 4]
            and loaded["inner"]["x"] is loaded["x"]
        ),
    )


CYCLES = [
    *(cycle_of_list, cycle_of_dict, cycle_of_two, cycle_through_tuple),
    *(cycle_through_named_tuple, cycle_of_dataclass, cycle_of_deque),
    *(cycle_of_default_dict, cycle_of_ordered_dict, cycle_of_objects),
    *(cycle_of_object_array, cycle_inside, cycle_crossing_another),
    cycle_through_shared_array,
]


@pytest.mark.parametrize("make", CYCLES)
def test_cycle_comes_back_or_is_an_error_that_names_the_key(tmp_path, make):
    state, is_restored = make()
    cp = Checkpoint(tmp_path, fsync=False)
    cp.agent = Box(state)
    refusal = save_or_refusal(cp)
    if refusal is not None:
        assert "agent" in refusal
        assert_no_trace(tmp_path)
    else:
        cp.agent = Box()
        cp.load()
        assert type(cp.agent.state) is type(state)
        assert is_restored(cp.agent.state)


# Depth


def nest(wrap, depth):
    state = 0
    for _ in range(depth):
        state = wrap(state)
    return state


WRAPS = {
    "list": (lambda inner: [inner], lambda outer: outer[0]),
    "tuple": (lambda inner: (inner,), lambda outer: outer[0]),
    "dict": (lambda inner: {"a": inner}, lambda outer: outer["a"]),
    "named tuple": (lambda inner: Pair(inner, 1), lambda outer: outer.first),
    "dataclass": (lambda inner: Point(inner), lambda outer: outer.x),
    "mixed": (lambda inner: [{"a": (inner,)}], lambda outer: outer[0]["a"][0]),
}


@pytest.mark.parametrize("depth", [600, 5_000, 50_000])
@pytest.mark.parametrize("name", WRAPS)
def test_very_deep_state_comes_back_or_is_a_clear_error(tmp_path, name, depth):
    wrap, unwrap = WRAPS[name]
    cp = Checkpoint(tmp_path, fsync=False)
    cp.agent = Box(nest(wrap, depth))
    refusal = save_or_refusal(cp)
    if refusal is not None:
        assert "agent" in refusal
        assert "deep" in refusal
        assert_no_trace(tmp_path)
    else:
        cp.agent = Box()
        cp.load()
        state = cp.agent.state
        for _ in range(depth):
            state = unwrap(state)
        assert state == 0


def test_deep_linked_objects_come_back_or_are_a_clear_error(tmp_path):
    state = None
    for i in range(20_000):
        node = Node(i)
        node.next = state
        state = node
    cp = Checkpoint(tmp_path, fsync=False)
    cp.agent = Box({"chain": state})
    refusal = save_or_refusal(cp)
    if refusal is not None:
        assert "agent/chain" in refusal
        assert_no_trace(tmp_path)
    else:
        cp.load()
        state = cp.agent.state["chain"]
        for i in reversed(range(20_000)):
            assert state.value == i
            state = state.next


def test_two_hundred_levels_are_no_problem(tmp_path):
    for wrap, _ in WRAPS.values():
        state = nest(wrap, 200 if wrap is not WRAPS["mixed"][0] else 66)
        cp = Checkpoint(tmp_path, fsync=False)
        cp.agent = Box(state)
        cp.save()
        cp.agent = Box()
        cp.load()
        assert_same(state, cp.agent.state)


# Transfer of blame


def test_exception_of_the_component_passes_through_with_its_key(tmp_path):
    class Failing(Box):
        def save(self):
            raise RuntimeError("my own trouble")

    cp = Checkpoint(tmp_path, fsync=False)
    cp.first = Box({"w": np.ones(300_000)})
    cp.agent = Failing()
    with pytest.raises(RuntimeError, match="my own trouble") as caught:
        cp.save()
    assert "agent" in "".join(caught.value.__notes__)
    assert_no_trace(tmp_path)
