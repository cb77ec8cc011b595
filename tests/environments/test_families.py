"""The seam: what a module of a library, or `parts=`, says of objects of a type."""

import sys
import types

import numpy as np
import pytest

from elementsckpt.environments import families, snapshots
from elementsckpt.environments.families import Part, Parts, Refused, Unfit

from support.worlds import Thing, World


class Engine:
    """Its state is not in Python, as far as anything here knows."""

    __slots__ = ("_value",)

    def __init__(self, value):
        self._value = value


class Turbo(Engine):
    pass


class Host(Thing):
    """With attributes, and with something that is saved in another way."""


@pytest.fixture
def family(monkeypatch):
    """Return the parts of a family, and what was called."""
    calls = []

    def save(live):
        calls.append(("save", live._value))
        return {"value": np.array([live._value])}

    def check(live, data):
        calls.append(("check", live._value))
        if data["value"][0] < 0:
            raise Unfit("saved below zero", inside=["worker 1: that is so"])

    def load(live, data):
        calls.append(("load", live._value))
        live._value = int(data["value"][0])

    module = types.ModuleType("elementsckpt.environments.motor")
    module.PARTS = {"motor:Engine": Part(save, load, check)}
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(families.LIBRARIES, "motor", "motor")
    library = types.ModuleType("motor")
    library.Engine = Engine
    monkeypatch.setitem(sys.modules, "motor", library)
    return module.PARTS, calls


def test_a_family_saves_checks_and_loads(family):
    _, calls = family
    env = World(engine=Engine(1))
    data = snapshots.capture(World(engine=Engine(5)))
    assert data["unwrapped/engine"] == {"value": 5}
    engine = env.engine
    snapshots.restore(env, data)
    assert env.engine is engine
    assert engine._value == 5
    assert calls == [("save", 5), ("check", 1), ("load", 1)]


def test_a_family_is_found_only_if_its_library_is_imported(family, monkeypatch):
    monkeypatch.delitem(sys.modules, "motor")
    data = snapshots.capture(World(engine=Engine(5)))
    assert "unwrapped/engine" not in data  # It has slots.


def test_nothing_is_loaded_if_a_check_fails(family):
    _, calls = family
    data = snapshots.capture(World(a=Engine(1), b=Engine(-1), x=1))
    env = World(a=Engine(2), b=Engine(3), x=2)
    with pytest.raises(Unfit) as caught:
        snapshots.restore(env, data)
    assert caught.value.inside == (
        "unwrapped.b: saved below zero",
        "worker 1: that is so",
    )
    assert (env.a._value, env.b._value, env.x) == (2, 3, 2)
    assert "load" not in dict(calls)


def test_what_a_family_refuses_is_in_the_one_error(family):
    parts, _ = family

    def save(live):
        if live._value:
            raise Refused("an Engine that runs", remedy="Stop it.")
        raise Refused(inside=["worker 2: unwrapped.x is a socket"])

    parts["motor:Engine"] = Part(save, None)
    with pytest.raises(Refused) as caught:
        snapshots.capture(World(a=Engine(1), b=Engine(0), c=iter([])))
    assert caught.value.inside == (
        "unwrapped.a is an Engine that runs",
        "worker 2: unwrapped.x is a socket",
        "unwrapped.c is an iterator (list_iterator)",
    )
    assert caught.value.remedy.startswith("Stop it. Remove it, give parts=")


def test_an_engine_that_is_not_there_is_refused_or_made(family):
    parts, _ = family
    data = snapshots.capture(World(a=Engine(3)))
    with pytest.raises(Unfit) as caught:
        snapshots.restore(World(a=None), data)
    assert caught.value.inside == (
        "unwrapped.a: a test_families.Engine was saved, and there is none here; "
        "reset() the environment that is here before loading, or make it as it was",
    )
    part = parts["motor:Engine"]
    parts["motor:Engine"] = Part(
        part.save, part.load, make=lambda data: Engine(int(data["value"][0]))
    )
    env = World(a=None)
    snapshots.restore(env, data)
    assert env.a._value == 3


def test_attributes_are_walked_if_a_family_says_so():
    loaded = []

    def load(live, data, given):
        loaded.append((live.a, data, given))

    def save(live, given):
        return {"n": len(given)}

    part = Part(
        *(save, load),
        attributes=True,
        skipped=frozenset({"pipe"}),
        takes_parts=True,
    )
    module = types.ModuleType("elementsckpt.environments.hosts")
    module.PARTS = {f"{__name__}:Host": part}
    sys.modules[module.__name__] = module
    families.LIBRARIES[__name__] = "hosts"
    try:
        given = {Turbo: None}
        host = type("More", (Host,), {})  # A subclass is of the family, too.
        old = World(h=host(a=[1], pipe=iter([])))
        data = snapshots.capture(old, given)
        pipe = iter([1])
        env = World(h=host(a=[2], pipe=pipe, other=3))
        snapshots.restore(env, data, given)
        assert vars(env.h) == {"a": [1], "pipe": pipe}
        assert loaded == [([1], {"n": 1}, given)]
    finally:
        del families.LIBRARIES[__name__], sys.modules[module.__name__]


def test_those_of_lower_rank_are_loaded_first():
    order = []

    def part(rank, name):
        return Part(
            lambda live: {}, lambda live, data: order.append(name), None, None, rank
        )

    types_of = [type(x, (Thing,), {}) for x in "abc"]
    parts = Parts()
    parts._families = {
        cls: part(rank, rank) for cls, rank in zip(types_of, (3, 1, 2), strict=True)
    }
    from elementsckpt.environments import graphs
    from elementsckpt.environments.capturing import Capture
    from elementsckpt.environments.restoring import Restore

    env = World(things=[cls() for cls in types_of])
    data = Capture(parts).run(env)
    found = Restore(graphs.decode(data["#graph"]), data, parts)
    found.check(env)
    found.load()
    assert order == [1, 2, 3]


def test_the_user_s_parts_come_first_and_hold_for_subclasses(family):
    _, calls = family
    saved = []
    given = {Engine: (lambda live: live._value, lambda live, data: saved.append(data))}
    data = snapshots.capture(World(a=Engine(1), b=Turbo(2)), given)
    snapshots.restore(World(a=Engine(1), b=Turbo(2)), data, given)
    assert saved == [1, 2]
    assert calls == []
