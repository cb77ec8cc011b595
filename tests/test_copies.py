"""A copy of a component that has the state of a save."""

import threading

import boxes
import numpy as np
import pytest

import elementsckpt


def test_a_copy_has_the_saved_state_and_the_component_its_own(tmp_path):
    cp = boxes.make(tmp_path, {"w": np.zeros(3)})
    cp.save()
    cp.agent.state["w"] += 1
    copied = cp.copy_of("agent")
    assert type(copied) is boxes.Box
    assert copied is not cp.agent
    assert not copied.state["w"].any()
    assert cp.agent.state["w"].all()
    assert cp.agent.loads == 0


def test_a_copy_of_what_loads_in_place_does_not_touch_the_component(tmp_path):
    class InPlace(boxes.Box):
        def load(self, data):
            self.state[:] = data

    cp = boxes.make(tmp_path, None)
    cp.agent = InPlace(np.zeros(3))
    cp.save()
    cp.agent.state += 1
    assert not cp.copy_of("agent").state.any()
    assert cp.agent.state.all()


def test_any_save_can_be_copied_from(tmp_path):
    keep = elementsckpt.Keep(latest=None, metric=lambda metrics: -metrics["loss"])
    cp = boxes.make(tmp_path, 0, keep=keep)
    cp.step = elementsckpt.Counter()
    for step, loss in enumerate([3, 1, 2]):
        cp.step.load(step)
        cp.agent.state = step
        cp.save(metrics={"loss": loss}, pin="first" if step == 0 else None)
    assert cp.copy_of("agent", "best").state == 1
    assert cp.copy_of("agent", "first").state == 0
    assert cp.copy_of("agent", cp.latest()).state == 2
    assert cp.copy_of("step", step=1) == 1
    assert cp.step == 2


def test_what_is_made_of_functions_is_not_copied(tmp_path):
    state = {"v": 1}
    cp = elementsckpt.Checkpoint(tmp_path)
    cp.a = elementsckpt.Saveable(save=lambda: state["v"], load=lambda v: print(v))
    cp.b = elementsckpt.Files(
        save=lambda folder: (folder / "x").touch(), load=lambda folder: None
    )
    cp.save()
    for key in ("a", "b"):
        with pytest.raises(
            elementsckpt.ComponentError, match=r"made of functions.*read"
        ):
            cp.copy_of(key)


def test_what_cannot_be_copied_is_named(tmp_path):
    cp = boxes.make(tmp_path, {"w": 1})
    cp.save()
    cp.agent.lock = threading.Lock()
    with pytest.raises(elementsckpt.ComponentError, match=r"'agent' cannot be copied"):
        cp.copy_of("agent")
    with pytest.raises(elementsckpt.MissingKeyError, match="Not registered: 'nope'"):
        cp.copy_of("nope")


@pytest.mark.parametrize("path", [None, "latest"])
def test_a_copy_says_nothing_of_what_was_not_asked_for(tmp_path, caplog, path):
    cp = boxes.make(tmp_path, 1, metadata={"lr": 0.1})
    cp.other, cp.step = boxes.Box(2), elementsckpt.Counter()
    cp.save()
    caplog.set_level("WARNING", "elementsckpt")
    copied = cp.copy_of("agent", path)
    assert copied.state == 1
    assert caplog.records == []
