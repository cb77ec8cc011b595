"""`cp.<key> = component`: what may be registered, as what, and by which protocol."""

import functools
import re
import rlcompleter
import threading

import elements
import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, CheckpointError, ComponentError
from elementsckpt.components import registry

from support.boxes import Box


class OnlySave:
    def save(self):
        return 1


class OnlyLoad:
    def load(self, data):
        pass


class SaveIsAnAttribute:
    save = "not callable"

    def load(self, data):
        pass


class HalvesOfTwoProtocols:
    def save(self):
        return 1

    def load_state_dict(self, state):
        pass


REFUSED_OBJECTS = [
    None,
    3,
    "text",
    {"a": 1},
    np.zeros(3),
    object(),
    OnlySave(),
    OnlyLoad(),
    SaveIsAnAttribute(),
    HalvesOfTwoProtocols(),
    Box,  # The class where an instance is meant: its save needs `self`.
]


@pytest.mark.parametrize("value", REFUSED_OBJECTS, ids=lambda x: type(x).__name__)
def test_an_object_without_a_protocol_is_refused_at_once(value):
    cp = Checkpoint()
    with pytest.raises(ComponentError) as error:
        cp.agent = value
    assert isinstance(error.value, ValueError)
    assert isinstance(error.value, CheckpointError)
    assert "agent" in str(error.value)
    assert "save" in str(error.value)
    assert "load" in str(error.value)
    assert list(cp) == []


def test_a_refused_object_leaves_the_old_component_in_place():
    cp = Checkpoint()
    cp.agent = box = Box()
    with pytest.raises(ComponentError):
        cp.agent = 3
    assert cp.agent is box


METHODS = ["save", "load", "load_or_save", "exists", "latest", "saves", "wait", "close"]


@pytest.mark.parametrize("key", METHODS)
def test_a_key_that_shadows_a_method_is_refused_also_for_a_good_component(key):
    cp = Checkpoint()
    with pytest.raises(ComponentError) as error:
        setattr(cp, key, Box())
    assert key in str(error.value)
    assert list(cp) == []
    assert callable(getattr(cp, key))


@pytest.mark.parametrize("key", ["_agent", "__agent", "__agent__", "_"])
def test_a_key_with_a_leading_underscore_is_refused_also_for_a_good_component(key):
    cp = Checkpoint()
    with pytest.raises(ComponentError) as error:
        setattr(cp, key, Box())
    assert key in str(error.value)
    assert list(cp) == []


@pytest.mark.parametrize("key", ["", "a b", "1st", "a-b", "a/b", "..", "a.b", "a\0b"])
def test_a_key_that_is_no_identifier_is_refused(key):
    cp = Checkpoint()
    with pytest.raises(ComponentError):
        setattr(cp, key, Box())
    assert list(cp) == []


def test_a_refused_registration_leaves_the_checkpoint_usable(tmp_path):
    cp = Checkpoint(tmp_path)
    for key, value in (("agent", 3), ("save", Box()), ("_agent", Box())):
        with pytest.raises(ComponentError):
            setattr(cp, key, value)
    cp.agent = Box(7)
    cp.save()
    cp.agent.state = 8
    cp.load()
    assert cp.agent.state == 7


def test_any_other_identifier_is_a_key(tmp_path):
    keys = ["a", "A", "größe", "模型", "step", "keys", "state_", "x1"]
    cp = Checkpoint(tmp_path)
    for number, key in enumerate(keys):
        setattr(cp, key, Box(number))
    assert list(cp) == keys
    cp.save()
    other = Checkpoint(tmp_path)
    for key in keys:
        setattr(other, key, Box())
    other.load()
    assert [getattr(other, key).state for key in keys] == list(range(len(keys)))


def test_a_component_is_read_back_as_the_same_object():
    cp = Checkpoint()
    cp.agent = box = Box()
    assert cp.agent is box


def test_assigning_again_replaces_the_component(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.agent = old = Box(1)
    cp.agent = new = Box(2)
    cp.save()
    old.state = new.state = None
    cp.load()
    assert (old.state, new.state) == (None, 2)
    assert len(cp) == 1


def test_del_unregisters(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.agent, cp.replay = Box(1), Box(2)
    del cp.agent
    assert list(cp) == ["replay"]
    assert "agent" not in cp
    cp.save()
    assert set(elementsckpt.read(cp.latest())) == {"replay"}


def test_del_of_an_unknown_key_is_an_attribute_error():
    cp = Checkpoint()
    with pytest.raises(AttributeError, match="agent"):
        del cp.agent


def test_an_unknown_attribute_is_an_attribute_error_that_lists_the_keys():
    cp = Checkpoint()
    cp.agent = Box()
    with pytest.raises(AttributeError) as error:
        _ = cp.agnet
    assert "agnet" in str(error.value)
    assert "agent" in str(error.value)


@pytest.mark.parametrize(
    "name", ["latest_step", "restore", "wait_until_finished", "should_save", "metrics"]
)
def test_methods_of_other_libraries_say_what_to_call_and_are_free_as_keys(name):
    cp = Checkpoint()
    with pytest.raises(AttributeError, match=rf"{name}.* use \w+"):
        getattr(cp, name)
    assert not hasattr(cp, name)
    setattr(cp, name, Box(5))
    assert getattr(cp, name).state == 5


def test_what_is_called_otherwise_elsewhere_is_called_as_it_is_said(tmp_path):
    for here in registry._CALLED_HERE.values():
        for name in re.findall(r"\b(\w+)\(", here):
            owners = Checkpoint, elementsckpt
            assert any(hasattr(owner, name) for owner in owners)
    cp = Checkpoint(tmp_path, step=5)
    cp.agent = Box(1)
    cp.save(metrics={"return": 1.0})
    scope = {name: getattr(cp, name) for name in ("saves", "latest", "best")}
    steps = [registry._CALLED_HERE[name] for name in ("latest_step", "all_steps")]
    assert [eval(step, scope) for step in steps] == [5, [5]]


def test_hasattr_and_getattr_with_a_default_work():
    cp = Checkpoint()
    cp.agent = Box()
    assert hasattr(cp, "agent")
    assert not hasattr(cp, "nope")
    assert not hasattr(cp, "_nope")
    assert getattr(cp, "nope", None) is None


def test_in_iter_and_len_speak_of_keys_in_the_order_of_registration():
    cp = Checkpoint()
    assert list(cp) == []
    assert len(cp) == 0
    cp.b, cp.a = Box(), Box()
    assert list(cp) == ["b", "a"]
    assert len(cp) == 2
    assert "a" in cp
    assert "c" not in cp
    assert "save" not in cp


def test_an_empty_checkpoint_is_true_as_an_object_is_in_elements():
    assert bool(Checkpoint())


def test_dir_and_tab_completion_offer_keys_and_methods():
    cp = Checkpoint()
    cp.agent = Box()
    assert {"agent", "save", "load_or_save"} <= set(dir(cp))
    completer = rlcompleter.Completer({"cp": cp})
    assert completer.complete("cp.age", 0).startswith("cp.agent")
    assert completer.complete("cp.load_or", 0).startswith("cp.load_or_save")


def test_repr_shows_directory_keys_and_newest_step(tmp_path):
    cp = Checkpoint(tmp_path / "ckpt", step=123456)
    assert str(tmp_path / "ckpt") in repr(cp)
    assert "123456" not in repr(cp)
    cp.agent, cp.replay = Box(1), Box(2)
    cp.save()
    assert "agent" in repr(cp)
    assert "replay" in repr(cp)
    assert "123456" in repr(cp)


def test_where_nothing_is_called_step_no_step_is_spoken_of(tmp_path, caplog):
    cp = Checkpoint(tmp_path)
    cp.agent = Box(1)
    path = cp.save().path
    with caplog.at_level("INFO", "elementsckpt"):
        cp.load()
    assert caplog.messages == [f"Loaded {path}."]
    assert "None" not in repr(cp)


def test_a_step_is_spoken_of(tmp_path, caplog):
    cp = Checkpoint(tmp_path, step=0)
    cp.agent = Box(1)
    path = cp.save().path
    with caplog.at_level("INFO", "elementsckpt"):
        cp.load()
    assert caplog.messages == [f"Loaded {path}, of step 0."]


def test_repr_of_a_transient_checkpoint_works():
    cp = Checkpoint()
    cp.agent = Box()
    assert "agent" in repr(cp)


class SpeaksAll:
    """Notes which protocol was used; each has a state of its own."""

    def __init__(self):
        self.got = {}

    def save(self):
        return "first"

    def load(self, data):
        self.got["load"] = data

    def state_dict(self):
        return {"second": 2}

    def load_state_dict(self, state):
        self.got["load_state_dict"] = state

    def to_state_dict(self):
        return {"third": 3}

    def from_state_dict(self, state):
        self.got["from_state_dict"] = state

    def get_state(self):
        return {"fourth": 4}

    def set_state(self, state):
        self.got["set_state"] = state


class SpeaksTorchAndFlax(SpeaksAll):
    save = load = None


class SpeaksFlax(SpeaksTorchAndFlax):
    state_dict = load_state_dict = None


class SpeaksGrain(SpeaksFlax):
    to_state_dict = from_state_dict = None


class SaveNeedsAPath(SpeaksAll):
    def save(self, path):
        raise AssertionError("a save that needs arguments is another protocol")


class SaveNeedsAKeyword(SpeaksAll):
    def save(self, *, path):
        raise AssertionError("a save that needs arguments is another protocol")


class SaveAndStateDictNeedArguments(SaveNeedsAPath):
    def state_dict(self, destination):
        raise AssertionError("a state_dict that needs arguments is not the protocol")


class SaveTakesAnything(SpeaksAll):
    def save(self, *args, **kwargs):
        raise AssertionError("what takes anything takes a path")


class SaveTakesAPlace(SpeaksAll):
    def save(self, prefix=None, *, threads=1):
        raise AssertionError("what takes a place writes there")


class LoadMakesAnother(SpeaksAll):
    @classmethod
    def load(cls, data):
        raise AssertionError("what is of the class does not change the object")


class SaveHasOtherOptions(SpeaksAll):
    def save(self, wait=False, **kwargs):
        return "first"


class StateDictTakesAPrefix(SpeaksTorchAndFlax):
    """Is as modules of torch are."""

    def state_dict(self, *args, destination=None, prefix="", keep_vars=False):
        return {"second": 2}

    def load_state_dict(self, state, strict=True, assign=False):
        self.got["load_state_dict"] = state


class GetStateTakesComponents(SpeaksGrain):
    """Is as those of RLlib are."""

    def get_state(self, components=None, *, not_components=None, **kwargs):
        return {"fourth": 4}


@pytest.mark.parametrize(
    ("cls", "used"),
    [
        (SpeaksAll, {"load": "first"}),
        (SpeaksTorchAndFlax, {"load_state_dict": {"second": 2}}),
        (SpeaksFlax, {"from_state_dict": {"third": 3}}),
        (SaveNeedsAPath, {"load_state_dict": {"second": 2}}),
        (SaveNeedsAKeyword, {"load_state_dict": {"second": 2}}),
        (SaveAndStateDictNeedArguments, {"from_state_dict": {"third": 3}}),
        (SpeaksGrain, {"set_state": {"fourth": 4}}),
        (SaveTakesAnything, {"load_state_dict": {"second": 2}}),
        (SaveTakesAPlace, {"load_state_dict": {"second": 2}}),
        (LoadMakesAnother, {"load_state_dict": {"second": 2}}),
        (SaveHasOtherOptions, {"load": "first"}),
        (StateDictTakesAPrefix, {"load_state_dict": {"second": 2}}),
        (GetStateTakesComponents, {"set_state": {"fourth": 4}}),
    ],
)
def test_protocols_are_tried_in_their_order(tmp_path, cls, used):
    cp = Checkpoint(tmp_path)
    cp.agent = cls()
    cp.save()
    cp.load()
    assert cp.agent.got == used


def test_a_save_that_needs_arguments_is_refused_when_no_protocol_is_left():
    class Model:
        def save(self, path):
            pass

        def load(self, path):
            pass

    cp = Checkpoint()
    with pytest.raises(ComponentError) as error:
        cp.model = Model()
    assert "model" in str(error.value)
    assert "argument" in str(error.value)


PLACES = [
    *("path", "filepath", "file", "fname", "file_name", "filename", "prefix"),
    *("dest", "destination", "out", "output", "f", "fp", "url", "save_to"),
    *("filePath", "outFile", "fileName", "dirName", "saveDir", "OUT_PATH", "_path"),
    *("folder", "directory", "dirname", "save_path", "out_dir", "log_file"),
    *("dir", "logdir"),
]
SAVES = {name: eval(f"lambda self, {name}='agent.npy': None") for name in PLACES}
SAVES |= {
    "any": lambda self, *args: None,
    "named": lambda self, *, path=None: None,
    "not first": lambda self, wait=False, path=None: None,
}


@pytest.mark.parametrize("save", SAVES.values(), ids=SAVES)
def test_a_save_that_can_take_a_place_is_refused_when_no_protocol_is_left(save):
    cls = type("Agent", (Box,), {"save": save})
    cp = Checkpoint()
    with pytest.raises(ComponentError, match=r"place to write to.*elementsckpt\.Files"):
        cp.agent = cls()
    assert list(cp) == []


def test_a_save_made_of_another_function_can_take_what_is_left_of_its_arguments():
    def write(state, path="agent.npy"):
        raise AssertionError("registering calls nothing")

    box, cp = Box(5), Checkpoint()
    box.save = functools.partial(write, 5)
    with pytest.raises(ComponentError, match="place"):
        cp.agent = box
    box.save = functools.partial(write, 5, "agent.npy")  # It has nothing to ask for.
    cp.agent = box


class Callable:
    def __init__(self, box):
        self.box = box

    def __call__(self, wait=False):
        return self.box.state


@pytest.mark.parametrize(
    "wrap", [Callable, lambda box: functools.partial(Callable(box), wait=True)]
)
def test_a_save_may_be_any_object_that_can_be_called(tmp_path, wrap):
    box = Box(5)
    box.save = wrap(box)
    cp = Checkpoint(tmp_path)
    cp.agent = box
    cp.save()
    box.state = None
    cp.load()
    assert box.state == 5


def test_a_method_whose_arguments_are_not_told_is_taken_to_need_none(tmp_path):
    class Agent(Box):
        save = {}.copy  # Which tells from Python 3.13 on.

    cp = Checkpoint(tmp_path)
    cp.agent = Agent()
    cp.save()
    cp.load()
    assert cp.agent.state == {}


def test_a_decorated_save_is_what_it_was_before(tmp_path):
    def timed(function):
        @functools.wraps(function)
        def timed_function(*args, **kwargs):
            return function(*args, **kwargs)

        return timed_function

    class Agent(Box):
        save = timed(Box.save)

    cp = Checkpoint(tmp_path)
    cp.agent = Agent(5)
    assert cp.save().pickled == ()


def test_a_class_whose_methods_are_all_its_own_is_a_component(tmp_path):
    class Stats:
        total = 5

        @classmethod
        def save(cls):
            return cls.total

        @classmethod
        def load(cls, data):
            cls.total = data

    cp = Checkpoint(tmp_path)
    cp.stats, cp.same = Stats, Stats()
    cp.save()
    Stats.total = 0
    cp.load()
    assert Stats.total == 5


def test_optional_arguments_of_save_and_load_do_no_harm(tmp_path):
    class Agent(Box):
        def save(self, verbose=False, *, wait=True, **kwargs):
            return super().save()

        def load(self, data, regex=None):
            assert regex is None
            super().load(data)

    cp = Checkpoint(tmp_path)
    cp.agent = Agent(5)
    cp.save()
    cp.agent.state = None
    cp.load()
    assert cp.agent.state == 5


def test_methods_of_a_wrapper_that_forwards_attributes_count(tmp_path):
    class Wrapper:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

    box = Box(5)
    cp = Checkpoint(tmp_path)
    cp.agent = Wrapper(box)
    cp.save()
    box.state = None
    cp.load()
    assert box.state == 5


PACKAGES = pytest.mark.parametrize(
    "package", [elements, elementsckpt], ids=["elements", "elementsckpt"]
)


@PACKAGES
def test_a_counter_is_saved_and_loaded(tmp_path, package):
    cp = Checkpoint(tmp_path)
    cp.step = package.Counter(7)
    cp.save()
    cp.step.increment(5)
    cp.load()
    assert int(cp.step) == 7
    assert type(cp.step.value) is int


@PACKAGES
def test_a_counter_behaves_as_elements_does(package):
    counter = package.Counter()
    assert counter == 0
    assert counter.value == 0
    assert counter.save() == 0
    counter.increment()
    counter.increment(amount=4)
    assert counter == 5
    assert counter != 4
    assert counter == package.Counter(5)
    assert counter < package.Counter(6)
    assert counter < 6
    assert counter <= 5
    assert counter > 4
    assert counter >= 5
    assert (counter != 5, counter < 5, counter > 5) == (False, False, False)
    assert counter + 1 == 6
    assert counter - 1 == 4
    assert 7 - counter == 2
    assert type(counter + 1) is int
    assert int(counter) == 5
    assert f"{counter}" == repr(counter) == "Counter(5)"
    counter.reset()
    assert counter == 0
    counter.load(9)
    assert counter.value == 9
    with counter.lock:  # DreamerV3's agent reads and bumps its counters so.
        counter.value += 1
    assert counter == 10
    assert package.Counter(initial=3) == 3
    with pytest.raises(TypeError):
        hash(counter)


@PACKAGES
def test_a_counter_loses_no_increment_between_threads(package):
    counter = package.Counter()
    start = threading.Barrier(8)

    def count():
        start.wait()
        for _ in range(5_000):
            counter.increment()

    threads = [threading.Thread(target=count) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert counter == 40_000


@PACKAGES
def test_a_saveable_of_attributes_is_saved_and_loaded(tmp_path, package):
    class Env(package.Saveable):
        def __init__(self):
            super().__init__(attrs=["level", "board"])
            self.level, self.board, self.other = 1, np.arange(4), "kept"

    cp = Checkpoint(tmp_path)
    cp.env = env = Env()
    assert set(env.save()) == {"level", "board"}
    cp.save()
    env.level, env.board, env.other = 2, None, "mine"
    cp.load()
    assert env.level == 1
    assert env.other == "mine"
    assert np.array_equal(env.board, np.arange(4))


@PACKAGES
def test_a_saveable_of_two_functions_is_saved_and_loaded(tmp_path, package):
    got = []
    cp = Checkpoint(tmp_path)
    cp.norm = package.Saveable(save=lambda: {"mean": 0.5}, load=got.append)
    cp.save()
    cp.load()
    assert got == [{"mean": 0.5}]


def test_a_saveable_takes_two_functions_by_position(tmp_path):
    got = []
    cp = Checkpoint(tmp_path)
    cp.norm = elementsckpt.Saveable(lambda: {"mean": 0.5}, got.append)
    cp.step = elementsckpt.Saveable(lambda: 5, load=got.append)
    cp.save()
    cp.load()
    assert got == [{"mean": 0.5}, 5]


class Buffer:
    """Stands for a class of somebody else."""

    def __init__(self, pos):
        self.pos, self.full, self.device = pos, False, "cpu"
        self.rewards = np.arange(4) + pos


def test_a_saveable_of_attributes_of_another_object_changes_that(tmp_path):
    buffer = Buffer(3)
    cp = Checkpoint(tmp_path)
    cp.buffer = elementsckpt.Saveable(["pos", "full", "rewards"], of=buffer)
    assert cp.buffer.of is buffer
    cp.save()
    buffer.__dict__.update(pos=0, full=True, rewards=None, device="cuda")
    cp.load()
    assert (buffer.pos, buffer.full, buffer.device) == (3, False, "cuda")
    np.testing.assert_array_equal(buffer.rewards, np.arange(4) + 3)


def test_a_copy_of_attributes_of_another_object_leaves_that_alone(tmp_path):
    buffer = Buffer(3)
    cp = Checkpoint(tmp_path)
    cp.buffer = elementsckpt.Saveable(["pos"], of=buffer)
    cp.save()
    buffer.pos = 7
    copied = cp.copy_of("buffer")
    assert (copied.of.pos, buffer.pos) == (3, 7)


def test_a_saveable_sets_no_attribute_where_one_is_lacking():
    buffer = Buffer(3)
    with pytest.raises(elementsckpt.MismatchError, match="without 'full'"):
        elementsckpt.Saveable(["pos", "full"], of=buffer).load({"pos": 5})
    assert buffer.pos == 3


def test_a_saveable_needs_attributes_or_both_functions():
    for arguments in (
        {},
        {"save": dict},
        {"load": dict},
        {"attrs": ["a"], "save": dict, "load": dict},
        {"attrs": dict, "save": dict, "load": dict},
        {"attrs": dict},
        {"attrs": dict, "save": dict, "of": Box()},
        {"of": Box()},
    ):
        with pytest.raises((ValueError, TypeError)):
            elementsckpt.Saveable(**arguments)


def test_an_object_that_cannot_be_asked_for_its_class_is_registered(tmp_path):
    class Odd:
        content = 1

        @property
        def __class__(self):
            raise KeyError("class")

        def save(self):
            return self.content

        def load(self, data):
            self.content = data

    cp = Checkpoint(tmp_path)
    cp.odd = odd = Odd()
    cp.save()
    odd.content = 2
    cp.load()
    assert odd.content == 1
