"""Builtin containers, classes derived from them, and what is hashed in them."""

import collections
import logging
import subprocess
import sys

import pytest

from elementsckpt.environments import families, snapshots

from support.boxes import ROOT
from support.twins import differ, reload
from support.worlds import Keyed, Row, Steps, Thing, World


def both(old, new):
    reload(old, new)
    assert differ(old, new) is None
    return new


def test_an_ordered_dict_comes_in_its_order():
    saved = collections.OrderedDict(a=1, b=2, c=3)
    saved.move_to_end("a")
    live = collections.OrderedDict(a=5, b=6, c=7)
    env = both(World(d=saved), World(d=live))
    assert env.d is live
    assert [*env.d] == ["b", "c", "a"]
    env.d.popitem()
    assert [*env.d] == ["b", "c"]


def test_a_dict_comes_in_its_order_with_the_types_of_its_keys():
    live = {1: "x", "b": 2}
    env = both(World(d={"b": 1, True: 3, 2.0: 4}), World(d=live))
    assert env.d is live
    assert [*map(repr, env.d)] == ["'b'", "True", "2.0"]


def test_keys_are_filled_before_they_are_hashed():
    key = Keyed((1, 2))
    key.owner = {key: "back"}
    holder = {key: "value", "plain": frozenset([key])}
    env = both(World(key=key, d=holder), World(key=Keyed(5), d={Keyed(7): 1}))
    assert env.d[Keyed((1, 2))] == "value"
    assert env.key.owner[env.key] == "back"
    assert env.key in env.d["plain"]


def test_a_live_key_whose_hash_changes_is_found():
    env = World(d={Keyed(1): "a"}, s={Keyed(2)})
    both(World(d={Keyed(3): "b"}, s={Keyed(4)}), env)
    assert env.d[Keyed(3)] == "b"
    assert Keyed(4) in env.s
    assert len(env.d) == len(env.s) == 1


def test_a_tuple_with_attributes_comes_back():
    row = Row((1, [2]))
    row.note = row[1]
    assert both(World(row=row), World(row=Row((0, [0])))).row.note == [2]


def test_a_deque_of_another_length_is_replaced():
    saved = World(d=collections.deque([1, 2], maxlen=2))
    env = both(saved, World(d=collections.deque([5], maxlen=9)))
    assert env.d.maxlen == 2


def test_containers_within_themselves_come_back():
    holder = [1]
    holder.append((holder, {"again": holder}))
    env = both(World(a=holder), World(a=[]))
    assert env.a[1][0] is env.a


@pytest.mark.parametrize("nested", [list, tuple])
def test_depth_is_no_problem(nested):
    made = nested()
    for _ in range(5000):
        made = nested([made, *[[]] * 1])
    env = World(made=made)
    other = reload(env, World())
    for _ in range(5000):
        other.made = other.made[0]
    assert other.made == nested()


def test_a_chain_of_objects_has_short_names():
    first = thing = Thing()
    for _ in range(5000):
        thing.next = Thing(i=bytearray(b"x"))
        thing = thing.next
    data = snapshots.capture(World(first=first))
    assert max(map(len, data)) < 200
    assert sum(map(len, data)) < 1_000_000
    assert differ(World(first=first), reload(World(first=first), World())) is None


SETS = """
import sys; sys.path[:0] = ["tests"]
import logging, pickle; from support.worlds import World
from elementsckpt.environments import snapshots
env = World(s={"a" * i for i in range(20)}, t={1, 2})
if sys.argv[1] == "save":
    pickle.dump(snapshots.capture(env), open(sys.argv[2], "wb"))
else:
    snapshots.restore(env, pickle.load(open(sys.argv[2], "rb")))
"""


def test_a_set_of_text_in_another_order_is_told_of(tmp_path):
    said = []
    for verb, seed in (("save", "1"), ("load", "2"), ("load", "1")):
        command = [sys.executable, "-c", SETS, verb, str(tmp_path / "data")]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        said.append(done.stderr)
    assert said[0] == said[2] == ""
    assert "unwrapped.s is a set that comes in another order here" in said[1]


def test_a_set_that_was_larger_keeps_its_order(caplog):
    caplog.set_level(logging.WARNING)
    large = set(range(0, 4000, 8))
    large -= {*range(64, 4000, 8)}
    both(World(s=large, f=frozenset(large)), World(s={1}, f=frozenset()))
    assert not caplog.records


def test_environments_in_a_list_are_never_made():
    with pytest.raises(families.Unfit) as caught:
        reload(World(envs=[Steps()]), World(envs=[]))
    assert caught.value.inside == (
        "unwrapped.envs[0]: a support.worlds.Steps was saved, and there is none here; "
        "reset() the environment that is here before loading, or make it as it was",
    )


class Config(dict):
    """Its items are its attributes, as in many configurations."""

    def __init__(self, **items):
        super().__init__(items)
        self.__dict__ = self


class Plain(dict):
    """Its items are not its attributes, unless it says so."""


def test_a_dict_whose_attributes_are_its_items_stays_one():
    old = World(a=Config(x=1, y=[2]), b=Config(z=3))
    for env in (World(), World(a=Config(x=5, k=6), b=None)):
        reload(old, env)
        assert env.a == {"x": 1, "y": [2]}
        env.a.x = 7
        env.b["w"] = 8
        assert (env.a["x"], env.b.w) == (7, 8)


def test_a_dict_whose_attributes_are_items_only_here_gets_others():
    old, new = World(a=Plain(x=1)), World(a=Plain(y=2))
    old.a.note = 3
    new.a.__dict__ = new.a
    reload(old, new)
    assert differ(old, new) is None
    assert vars(new.a) == {"note": 3}
