"""What a save can name runs no code and imports nothing; damage changes nothing."""

import copy
import json
import os
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from elementsckpt import CheckpointError, DamagedError, Environment, MismatchError
from elementsckpt.environments.names import GRAPH

from support.strategies import PROPERTY
from support.twins import differ
from support.worlds import Keyed, More, Point, Rights, Row, Slots, Thing, World, counter


class Closing:
    """Its finalizer does something."""

    def __del__(self):
        CALLS.append(vars(self))


CALLS = []


def state(**attributes):
    return copy.deepcopy(Environment(World(**attributes)).save())


def with_node(data, change):
    """Return a state whose nodes are changed."""
    graph = json.loads(data[GRAPH])
    change(graph)
    return {**data, GRAPH: json.dumps(graph)}


def refused(data, env=None, **attributes):
    """Load what must be refused; return the message."""
    env = World(**attributes) if env is None else env
    with pytest.raises((MismatchError, DamagedError)) as caught:
        Environment(env).load(data)
    assert vars(env) == attributes
    return str(caught.value)


def test_classes_that_are_not_imported_are_named(monkeypatch):
    class Gone:
        pass

    Gone.__module__, Gone.__qualname__ = "lost.module", "Gone"
    data = state(a=Gone(), b=[Gone()])
    said = refused(data)
    assert said == (
        "Cannot load the environment: its classes lost.module.Gone are not imported "
        "here; import the modules that have them. Saved was World, and here is World. "
        "Make it by the code that made the saved one; nothing has changed."
    )
    assert "lost" not in sys.modules


def test_a_module_is_not_imported_for_a_class():
    name = "this"  # Which prints.
    data = with_node(state(a=Thing()), lambda x: x["classes"].append(f"{name}:Zen"))
    data = with_node(data, lambda x: x["nodes"][1].__setitem__(2, 2 - 1 + 1))
    assert "this.Zen" in refused(data)
    assert name not in sys.modules


@pytest.mark.parametrize("name", ["os:system", "posix:system", "builtins:eval"])
def test_functions_that_a_save_names_are_those_of_the_environment(name):
    data = state(reward=np.clip)
    system = ["live", name, "builtins:builtin_function_or_method"]
    data = with_node(data, lambda x: x["nodes"].__setitem__(1, system))
    assert name.replace(":", ".") in refused(data)


@pytest.mark.parametrize("name", ["subprocess:Popen", "numpy:memmap"])
def test_so_are_classes_that_are_called(name):
    import subprocess

    del subprocess
    data = state(factory=Thing)
    graph = ["live", name, "builtins:type"]
    data = with_node(data, lambda x: x["nodes"].__setitem__(1, graph))
    assert name.replace(":", ".") in refused(data)


def test_modules_are_those_of_the_environment():
    data = state(module=os)
    assert "os was saved, and there is none here" in refused(data)
    env = World(module=None, other=os)
    Environment(env).load(data)
    assert vars(env) == {"module": os}


def test_methods_of_what_the_environment_does_not_know_are_not_bound():
    import webbrowser

    browser = webbrowser.GenericBrowser(["rm"])
    data = state(reward=browser.open)
    assert "webbrowser:GenericBrowser.open is not of what is here" in refused(data)


def test_objects_that_can_be_called_or_finalized_are_not_made():
    data = state(a=Closing())
    CALLS.clear()
    assert "test_hostile_saves.Closing was saved" in refused(data)
    assert CALLS == []
    env = World(a=Closing())
    Environment(env).load(data)


def test_a_function_of_other_code_is_refused():
    data = state(reward=lambda x: x + 1)
    said = refused(data, reward=(other := lambda x: x + 2))
    assert other(1) == 3
    assert "reward: tests.environments" in said or "reward: test_hostile" in said
    assert "is another function here. Saved was" in said


def test_a_function_that_is_not_there_is_refused():
    data = state(reward=lambda x: x + 1)
    assert "<lambda> is not here; reset() the environment" in refused(data)


def test_the_graph_of_a_later_form_is_refused():
    data = with_node(state(a=1), lambda x: x.update(version=2))
    assert "The state of an environment is not a valid save" in refused(data)


@pytest.mark.parametrize(
    "node",
    [
        ["list", [[99]]],
        ["list", [[-1]]],
        ["list", [[True]]],
        ["list", [[1, 2]]],
        ["list", {"a": 1}],
        ["list", [{"$list": []}]],
        ["list", [{"$set": [1]}]],
        ["tuple", [[1]]],
        ["dict", [1]],
        ["dict", [[2], 1]],
        ["nothing", 1],
        ["array", ["gone", True, None]],
        ["array", ["#graph", True, None]],
        ["place", [[1], 8, 0, [1], [8], "<f8"]],
        ["place", [[0], 8, 0, [1], [8], "<f8"]],
        ["objects", [[1 << 62, 4], "C", []]],
        ["objects", [[3], "C", [1]]],
        ["deque", [[], []]],
        ["deque", [-1, [1, 2]]],
        ["enum", "READ", None, 0],
        ["bits", "#graph", "PCG64", None],
        ["bits", "#graph", "Nothing", None],
        ["seed", 1, {"$tuple": []}, 1 << 40, 0],
        ["random", "#graph", 0, {}],
        ["cell", [9]],
        ["method", None, "system", None],
        ["bound", None, "system"],
        ["bound", "text", "__class__"],
        ["lock", 9],
        ["of dict", 99, None],
        ["of dict", 0, "text"],
        ["proxy", 1],
        ["part", "#graph", 0, None],
        ["partial", [None, None, None]],
        ["object", None, 99, {}],
        ["object", None, -1, {}],
        ["object", None, 0, []],
        [],
        [1],
    ],
)
def test_a_node_that_is_none_is_refused(node):
    data = with_node(state(a=[]), lambda x: x["nodes"].__setitem__(1, node))
    data = with_node(data, lambda x: x["nodes"].append(["list", []]))
    refused(data, a=None)


def test_a_place_outside_of_the_memory_is_refused():
    base = np.arange(6.0)
    data = state(base=base, view=base[2:4])
    for offset, count, stride in ((-8, 2, 8), (0, 7, 8), (40, 2, 8), (0, 2, -8)):

        def change(graph, offset=offset, count=count, stride=stride):
            place = next(x for x in graph["nodes"] if x[0] == "place")
            place[1][2:5] = offset, [count], [stride]

        assert "a place outside of the memory" in refused(with_node(data, change))


def lively():
    up, read = counter(3)
    row = Row((1, [2]))
    row.note = 1
    thing, slots = Thing(up=up, read=read), More()
    slots.a, slots.z = thing, 2
    base = np.arange(9.0)
    return World(
        base=base,
        view=base[1:5],
        row=row,
        thing=thing,
        s=slots,
        keys={Keyed((1, 2)): thing},
        set={Keyed(3)},
        point=Point(1, [2]),
        rng=np.random.default_rng(3),
        bound=thing.method,
        dot=...,
        rights=Rights.READ | Rights.RUN,
        objects=np.array([slots, 1], object),
        plain=Slots(),
        env=None,
    )


BASE = copy.deepcopy(Environment(lively()).save())
VALUES = st.sampled_from(
    [
        *(None, True, -1, 0, 3, 1 << 70, "x", [], [0], [1], [3], [999], {}),
        *({"$int": "zz"}, {"$tuple": [[1]]}, {"$leaf": "base"}, ["list", []]),
        *("#graph", "unwrapped/base"),
    ]
)


def places(value, path=()):
    """Yield the path to each value in a document."""
    yield path
    items = []
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield from places(item, (*path, key))


PLACES = [path for path in places(json.loads(BASE[GRAPH])) if path]


@hypothesis.settings(PROPERTY, max_examples=400)
@hypothesis.given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1))
def test_a_changed_graph_is_loaded_or_refused_as_a_whole(changes):
    graph = json.loads(BASE[GRAPH])
    for path, value in changes[:3]:
        try:
            target = graph
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = copy.deepcopy(value)
        except (TypeError, IndexError, KeyError):
            pass
    env, like = lively(), lively()
    try:
        Environment(env).load({**BASE, GRAPH: json.dumps(graph)})
    except CheckpointError:
        assert differ(env, like) is None


@hypothesis.settings(PROPERTY, max_examples=100)
@hypothesis.given(st.sampled_from(sorted(BASE)), st.integers(0, 5))
def test_a_changed_leaf_is_loaded_or_refused_as_a_whole(name, way):
    ways = [None, np.zeros((3, 3)), np.array([1], object), b"", [1], "text"]
    env, like = lively(), lively()
    try:
        Environment(env).load({**BASE, name: ways[way]})
    except CheckpointError:
        assert differ(env, like) is None


@pytest.mark.parametrize("text", ["", "{}", "[" * 100_000, "[]", '{"version": 1}'])
def test_a_text_that_is_no_graph_is_refused(text):
    env = lively()
    with pytest.raises(DamagedError):
        Environment(env).load({**BASE, GRAPH: text})
    assert differ(env, lively()) is None
