"""Random generators and typed keys that are registered as they are."""

import random

import elements
import jax
import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, ComponentError, MismatchError
from elementsckpt.testing import check_resume

GENERATORS = {
    "default_rng": np.random.default_rng,
    "MT19937": lambda seed: np.random.Generator(np.random.MT19937(seed)),
    "RandomState": np.random.RandomState,
    "RandomState of PCG64": lambda seed: np.random.RandomState(np.random.PCG64(seed)),
    "random.Random": random.Random,
}


@pytest.fixture(params=GENERATORS.values(), ids=GENERATORS)
def new(request):
    """Return a function that makes a generator from a seed."""
    return request.param


def draw(generator):
    """Return numbers, of which the last one leaves a second one behind."""
    normal = getattr(generator, "normal", None) or generator.gauss
    return [generator.random() for _ in range(3)] + [normal(0, 1)]


def test_a_generator_goes_on_where_it_was_saved_and_stays_the_object(tmp_path, new):
    cp = Checkpoint(tmp_path)
    cp.rng = rng = new(0)
    draw(rng)
    cp.save()
    expected = draw(rng)
    cp.load()
    assert cp.rng is rng
    assert draw(rng) == expected


def test_a_generator_goes_on_in_another_process_that_seeds_it_otherwise(tmp_path, new):
    cp, resumed = Checkpoint(tmp_path), Checkpoint(tmp_path)
    cp.rng, resumed.rng = new(0), new(1)
    draw(cp.rng)
    cp.save()
    draw(resumed.rng)
    assert resumed.load_or_save()
    assert draw(resumed.rng) == draw(cp.rng)


def test_saving_a_generator_draws_nothing_from_it(tmp_path, new):
    cp = Checkpoint(tmp_path)
    cp.rng, same = new(0), new(0)
    cp.save()
    assert draw(cp.rng) == draw(same)


def test_in_the_background_the_state_at_the_call_is_saved(tmp_path, new):
    with Checkpoint(tmp_path, background=True) as cp:
        cp.rng = new(0)
        cp.save()
        expected = draw(cp.rng)
        cp.wait()
        cp.load()
        assert draw(cp.rng) == expected


def test_a_generator_is_saved_without_pickle(tmp_path, new):
    cp = Checkpoint(tmp_path)
    cp.rng = new(0)
    assert cp.save().pickled == ()
    other = Checkpoint()
    other.rng = new(1)
    other.load(tmp_path)
    assert draw(other.rng) == draw(cp.rng)


def test_what_a_generator_spawns_goes_on_too(tmp_path):
    cp, resumed = Checkpoint(tmp_path), Checkpoint(tmp_path)
    cp.rng, resumed.rng = np.random.default_rng(0), np.random.default_rng()
    cp.rng.bit_generator.seed_seq.spawn(2)
    cp.save()
    resumed.load()
    spawned = [
        x.rng.bit_generator.seed_seq.spawn(1)[0].generate_state(2).tolist()
        for x in (cp, resumed)
    ]
    assert spawned[0] == spawned[1]


def test_a_bit_generator_goes_on_for_all_that_draw_from_it(tmp_path):
    bits = np.random.PCG64(0)
    rng = np.random.Generator(bits)
    cp = Checkpoint(tmp_path)
    cp.bits = bits
    rng.random()
    cp.save()
    expected = rng.random()
    cp.load()
    assert rng.random() == expected


def test_a_generator_of_a_class_of_its_own_is_still_a_generator(tmp_path):
    class Generator(np.random.Generator):
        pass

    cp = Checkpoint(tmp_path)
    cp.rng = Generator(np.random.PCG64(0))
    assert cp.save().pickled == ()
    expected = draw(cp.rng)
    cp.load()
    assert draw(cp.rng) == expected


def test_a_generator_inside_of_a_component_is_set_by_name(tmp_path):
    env = type("Env", (), {"rng": random.Random(0)})()
    cp = Checkpoint(tmp_path)
    cp.env = elementsckpt.Saveable(lambda: env.rng.getstate(), env.rng.setstate)
    cp.rng = env.rng
    cp.save()
    expected = draw(env.rng)
    cp.load()
    assert draw(env.rng) == expected


OTHERS = [
    np.random.Generator(np.random.Philox(0)),
    np.random.RandomState(0),
    random.Random(0),
]


@pytest.mark.parametrize("other", OTHERS, ids=lambda x: type(x).__name__)
def test_a_generator_of_another_kind_is_refused_and_does_not_change(tmp_path, other):
    cp, resumed = Checkpoint(tmp_path), Checkpoint(tmp_path)
    cp.rng, resumed.rng = np.random.default_rng(0), other
    cp.save()
    before = repr(getattr(other, "bit_generator", other).__reduce__())
    with pytest.raises(MismatchError, match="Generator of PCG64 was saved"):
        resumed.load()
    assert repr(getattr(other, "bit_generator", other).__reduce__()) == before


def test_random_numbers_of_the_system_have_no_state_to_save():
    with pytest.raises(ComponentError, match="SystemRandom"):
        Checkpoint().rng = random.SystemRandom()


@pytest.mark.torch
@pytest.mark.torch
def test_a_generator_of_torch_goes_on(tmp_path):
    torch = pytest.importorskip("torch")
    cp = Checkpoint(tmp_path)
    cp.rng = torch.Generator().manual_seed(0)
    assert cp.save().pickled == ()
    expected = torch.rand(3, generator=cp.rng)
    cp.load()
    assert torch.equal(torch.rand(3, generator=cp.rng), expected)


# Typed keys, which cannot change


def data(key):
    return jax.random.key_data(key).tolist()


def test_a_typed_key_is_read_back_as_a_key_and_assigned_anew(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.key = jax.random.key(0)
    assert not cp.load_or_save()
    cp.key, _ = jax.random.split(cp.key)
    expected = data(cp.key)
    cp.save()
    resumed = Checkpoint(tmp_path)
    resumed.key = jax.random.key(0)
    assert resumed.load_or_save()
    assert data(resumed.key) == expected
    assert jax.dtypes.issubdtype(resumed.key.dtype, jax.dtypes.prng_key)


@pytest.mark.parametrize("impl", ["rbg", "threefry2x32"])
def test_many_keys_of_any_implementation_are_a_component(tmp_path, impl):
    cp = Checkpoint(tmp_path)
    keys = jax.random.split(jax.random.key(0, impl=impl), 3)
    cp.keys_of_seeds = keys
    assert cp.save().pickled == ()
    cp.keys_of_seeds = jax.random.split(cp.keys_of_seeds[0], 3)
    assert data(cp.keys_of_seeds) != data(keys)
    cp.load()
    assert data(cp.keys_of_seeds) == data(keys)


def test_a_key_of_another_shape_is_refused_before_anything_changes(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.key = jax.random.key(0)
    cp.save()
    cp.key = keys = jax.random.split(jax.random.key(1), 3)
    with pytest.raises(MismatchError, match=r"\[\], expected .*\[3\]"):
        cp.load()
    assert cp.key is keys


def test_a_copy_of_a_key_is_the_saved_key(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.key = first = jax.random.key(0)
    cp.save()
    cp.key = second = jax.random.key(1)
    assert data(cp.copy_of("key")) == data(first)
    assert cp.key is second


def test_a_run_that_draws_from_what_is_registered_resumes_exactly():
    def make():
        cp = Checkpoint()
        cp.key, cp.rng = jax.random.key(0), np.random.default_rng(0)
        cp.step = elements.Counter()
        return cp

    def step(cp):
        cp.key, key = jax.random.split(cp.key)
        seed = jax.random.randint(key, (), 0, 5)
        cp.step.increment(int(cp.rng.integers(0, 9, 1 + int(seed)).sum()))

    assert check_resume(make, step).steps == 3


def test_a_legacy_key_is_an_array_like_others_and_needs_a_value():
    with pytest.raises(ComponentError, match=r"elementsckpt\.Value"):
        Checkpoint().key = jax.random.PRNGKey(0)
