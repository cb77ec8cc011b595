"""Members of enumerations, locks, sentinels, modules: the live ones."""

import collections
import ctypes
import dataclasses
import functools
import logging
import math
import sys
import threading

import pytest

from elementsckpt.environments import families, snapshots

from support import worlds
from support.twins import reload
from support.worlds import NOTHING, UNSET, Color, Rights, Thing, World


@pytest.mark.parametrize(
    "member", [Rights.READ | Rights.RUN, Rights(0), Rights.WRITE, Color.BLUE]
)
def test_members_of_enumerations_are_one(member):
    assert reload(World(a=member), World(a=None)).a is member
    assert reload(World(a=member), World(a=Rights.READ)).a is member


def test_sentinels_are_those_of_their_modules():
    old = World(a=UNSET, b=NOTHING, thing=Thing(), own=object())
    env = reload(old, World(a=1, b=2))
    assert env.a is worlds.UNSET
    assert env.b is worlds.NOTHING
    assert type(env.own) is object


def test_modules_classes_and_loggers_are_the_live_ones():
    logger = logging.getLogger("environment")
    held = {"module": math, "cls": Thing, "logger": logger, "field": dataclasses.field}
    env = World(**held)
    reload(World(**held), env)
    assert vars(env) == held
    assert reload(World(types=[Thing, int]), World(x=Thing())).types == [Thing, int]


def test_local_classes_are_told_apart():
    class One:
        pass

    class Two:
        pass

    data = snapshots.capture(World(cls=One, one=One()))
    env = World(cls=One, one=One())
    snapshots.restore(env, data)
    assert env.cls is One
    with pytest.raises(families.Unfit, match="One was saved, and here is a type"):
        snapshots.restore(World(cls=Two, one=One()), data)


@pytest.mark.parametrize("kind", [threading.Lock, threading.RLock])
def test_a_lock_that_is_held_is_a_step_under_way(kind):
    env = World(lock=kind())
    live = reload(env, World(lock=kind()))
    assert live.lock.acquire(blocking=False)
    live.lock.release()
    assert reload(env, World()).lock.acquire(blocking=False)
    with env.lock, pytest.raises(families.Refused) as caught:
        snapshots.capture(env)
    assert caught.value.inside == (
        "unwrapped.lock is a lock that is held: a step is under way",
    )
    assert caught.value.remedy == "Save between two steps."


@pytest.mark.parametrize("kind", [threading.Lock, threading.RLock])
def test_a_lock_that_another_thread_holds_is_seen(kind):
    env = World(lock=kind())
    holder = threading.Thread(target=env.lock.acquire)
    holder.start()
    holder.join()
    with pytest.raises(families.Refused, match="a lock that is held"):
        snapshots.capture(env)


@pytest.mark.parametrize("kind", [threading.Lock, threading.RLock])
def test_a_save_takes_no_lock_of_an_environment(kind):
    """An interrupt could leave it held."""
    env, called = World(lock=kind()), []

    def note(_frame, event, function):
        if event == "c_call" and getattr(function, "__self__", None) is env.lock:
            called.append(function.__name__)

    sys.setprofile(note)
    try:
        snapshots.capture(env)
    finally:
        sys.setprofile(None)
    assert not called


def test_conditions_are_of_their_locks():
    env = reload(World(c=threading.Condition()), World(c=threading.Condition()))
    with env.c:
        env.c.notify_all()
    made = reload(World(c=threading.Condition()), World())
    with made.c:
        made.c.notify_all()


def test_what_stands_for_something_outside_is_refused():
    thread = threading.Thread(target=print)
    env = World(thread=thread, queue=collections.deque([iter(())]))
    with pytest.raises(families.Refused) as caught:
        snapshots.capture(env)
    assert caught.value.inside == (
        "unwrapped.thread is a thread",
        "unwrapped.queue[0] is an iterator (tuple_iterator)",
    )


def test_what_pybullet_holds_is_refused(monkeypatch):
    """Its worlds are numbers, which would come back without a word."""
    bullet = type(math)("pybullet")
    monkeypatch.setitem(__import__("sys").modules, "pybullet", bullet)
    snapshots.capture(World(client=0))
    monkeypatch.setattr(worlds, "bullet", bullet, raising=False)
    with pytest.raises(families.Refused) as caught:
        snapshots.capture(World(client=0))
    assert caught.value.inside == (
        "the environment is a support.worlds.World, whose world PyBullet holds",
    )


def test_a_program_s_own_variable_is_no_name_of_an_environment(monkeypatch):
    """Only what has no attributes may be one, and it is looked for in one place."""
    env = World()
    monkeypatch.setattr(worlds, "env", env, raising=False)
    monkeypatch.setattr(worlds, "tile", Thing(), raising=False)
    data = snapshots.capture(World(env=env, tile=worlds.tile))
    monkeypatch.undo()
    live = World(env=World(), tile=Thing())
    held = live.env, live.tile
    snapshots.restore(live, data)
    assert (live.env, live.tile) == held
    assert reload(env, env) is env


def test_a_class_of_a_module_that_is_not_imported_names_nothing(monkeypatch):
    gone = type("Gone", (World,), {"__module__": "gone"})
    monkeypatch.setattr(sys, "tile", Thing(), raising=False)
    data = snapshots.capture(World(gone=gone(), tile=getattr(sys, "tile")))  # noqa: B009
    assert "gone:tile" not in data["#graph"]


def test_objects_without_attributes_are_as_many_as_they_were():
    env = World(tiles=[Thing() for _ in range(2000)])
    found = reload(env, World())
    assert len({*map(id, found.tiles)}) == 2000


def test_a_function_with_a_cache_of_its_own_is_refused():
    """What it returns is found again, or not, wherever it is called."""

    @functools.lru_cache
    def remembered(x):
        return [x]

    snapshots.capture(World(call=remembered))  # It is empty yet.
    remembered(1)
    with pytest.raises(families.Refused) as caught:
        snapshots.capture(World(call=remembered))
    assert caught.value.inside == (
        "unwrapped.call is a function whose cache, of functools, is not in Python",
    )


def test_libraries_in_c_are_refused(monkeypatch):
    library = ctypes.CDLL(None)
    with pytest.raises(families.Refused) as caught:
        snapshots.capture(World(library=library))
    assert caught.value.inside == ("unwrapped.library is a library in C",)
    monkeypatch.setattr("support.worlds.LIBRARY", library, raising=False)
    with pytest.raises(families.Refused) as caught:
        snapshots.capture(World(emulator=140_000))
    assert caught.value.inside == (
        "the environment is a support.worlds.World, of a module that calls a library "
        "in C",
    )
