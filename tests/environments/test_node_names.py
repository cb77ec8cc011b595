"""Names of leaves, and of objects in errors."""

import numpy as np
import pytest

from elementsckpt.environments import families, snapshots
from elementsckpt.environments.names import GRAPH, chain

from support.worlds import Steps, Thing, World, Wrapper


def leaves(env):
    return {*snapshots.capture(env)} - {GRAPH}


def array():
    return np.zeros(2)


def test_what_wrappers_hold_is_unwrapped():
    inner = World(data=Thing(qpos=array()))
    for env in (inner, Wrapper(inner), Wrapper(Wrapper(inner))):
        assert leaves(env) == {"unwrapped/data/qpos"}
    env = Wrapper(Wrapper(inner, a=array()), b=array())
    assert leaves(env) == {"unwrapped/data/qpos", "env/a", "b"}


def test_so_it_is_in_environments_that_are_held():
    envs = [Wrapper(World(x=array())), World(x=array())]
    env = Wrapper(World(envs=envs, by_name={"a": Wrapper(World(y=1.5))}))
    assert leaves(env) == {
        "unwrapped/envs/0/unwrapped/x",
        "unwrapped/envs/1/unwrapped/x",
        "unwrapped/by_name/a/unwrapped/y",
    }


def test_what_is_no_environment_has_its_attributes():
    assert leaves(Thing(a=array(), b=[{"c": array()}])) == {"a", "b/0/c"}
    assert leaves([array()]) == {"0"}


def test_names_are_never_the_same():
    env = World(**{"a": {"b/c": array(), "b": {"c": array()}}, "a/b": {"c": array()}})
    assert len(leaves(env)) == 3
    env = Thing(**{GRAPH: array()})
    assert len(leaves(env)) == 1
    assert GRAPH not in leaves(env)


def test_numbers_of_environments_have_names():
    env = Wrapper(World(a=1, b=2.5, c=True, d="text", e=None), n=3)
    assert leaves(env) == {"unwrapped/a", "unwrapped/b", "n"}


def test_errors_name_objects_as_code_does():
    def bad():
        return iter([])

    def function(x=None):
        return x

    function.__defaults__ = ([bad()],)

    class Odd:
        def __repr__(self):
            raise ValueError

    env = Wrapper(
        World(
            a=[{"k": bad()}],
            b={(1, 2): bad(), Odd(): bad()},
            c=function,
            d=Thing(e=bad()),
        ),
        f=bad(),
    )
    with pytest.raises(families.Refused) as caught:
        snapshots.capture(env)
    names = {said.partition(" is ")[0] for said in caught.value.inside}
    assert names == {
        *("f", "unwrapped.d.e", "unwrapped.a[0]['k']", "unwrapped.b[(1, 2)]"),
        *("unwrapped.b[Odd]", "unwrapped.c.__defaults__[0][0]"),
    }


def test_chains_show_wrappers_from_the_outside_in():
    assert chain(Steps()) == "Steps"
    assert chain(Wrapper(Wrapper(Steps(), num_envs=3))) == "Wrapper<Wrapper[3]<Steps>>"
    env = Wrapper(None)
    env.env = env
    assert chain(env) == "Wrapper"
