"""Weak references and views of dicts point to what they pointed to."""

import collections
import gc
import types
import weakref

from support.twins import differ, reload
from support.worlds import Keyed, Thing, World


def make(name):
    thing = Thing(name=name)
    calls = []
    table = collections.OrderedDict([(name, 1), ("x", 2)])
    return World(
        thing=thing,
        calls=calls,
        ref=weakref.ref(thing),
        proxy=weakref.proxy(thing),
        dead=weakref.ref(Thing()),
        called=weakref.ref(thing, calls.append),
        keys=table.keys(),
        items=table.items(),
        table=table,
        read_only=types.MappingProxyType(table),
    )


def test_references_point_to_what_they_pointed_to():
    old, new = make("a"), make("b")
    held = new.ref, new.keys
    reload(old, new)
    assert differ(old, new) is None
    assert (new.ref, new.keys) == held
    assert new.ref() is new.thing
    assert new.proxy.name == "a"
    assert new.dead() is None
    assert [*new.keys] == ["a", "x"]
    assert new.read_only["a"] == 1


def test_references_are_made_where_there_are_none():
    new = reload(make("a"), World(thing=Thing(name="b")))
    assert new.ref() is new.thing
    assert new.proxy.name == "a"
    assert new.dead() is None
    assert [*new.items] == [("a", 1), ("x", 2)]
    del new.thing
    gc.collect()
    assert new.ref() is None
    assert new.calls == [new.called]


def test_a_live_reference_that_was_dead_when_it_was_saved_is_dead():
    new = World(thing=Thing(), dead=weakref.ref(Thing))
    reload(World(thing=Thing(), dead=weakref.ref(Thing())), new)
    assert new.dead() is None


def test_weak_containers_come_back():
    def make(name):
        things = [Keyed(name), Keyed(name + "b")]
        values = weakref.WeakValueDictionary({"x": things[0]})
        keys = weakref.WeakKeyDictionary({things[1]: [name]})
        return World(
            things=things, set=weakref.WeakSet(things), values=values, keys=keys
        )

    old, new = make("a"), make("c")
    reload(old, new)
    assert differ(old, new) is None
    assert new.things[0] in new.set
    assert new.values["x"] is new.things[0]
    assert new.keys[new.things[1]] == ["a"]
    new.things.pop()
    gc.collect()
    assert len(new.set) == 1
    assert len(new.keys) == 0
