"""Many small JAX arrays load, and other devices get and give them, in few transfers."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elementsckpt
from elementsckpt.kinds import jax_arrays, jax_batches

from support.boxes import make
from support.strategies import assert_same

TYPES = "bool", "int8", "uint16", "int32", "float16", "bfloat16", "float32", "complex64"
FAR = "bool", "int32", "bfloat16", "float32", "complex64"  # Others are compiled alike.


def alike(count, dtype="float32", shape=(3,), seed=0):
    """Return arrays of random bits, NaN of all kinds among them."""
    dtype, rng = jnp.dtype(dtype), np.random.default_rng(seed)
    size = count * int(np.prod(shape))
    most = 2 if dtype.kind == "b" else 256
    bits = rng.integers(0, most, size * dtype.itemsize, np.uint8)
    rows = bits.view(dtype).reshape(count, *shape)
    return [rows[number, ...] for number in range(count)]


def placed(*groups, is_weak=False):
    """Return the JAX arrays that are made of groups of NumPy arrays."""
    made = [list(group) for group in groups]
    jax_arrays.put([jax_batches.Group(arrays, is_weak) for arrays in made])
    return made


def assert_made(groups, made, is_weak=False):
    for group, arrays in zip(groups, made, strict=True):
        for one, other in zip(group, arrays, strict=True):
            assert isinstance(other, jax.Array)
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            assert one.tobytes() == np.asarray(other).tobytes()
            assert other.weak_type is is_weak


@pytest.fixture
def transfers(monkeypatch):
    """Count the arrays that are put on a device or fetched; the rest is forbidden."""
    counts = {"device_put": 0, "device_get": 0}

    def counted(name):
        call = getattr(jax, name)

        def counting(tree, *args, **options):
            counts[name] += len(jax.tree.leaves(tree))
            return call(tree, *args, **options)

        return counting

    for name in counts:
        monkeypatch.setattr(jax, name, counted(name))
    with jax.transfer_guard("disallow"):
        yield counts


@pytest.fixture
def far(monkeypatch):
    """Have JAX arrays taken for those of an accelerator, without their memory."""
    monkeypatch.setattr(jax_batches, "_is_far", lambda array: True)
    monkeypatch.setattr(jax_arrays, "_view", lambda array: None)


@pytest.fixture
def pieces(monkeypatch):
    """Pack eight arrays at a time, which compiles faster, and 64 in all."""
    monkeypatch.setattr(jax_batches, "_PIECE", 8)
    jax_batches._programs.cache_clear()
    yield
    jax_batches._programs.cache_clear()


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(
    ("where", "dtype", "is_weak"),
    [
        *(("here", dtype, False) for dtype in TYPES),
        *(("far", dtype, False) for dtype in FAR),
        *(("here", dtype, True) for dtype in ("int32", "bfloat16")),
        ("far", "int32", True),
    ],
)
def test_arrays_that_are_made_together_have_the_same_bits(
    request, where, dtype, is_weak
):
    counts = 1500, 1100  # Fewer are not made together here.
    if where == "far":
        request.getfixturevalue("far")
        counts = 124, 60  # Of 64 or a few less, as fewer forms are compiled faster.
    groups = [alike(counts[0], dtype), alike(counts[1], dtype, ())]
    groups += [alike(40, dtype, (2, 0))]
    made = placed(*groups, is_weak=is_weak)
    assert_made(groups, made, is_weak)
    if where == "far":
        flat = [x for group in made for x in group]
        fetched = jax_arrays.fetch(flat)
        assert [x.tobytes() for x in fetched] == [np.asarray(x).tobytes() for x in flat]
        assert [x.dtype for x in fetched] == [x.dtype for x in flat]
        assert [x.shape for x in fetched] == [x.shape for x in flat]


def test_no_array_is_put_by_itself_where_there_are_many(transfers):
    groups = [alike(10_000), alike(1000, shape=(2, 2))]
    assert_made(groups, placed(*groups))
    assert transfers["device_put"] <= 20


@pytest.fixture
def weakened(monkeypatch):
    """Count the arrays that are made weakly typed by themselves."""
    weaken, found = jax_arrays.weaken, []
    monkeypatch.setattr(
        jax_arrays, "weaken", lambda array: found.append(array) or weaken(array)
    )
    return found


@pytest.mark.parametrize("where", ["here", "far"])
def test_no_array_becomes_weak_by_itself_where_there_are_many(request, where, weakened):
    if where == "far":
        request.getfixturevalue("far")
    groups = [alike(4800, shape=()), alike(1600, "int32", ())]
    assert_made(groups, placed(*groups, is_weak=True), is_weak=True)
    assert not weakened


@pytest.mark.usefixtures("pieces")
def test_arrays_become_weak_where_jax_compiles_no_such(monkeypatch, weakened):
    monkeypatch.setitem(sys.modules, "jax._src.lax.lax", None)
    jax_batches._same.cache_clear()
    groups = [alike(1500, shape=())]
    assert_made(groups, placed(*groups, is_weak=True), is_weak=True)
    assert len(weakened) == 1500
    jax_batches._same.cache_clear()


def current_like(place, number):
    """Return an array to load into."""
    array = jnp.asarray(np.float32(number))
    committed = jax.device_put(array, jax.devices()[0])
    return {
        "uncommitted": array,
        "committed": committed,
        "weak": jnp.asarray(float(number)),
        "abstract": jax.ShapeDtypeStruct((), np.float32),
        "abstract, placed": jax.ShapeDtypeStruct(
            (), np.float32, sharding=committed.sharding
        ),
    }[place]


COMMITTED = "committed", "abstract, placed"
PLACES = "uncommitted", "weak", "abstract", *COMMITTED


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("where", ["here", "far"])
def test_many_arrays_are_loaded_into_current_ones_in_few_transfers(
    request, tmp_path, transfers, where, place
):
    if where == "far":
        request.getfixturevalue("far")
    saved = alike(1500, shape=())
    with jax.transfer_guard("allow"):
        current = [current_like(place, n) for n in range(1500)]
    elementsckpt.save_pytree(tmp_path / "save", saved)
    transfers["device_put"] = 0
    loaded = elementsckpt.load_pytree(tmp_path / "save", current)
    assert transfers["device_put"] <= 30
    assert_made([saved], [loaded], is_weak=place == "weak")
    assert {x._committed for x in loaded} == {place in COMMITTED}


@pytest.mark.parametrize("place", PLACES)
def test_arrays_are_converted_to_the_current_ones(tmp_path, place):
    saved = list(map(float, range(1500)))
    current = {str(n): current_like(place, n) for n in range(1500)}
    make(tmp_path, {str(n): np.asarray(x) for n, x in enumerate(saved)}).save()
    cp = make(tmp_path, current)
    cp.load(cast=True)
    loaded = list(cp.agent.state.values())
    assert [float(x) for x in loaded] == saved
    assert {x.dtype.name for x in loaded} == {"float32"}


def test_what_jax_refuses_to_make_together_is_made_one_by_one(tmp_path, monkeypatch):
    saved = [np.asarray(n, np.float32) for n in range(1500)]
    elementsckpt.save_pytree(tmp_path / "save", saved)

    def refuse(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(jax_batches, "_make", refuse)
    loaded = elementsckpt.load_pytree(tmp_path / "save", list(map(jnp.asarray, saved)))
    assert [float(x) for x in loaded] == saved


def test_forms_of_which_there_are_few_each_are_made_together(transfers):
    groups = [alike(200, shape=(size,)) for size in range(1, 51)]
    assert_made(groups, placed(*groups))
    assert transfers["device_put"] <= 20


def test_few_and_large_arrays_are_put_as_they_are(transfers):
    groups = [alike(100), alike(1100, shape=(2048,))]
    assert_made(groups, placed(*groups))
    assert transfers["device_put"] == 1200


@pytest.mark.usefixtures("far")
def test_many_small_arrays_cross_over_in_few_transfers(transfers):
    groups = [alike(2000)]
    made = placed(*groups)
    assert transfers["device_put"] <= 4
    flat = [x for group in made for x in group]
    fetched = jax_arrays.fetch(flat)
    assert transfers["device_get"] <= 4
    expected = [x for group in groups for x in group]
    assert [x.tobytes() for x in fetched] == [x.tobytes() for x in expected]


@pytest.mark.usefixtures("far", "pieces")
def test_more_arrays_than_are_packed_into_one_come_in_several(transfers):
    groups = [alike(150, shape=(5, 7))]
    made = placed(*groups)
    assert_made(groups, made)
    assert transfers["device_put"] == 1 + 3  # One tells where the device is.
    fetched = jax_arrays.fetch(made[0])
    assert transfers["device_get"] == 3
    assert [x.tobytes() for x in fetched] == [x.tobytes() for x in groups[0]]


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("where", ["here", "far"])
def test_no_setting_of_jax_changes_what_is_made(request, where):
    if where == "far":
        request.getfixturevalue("far")
    groups = [alike(1500), alike(1500, "bfloat16")]
    with jax.disable_jit(), jax.debug_nans(True), jax.debug_infs(True):
        made = placed(*groups)
    assert_made(groups, made)


def test_arrays_are_refused_where_even_explicit_transfers_are():
    with jax.transfer_guard("disallow_explicit"), pytest.raises(RuntimeError):
        placed(alike(1500))


def test_arrays_are_not_in_memory_that_is_lent():
    rows = np.zeros((2048, 16), np.float32)
    (made,) = placed(list(rows))
    rows[...] = 1
    assert not any(np.asarray(x).any() for x in made)


def test_state_of_many_arrays_comes_back_the_same(tmp_path):
    state = {
        "strong": [jnp.asarray(x) for x in alike(1100)],
        "weak": [jnp.asarray(0.5 * x) for x in range(1100)],
        "keys": list(jax.random.split(jax.random.key(0), 1100)),
        "large": jnp.zeros(5000),
    }
    make(tmp_path, state).save()
    loaded = make(tmp_path)
    loaded.load()
    assert_same(state, loaded.agent.state)
    places = {x.sharding for x in jax.tree.leaves(loaded.agent.state)}
    assert places == {jnp.zeros(1).sharding}
    assert not any(getattr(x, "committed", False) for x in loaded.agent.state["weak"])
