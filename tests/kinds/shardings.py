"""What holds on eight devices; `test_shardings.py` has a process run it that has them.

Each function is a claim. It gets an empty folder.
"""

import json
import pathlib
import sys
import tempfile
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

import elementsckpt
from elementsckpt import (
    Checkpoint,
    MismatchError,
    ReadError,
    Ring,
    Value,
    load_pytree,
    save_pytree,
)
from elementsckpt.kinds import jax_arrays

from support.boxes import Box
from support.faults import use_small_segments

SHAPE = (8, 16)
CONTENT = np.arange(128).reshape(SHAPE)


def mesh(*sizes):
    """Return a mesh of the first devices, its axes called a and b."""
    devices = np.array(jax.devices()[: int(np.prod(sizes))])
    return Mesh(devices.reshape(sizes), ("a", "b")[: len(sizes)])


def over(*sizes, spec):
    return NamedSharding(mesh(*sizes), PartitionSpec(*spec))


def shardings():
    """Return shardings of many kinds, over eight, four, two devices and one."""
    return {
        "rows over 8": over(8, spec=["a"]),
        "columns over 8": over(8, spec=[None, "a"]),
        "tiles over 8": over(2, 4, spec=["a", "b"]),
        "tiles over 8, turned": over(4, 2, spec=["b", "a"]),
        "rows over both axes": over(2, 4, spec=[("a", "b")]),
        "partly replicated": over(2, 4, spec=["b"]),
        "replicated": over(8, spec=[]),
        "rows over 4": over(4, spec=["a"]),
        "tiles over 2": over(2, 1, spec=["a", "b"]),
        "one device": SingleDeviceSharding(jax.devices()[0]),
        "another device": SingleDeviceSharding(jax.devices()[5]),
    }


def tree(sharding, value=0):
    """Return arrays and keys that lie as the sharding says, and loose ones."""
    keys = jax.random.split(jax.random.key(value), 8)
    return {
        "w": jax.device_put(np.float32(CONTENT * value), sharding),
        "half": jax.device_put((CONTENT * value).astype(jnp.bfloat16), sharding),
        "weak": jax.device_put(jnp.full(SHAPE, 1.0 * value), sharding),
        "keys": jax.device_put(jnp.stack([keys] * 16, axis=1), sharding),
        "step": jnp.int32(value),
        "lr": jnp.asarray(0.5 * value),
        "key": jax.random.key(value),
    }


def assert_like(loaded, expected, template):
    """Fail unless all bits are those expected, and lie as in the template."""
    for name, array in loaded.items():
        assert array.sharding == template[name].sharding, name
        assert array._committed == template[name]._committed, name
        assert array.dtype == expected[name].dtype, name
        assert getattr(array, "weak_type", 0) == getattr(expected[name], "weak_type", 0)
        assert content(array) == content(expected[name]), name


def content(array):
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.asarray(jax.device_get(array)).tobytes()


def each(folder, load):
    """Load what was saved with each sharding into each other one, or half of them."""
    for number, (before, saved) in enumerate(shardings().items()):
        path = folder / str(number)
        save_pytree(path, tree(saved, 1), fsync=False)
        for after, sharding in list(shardings().items())[number % 2 :: 2]:
            template = tree(sharding)
            try:
                assert_like(load(path, template), tree(saved, 1), template)
            except Exception as error:
                raise AssertionError(f"{before} to {after}") from error


def load_pytree_puts_leaves_where_the_template_has_them(folder):
    each(folder, load_pytree)


def a_value_puts_leaves_where_its_own_are(folder):
    def load(path, template):
        cp = Checkpoint()
        cp.tree = Value(template)
        cp.load(path)
        return cp.tree.value

    each(folder, load)


def a_load_by_regex_puts_leaves_where_the_current_ones_are(folder):
    def load(path, template):
        cp = Checkpoint()
        cp.tree = Box(template)
        cp.load(path, regex=".*")
        return cp.tree.state

    each(folder, load)


def a_sharded_array_is_an_array_for_numpy(folder):
    save_pytree(folder / "a", tree(over(2, 4, spec=["a", "b"]), 1))
    template = tree(over(8, spec=["a"])) | {"w": np.zeros(SHAPE, np.float32)}
    loaded = load_pytree(folder / "a", template)
    assert type(loaded["w"]) is np.ndarray
    np.testing.assert_array_equal(loaded["w"], CONTENT)
    save_pytree(folder / "b", loaded)
    template = tree(over(8, spec=["a"]))
    assert_like(load_pytree(folder / "b", template), tree(None, 1), template)


def what_is_not_committed_goes_with_what_is(folder):
    @jax.jit
    def step(tree):
        noise = jax.random.normal(tree["key"], SHAPE)
        return tree["w"] * tree["lr"] + tree["step"] + noise

    sharding = over(8, spec=["a"])
    expected = step(tree(sharding, 1))
    save_pytree(folder / "a", tree(sharding, 1))
    cp = Checkpoint()
    cp.tree = Box(tree(sharding))
    cp.load(folder / "a", regex=".*")
    for loaded in (cp.tree.state, load_pytree(folder / "a", tree(sharding))):
        assert step(loaded).sharding == expected.sharding
        np.testing.assert_array_equal(step(loaded), expected)


def what_is_not_committed_stays_on_its_device(folder):
    with jax.default_device(jax.devices()[3]):
        template = {"a": jnp.zeros(3), "key": jax.random.key(0), "weak": jnp.asarray(0)}
    saved = {"a": jnp.ones(3), "key": jax.random.key(1), "weak": jnp.asarray(1)}
    save_pytree(folder / "a", saved)
    loaded = load_pytree(folder / "a", template)
    for name, array in loaded.items():
        assert array.devices() == {jax.devices()[3]}, name
        assert not array._committed, name


def implicit_transfers_are_not_needed(folder):
    sharding = over(2, 4, spec=["a", "b"])
    saved, template = tree(sharding, 1), tree(over(8, spec=[None, "a"]))
    jax.config.update("jax_transfer_guard", "disallow")
    try:
        save_pytree(folder / "a", saved)
        loaded = load_pytree(folder / "a", template)
        cp = Checkpoint()
        cp.tree = Box(template)
        cp.load(folder / "a", regex=".*")
    finally:
        jax.config.update("jax_transfer_guard", "allow")
    assert_like(loaded, saved, template)
    assert_like(cp.tree.state, saved, template)


def abstract_leaves_may_have_shardings(folder):
    save_pytree(folder / "a", tree(over(8, spec=["a"]), 1))
    concrete = tree(over(2, 4, spec=["b", "a"]))
    template = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
        for name, x in concrete.items()
    }
    for name in ("step", "key"):
        template[name] = jax.eval_shape(lambda x: x, concrete[name])
    loaded = load_pytree(folder / "a", template)
    for name, array in loaded.items():
        assert array.sharding == concrete[name].sharding, name
        assert array._committed == (name not in ("step", "key")), name
        assert content(array) == content(tree(None, 1)[name]), name


def abstract_shardings_are_of_the_current_mesh(folder):
    if not hasattr(jax, "set_mesh"):  # Explicit shardings are newer.
        return
    explicit = jax.sharding.AxisType.Explicit
    current = jax.make_mesh((8,), ("a",), axis_types=(explicit,))
    with jax.set_mesh(current):
        array = jax.device_put(np.float32(CONTENT), PartitionSpec("a"))
        save_pytree(folder / "a", {"w": array})
        template = jax.eval_shape(lambda x: {"w": 2 * x}, array)
        loaded = load_pytree(folder / "a", template)["w"]
    assert loaded.sharding.is_equivalent_to(array.sharding, 2)
    np.testing.assert_array_equal(loaded, CONTENT)


def a_sharding_that_does_not_divide_is_named(folder):
    save_pytree(folder / "a", {"w": np.ones(6, np.float32), "n": 1})
    sharding = over(4, spec=["a"])
    template = {"w": jax.ShapeDtypeStruct((6,), np.float32, sharding=sharding), "n": 0}
    cp = Checkpoint()
    cp.state, cp.box = Value(template), Box(template)
    for load in (
        lambda: load_pytree(folder / "a", template),
        lambda: save_and_load(folder / "b", Value({"w": jnp.ones(6), "n": 1}), cp),
        lambda: cp.load(folder / "b", strict=False),
        lambda: cp.load(folder / "b", regex="w"),
    ):
        message = refused(load)
        assert f"/w: saved float32[6], which {sharding} does not divide" in message
        assert message.endswith("Give it a sharding that divides its shape.")
        assert "regex" not in message


def a_place_that_jax_does_not_find_is_named(folder):
    if not hasattr(jax, "set_mesh"):  # Explicit shardings are newer.
        return
    save_pytree(folder / "a", {"w": np.ones(8, np.float32)})
    explicit = jax.sharding.AxisType.Explicit
    with jax.set_mesh(jax.make_mesh((8,), ("a",), axis_types=(explicit,))):
        array = jax.device_put(np.ones(8, np.float32), PartitionSpec("a"))
        template = jax.eval_shape(lambda: {"w": 2 * array})
    message = refused(lambda: load_pytree(folder / "a", template), ReadError)
    assert message.startswith("tree/w cannot be put where the current one is, Named")
    assert "regex" not in message


def refused(load, error=MismatchError):
    """Return what the error says that a load ends with."""
    try:
        load()
    except error as caught:
        return str(caught)
    raise AssertionError("nothing was refused")


def save_and_load(path, value, cp):
    """Save a value as both components of a checkpoint, and load it there."""
    other = Checkpoint()
    other.state, other.box = value, Box(value.value)
    other.save(path)
    cp.load(path, keys=["state"])


def weak_leaves_stay_where_they_were(folder):
    sharding = over(8, spec=["a"])
    template = jax.device_put(jnp.full(SHAPE, 0), sharding)
    assert template.weak_type
    for number, saved in enumerate((np.float32(CONTENT), jnp.full(SHAPE, 0.5))):
        save_pytree(folder / str(number), [saved])
        for leaf in (
            template,
            jax.ShapeDtypeStruct(
                SHAPE, template.dtype, weak_type=True, sharding=sharding
            ),
        ):
            (loaded,) = load_pytree(folder / str(number), [leaf])
            assert loaded.sharding == sharding
            assert loaded.weak_type == getattr(saved, "weak_type", False)
            assert content(loaded) == content(saved)


def weak_types_are_given_without_computing(folder):
    saved = {"w": over(8, spec=["a"]), "v": over(8, spec=[])}
    saved = {
        name: jax.device_put(jnp.full(SHAPE, float("nan")), sharding)
        for name, sharding in saved.items()
    }
    save_pytree(folder / "a", saved)
    jax.config.update("jax_debug_nans", True)
    try:
        loaded = load_pytree(folder / "a", saved)
    finally:
        jax.config.update("jax_debug_nans", False)
    assert_like(loaded, saved, saved)
    half = jnp.ones(SHAPE, jnp.bfloat16)
    assert (loaded["w"] * half).dtype == jnp.bfloat16


def donated_arrays_say_where_the_new_ones_go(folder):
    sharding = over(8, spec=["a"])
    template = tree(sharding)
    save_pytree(folder / "a", tree(sharding, 1))
    step = jax.jit(lambda w: w + 1, donate_argnums=0)
    step(template["w"]).block_until_ready()
    assert template["w"].is_deleted()
    loaded = load_pytree(folder / "a", template)
    assert loaded["w"].sharding == sharding
    np.testing.assert_array_equal(loaded["w"], CONTENT)


def arrays_of_pmap_come_back_as_such(folder):
    step = jax.pmap(lambda x: x + 1)
    save_pytree(folder / "a", {"w": step(np.float32(CONTENT))})
    template = {"w": step(np.zeros(SHAPE, np.float32))}
    loaded = load_pytree(folder / "a", template)["w"]
    assert loaded.sharding == template["w"].sharding
    np.testing.assert_array_equal(loaded, CONTENT + 1)
    np.testing.assert_array_equal(step(loaded), CONTENT + 2)


def what_was_one_array_stays_one_where_it_lies_once(folder):
    sharding = over(8, spec=["a"])
    array = jax.device_put(np.float32(CONTENT), sharding)
    save_pytree(folder / "a", {"a": array, "b": array, "c": array})
    other = jax.device_put(array, jax.devices()[1])
    zeros = [jax.device_put(np.zeros(SHAPE, np.float32), sharding) for _ in range(2)]
    loaded = load_pytree(folder / "a", {"a": zeros[0], "b": other, "c": zeros[1]})
    assert loaded["a"] is loaded["c"]
    assert loaded["b"].devices() == {jax.devices()[1]}
    for array in loaded.values():
        np.testing.assert_array_equal(array, CONTENT)


def ring_buffers_over_devices_are_saved(folder):
    """As if these were accelerators; where rows lie together, new ones are fetched."""
    read, count = jax_arrays._read, [0]

    def counted(values, otherwise):
        count[0] += sum(value.nbytes for value in values)
        return read(values, otherwise)

    with pytest.MonkeyPatch.context() as patch, jax.transfer_guard("disallow"):
        use_small_segments(patch.setattr)
        patch.setattr(jax_arrays, "is_far", lambda value: True)
        patch.setattr(jax_arrays, "_read", counted)
        for number, (name, sharding) in enumerate(shardings().items()):
            rows = np.arange(64 * 512, dtype=np.float32).reshape(64, 512)
            cp = Checkpoint(folder / str(number), fsync=False, compress=None)
            cp.buffer = Box()
            for added, new in ((64, []), (79, range(15))):
                rows[new] = -added
                ring = Ring(jax.device_put(rows.copy(), sharding), added)
                cp.buffer.state, count[0] = ring, 0
                found = elementsckpt.read(cp.save().path)["buffer"]
                assert np.array_equal(found, rows), name
            is_in_parts = "columns" not in name and "tiles over 8" not in name
            assert (count[0] <= 20 * 2048) == is_in_parts, (name, count[0])


def saved(folder, state):
    """Return a checkpoint that has saved a state, with a box to load it into."""
    cp = Checkpoint(folder, fsync=False)
    cp.box = Box(state)
    cp.save()
    cp.box = Box()
    return cp


def many_small_arrays_come_to_the_default_device(folder):
    state = [jnp.full(3, number) for number in range(1100)]
    cp = saved(folder, state)
    device = jax.devices()[3]
    with jax.default_device(device):
        cp.load()
    loaded = cp.box.state
    assert {place for x in loaded for place in x.devices()} == {device}
    assert not any(x._committed for x in loaded)
    assert [x.tolist() for x in loaded] == [x.tolist() for x in state]


def many_small_arrays_stay_on_one_device_where_a_mesh_is_set(folder):
    state = [jnp.full(3, number) for number in range(1100)]
    cp = saved(folder, state)
    with getattr(jax, "set_mesh", lambda mesh: mesh)(mesh(8)):
        cp.load()
        one = jax.device_put(np.zeros(3))
    loaded = cp.box.state
    assert {x.sharding for x in loaded} == {one.sharding}
    assert [x.tolist() for x in loaded] == [x.tolist() for x in state]


CLAIMS = [
    many_small_arrays_come_to_the_default_device,
    many_small_arrays_stay_on_one_device_where_a_mesh_is_set,
    load_pytree_puts_leaves_where_the_template_has_them,
    a_value_puts_leaves_where_its_own_are,
    a_load_by_regex_puts_leaves_where_the_current_ones_are,
    a_sharded_array_is_an_array_for_numpy,
    what_is_not_committed_goes_with_what_is,
    what_is_not_committed_stays_on_its_device,
    implicit_transfers_are_not_needed,
    abstract_leaves_may_have_shardings,
    abstract_shardings_are_of_the_current_mesh,
    a_sharding_that_does_not_divide_is_named,
    a_place_that_jax_does_not_find_is_named,
    weak_leaves_stay_where_they_were,
    weak_types_are_given_without_computing,
    donated_arrays_say_where_the_new_ones_go,
    arrays_of_pmap_come_back_as_such,
    what_was_one_array_stays_one_where_it_lies_once,
    ring_buffers_over_devices_are_saved,
]


def main():
    """Print, as JSON, what is wrong with each claim, "" if nothing is."""
    assert len(jax.devices()) == 8
    results = {}
    for claim in CLAIMS:
        results[claim.__name__] = ""
        try:
            with tempfile.TemporaryDirectory() as folder:
                claim(pathlib.Path(folder))
        except Exception:
            results[claim.__name__] = traceback.format_exc()
    json.dump(results, sys.stdout)
