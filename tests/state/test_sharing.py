"""What several pickled leaves of a component hold, or one and the state, stays one."""

import collections
import importlib
import itertools
import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import elementsckpt
from elementsckpt import Checkpoint

from support.boxes import Box
from support.strategies import PROPERTY, Pair, Point, round_trip


class Holder:
    """An object of no kind that the format knows."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Registry(dict):
    pass


def closure(number):
    def add(amount):
        nonlocal number
        number += amount
        return number

    return add


def objects_array():
    array = np.empty(2, object)
    array[:] = [[1], "text"]
    return array


OBJECTS = {
    "object": lambda: Holder(x=1),
    "list": lambda: [1, 2],
    "empty list": list,
    "dict": lambda: {"a": 1},
    "set": lambda: {1, 2},
    "bytearray": lambda: bytearray(b"ab"),
    "deque": lambda: collections.deque([1], 3),
    "defaultdict": lambda: collections.defaultdict(list, a=[1]),
    "subclass of dict": lambda: Registry(a=1),
    "tuple of lists": lambda: ([1], [2]),
    "array": lambda: np.arange(3),
    "array of objects": objects_array,
    "generator": lambda: np.random.default_rng(0),
    "lambda": lambda: lambda x: x,
    "closure": lambda: closure(1),
    "dataclass": lambda: Point([1]),
}


def is_one(first, second):
    return first is second or (
        isinstance(first, np.ndarray) and np.shares_memory(first, second)
    )


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_in_two_pickled_leaves_comes_back_as_one(tmp_path, name, background):
    shared = OBJECTS[name]()
    cp = Checkpoint(tmp_path, fsync=False, background=background)
    cp.box = Box({"a": Holder(x=shared), "b": [Holder(deep={"y": [shared]})]})
    cp.save()
    assert cp.wait() is None or background
    cp.load()
    loaded = cp.box.state
    assert type(loaded["a"].x) is type(shared)
    assert is_one(loaded["a"].x, loaded["b"][0].deep["y"][0])


PLAIN = ("array", "list", "empty list", "dict", "set", "bytearray", "deque")
PLAIN += ("defaultdict", "tuple of lists", "generator", "dataclass")


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", PLAIN)
def test_what_is_in_the_state_and_in_a_pickled_leaf_comes_back_as_one(name, turned):
    shared = OBJECTS[name]()
    state = {"odd": Holder(x=[shared]), "plain": {"y": shared}, "other": Holder(z=3)}
    if turned:
        state = dict(reversed(state.items()))
    loaded = round_trip(state, own=True)
    assert type(loaded["plain"]["y"]) is type(shared)
    assert is_one(loaded["odd"].x[0], loaded["plain"]["y"])


WAYS = {
    "regex": {"regex": ".*"},
    "not strict": {"strict": False},
    "rename": {"rename": {"^other/": "other/"}},
    "cast, mapped": {"cast": True, "mmap": True},
}


def sharing(shared, rest):
    return {"odd": Holder(x=[shared]), "plain": {"y": shared}, "rest": rest}


def ordered():
    made = collections.OrderedDict(a=np.ones(2))
    made.note = [1]
    return made


PARTS = {
    "large array": lambda: np.zeros(1 << 18),  # With blocks of its own.
    "ordered": ordered,
    "view": lambda: np.arange(9.0)[2:5],
    "weak of jax": lambda: jnp.full(2, 1.0),
    "of jax": lambda: jnp.ones(2, jnp.float16),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [*PLAIN, *PARTS])
def test_what_is_in_the_state_and_in_a_pickled_leaf_is_one_in_a_part(name, way):
    made = {**OBJECTS, **PARTS}[name]
    state, current = (sharing(made(), np.full(2, n)) for n in (1, 2))
    loaded = round_trip(state, own=True, into=current, **WAYS[way])
    assert loaded["rest"].tolist() == [1, 1]
    assert type(loaded["plain"]["y"]) is type(made())
    assert loaded["plain"]["y"] is not current["plain"]["y"]
    assert is_one(loaded["odd"].x[0], loaded["plain"]["y"])


@pytest.mark.torch
@pytest.mark.parametrize("way", WAYS)
def test_a_tensor_in_the_state_and_in_a_pickled_leaf_is_one_in_a_part(way):
    torch = pytest.importorskip("torch")

    def state(n):
        tensor = torch.full((2, 3), float(n))
        parameter = torch.nn.Parameter(torch.full((1 << 18,), float(n)))
        return sharing(tensor, 0) | {"p": parameter, "q": Holder(p=parameter)}

    loaded = round_trip(state(1), own=True, into=state(2), **WAYS[way])
    assert loaded["odd"].x[0] is loaded["plain"]["y"]
    assert loaded["q"].p is loaded["p"]
    assert loaded["p"].eq(1).all()


def test_what_a_part_cannot_share_is_apart():
    def state(dtype, n):
        return sharing(np.full(3, n, dtype), 0) | {"more": [np.full(2, n)]}

    loaded = round_trip(
        state(np.float32, 1), own=True, into=state(np.float64, 2), cast=True
    )
    assert loaded["plain"]["y"].dtype == np.float64
    assert loaded["odd"].x[0].dtype == np.float32
    loaded["plain"]["y"] += 1
    assert loaded["odd"].x[0].tolist() == [1, 1, 1]


def test_an_array_of_jax_shares_no_memory_with_one_in_a_pickle():
    state = sharing(np.ones(16, np.float32), 0)
    current = sharing(jnp.zeros(16, jnp.float32), 0)
    loaded = round_trip(state, own=True, into=current, strict=False)
    loaded["odd"].x[0] += 1
    assert loaded["plain"]["y"].tolist() == [1] * 16


def test_a_generator_that_two_draw_from_goes_on_as_one():
    rng = np.random.default_rng(0)
    state = {"rng": rng, "env": Holder(rng=rng), "other": Holder(rng=rng)}
    loaded = round_trip(state, own=True)
    drawn = [loaded["rng"], loaded["env"].rng, loaded["other"].rng]
    assert [x.random() for x in drawn] == [rng.random() for _ in range(3)]


def test_the_spaces_of_a_vector_environment_stay_those_of_its_environments():
    gymnasium = pytest.importorskip("gymnasium")

    def make():
        return gymnasium.make("CartPole-v1")

    envs = gymnasium.vector.SyncVectorEnv([make] * 3)
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    assert envs.single_action_space is envs.envs[0].action_space
    state = {"space": envs.single_action_space, **vars(envs)}
    for held in (state, dict(reversed(state.items())), vars(envs)):
        loaded = round_trip(held, own=True)
        assert loaded["single_action_space"] is loaded["envs"][0].action_space
        state_of = [env.unwrapped.state for env in loaded["envs"]]
        np.testing.assert_array_equal(state_of, [x.unwrapped.state for x in envs.envs])


# Many, in each other, in circles


def test_each_leaf_shares_with_each_what_it_did():
    shared = {
        group: [group]
        for size in range(2, 5)
        for group in itertools.combinations("abcd", size)
    }
    state = {
        name: Holder(**{"".join(x): value for x, value in shared.items() if name in x})
        for name in "abcd"
    }
    loaded = round_trip(state, own=True)
    for group in shared:
        found = [getattr(loaded[name], "".join(group)) for name in group]
        assert all(item is found[0] for item in found)
    assert found[0] == [tuple("abcd")]


def test_a_leaf_that_another_leaf_holds_is_that_leaf():
    agent = Holder(w=np.ones(2))
    env = Holder(agent=agent)
    for state in ({"agent": agent, "env": env}, {"env": env, "agent": agent}):
        loaded = round_trip(state, own=True)
        assert loaded["env"].agent is loaded["agent"]


def test_leaves_that_hold_each_other_do_again():
    agent, env, both = Holder(), Holder(), []
    agent.env, env.agent, agent.me = env, agent, agent
    agent.both = env.both = both
    both += [agent, env, both]
    loaded = round_trip({"agent": agent, "env": env, "third": Holder(x=both)}, own=True)
    agent, env = loaded["agent"], loaded["env"]
    assert agent.env is env
    assert env.agent is agent.me is agent
    assert agent.both is env.both is loaded["third"].x
    assert agent.both[0] is agent
    assert agent.both[2] is agent.both


def test_a_chain_of_leaves_is_as_long_as_it_was():
    chain, last = {}, None
    for number in range(1500):  # Deeper than Python recurses.
        last = chain[f"n{number}"] = Holder(next=last, number=number)
        if number % 40 == 39:
            last = None
    loaded = round_trip(chain, own=True)
    for number in range(1, 1500):
        expected = loaded[f"n{number - 1}"] if number % 40 else None
        assert loaded[f"n{number}"].next is expected


def test_a_container_that_holds_the_leaf_itself_is_a_copy_in_it():
    """As the limits in the README say; nothing else of it is lost."""
    state = {"w": np.ones(2), "deep": {"x": [1]}}
    state["odd"] = Holder(state=state, deep=state["deep"])
    state["more"] = {"odd": Holder(parent=state["odd"])}
    loaded = round_trip(state, own=True)
    copied = loaded["odd"].state
    assert copied is not loaded
    assert copied["w"] is loaded["w"]
    assert copied["odd"] is loaded["odd"]
    assert copied["deep"] is loaded["deep"] is loaded["odd"].deep
    assert loaded["more"]["odd"].parent is loaded["odd"]


def test_two_leaves_each_in_a_container_that_the_other_holds():
    left, right = {"n": [1]}, {"n": [2]}
    left["odd"], right["odd"] = Holder(other=right), Holder(other=left)
    loaded = round_trip({"left": left, "right": right}, own=True)
    assert loaded["left"]["odd"].other["n"] is loaded["right"]["n"]
    assert loaded["right"]["odd"].other["n"] is loaded["left"]["n"]
    assert loaded["left"]["odd"].other["odd"] is loaded["right"]["odd"]


def assert_alike(first, second):
    """Compare two graphs of objects: what is one in the one is one in the other."""
    there, back = {}, {}
    stack = [(first, second)]
    while stack:
        one, other = stack.pop()
        assert type(one) is type(other)
        if isinstance(one, str | int):
            assert one == other
            continue
        is_known = id(one) in there
        assert there.setdefault(id(one), other) is other
        assert back.setdefault(id(other), one) is one
        if is_known:
            continue
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other)
            continue
        children = [
            list(vars(x).values()) if isinstance(x, Holder) else _items(x)
            for x in (one, other)
        ]
        stack += zip(*children, strict=True)


def _items(value):
    return list(value.values()) if isinstance(value, dict) else list(value)


KINDS = (Holder, list, dict, Registry, np.ndarray)


def linked(kinds, edges):
    """Return objects of these kinds that hold each other."""
    made = [np.array([n]) if x is np.ndarray else x() for n, x in enumerate(kinds)]
    for number, (source, target) in enumerate(edges):
        one, other = made[source % len(made)], made[target % len(made)]
        if isinstance(one, Holder):
            setattr(one, f"x{number}", other)
        elif isinstance(one, dict):
            one[f"x{number}"] = other
        elif isinstance(one, list):
            one.append(other)
    return made


numbers = st.integers(0, 11)


@PROPERTY
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=12),
    edges=st.lists(st.tuples(numbers, numbers), max_size=30),
    held=st.lists(numbers, min_size=1, max_size=6),
)
def test_any_graph_in_pickled_leaves_comes_back_as_it_was(kinds, edges, held):
    made = linked(kinds, edges)
    state = [Holder(x=made[number % len(made)]) for number in held]
    assert_alike(state, round_trip(state, own=True))


@PROPERTY
@given(
    kinds=st.lists(st.sampled_from([list, dict, np.ndarray]), min_size=1, max_size=6),
    edges=st.lists(st.tuples(numbers, numbers), max_size=12),
    held=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6),
    order=st.permutations(["plain", "odd"]),
)
def test_any_containers_in_state_and_leaves_come_back_as_they_were(
    kinds, edges, held, order
):
    count = len(kinds)
    downwards = [(x % count, y % count) for x, y in edges if x % count > y % count]
    made = linked(kinds, downwards)
    odd = [Holder(x=made[x % count], y=[made[y % count]]) for x, y in held]
    both = {"plain": made, "odd": odd}
    state = {name: both[name] for name in order}
    assert_alike(state, round_trip(state, own=True))


# Leaves stay apart otherwise


def pickled(folder):
    """Return the entries of the pickled leaves of the only component of a save."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (component,) = manifest["components"]
    (tree,) = component["trees"]
    return [leaf for leaf in tree["leaves"] if leaf["kind"] == "pickle"]


def test_reports_name_the_leaves_and_not_what_they_share(tmp_path):
    shared = [np.ones(3)]
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box({"a": Holder(x=shared), "b": Holder(x=shared), "c": shared[0]})
    assert sorted(cp.save().pickled) == ["box/a", "box/b"]
    assert sorted(cp.load().loaded) == ["box/a", "box/b", "box/c"]
    assert cp.load(regex="a").loaded == ("box/a",)
    assert elementsckpt.read(tmp_path, regex="c")["box"]["c"].sum() == 3
    assert elementsckpt.read(tmp_path)["box"].keys() == {"c"}
    other = Checkpoint()
    other.box = Box({})
    with pytest.raises(elementsckpt.PickleError, match=r"box/[ab] was saved"):
        other.load(tmp_path)


def test_what_leaves_do_not_share_makes_no_more_leaves(tmp_path):
    dtype, text = np.dtype("f4"), "some text"
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box(
        [Holder(cls=Holder, dtype=dtype, text=text, f=len, t=(1, 2)) for _ in range(3)]
    )
    folder = cp.save().path
    assert sum(len(leaf["names"]) for leaf in pickled(folder)) == 3


@pytest.mark.parametrize("name", ["a", "b"])
def test_one_leaf_loads_without_the_other(tmp_path, monkeypatch, name):
    source = tmp_path / "module_that_goes.py"
    source.write_text("class Gone:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("module_that_goes")
    shared = [1, {"x": np.ones(2)}]
    odd = module.Gone()
    odd.x = shared
    state = {name: Holder(x=shared), "gone": odd}
    cp = Checkpoint(tmp_path / "run", fsync=False)
    cp.box = Box(dict(sorted(state.items(), reverse=name == "a")))
    cp.save()
    monkeypatch.delitem(sys.modules, "module_that_goes")
    source.unlink()
    importlib.invalidate_caches()
    cp.box = Box({name: Holder(), "gone": 3})
    with pytest.raises(elementsckpt.PickleError, match="box/gone cannot be unpickled"):
        cp.load()
    assert cp.load(regex=f"{name}$").loaded == (f"box/{name}",)
    assert cp.box.state[name].x[0] == 1
    assert cp.box.state["gone"] == 3


def test_leaves_that_are_selected_together_share(tmp_path):
    shared, plain = [1], {"p": [2]}
    state = {"a": Holder(x=shared), "b": Holder(x=shared, y=plain), "plain": plain}
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box({**state, "c": Holder(x=shared)})
    cp.save()
    cp.box = Box({"a": Holder(), "b": Holder(), "c": 0, "plain": plain})
    cp.load(regex="[ab]$")
    loaded = cp.box.state
    assert loaded["a"].x is loaded["b"].x
    assert loaded["b"].y == plain
    assert loaded["plain"] is plain  # Which was not selected.
    found = elementsckpt.read(tmp_path, regex="[ab]$", allow_pickle=True)["box"]
    assert found["a"].x is found["b"].x
    assert set(found) == {"a", "b"}


def test_a_leaf_that_does_not_change_is_not_written_again(tmp_path):
    shared = ["s" * 10]
    text = np.random.default_rng(0).bytes(2_000_000).hex()
    large, small = Holder(x=shared, text=text), Holder(x=shared, n=0)
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box({"large": large, "small": small})
    assert cp.save().bytes_total > 4_000_000
    for small.n in range(3):
        assert cp.save().bytes_written < 10_000
    cp.load()
    assert cp.box.state["large"].x is cp.box.state["small"].x


def test_leaves_of_a_value_share(tmp_path):
    shared = [1]
    cp = Checkpoint(tmp_path, fsync=False)
    cp.state = elementsckpt.Value({"a": Holder(x=shared), "b": [Holder(x=shared)]})
    cp.save()
    cp.load()
    loaded = cp.state.value
    assert loaded["a"].x is not shared
    assert loaded["a"].x is loaded["b"][0].x


def test_shards_share_within_themselves():
    class Stream(Box):
        def save(self):
            for number in range(3):
                shared = [number]
                yield {"a": Holder(x=shared), "b": Holder(x=shared)}

        def load(self, data):
            super().load(list(data))

    cp, box = Checkpoint(), Stream()
    cp.box = box
    for shard in _streamed(cp):
        assert shard["a"].x is shard["b"].x


def _streamed(cp):
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        cp.save(f"{directory}/save")
        cp.load(f"{directory}/save", allow_pickle=True)
    return cp.box.state


def test_mapped_leaves_share(tmp_path):
    shared = [np.arange(100_000.0)]
    state = {"a": Holder(x=shared), "b": Holder(x=shared)}
    loaded = round_trip(state, own=True, mmap=True, compress=None)
    assert loaded["a"].x is loaded["b"].x
    assert loaded["a"].x[0][-1] == 99_999


# Forged references


@pytest.mark.parametrize(
    "parts", [[[1], [0]], [[0], []], [[-1], []], [[99], []], [[-99], []]]
)
def test_references_that_lead_nowhere_or_in_circles_are_damage(tmp_path, parts):
    from support.folders import forge

    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box([Holder(a=1), Holder(b=2)])
    folder = cp.save().path

    def change(manifest):
        (tree,) = manifest["components"][0]["trees"]
        (group,) = tree["leaves"]
        assert group["names"] == ["0", "1"]
        group["value"] = parts

    forge(folder, change)
    with pytest.raises(elementsckpt.DamagedError):
        cp.load(folder)


def test_a_pair_keeps_its_class_in_the_state_and_in_a_leaf(tmp_path):
    pair = Pair([1], {"x": 2})
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box({"plain": pair, "odd": Holder(x=pair)})
    cp.save()
    cp.load()
    loaded = cp.box.state
    assert type(loaded["odd"].x) is Pair
    assert loaded["odd"].x is loaded["plain"]
    looked = elementsckpt.read(tmp_path, allow_pickle=True)["box"]
    assert looked["plain"] == {"first": [1], "second": {"x": 2}}
    assert looked["odd"].x == pair
    assert type(looked["odd"].x) is Pair
