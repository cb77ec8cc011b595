"""Arrays keep their elements, and share memory as they did: in both directions."""

import ctypes

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from elementsckpt.environments import families, snapshots

from support.strategies import PROPERTY
from support.twins import differ, reload
from support.worlds import Thing, World


def both(**attributes):
    """Return a world that was loaded into an empty one."""
    old = World(**attributes)
    new = reload(old, World())
    assert differ(old, new) is None
    return new


def test_an_array_is_filled_in_place():
    env = World(a=np.zeros(3))
    held, view = env.a, env.a[1:]
    reload(World(a=np.arange(3.0)), env)
    assert env.a is held
    assert view.tolist() == [1, 2]


@pytest.mark.parametrize("live", [np.zeros(4), np.zeros(3, np.float32), [0], None])
def test_an_array_of_another_form_is_replaced(live):
    env = World(a=live)
    reload(World(a=np.arange(3.0)), env)
    assert env.a.tolist() == [0, 1, 2]
    assert env.a.dtype == np.float64


def test_what_is_apart_in_the_save_comes_apart():
    """Filled in place, the second would be written over the first."""
    board = np.zeros(4)
    env = World(board=board, piece=board, part=board[1:3])
    old = World(board=np.arange(4.0), piece=np.arange(4.0) + 9, part=np.ones(2))
    reload(old, env)
    assert differ(old, env) is None
    assert env.board is board


def test_what_is_shared_in_the_save_comes_together():
    base = np.arange(6.0)
    old = World(a=base, b=base[2:4], c=base)
    env = World(a=np.zeros(6), b=np.zeros(2), c=np.zeros(6))
    reload(old, env)
    assert differ(old, env) is None
    env.a[2] = 7
    assert env.b[0] == 7


def test_a_view_at_another_offset_is_replaced():
    base, live = np.arange(6.0), np.zeros(6)
    env = World(a=live, b=live[3:5], t=live.reshape(2, 3))
    reload(World(a=base, b=base[1:3], t=base.reshape(3, 2).T), env)
    assert env.a is live
    env.a[1] = 7
    assert (env.b[0], env.t[1, 0]) == (7, 7)


def test_a_view_that_is_where_it_was_stays():
    base, live = np.arange(6.0), np.zeros(6)
    env = World(a=live, b=live[1:3])
    held = env.b
    reload(World(a=base, b=base[1:3]), env)
    assert env.b is held
    assert held.tolist() == [1, 2]


def test_views_of_what_no_attribute_holds_share_memory():
    base = np.arange(20.0)
    env = both(a=base[3:9], b=base[5:15], c=base[14:4:-2])
    env.b[0] = -1
    assert env.a[2] == -1


def test_one_view_is_saved_without_the_rest_of_its_memory():
    data = snapshots.capture(World(a=np.zeros(1 << 20)[:4]))
    assert sum(x.nbytes for x in data.values() if isinstance(x, np.ndarray)) == 32


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5),
        np.zeros((0, 3)),
        np.arange(6).reshape(2, 3).T,
        np.array(["a", "bcd"]),
        np.array(["2020-01-01"], "M8[D]"),
        np.zeros(2, [("x", "<i4"), ("y", ">f8", 2)]),
        np.arange(3).astype(">i2"),
        np.array([1 + 2j]),
        np.broadcast_to(np.arange(3), (2, 3)),
        np.ma.array([1, 2, 3], mask=[0, 1, 0]),
        np.array([[1], "a", None], dtype=object),
        np.asfortranarray(np.array([[1, "a"], [None, 2]], dtype=object)),
    ],
    ids=lambda x: f"{type(x).__name__}-{x.dtype}",
)
def test_each_form_of_array_comes_back(array):
    env = both(a=array)
    assert env.a.flags.writeable == array.flags.writeable


def test_fields_of_records_share_memory():
    records = np.zeros(3, [("a", "i4"), ("b", "f8")])
    env = both(records=records, b=records["b"])
    env.b[1] = 5
    assert env.records["b"][1] == 5


def test_views_of_objects_share_memory():
    held = np.array([Thing(), [1], None], dtype=object)
    env = both(held=held, view=held[::-1])
    env.view[0] = "new"
    assert env.held[2] == "new"


def test_an_array_that_cannot_be_written_to_stays_or_is_replaced():
    def fixed(*values):
        made = np.array(values)
        made.flags.writeable = False
        return made

    env = World(a=fixed(1, 2), b=fixed(3))
    held = env.a, env.b
    reload(World(a=fixed(1, 2), b=fixed(4)), env)
    assert env.a is held[0]
    assert env.b.tolist() == [4]
    assert held[1].tolist() == [3]
    assert not env.b.flags.writeable


def test_views_of_memory_that_no_attribute_holds_stay_the_same_arrays():
    def world():
        odd = np.arange(8.0)[1:-1:2]
        return World(odd=odd, reverse=odd[::-1])

    old, env = world(), world()
    old.odd[:] = 7, 8, 9
    held = env.odd, env.reverse
    reload(old, env)
    assert env.odd is held[0]
    assert env.reverse is held[1]
    assert held[1].tolist() == [9, 8, 7]


def test_an_empty_view_does_not_take_the_place_of_its_array():
    def world():
        held = np.arange(9.0)
        return World(empty=held[5:][:0], held=held)

    env = world()
    held = env.held
    reload(world(), env)
    assert env.held is held


def borrowed():
    return np.frombuffer((ctypes.c_double * 3)(), np.float64)


def test_memory_of_others_is_filled_and_not_replaced():
    data = snapshots.capture(World(a=borrowed()))
    env = World(a=borrowed())
    held = env.a
    snapshots.restore(env, data)
    assert env.a is held
    with pytest.raises(families.Unfit) as caught:
        snapshots.restore(World(a=None), data)
    assert caught.value.inside == (
        "unwrapped.a: its memory belongs to a test_arrays.c_double_Array_3, and there "
        "is no such array here; reset() the environment that is here before loading, "
        "or make it as it was",
    )


def test_memory_of_others_and_of_an_array_are_told_apart():
    data = snapshots.capture(World(a=borrowed()))
    with pytest.raises(families.Unfit, match="its memory belongs to"):
        snapshots.restore(World(a=np.ones(3)), data)
    env = World(a=borrowed())
    held = env.a
    reload(World(a=np.ones(3)), env)
    assert env.a is not held
    assert (held.tolist(), env.a.tolist()) == ([0, 0, 0], [1, 1, 1])


@pytest.mark.torch
def test_an_array_in_the_memory_of_a_tensor_stays_if_it_was_there():
    torch = pytest.importorskip("torch")

    def world(start, *, is_shared):
        tensor = torch.arange(3.0) + start
        array = tensor.numpy()
        return World(a=array if is_shared else array.copy(), tensor=tensor)

    env = world(9, is_shared=True)
    held = env.a
    reload(world(0, is_shared=True), env)
    assert env.a is held
    assert held.tolist() == env.tensor.tolist() == [0, 1, 2]
    reload(world(5, is_shared=False), env)
    env.tensor[0] = -1
    assert env.a.tolist() == [5, 6, 7]
    alone = World(a=torch.arange(3.0).numpy())  # Of a tensor that none else holds.
    held = alone.a
    reload(World(a=np.ones(3, np.float32)), alone)
    assert alone.a is held


@pytest.mark.torch
def test_tensors_are_looked_at_once_for_all_arrays(monkeypatch):
    torch = pytest.importorskip("torch")
    env = World(tensors=[torch.zeros(2) for _ in range(20)])
    env.arrays = [tensor.numpy() for tensor in env.tensors]
    asked, of_tensor = [], torch.Tensor.untyped_storage

    def untyped_storage(tensor):
        asked.append(tensor)
        return of_tensor(tensor)

    monkeypatch.setattr(torch.Tensor, "untyped_storage", untyped_storage)
    snapshots.capture(env)
    assert len(asked) <= 3 * len(env.tensors)


@pytest.mark.torch
def test_an_array_that_torch_has_made_is_an_array_unless_its_tensor_is_there():
    """Stable-Baselines3 keeps the actions of its network, which is none of its own."""
    torch = pytest.importorskip("torch")
    data = snapshots.capture(World(a=torch.arange(3.0).numpy()))
    env = World(a=None)
    snapshots.restore(env, data)
    assert env.a.tolist() == [0, 1, 2]
    tensor = torch.arange(3.0)
    data = snapshots.capture(World(tensor=tensor, a=tensor.numpy()))
    with pytest.raises(families.Unfit, match=r"belongs to a torch\.Tensor"):
        snapshots.restore(World(tensor=tensor, a=None), data)


def test_memory_that_no_array_holds_is_refused_if_it_is_shared():
    memory = bytearray(64)
    c = np.frombuffer(memory, np.uint8, offset=8)
    d = np.frombuffer(memory, np.uint8, count=40)
    with pytest.raises(families.Refused) as caught:
        snapshots.capture(World(c=c, d=d))
    assert caught.value.inside == (
        "unwrapped.d is an array that shares memory with unwrapped.c, which no array "
        "holds",
    )


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(2, [("a", object), ("b", "i4")]),
        np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    ],
)
def test_elements_that_only_pickle_holds_are_refused(array):
    with pytest.raises(families.Refused) as caught:
        snapshots.capture(World(a=array))
    assert caught.value.inside == (
        "unwrapped.a is an array whose elements only pickle holds",
    )


VIEWS = [
    lambda base: base,
    lambda base: base[:],
    lambda base: base[1:4],
    lambda base: base[2:],
    lambda base: base[::2],
    lambda base: base[::-1],
    lambda base: base.reshape(2, 3),
    lambda base: base.reshape(2, 3).T,
    lambda base: base.view(np.int64)[3:],
    lambda base: base[4:4],
    lambda base: base.copy(),
]
PLACES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, len(VIEWS) - 1)), max_size=6
)


def spread(choices, start):
    bases = [np.arange(6.0) + start + 10 * i for i in range(3)]
    return World(arrays=[VIEWS[view](bases[base]) for base, view in choices])


@hypothesis.settings(PROPERTY, max_examples=400)
@hypothesis.given(PLACES, PLACES)
def test_any_memory_is_shared_as_it_was(saved, live):
    old, new = spread(saved, 1), spread(live, 100)
    reload(old, new)
    assert differ(old, new) is None
    for i, pair in enumerate(zip(old.arrays, new.arrays, strict=True)):
        for array in pair:
            array.flat[:] = np.arange(array.size) + 20 * i
    for a, b in zip(old.arrays, new.arrays, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("saved", [True, False])
def test_what_may_be_written_to_may_be_written_to_afterwards(saved, here):
    def world(flag, number):
        array = np.full(3, number)
        array.flags.writeable = flag
        return World(a=array)

    env = world(here, 1)
    reload(world(saved, 1), env)
    assert (env.a.flags.writeable, env.a.tolist()) == (saved, [1, 1, 1])
    env = world(here, 1)
    reload(world(saved, 2), env)
    assert (env.a.flags.writeable, env.a.tolist()) == (saved, [2, 2, 2])
