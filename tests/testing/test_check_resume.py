"""check_resume finds what keeps a resumed run from being the straight one."""

import collections
import itertools
import os
import random
import types
from typing import NamedTuple

import numpy as np
import pytest

import elementsckpt
from elementsckpt import (
    Checkpoint,
    CheckpointError,
    ComponentError,
    Counter,
    GlobalRNG,
    MissingKeyError,
    Saveable,
)
from elementsckpt.testing import ResumeError, ResumeReport, check_resume
from elementsckpt.testing.fingerprints import take

from support.boxes import Box, python

# A small training, as most are: a model, an optimizer with momentum, a replay buffer
# that fills while training goes on, and a generator that draws from it.


class Model(Saveable):
    def __init__(self):
        super().__init__(["weights", "bias"])
        rng = np.random.default_rng(0)
        self.weights, self.bias = rng.normal(size=(4, 3)), np.zeros(3)

    def gradients(self, x, y):
        error = x @ self.weights + self.bias - y
        return {"weights": x.T @ error / len(x), "bias": error.mean(0)}


class Momentum(Saveable):
    def __init__(self, model):
        super().__init__(["velocity"])
        self.model = model
        self.velocity = {
            name: np.zeros_like(getattr(model, name)) for name in ("weights", "bias")
        }

    def step(self, gradients):
        for name, gradient in gradients.items():
            self.velocity[name] = 0.9 * self.velocity[name] + gradient
            change = 0.1 * self.velocity[name]
            setattr(self.model, name, getattr(self.model, name) - change)


class Replay(Saveable):
    def __init__(self):
        super().__init__(["items"])
        self.items = []

    def add(self, number):
        x = np.sin(np.arange(4) + number)
        self.items.append((x, x[:3] + 1))

    def sample(self, rng):
        rows = [self.items[i] for i in rng.integers(0, len(self.items), 8)]
        return tuple(map(np.stack, zip(*rows, strict=True)))


class Draws(Saveable):
    def __init__(self):
        super().__init__(["generator"])
        self.generator = np.random.default_rng(1)


PARTS = ("step", "model", "optimizer", "replay", "rng")


def parts():
    model = Model()
    return {
        "step": Counter(),
        "model": model,
        "optimizer": Momentum(model),
        "replay": Replay(),
        "rng": Draws(),
    }


def make(*registered):
    """Return what makes a checkpoint with only these parts, and all of them."""

    def made():
        everything = parts()
        cp = Checkpoint()
        for key in registered or PARTS:
            setattr(cp, key, everything[key])
        return cp, types.SimpleNamespace(**everything)

    return made


def train(made):
    _, run = made
    run.replay.add(int(run.step))
    x, y = run.replay.sample(run.rng.generator)
    run.optimizer.step(run.model.gradients(x, y))
    run.step.increment()


def without(key):
    return make(*(part for part in PARTS if part != key))


def refusal(*arguments, **options):
    """Return what is said about a training that cannot be resumed exactly."""
    with pytest.raises(ResumeError) as caught:
        check_resume(*arguments, **options)
    return str(caught.value)


# What it is for


def test_a_training_that_is_saved_completely_is_resumed_exactly():
    report = check_resume(make(), train)
    assert report == ResumeReport(steps=3, leaves=1 + 2 + 2 + 2 * 6 + 8)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_any_number_of_steps_can_be_compared(steps):
    calls = []
    check_resume(make(), lambda made: [train(made), calls.append(made)], steps=steps)
    assert len(calls) == 4 * steps


def test_an_optimizer_that_is_not_registered_is_found():
    said = refusal(without("optimizer"), train)
    assert "resumed at step 3" in said
    assert "At step 4 (1 after loading), 2 of 19 leaves differ" in said
    assert "first model/weights: float64[4,3], 12 of 12 elements by up to" in said
    assert "optimizer's state" in said


def test_a_replay_buffer_that_is_not_registered_is_found():
    said = refusal(without("replay"), train)
    assert "At step 4 (1 after loading), 6 of 13 leaves differ" in said
    assert "first model/weights" in said
    assert "replay buffer" in said


def test_a_generator_that_is_not_registered_is_found():
    said = refusal(without("rng"), train)
    assert "At step 4 (1 after loading), 4 of 13 leaves differ" in said
    assert "first model/weights" in said
    assert "random generator" in said


def test_a_difference_that_shows_late_is_named_by_its_step():
    def late(made):
        train(made)
        _, run = made
        run.hidden = getattr(run, "hidden", 0) + 1
        if run.hidden == 5:
            run.model.bias[1] += 0.5

    said = refusal(make(), late)
    assert "At step 5 (2 after loading)" in said
    assert "first model/bias: float64[3], 1 of 3 elements by up to 0.5" in said


def test_the_step_at_which_a_resumed_run_does_more_is_named():
    def early(made):
        _, run = made
        run.hidden = getattr(run, "hidden", 0) + 1
        train(made)
        if run.hidden == 2:
            run.model.bias[0] = 7.0

    said = refusal(make(), early, steps=2)
    assert "At step 4 (2 after loading), 1 of 21 leaves differs" in said
    assert "first model/bias" in said


# What load() forgets


class Forgetful(Model):
    def load(self, data):
        self.weights = data["weights"]


def test_what_load_forgets_is_found_before_any_step():
    def made():
        model = Forgetful()
        return {"model": model, "optimizer": Momentum(model)}

    def step(made):
        made["optimizer"].step({"weights": np.ones((4, 3)), "bias": np.ones(3)})

    said = refusal(made, step)
    assert "Right after loading, 1 of 4 leaves differs, first model/bias" in said
    assert "load() of 'model' does not take all of it" in said


@pytest.mark.parametrize(
    ("saved", "loaded", "said"),
    [
        (3, 4, "first box/x: int, 3 and 4"),
        (3, 3.0, "first box/x: int and float"),
        (0.1, 0.2, "first box/x: float, 0.1 and 0.2"),
        (True, 1, "first box/x: bool and int"),
        ("left", "right", "first box/x: str, 'left' and 'right'"),
        ({1, 2}, {1}, "first box/x: set, {1, 2} and {1}"),
        (None, 0, "first box/x: NoneType and int"),
        (b"a", b"b", "first box/x: bytes, b'a' and b'b'"),
        (np.float32(1), np.float64(1), "first box/x: float32[] and float64[]"),
        (np.float32(1), np.float32(2), "first box/x: float32[], 1.0 and 2.0"),
        (np.array([1.0]), np.array([2.0]), "first box/x: float64[1], 1.0 and 2.0"),
        (np.zeros(3), np.zeros(4), "first box/x: float64[3] and float64[4]"),
        (np.zeros(2), -np.zeros(2), "equal numbers in other bits"),
        (np.arange(3), np.array([0, 1, 5]), "int64[3], 1 of 3 elements by up to 3"),
        (np.arange(2) * 1j, np.zeros(2) * 1j, "1 of 2 elements by up to 1"),
        (np.array([1, np.nan]), np.array([1, 2.0]), "1 of 2 elements."),
        (np.array([1, np.nan]), np.array([2, np.nan]), "1 of 2 elements by up to 1."),
        (np.array(["a", "b"]), np.array(["a", "c"]), "first box/x: <U1[2]."),
        (len, max, "function, <built-in function len> and <built-in function max>"),
        ([1, 2], [1], "1 of 3 leaves differs, first box/x/1: only the straight run"),
        ([1], [1, 2], "1 of 3 leaves differs, first box/x/1: only the resumed run"),
    ],
)
def test_the_difference_is_said_for_people(saved, loaded, said):
    class Wrong(Box):
        def load(self, data):
            super().load({**data, "x": loaded})

    def made():
        return {"box": Wrong({"x": 0, "n": np.zeros(3)})}

    assert said in refusal(made, lambda made: made["box"].state.update(x=saved))


# Training that cannot be compared


def test_training_that_is_not_deterministic_is_told_from_a_bad_checkpoint():
    unseeded = np.random.default_rng()

    def step(made):
        train(made)
        made[1].model.bias += unseeded.normal()

    said = refusal(without("optimizer"), step)
    assert "not deterministic by itself" in said
    assert "At step 1, 1 of 13 leaves differs, first model/bias" in said


def test_training_that_is_not_deterministic_after_the_save_only_is_told_as_well():
    unseeded = np.random.default_rng()

    def step(made):
        train(made)
        if made[1].step == 5:
            made[1].model.bias += unseeded.normal()

    said = refusal(make(), step)
    assert "not deterministic by itself" in said
    assert "At step 5, " in said


def test_what_outlives_a_run_is_no_fault_of_the_checkpoint():
    outside = itertools.count()

    def step(made):
        made["box"].state = next(outside)

    assert "not deterministic by itself" in refusal(lambda: {"box": Box(0)}, step)


def test_objects_that_are_made_differently_each_time_are_told():
    def made():
        return {"box": Box(np.random.default_rng().normal(size=3))}

    said = refusal(made, lambda made: None, steps=1)
    assert "change none" in said

    def step(made):
        made["box"].state = made["box"].state + 1

    said = refusal(made, step)
    assert "make() does not return equal objects" in said
    assert "before the first step 1 of 1 leaves differs, first box" in said


def test_objects_that_are_not_made_anew_are_told():
    box = Box(0)

    def step(made):
        box.state += 1

    assert "make() does not return equal objects" in refusal(lambda: {"box": box}, step)


def test_training_that_changes_nothing_that_is_registered_proves_nothing():
    said = refusal(make("model", "rng"), lambda made: made[1].replay.add(0))
    assert said.startswith("3 steps change none of the 10 registered leaves")


# Global generators


def draw_random():
    return random.random()


def draw_gauss():
    return random.gauss(0, 1)


def draw_numpy():
    return np.random.normal()


def draw_torch():
    return pytest.importorskip("torch").randn(()).item()


DRAWS = {
    draw_random: "random",
    draw_gauss: "random",
    draw_numpy: "numpy",
    draw_torch: "torch",
}


EACH_DRAW = pytest.mark.parametrize(
    "draw",
    [
        pytest.param(draw, marks=[pytest.mark.torch] if draw is draw_torch else [])
        for draw in DRAWS
    ],
)


@EACH_DRAW
def test_global_generators_that_are_not_saved_are_found_and_named(draw):
    def step(made):
        made["box"].state = draw()

    said = refusal(lambda: {"box": Box(0.0)}, step)
    assert "At step 4 (1 after loading), 1 of 1 leaves differs, first box" in said
    assert f"global generators of {DRAWS[draw]}, which" in said
    assert "GlobalRNG" in said


@EACH_DRAW
def test_training_with_global_generators_is_resumed_with_global_rng(draw):
    def step(made):
        made["box"].state = draw()

    check_resume(lambda: {"box": Box(0.0), "rng": GlobalRNG()}, step)


def test_global_generators_that_are_restored_are_not_blamed():
    def made():
        return {"box": Box(0.0), "rng": GlobalRNG()}, Box(0)

    def step(made):
        components, forgotten = made
        forgotten.state += 1
        components["box"].state = np.random.random() + forgotten.state

    said = refusal(made, step)
    assert "At step 4 (1 after loading)" in said
    assert "GlobalRNG" not in said


def test_generators_that_make_seeds_are_found_too():
    def made():
        random.seed(0)
        np.random.seed(0)
        return {"box": Box(0.0)}

    def step(made):
        made["box"].state = random.random() + np.random.random()

    assert "generators of numpy, random, which" in refusal(made, step)


# Saving and loading that change the run


def components_that(rng=False, **methods):
    """Return what makes a box of a class with these methods, and maybe a GlobalRNG."""

    def made():
        cls = type("Own", (Box,), methods)
        return {"box": cls({"n": 0})} | ({"rng": GlobalRNG()} if rng else {})

    return made


def count(made):
    made["box"].state = {"n": made["box"].state["n"] + 1}


@EACH_DRAW
@pytest.mark.parametrize("rng", [False, True])
def test_a_save_that_draws_from_a_global_generator_is_found(draw, rng):
    def save(self):
        draw()
        return self.state

    said = refusal(components_that(save=save, rng=rng), count)
    assert "Saving changes the run" in said
    assert f"after step 0, saving 'box' changes those of {DRAWS[draw]}." in said


def test_a_save_that_seeds_a_global_generator_is_found():
    def save(self):
        random.seed(3)
        np.random.seed(3)
        return self.state

    said = refusal(components_that(save=save), count)
    assert "saving 'box' changes those of numpy, random." in said


class DrawsWhenPickled:
    def __reduce__(self):
        random.random()
        return DrawsWhenPickled, ()


def test_an_object_that_draws_when_it_is_pickled_is_found():
    def save(self):
        return {**self.state, "odd": DrawsWhenPickled()}

    said = refusal(components_that(save=save), count)
    assert "after step 0, saving 'box' changes those of random." in said


def test_a_library_that_draws_in_the_first_save_after_a_load_is_found(monkeypatch):
    chance = os.urandom

    def draw(size):  # Of four bytes, a load draws whose turn it is to be checked.
        return random.randbytes(size) if size == 4 else chance(size)

    monkeypatch.setattr(os, "urandom", draw)
    said = refusal(make(), train)
    assert "after step 4, saving changes those of random. Let" in said


def test_runs_are_saved_in_both_halves_and_to_one_directory(monkeypatch):
    saves, save = [], Checkpoint.save

    def noted(self, *args, **options):
        report = save(self, *args, **options)
        saves.append((report.path.parent, report.step))
        return report

    monkeypatch.setattr(Checkpoint, "save", noted)
    check_resume(make(), train, steps=2)
    assert [step for _, step in saves] == [0, 1, 2, 3, 4]
    assert len({directory for directory, _ in saves}) == 1


@EACH_DRAW
def test_a_load_that_draws_is_found_unless_a_global_rng_undoes_it(draw):
    def load(self, data):
        draw()
        Box.load(self, data)

    said = refusal(components_that(load=load), count)
    assert "Loading leaves global generators in states that no run had" in said
    assert f"loading 'box' changes those of {DRAWS[draw]}. Register an " in said
    check_resume(components_that(load=load, rng=True), count)


def test_a_load_that_seeds_is_found_unless_a_global_rng_undoes_it():
    def load(self, data):
        np.random.seed(0)
        Box.load(self, data)

    said = refusal(components_that(load=load), count)
    assert "loading 'box' changes those of numpy. Register" in said
    check_resume(components_that(load=load, rng=True), count)


def test_a_save_that_changes_what_it_returns_is_found():
    def save(self):
        self.state["saves"] = self.state.get("saves", 0) + 1
        return dict(self.state)

    def step(made):
        made["box"].state["n"] += 1

    said = refusal(components_that(save=save), step)
    assert said.startswith("Saving changes the run")
    assert "At step 1, 1 of 2 leaves differs, first box/saves: int, " in said


def test_a_save_that_changes_what_it_does_not_return_is_found():
    def save(self):
        self.is_dirty = True  # Which the training takes for another episode.
        return self.state

    def step(made):
        box = made["box"]
        calls = [box.calls, box.saves] = [getattr(box, "calls", 0) + 1, 0]
        box.state = {"n": box.state["n"] + calls[0]}

    class Counting(Box):
        def save(self):
            self.calls = getattr(self, "calls", 0) + 1
            return self.state

    check_resume(components_that(save=save), count)
    said = refusal(lambda: {"box": Counting({"n": 0})}, step)
    assert said.startswith("Saving changes the run")
    assert "first box/n" in said


def test_recording_a_run_draws_nothing():
    states = []

    def step(made):
        states.append(random.getstate())
        made["box"].state = random.random()

    class Remade:
        def __reduce__(self):
            return _remake, ()

    class Own(Box):
        def save(self):
            return {"x": self.state, "odd": Remade()}

        def load(self, data):
            super().load(data["x"])

    check_resume(lambda: {"box": Own(0.0), "rng": GlobalRNG()}, step, steps=1)
    random.setstate(states[0])
    random.random()
    assert random.getstate() == states[1]


def _remake():
    random.random()


def test_what_make_draws_and_nothing_saves_is_found():
    def made():
        projection = np.random.normal(size=3)
        return {"box": Box(np.ones(3))}, projection

    def step(made):
        components, projection = made
        components["box"].state = components["box"].state * projection

    said = refusal(made, step)
    assert "At step 4 (1 after loading)" in said
    assert "GlobalRNG" not in said  # It would not help.


def test_global_generators_are_put_back():
    states = GlobalRNG().save()
    check_resume(
        make(), lambda made: [train(made), random.random(), np.random.bytes(9)]
    )
    refusal(without("rng"), train)
    np.testing.assert_equal(GlobalRNG().save(), states)


@pytest.mark.torch
@pytest.mark.torch
def test_libraries_that_training_imports_do_not_make_it_look_random():
    pytest.importorskip("torch")
    script = """
import elementsckpt, sys
from elementsckpt.testing.fingerprints import take
from elementsckpt.testing import check_resume

class Box:
    x = 0
    def save(self):
        return self.x
    def load(self, data):
        self.x = data

def step(made):
    import torch
    made["box"].x = torch.rand(()).item()

assert "torch" not in sys.modules
check_resume(lambda: {"box": Box(), "rng": elementsckpt.GlobalRNG()}, step)
"""
    result = python(script)
    assert result.returncode == 0, result.stderr


# What make may return


class Named(NamedTuple):
    components: dict
    extra: int


@pytest.mark.parametrize(
    "wrap",
    [
        lambda box: {"box": box},
        lambda box: types.MappingProxyType({"box": box}),
        lambda box: (box, {"box": box}),
        lambda box: Named({"box": box}, 3),
        lambda box: registered(box),
        lambda box: (3, registered(box)),
        lambda box: ({"config": 1}, registered(box)),
    ],
)
def test_make_returns_components_in_one_of_several_ways(wrap):
    seen = []

    def made():
        result = wrap(Box(0))
        seen.append(result)
        return result

    def step(made):
        assert made is seen[-1]
        parts = made if isinstance(made, tuple) else (made,)
        for part in parts:
            if isinstance(part, Checkpoint):
                part.box.state += 1
            elif "box" in (part if isinstance(part, collections.abc.Mapping) else ()):
                part["box"].state += 1

    assert check_resume(made, step).leaves == 1


def registered(box, **options):
    cp = Checkpoint(**options)
    cp.box = box
    return cp


def test_what_holds_no_components_is_refused():
    with pytest.raises(ValueError, match="Box: return a Checkpoint"):
        check_resume(lambda: Box(0), lambda made: None)
    with pytest.raises(ValueError, match="tuple: return a Checkpoint"):
        check_resume(lambda: (Box(0), 3), lambda made: None)
    with pytest.raises(ComponentError, match="'x'"):
        check_resume(lambda: {"x": 3}, lambda made: None)


@pytest.mark.parametrize("steps", [0, -1, 1.5, True, None])
def test_a_number_of_steps_that_is_none_is_refused(steps):
    with pytest.raises(ValueError, match="steps="):
        check_resume(make(), train, steps=steps)


def test_the_checkpoint_that_make_returns_is_the_one_that_saves_and_loads(tmp_path):
    """Also in the background, and without a trace in its own directory."""

    def made():
        cp = Checkpoint(tmp_path / "run", background=True)
        everything = parts()
        for key, part in everything.items():
            setattr(cp, key, part)
        return cp, types.SimpleNamespace(**everything)

    check_resume(made, train)
    assert not (tmp_path / "run").exists()


def test_temporary_files_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    check_resume(make(), train)
    refusal(without("replay"), train)
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_training_are_raised_as_they_are():
    def step(made):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        check_resume(make(), step)


def test_errors_of_saving_are_raised_as_they_are():
    class Locked(Box):
        def save(self):
            raise MissingKeyError("no such thing")

    with pytest.raises(MissingKeyError):
        check_resume(lambda: {"box": Locked()}, lambda made: None)


def test_the_error_is_an_assertion_and_one_of_the_project():
    assert issubclass(ResumeError, AssertionError)
    assert issubclass(ResumeError, CheckpointError)


# All kinds of leaves and components


class Stream(Box):
    """Saves shards, and reuses an array for all of them."""

    def save(self):
        shard = np.zeros(3)
        for item in self.state:
            shard[:] = item
            yield {"x": shard, "n": item}

    def load(self, data):
        self.state = [shard["n"] for shard in data]


def test_shards_are_compared_one_by_one():
    def grow(made):
        made["replay"].state.append(len(made["replay"].state))

    report = check_resume(lambda: {"replay": Stream([0])}, grow)
    assert report.leaves == 14

    class Short(Stream):
        def load(self, data):
            super().load(itertools.islice(data, 2))

    said = refusal(lambda: {"replay": Short([0])}, grow)
    assert "Right after loading, 4 of 8 leaves differ, first replay/2/" in said
    assert "only the straight run has it" in said


class Thing:
    """An object without any notion of being equal to another."""

    def __init__(self):
        self.count = 0
        self.array = np.zeros(3)
        self.train(loaded=False)

    def train(self, loaded):
        """Come to the same content by other objects in a run that was loaded."""
        self.count += 1
        self.array = self.array + 1
        self.name = "left"
        self.mode = "".join(["le", "ft"]) if loaded else self.name
        self.shape = (3, 4)
        self.other = tuple(map(int, "34")) if loaded else self.shape
        self.seen = set([8, 0] if loaded else [0, 8])  # Which collide.


class Value:
    """An object that pickles differently each time and equals others of its value."""

    pickled = itertools.count()

    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        return self.number == other.number

    def __reduce__(self):
        return Value._from, (self.number, next(Value.pickled))

    @classmethod
    def _from(cls, number, _):
        return cls(number)


class Reordering(Box):
    """Loads the same numbers as arrays that are not quite the same."""

    def load(self, data):
        super().load(
            {
                "scalar": np.asarray(data["scalar"]),
                "fortran": np.ascontiguousarray(data["fortran"]),
                "c": np.asfortranarray(data["c"]),
                "strided": data["strided"].copy(),
                "empty": data["empty"],
            }
        )


def test_arrays_are_compared_by_their_numbers_and_not_their_memory():
    def make(step=0):
        grid = np.arange(6.0).reshape(2, 3) + step
        return {
            "scalar": np.float32(step),
            "fortran": np.asfortranarray(grid),
            "c": grid,
            "strided": np.arange(9)[step::2],
            "empty": np.zeros(3, "V0"),
        }

    def step(made):
        made["box"].state = make(int(made["box"].state["scalar"]) + 1)

    assert check_resume(lambda: {"box": Reordering(make())}, step).leaves == 5

    class Transposed(Box):
        def load(self, data):
            super().load({**data, "c": data["c"].reshape(3, 2).T})

    said = refusal(lambda: {"box": Transposed(make())}, step)
    assert "1 of 5 leaves differs, first box/c: float64[2,3], 4 of 6 elements" in said


def test_objects_that_only_pickle_holds_are_compared_by_content():
    def made():
        offset = 3
        return {"box": Box({"thing": Thing(), "lambda": lambda x: x + offset})}

    def step(made):
        box = made["box"]
        box.state["thing"].train(loaded=box.loads > 0)

    assert check_resume(made, step).leaves == 2


def test_an_object_that_differs_is_found():
    class Lossy(Box):
        def load(self, data):
            data.count = 0
            super().load(data)

    said = refusal(
        lambda: {"box": Lossy(Thing())},
        lambda made: made["box"].state.train(loaded=False),
    )
    assert "Right after loading, 1 of 1 leaves differs, first box: Thing, " in said


def test_objects_whose_pickles_differ_are_compared_as_equal_or_not():
    def made():
        return {"box": Box(Value(0)), "odd": Box(np.array([Value(0), None], object))}

    def step(made):
        made["box"].state = Value(made["box"].state.number + 1)
        made["odd"].state[0] = Value(made["odd"].state[0].number + 1)

    assert check_resume(made, step).leaves == 2

    class Wrong(Box):
        def load(self, data):
            super().load(Value(data.number + 1))

    said = refusal(lambda: {"box": Wrong(Value(0))}, step_value)
    assert "first box: Value" in said

    class Number(Box):
        def load(self, data):
            super().load(data.number)  # Comparing these two fails.

    said = refusal(lambda: {"box": Number(Value(0))}, step_value)
    assert "first box: Value and int" in said


def test_of_all_leaves_only_small_objects_are_kept_in_memory():
    state = {
        "small": Thing(),
        "large": Value(bytes(17 << 20)),
        "array": np.zeros(3),
        "text": "long " * 1000,
    }
    kept = {name for name, x in take("box", state).items() if x.copy is not None}
    assert kept == {"box/small"}


def step_value(made):
    made["box"].state = Value(made["box"].state.number + 1)


def test_leaves_of_one_name_are_all_compared():
    class Swapped(Box):
        def load(self, data):
            super().load({"a/b": data["a/b"], "a": {"b": data["a"]["b"] - 1}})

    def step(made):
        made["box"].state["a"]["b"] += 1

    def made(cls):
        return lambda: {"box": cls({"a/b": 1, "a": {"b": 5}})}

    check_resume(made(Box), step)
    assert "1 of 2 leaves differs, first box/a/b~" in refusal(made(Swapped), step)


def test_all_kinds_of_scalars_and_containers_are_compared():
    def state():
        return {
            "scalars": [
                None,
                True,
                -(1 << 70),
                0.1,
                float("nan"),
                2 - 1j,
                "\ud800",
                ...,
            ],
            "long": "text " * 500,
            "bytes": [b"", b"\xff", b"x" * 2000, bytearray(b"ab")],
            "sets": [set(), {1, "a", (2, 3)}, frozenset({1.5, "b", frozenset("xyz")})],
            "maps": [collections.OrderedDict(b=1), collections.Counter("hello")],
            "deque": collections.deque([1, 2], maxlen=4),
            "numpy": [
                np.float32(1),
                np.array(2.0),
                np.zeros((0, 3)),
                np.arange(6)[::2],
            ],
            "orders": [np.asfortranarray(np.arange(6).reshape(2, 3)), np.arange(3.0).T],
            "bytes order": np.arange(3, dtype=">i2"),
            "times": np.array(["2026-11-20", "NaT"], "M8[D]"),
            "record": np.array([(1, 2.0)], [("a", "<i4"), ("b", "<f8")]),
            "text": np.array(["a", "é"]),
            "generators": [np.random.default_rng(0), np.random.RandomState(0)],
            "function": len,
            "count": 0,
        }

    def step(made):
        order = [8, 0] if made["box"].loads else [0, 8]
        made["box"].state["sets"][0] = set(order)
        made["box"].state["sets"][1] = frozenset([(frozenset(order), 1)])
        made["box"].state["count"] += 1
        made["box"].state["generators"][0].random()

    check_resume(lambda: {"box": Box(state())}, step)


# JAX


def test_a_jax_training_is_resumed_exactly_or_the_leaf_is_named():
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    jnp = jax.numpy
    optimizer = optax.adam(0.1)

    @jax.jit
    def update(params, state, key):
        x = jax.random.normal(key, (8, 4))

        def loss(params):
            return jnp.square(x @ params["w"] + params["b"] - 1).mean()

        changes, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, changes), state

    class Agent(Box):
        def __init__(self):
            params = {"w": jnp.ones((4, 2)), "b": jnp.zeros(2, jnp.bfloat16)}
            opt, key = optimizer.init(params), jax.random.key(0)
            super().__init__({"params": params, "opt": opt, "key": key})

        def train(self):
            self.state["key"], key = jax.random.split(self.state["key"])
            new = update(self.state["params"], self.state["opt"], key)
            self.state["params"], self.state["opt"] = new

    def forgetting(name):
        class Forgetful(Agent):
            def load(self, data):
                super().load({**data, name: self.state[name]})

        return Forgetful

    def check(cls):
        return check_resume(
            lambda: {"agent": cls()}, lambda made: made["agent"].train()
        )

    assert check(Agent).leaves == 2 + 1 + 2 * 2 + 1
    with pytest.raises(ResumeError, match=r"first agent/key: key<\w+>\[\]"):
        check(forgetting("key"))
    with pytest.raises(
        ResumeError, match=r"first agent/opt/0/count: int32\[\], 3 and 0"
    ):
        check(forgetting("opt"))
    with pytest.raises(
        ResumeError, match=r"first agent/params/b: bfloat16\[2\], 2 of 2"
    ):
        check(forgetting("params"))


def test_components_that_write_files_are_compared_by_these():
    class Policy:
        def __init__(self):
            self.weights = np.ones(3)

        def write(self, folder):
            (folder / "weights.bin").write_bytes(self.weights.tobytes())

        def read(self, folder):
            self.weights = np.frombuffer((folder / "weights.bin").read_bytes()).copy()

    def make(forgets):
        def made():
            policy = Policy()
            load = (lambda folder: None) if forgets else policy.read
            cp = elementsckpt.Checkpoint()
            cp.policy = elementsckpt.Files(save=policy.write, load=load)
            return cp, policy

        return made

    def train(made):
        made[1].weights *= 1.5

    check_resume(make(forgets=False), train)
    with pytest.raises(ResumeError, match=r"policy/weights\.bin"):
        check_resume(make(forgets=True), train)


def test_a_schedule_is_state_like_any_other():
    def make():
        cp = elementsckpt.Checkpoint()
        cp.step, cp.should = elementsckpt.Counter(), elementsckpt.Every(2)
        return cp

    def train(cp):
        cp.step.increment()
        cp.should(cp.step)

    check_resume(make, train)
