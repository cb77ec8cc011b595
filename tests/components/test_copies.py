"""Copies: of a component with the state of a save, and of what wraps components."""

import concurrent.futures
import copy
import multiprocessing
import pickle
import threading

import cloudpickle
import numpy as np
import pytest

import elementsckpt

from support import boxes


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


# Pickles and copies of what the package gives


class Trainer:
    """Something that a program copies, or sends to another process."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


def own_schedule():
    every = elementsckpt.Every(steps=10, seconds=3600, overhead=0.5)
    assert every(7)
    every.note = "mine"
    return every


def own_counter():
    class Named(elementsckpt.Counter):
        pass

    counter = Named(3)
    counter.note = "mine"
    return counter


def own_saveable():
    saveable = elementsckpt.Saveable(["weights"])
    saveable.weights, saveable.note = np.arange(3), "mine"
    return saveable


WRAPPERS = {
    "Every": own_schedule,
    "Counter": own_counter,
    "Saveable": own_saveable,
    "Saveable of functions": lambda: elementsckpt.Saveable(save=int, load=print),
    "Value": lambda: elementsckpt.Value({"w": np.arange(3)}),
    "Files": lambda: elementsckpt.Files(save=print, load=print),
    "GlobalRNG": elementsckpt.GlobalRNG,
}
COPIES = {
    "pickle": lambda x: pickle.loads(cloudpickle.dumps(x)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", WRAPPERS)
def test_what_wraps_a_component_can_be_copied_and_pickled(tmp_path, name, way):
    value = WRAPPERS[name]()
    trainer = COPIES[way](Trainer(part=value, of="run"))
    copied = trainer.part if way != "copy" else COPIES[way](value)
    assert type(copied) is type(value)
    assert copied is not value
    assert getattr(copied, "note", None) == getattr(value, "note", None)
    if name not in ("Files", "Saveable of functions"):
        np.testing.assert_equal(copied.save(), value.save())
    cp = elementsckpt.Checkpoint(tmp_path)
    cp.part = copied
    cp.save()
    cp.load()


def test_a_copy_of_a_counter_counts_by_itself_and_in_threads():
    counter = elementsckpt.Counter(1)
    copied = copy.deepcopy(counter)
    copied.increment()
    assert (counter, copied) == (1, 2)
    assert copied.lock is not counter.lock


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_of_a_schedule_is_due_when_the_schedule_is(way, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    every = elementsckpt.Every(steps=10, seconds=60)
    assert every(9)
    now[0] += 50
    copied = COPIES[way](every)
    assert [copied(step) for step in (9, 12, 13)] == [False, True, False]
    copied = COPIES[way](every)
    now[0] += 9
    assert not copied(9)
    now[0] += 2
    assert copied(9)


def test_a_pickle_of_a_schedule_counts_by_the_clock_of_where_it_is_loaded(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    every = elementsckpt.Every(seconds=60)
    assert every()
    now[0] += 50
    pickled = pickle.dumps(every)
    now[0] = 7.0  # Another machine, which was started seven seconds ago.
    copied = pickle.loads(pickled)
    assert not copied()
    now[0] += 11
    assert copied()


def test_a_deadline_is_that_of_the_process_in_which_the_copy_is():
    every = elementsckpt.Every(deadline=1e9)
    assert not pickle.loads(pickle.dumps(every)).is_past_deadline
    every = elementsckpt.Every(deadline=1e-3)
    assert pickle.loads(pickle.dumps(every)).is_past_deadline


def test_a_schedule_and_a_counter_go_to_a_spawned_process():
    every, step = elementsckpt.Every(10), elementsckpt.Counter(20)
    assert every(7)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        assert pool.submit(elementsckpt.Every.is_due, every, step).result()


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("is_inside", [False, True])
def test_a_checkpoint_says_what_to_do_instead(tmp_path, way, is_inside):
    cp = boxes.make(tmp_path, 1)
    if way == "copy" and is_inside:
        assert COPIES[way](Trainer(cp=cp)).cp is cp
        return
    with pytest.raises(TypeError, match=r"neither pickled nor copied.*__getstate__"):
        COPIES[way](Trainer(cp=cp) if is_inside else cp)
    cp.save()


def test_a_component_that_holds_its_checkpoint_says_what_to_do_instead(tmp_path):
    cp = elementsckpt.Checkpoint(tmp_path)
    cp.agent = boxes.Box({"trainer": Trainer(cp=cp)})
    with pytest.raises(elementsckpt.StateError, match=r"agent/trainer.*__getstate__"):
        cp.save()
    cp.agent = boxes.Box(1)
    cp.agent.cp = cp
    cp.save()
    with pytest.raises(elementsckpt.ComponentError, match=r"__getstate__"):
        cp.copy_of("agent")
