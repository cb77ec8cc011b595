"""A value that the program forgets to set is told of, once."""

import jax.numpy as jnp
import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, Counter, Value


def make(directory, value, **options):
    cp = Checkpoint(directory, fsync=False, **options)
    cp.step, cp.state = Counter(), Value(value)
    return cp


def save_at(cp, *steps):
    for step in steps:
        cp.step.load(step)
        cp.save()
        cp.wait()


def said(caplog):
    return [
        x.getMessage() for x in caplog.records if "the same object" in x.getMessage()
    ]


VALUES = {
    "jax": lambda: {"w": jnp.zeros(3), "n": 3},
    "numpy": lambda: {"w": np.zeros(300_000)},
    "scalars": lambda: {"n": 3, "name": "a"},
    "number": lambda: 3,
}


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_nobody_sets_is_said_once(tmp_path, caplog, name, background):
    cp = make(tmp_path, VALUES[name](), background=background)
    save_at(cp, 0, 10)
    assert said(caplog) == []
    save_at(cp, 20, 30, 40)
    (message,) = said(caplog)
    assert message.startswith(
        "The value of 'state' has been the same object at steps 0, 10 and 20. If "
        "training makes new values, assign each to its .value"
    )


def test_saves_to_paths_of_their_own_count_too(tmp_path, caplog):
    cp = make(None, {"w": np.zeros(3)})
    for step in range(4):
        cp.step.load(step)
        cp.save(tmp_path / str(step))
    assert len(said(caplog)) == 1


def test_a_value_that_is_set_late_is_told_of_when_it_is_forgotten_again(
    tmp_path, caplog
):
    cp = make(tmp_path, {"w": np.zeros(3)})
    save_at(cp, 0, 1, 2, 3)
    cp.state.value = {"w": np.ones(3)}
    save_at(cp, 4, 5, 6, 7)
    assert len(said(caplog)) == 2


def assign(cp, step):
    cp.state.value = {"w": np.full(3, step)}


def assign_an_equal_one(cp, step):
    cp.state.value = {"w": np.zeros(3)}


def change_an_array(cp, step):
    cp.state.value["w"][1] = step


def change_a_dict(cp, step):
    cp.state.value["n"] = step


def go_back_and_forth(cp, step):
    cp.step.load(step % 2)


def stand_still(cp, step):
    cp.step.load(5)


@pytest.mark.parametrize(
    "train",
    [
        assign,
        assign_an_equal_one,
        change_an_array,
        change_a_dict,
        go_back_and_forth,
        stand_still,
    ],
)
def test_what_is_trained_is_not_told_of(tmp_path, caplog, train):
    cp = make(tmp_path, {"w": np.zeros(3), "n": 0})
    kept = []  # Or the next value could have the address of the last.
    for step in range(8):
        cp.step.load(step)
        kept.append(cp.state.value)
        train(cp, step)
        cp.save()
    assert said(caplog) == []


def test_what_has_no_step_or_is_no_value_is_not_told_of(tmp_path, caplog):
    cp = Checkpoint(tmp_path / "a", fsync=False)
    cp.state = Value({"w": np.zeros(3)})
    for _ in range(5):
        cp.save()
    cp = make(tmp_path / "b", 0)
    cp.state = elementsckpt.Saveable(["config"])
    cp.state.config = {"lr": 0.1}
    save_at(cp, *range(5))
    assert said(caplog) == []


def test_a_module_of_nnx_changes_in_place_and_is_not_told_of(tmp_path, caplog):
    nnx = pytest.importorskip("flax.nnx")
    cp = make(tmp_path, 0)
    cp.state = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    save_at(cp, *range(5))
    assert said(caplog) == []


def test_after_a_resume_it_counts_anew(tmp_path, caplog):
    save_at(make(tmp_path, {"w": np.zeros(3)}), 0, 1)
    cp = make(tmp_path, {"w": np.ones(3)})
    assert cp.load_or_save()
    save_at(cp, 2, 3)
    assert said(caplog) == []
    save_at(cp, 4)
    assert len(said(caplog)) == 1
