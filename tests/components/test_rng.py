"""GlobalRNG: the streams of `random`, NumPy and torch go on where they stopped."""

import functools
import importlib.util
import json
import logging
import random
import shutil
import sys
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, DamagedError, GlobalRNG

from support.boxes import Box, Stream, python


@pytest.fixture(autouse=True)
def put_back():
    """Leave the generators as they were, and NumPy's of its usual kind."""
    states = GlobalRNG().save()
    bits = np.random.get_bit_generator()
    yield
    np.random.set_bit_generator(bits)
    GlobalRNG().load(states)


def draw():
    """Return numbers from each kind of cache that the generators have."""
    drawn = [random.random(), random.gauss(0, 1), random.getrandbits(100)]
    drawn += [np.random.random(), np.random.normal(), np.random.bytes(3)]
    drawn += np.random.randint(0, 7, 5, np.uint8).tolist()
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        drawn += torch.randn(3).tolist() + torch.randperm(9).tolist()
    return drawn


def save(directory):
    cp = Checkpoint(directory, fsync=False)
    cp.rng = GlobalRNG()
    return cp.save()


def load(directory):
    """Load from a path that is foreign, so that nothing can be unpickled."""
    cp = Checkpoint()
    cp.rng = GlobalRNG()
    return cp.load(directory)


@pytest.mark.torch  # Which it takes in, if it is there.
@pytest.mark.parametrize("count", range(4))
def test_streams_go_on_where_they_stopped(tmp_path, count):
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.manual_seed(7)
    random.seed(count)
    np.random.seed(count)
    for _ in range(count):  # With and without the second normal number in the cache.
        random.gauss(0, 1)
        np.random.normal()
    report = save(tmp_path)
    expected = [draw() for _ in range(300)]
    assert report.pickled == ()
    draw()
    load(tmp_path)
    assert [draw() for _ in range(300)] == expected


def test_saving_draws_nothing():
    states = [GlobalRNG().save() for _ in range(2)]
    np.testing.assert_equal(*states)


def test_the_first_save_after_a_load_draws_nothing(tmp_path):
    random.seed(1)
    save(tmp_path)
    expected = draw()
    cp = Checkpoint(tmp_path, fsync=False)
    cp.rng = GlobalRNG()
    cp.load()
    cp.save()
    assert draw() == expected


class Policy:
    """Writes its file by itself."""

    def write(self, folder):
        (folder / "policy").write_bytes(bytes(100))

    def read(self, folder):
        (folder / "policy").read_bytes()


def everything(directory, **options):
    """Return a checkpoint of all kinds of components but a GlobalRNG."""
    cp = Checkpoint(directory, fsync=False, **options)
    policy = Policy()
    noise = np.random.default_rng(0).random(300_000)
    cp.box = Box({"noise": noise, "zeros": np.zeros(300_000), "odd": Fraction(1, 3)})
    cp.stream = Stream([{"x": noise[:10]}, {"x": lambda: noise}])
    cp.files = elementsckpt.Files(save=policy.write, load=policy.read)
    cp.value = elementsckpt.Value({"w": jnp.ones(3), "key": jax.random.key(0)})
    cp.step, cp.every = elementsckpt.Counter(), elementsckpt.Every(1)
    return cp


@pytest.mark.parametrize("background", [False, True])
def test_no_verb_moves_a_global_generator(tmp_path, background):
    functions = {"box": Box(1).save}, {"box": Box().load}
    value = {"w": jnp.ones(3)}

    def verbs():
        cp = everything(tmp_path / "run", background=background)
        yield "load_or_save", cp.load_or_save
        for n in range(3):
            cp.box.state["zeros"][n] = 1
            yield "save", functools.partial(cp.save, pin=f"pin{n}")
            yield "wait", cp.wait
        yield "save_if_due", lambda: cp.save_if_due(final=True)
        yield "load", cp.load
        yield "load mapped", lambda: cp.load("pin1", mmap=True)
        yield "regex", lambda: cp.load(keys=["box"], regex="noise")
        yield "dry_run", lambda: cp.load(dry_run=True)
        yield "copy_of", lambda: cp.copy_of("box")
        yield "best", lambda: [cp.best(), cp.latest(), cp.saves(), cp.exists(), dir(cp)]
        yield "delete", lambda: cp.delete("pin0")
        yield "prune", cp.prune
        yield "read", lambda: elementsckpt.read(tmp_path / "run", ["value", "files"])
        yield "info", lambda: elementsckpt.info(tmp_path / "run")
        yield "close", cp.close
        path = tmp_path / "functions"
        yield (
            "checkpoint.save",
            lambda: elementsckpt.checkpoint.save(path, functions[0]),
        )
        yield (
            "checkpoint.load",
            lambda: elementsckpt.checkpoint.load(path, functions[1]),
        )
        path = tmp_path / "tree"
        yield "save_pytree", lambda: elementsckpt.save_pytree(path, value)
        yield "load_pytree", lambda: elementsckpt.load_pytree(path, value)

    for _ in range(2):  # Afresh, and after a resume.
        for name, verb in verbs():
            before = GlobalRNG().save()
            verb()
            np.testing.assert_equal(GlobalRNG().save(), before, err_msg=name)
        shutil.rmtree(tmp_path / "functions")
        shutil.rmtree(tmp_path / "tree")


class Drawing(Box):
    """Makes a network when it is loaded, which draws its first weights."""

    def load(self, data):
        random.random()
        np.random.normal(size=3)
        super().load(data)


class OwnRNG(GlobalRNG):
    """A GlobalRNG of which a program has made its own."""


@pytest.mark.parametrize("cls", [GlobalRNG, OwnRNG])
def test_what_others_draw_while_they_are_loaded_is_undone(tmp_path, cls):
    def make():
        cp = Checkpoint(tmp_path / "run", fsync=False)
        cp.rng, cp.agent = cls(), Drawing(0)
        return cp

    make().save()
    expected = draw()
    make().load()
    assert draw() == expected


def test_functions_of_global_generators_come_last_too(tmp_path):
    drawing = Drawing(0)
    savefns = {"rng": GlobalRNG().save, "agent": lambda: random.random()}
    elementsckpt.checkpoint.save(tmp_path / "save", savefns)
    expected = draw()
    loadfns = {"rng": GlobalRNG().load, "agent": drawing.load}
    elementsckpt.checkpoint.load(tmp_path / "save", loadfns)
    assert draw() == expected


def test_a_copy_of_the_global_generators_is_refused_and_they_stay(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.rng = GlobalRNG()
    cp.save()
    draw()
    before = GlobalRNG().save()
    with pytest.raises(
        elementsckpt.ComponentError, match="'rng' is made of the global"
    ):
        cp.copy_of("rng")
    np.testing.assert_equal(GlobalRNG().save(), before)


def test_what_is_saved_does_not_change_with_the_generators():
    state = GlobalRNG().save()
    before = json.dumps(state, default=np.ndarray.tolist)
    draw()
    assert json.dumps(state, default=np.ndarray.tolist) == before


def test_states_are_arrays_and_scalars_for_other_tools(tmp_path):
    save(tmp_path)
    state = elementsckpt.read(tmp_path)["rng"]
    assert state["random"]["state"].dtype == np.uint32
    assert state["random"]["state"].shape == (625,)
    assert tuple(state["random"]["state"].tolist()) == random.getstate()[1]
    assert state["numpy"]["bit_generator"] == "MT19937"
    assert state["numpy"]["state"]["key"].dtype == np.uint32


@pytest.mark.parametrize("name", ["PCG64", "PCG64DXSM", "Philox", "SFC64", "MT19937"])
@pytest.mark.parametrize("set_again", [False, True])
def test_streams_of_another_bit_generator_go_on(tmp_path, name, set_again):
    np.random.set_bit_generator(getattr(np.random, name)(3))
    np.random.normal()
    save(tmp_path)
    expected = draw()
    np.random.set_bit_generator(np.random.MT19937(4))
    if set_again:
        np.random.set_bit_generator(getattr(np.random, name)(5))
    load(tmp_path)
    assert draw() == expected
    assert type(np.random.get_bit_generator()).__name__ == name


def test_in_the_background_the_state_at_the_call_is_saved(tmp_path):
    with Checkpoint(tmp_path, background=True) as cp:
        cp.rng = GlobalRNG()
        cp.save()
        expected = draw()
    load(tmp_path)
    assert draw() == expected


# Torch, there or not


def test_without_torch_nothing_of_torch_is_saved_or_imported(tmp_path):
    script = """
import sys, elementsckpt
cp = elementsckpt.Checkpoint(sys.argv[1], fsync=False)
cp.rng = elementsckpt.GlobalRNG()
cp.save()
cp.load()
assert "torch" not in sys.modules
assert set(elementsckpt.read(sys.argv[1])["rng"]) == {"random", "numpy"}
"""
    result = python(script, tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.torch
@pytest.mark.torch
def test_state_without_torch_leaves_torch_alone(tmp_path):
    torch = pytest.importorskip("torch")
    state = GlobalRNG().save()
    del state["torch"]
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    GlobalRNG().load(state)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.torch
@pytest.mark.torch
def test_torch_is_imported_for_its_state(tmp_path):
    torch = pytest.importorskip("torch")
    save(tmp_path)
    expected = torch.rand(3).tolist()
    script = """
import sys, elementsckpt
cp = elementsckpt.Checkpoint()
cp.rng = elementsckpt.GlobalRNG()
cp.load(sys.argv[1])
print(sys.modules["torch"].rand(3).tolist())
"""
    result = python(script, tmp_path)
    assert result.stdout.strip() == str(expected), result.stderr


def test_state_of_torch_without_torch_is_a_warning_and_the_others_go_on(
    tmp_path, caplog, monkeypatch
):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.rng = Box(GlobalRNG().save() | {"torch": {"cpu": np.zeros(5056, np.uint8)}})
    cp.save()
    expected = draw()
    monkeypatch.setitem(sys.modules, "torch", None)  # As if it was not installed.
    with caplog.at_level(logging.WARNING, "elementsckpt"):
        load(tmp_path)
    monkeypatch.undo()
    assert "torch" in caplog.text
    assert draw()[:11] == expected[:11]


class Cuda:
    """Stands in for `torch.cuda` with some devices, which few machines have."""

    def __init__(self, torch, states):
        self.states = [torch.full((16,), x, dtype=torch.uint8) for x in states]

    def is_initialized(self):
        return True

    def device_count(self):
        return len(self.states)

    def get_rng_state_all(self):
        return [state.clone() for state in self.states]

    def set_rng_state(self, state, device):
        self.states[device] = state

    def first_bytes(self):
        return [int(state[0]) for state in self.states]


@pytest.mark.parametrize(
    ("there", "expected", "warns"),
    [
        ([7, 8], [1, 2], False),
        ([7], [1], True),
        ([7, 8, 9], [1, 2, 9], True),
        ([], [], True),
    ],
)
@pytest.mark.torch
@pytest.mark.torch
def test_states_of_cuda_devices_are_restored_where_there_are_as_many(
    tmp_path, monkeypatch, caplog, there, expected, warns
):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "cuda", Cuda(torch, [1, 2]))
    assert save(tmp_path).pickled == ()
    devices = Cuda(torch, there)
    monkeypatch.setattr(torch, "cuda", devices)
    with caplog.at_level(logging.WARNING, "elementsckpt"):
        load(tmp_path)
    assert devices.first_bytes() == expected
    assert ("CUDA" in caplog.text) == warns


@pytest.mark.torch
@pytest.mark.torch
def test_cuda_is_not_started_by_saving_and_loading(tmp_path):
    torch = pytest.importorskip("torch")
    save(tmp_path)
    load(tmp_path)
    assert not torch.cuda.is_initialized()
    assert set(GlobalRNG().save()["torch"]) == {"cpu"}


# Forged states


FORGED = [
    ("MT19937", lambda state: state["state"].update(pos=10**9)),
    ("MT19937", lambda state: state["state"].update(pos=-1)),
    ("Philox", lambda state: state.update(buffer_pos=-(10**6))),
]


@pytest.mark.parametrize(("name", "forge"), FORGED)
def test_a_position_with_which_numpy_would_crash_is_refused(name, forge):
    np.random.set_bit_generator(getattr(np.random, name)(0))
    state = GlobalRNG().save()
    forge(state["numpy"])
    with pytest.raises(ValueError, match="position"):
        GlobalRNG().load(state)
    draw()


def test_a_bit_generator_that_numpy_does_not_have_is_refused():
    state = GlobalRNG().save()
    state["numpy"]["bit_generator"] = "seed"
    with pytest.raises(ValueError, match="seed"):
        GlobalRNG().load(state)


@pytest.mark.parametrize(("name", "forge"), FORGED)
@pytest.mark.parametrize("make", [np.random.Generator, np.random.RandomState])
def test_a_generator_with_which_numpy_would_crash_is_a_damaged_save(
    tmp_path, name, forge, make
):
    bits = getattr(np.random, name)(0)
    state = bits.state
    forge(state)
    bits.state = state  # Which NumPy takes, and then crashes when it draws.
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box(make(bits))
    save = cp.save().path
    with pytest.raises(DamagedError, match="position"):
        cp.load(save)
