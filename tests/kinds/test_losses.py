"""Objects whose pickles leave out a part of their state are told of, once, by name."""

import collections
import copyreg
import functools
import logging
import random
import re
import threading
import types

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, Counter, Every

from support.boxes import Box, Stream


def said(caplog):
    return [x.getMessage() for x in caplog.records if "leaves out" in x.getMessage()]


def save(directory, state, **options):
    cp = Checkpoint(directory, fsync=False, **options)
    cp.agent = Box(state)
    cp.save()
    cp.wait()
    return cp


class Holder:
    """An object of no kind that the format knows."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


# EzPickle


def ez_pickle(name):
    """Return the class EzPickle of a package, or one that looks like it."""
    if name == "gymnasium":
        return pytest.importorskip("gymnasium").utils.EzPickle
    module = types.ModuleType(f"{name}.utils.ezpickle")
    source = """
class EzPickle:
    def __init__(self, *args, **kwargs):
        self._ezpickle_args, self._ezpickle_kwargs = args, kwargs
    def __getstate__(self):
        return {
            "_ezpickle_args": self._ezpickle_args,
            "_ezpickle_kwargs": self._ezpickle_kwargs,
        }
    def __setstate__(self, d):
        out = type(self)(*d["_ezpickle_args"], **d["_ezpickle_kwargs"])
        self.__dict__.update(out.__dict__)
"""
    exec(source, vars(module))
    return module.EzPickle


def environment(name="gymnasium", size=3):
    base = ez_pickle(name)

    class Hopper(base):
        def __init__(self, size):
            base.__init__(self, size)
            self.size, self.simulator = size, object()

    return Hopper(size)


PLACES = {
    "leaf": lambda env: env,
    "wrapper": lambda env: Holder(env=Holder(env=env)),
    "list in a wrapper": lambda env: Holder(envs=[env]),
    "vector": lambda env: Holder(envs=[env, environment()]),
    "method": lambda env: Holder(step=functools.partial(print, env)),
}


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_an_ez_pickle_is_told_of_wherever_it_is(tmp_path, caplog, place, background):
    state = {"envs": [PLACES[place](environment())], "x": np.ones(3)}
    save(tmp_path, state, background=background)
    message = said(caplog)[0]
    assert message.startswith("agent/envs/0 holds a test_losses.environment.<locals>.H")
    assert "whose pickle leaves out simulator, so a load will not bring" in message
    assert "as elementsckpt.Environment(env), which saves it in the middle" in message
    assert "or call its reset() in load()" in message


@pytest.mark.parametrize("name", ["gym", "gymnasium", "some.fork"])
def test_the_ez_pickle_of_any_package_is_known(tmp_path, caplog, name):
    save(tmp_path, {"env": environment(name)})
    assert len(said(caplog)) == 1


def test_real_environments_are_told_of_or_not(tmp_path, caplog):
    gymnasium = pytest.importorskip("gymnasium")
    spaces, wrappers = gymnasium.spaces, gymnasium.wrappers

    class Walker(gymnasium.Env, gymnasium.utils.EzPickle):
        observation_space, action_space = spaces.Box(-1, 1), spaces.Discrete(2)

        def __init__(self):
            gymnasium.utils.EzPickle.__init__(self)
            self.position = np.zeros(1, np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.position, {}

    envs = gymnasium.vector.SyncVectorEnv(
        [lambda: wrappers.RecordEpisodeStatistics(Walker())] * 2
    )
    envs.reset(seed=0)
    cart = wrappers.RecordEpisodeStatistics(gymnasium.make("CartPole-v1"))
    cart.reset(seed=0)
    save(tmp_path, {"cart": cart, "vector": envs, **vars(envs)})
    (message,) = said(caplog)
    assert message.startswith("agent/envs/0 (and 1 more) holds a test_losses.")
    assert "position" in message
    assert "_np_random" in message


def test_an_ez_pickle_that_saves_its_state_is_not_told_of(tmp_path, caplog):
    class Whole(type(environment())):
        def __getstate__(self):
            return self.__dict__.copy()

        def __setstate__(self, state):
            self.__dict__.update(state)

    save(tmp_path, {"env": Whole(3)})
    assert said(caplog) == []


def test_it_is_told_of_once_for_each_run_component_and_class(tmp_path, caplog):
    for name in ("a", "b"):
        cp = save(tmp_path / name, {"env": environment(), "other": environment()})
        assert len(said(caplog)) == 2  # The two are of two classes.
        cp.other = Box([cp.agent.state["env"]])
        for _ in range(2):
            cp.save()
        assert said(caplog)[2].startswith("other/0 holds")
        caplog.clear()


def test_it_is_told_of_in_shards_values_and_functions(tmp_path, caplog):
    cp = Checkpoint(tmp_path / "run", fsync=False)
    cp.stream = Stream([{"x": 1}, {"env": environment()}])
    cp.value = elementsckpt.Value({"env": environment()})
    cp.save()
    found = {message.partition(" ")[0] for message in said(caplog)}
    assert found == {"stream/1/env", "value/env"}
    caplog.clear()
    elementsckpt.checkpoint.save(tmp_path / "save", {"env": environment})
    assert said(caplog)[0].startswith("env holds")


# Other ways


class Grid:
    """Is made anew from what it was made from."""

    def __init__(self, size):
        self.size, self.position = size, 0

    def __reduce__(self):
        return type(self), (self.size,)


class Counted(Grid):
    def __reduce__(self):
        return functools.partial(type(self), size=self.size), ()


class Made(Grid):
    @classmethod
    def make(cls, size):
        return cls(size)

    def __reduce__(self):
        return self.make, (self.size,)


class Seen(Grid):
    """Gathers what it has seen."""

    def __init__(self, size):
        self.size, self.seen = size, [size]


class Buffer:
    def __init__(self):
        self.items, self.lock = np.zeros(3), threading.Lock()
        self.rng, self.step = np.random.default_rng(0), 3

    def __getstate__(self):
        return {"step": self.step}


class Emptied(Buffer):
    def __getstate__(self):
        return {}


class Lists(Buffer):
    def __init__(self):
        self.step, self.episodes = 3, [np.zeros(2)]


class Draws(Buffer):
    def __init__(self):
        self.step, self.rng = 3, random.Random(3)


class Helped:
    def __init__(self):
        self.table = np.zeros(3)

    def __reduce__(self):
        return _helped, ()


def _helped():
    return Helped()


class Nulled(Buffer):
    """Has nothing in place of what it drops."""

    def __init__(self):
        super().__init__()
        self.more, self.done, self.text = np.ones(3), np.ones(3), "a"
        self.episodes = [np.ones(2)]

    def __getstate__(self):
        empty = {"items": None, "rng": None, "more": np.zeros(0), "done": False}
        return vars(self) | empty | {"lock": None, "text": None, "episodes": []}


class NulledSlots:
    __slots__ = ("items", "step")

    def __init__(self):
        self.items, self.step = np.zeros(3), 3

    def __getstate__(self):
        return None, {"items": None, "step": 3}

    def __setstate__(self, state):
        self.items, self.step = state[1].values()


class Numbers(Buffer):
    """Has a few numbers only, by no name."""

    def __getstate__(self):
        return self.step, True

    def __setstate__(self, state):
        self.__init__()


class OneNumber(Numbers):
    def __getstate__(self):
        return self.step


class OtherNames(Numbers):
    def __getstate__(self):
        return {"counted": self.step}


class EmptyList(list):
    """Is made anew, without its items."""

    def __reduce__(self):
        return type(self), ()


class Sized(list):
    def __init__(self, capacity, items=()):
        super().__init__(items)
        self.capacity = capacity

    def __reduce__(self):
        return type(self), (self.capacity,)


class WithState(Sized):
    def __reduce__(self):
        return type(self), (self.capacity,), vars(self)


class EmptyDict(dict):
    def __reduce_ex__(self, protocol):
        return type(self), (), None, None, iter({}.items())


class EmptySet(set):
    def __reduce__(self):
        return type(self), (set(),)


class EmptyDeque(collections.deque):
    def __reduce__(self):
        return type(self), ((), self.maxlen)


class EmptyArray(np.ndarray):
    def __reduce__(self):
        return np.zeros, (self.size,)


class MadeDict(dict):
    def __reduce__(self):
        return _made_dict, ("name",)


def _made_dict(name):
    return MadeDict()


class ListWithState(list):
    """Has its items, but not its attributes."""

    def __init__(self, items=()):
        super().__init__(items)
        self.weights, self.capacity = np.ones(3), 5

    def __getstate__(self):
        return {"capacity": self.capacity}


class Tabled(Grid):
    """Is pickled by what `copyreg` has."""


class TabledArrays(Buffer):
    pass


class TabledWhole(Buffer):
    pass


class TabledDict(dict):
    pass


copyreg.pickle(Tabled, lambda x: (Tabled, (x.size,)))
copyreg.pickle(TabledArrays, lambda x: (_tabled, (x.step,)))
copyreg.pickle(TabledWhole, lambda x: (_tabled, (vars(x) | {"lock": None},)))
copyreg.pickle(TabledDict, lambda x: (TabledDict, ()))


def _tabled(step):
    return TabledArrays()


LOSE = {
    "constructor": (lambda: Grid(3), "position"),
    "partial": (lambda: Counted(3), "position"),
    "class method": (lambda: Made(3), "position"),
    "container": (lambda: Seen(3), "seen"),
    "some": (Buffer, "items, rng"),
    "all": (Emptied, "items, rng, step"),
    "list of arrays": (Lists, "episodes"),
    "random": (Draws, "rng"),
    "function": (Helped, "table"),
    "None": (Nulled, "items, rng, more, done, episodes"),
    "None in slots": (NulledSlots, "items"),
    "numbers": (Numbers, "items, rng"),
    "one number": (OneNumber, "items, rng"),
    "other names": (OtherNames, "items, rng"),
    "a list": (lambda: EmptyList([1.5]), "its items"),
    "a list of a size": (lambda: Sized(3, [1.5]), "its items"),
    "a list with state": (lambda: WithState(3, ["a"]), "its items"),
    "a dict": (lambda: EmptyDict(a=1.5), "its items"),
    "a set": (lambda: EmptySet([3]), "its items"),
    "a deque": (lambda: EmptyDeque([3], 5), "its items"),
    "an array": (lambda: np.ones(3).view(EmptyArray), "its items"),
    "a dict by a function": (lambda: MadeDict(a=np.ones(3)), "its items"),
    "attributes of a list": (lambda: ListWithState([1]), "weights"),
    "copyreg": (lambda: Tabled(3), "position"),
    "arrays by copyreg": (TabledArrays, "items, rng"),
    "items by copyreg": (lambda: TabledDict(a=1), "its items"),
}


@pytest.mark.parametrize("name", LOSE)
def test_whatever_leaves_out_its_state_is_told_of(tmp_path, caplog, name):
    make, names = LOSE[name]
    save(tmp_path, {"deep": [Holder(x=make())]})
    (message,) = said(caplog)
    cls = type(make())
    assert message.startswith(f"agent/deep/0 holds a test_losses.{cls.__qualname__},")
    assert f" leaves out {names}, so " in message


# What has all its state in its pickle, or nothing that a run changes


class Locked:
    def __init__(self):
        self.lock, self.items, self.window = threading.Lock(), np.zeros(3), object()

    def __getstate__(self):
        return {"items": self.items}


class Encoded(Buffer):
    def __getstate__(self):
        return {"packed": self.items.tobytes(), "step": 3}


class Copied(Buffer):
    def __getstate__(self):
        return {"items": self.items.copy(), "rng": self.rng, "step": 3}


class Listed(Grid):
    def __init__(self, items):
        self.items, self.size = np.array(items), 3

    def __reduce__(self):
        return type(self), (self.items.tolist(),)


class Text(Listed):
    def __reduce__(self):
        return type(self), (self.items.tobytes() * 50,)


class Pointed:
    """A value: nothing of it changes, whatever it keeps."""

    def __init__(self, x):
        self.x, self.cache = x, np.zeros(3)

    def __eq__(self, other):
        return self.x == other.x

    def __hash__(self):
        return hash(self.x)

    def __reduce__(self):
        return type(self), (self.x,)


class Lazy(Grid):
    def __init__(self, size):
        self.size = size

    @functools.cached_property
    def table(self):
        return np.zeros(3)


class Open:
    def __init__(self, path):
        self.path, self.is_open, self.file = path, True, threading.Lock()

    def __reduce__(self):
        return type(self), (self.path,)


class Odd:
    """Cannot be asked for anything."""

    def __init__(self):
        self.x = self

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __eq__(self, other):
        raise RuntimeError

    __hash__ = None

    def __getstate__(self):
        return {"x": self.x}


class WithoutCache(Buffer):
    """Drops what can be had again."""

    def __init__(self):
        self.items, self.file, self.cache = np.zeros(3), threading.Lock(), {"a": 1}
        self.window, self.name, self.is_open = [threading.Lock()], "a", True

    def __getstate__(self):
        dropped = dict.fromkeys(("file", "cache", "name", "is_open"))
        return vars(self) | dropped | {"window": []}


class Path(Buffer):
    """Has its arrays in a file."""

    def __getstate__(self):
        return {"items": "/tmp/items", "rng": self.rng, "step": 3}


class States(Buffer):
    def __getstate__(self):
        rng = self.rng.bit_generator.state
        return {"items": self.items.tolist(), "rng": rng, "step": 3}


class Bytes(Numbers):
    def __getstate__(self):
        return self.items.tobytes(), self.rng


class Textual(Numbers):
    def __getstate__(self):
        return str(self.items.tolist())


class Registry(dict):
    """Is found again by its name."""

    def __reduce__(self):
        return _made_dict, ("name",)


class WholeList(Sized):
    def __reduce__(self):
        return type(self), (self.capacity, list(self))


class InState(Sized):
    def __reduce__(self):
        return type(self), (self.capacity,), {"items": list(self)}


class FromAttribute(list):
    def __init__(self, backing):
        super().__init__(backing)
        self.backing = backing

    def __reduce__(self):
        return type(self), (self.backing,)


class SetsState(Sized):
    def __reduce__(self):
        return type(self), (self.capacity,), {"capacity": 3, "capacity_": [*self]}

    def __setstate__(self, state):
        self.extend(state["capacity_"])


class Iterated(Sized):
    def __reduce__(self):
        return type(self), (self.capacity,), None, (x for x in self)


class Attributed(dict):
    def __init__(self, items):
        super().__init__(items)
        self.__dict__ = self

    def __reduce__(self):
        return type(self), (dict(self),)


class Singleton(dict):
    def __reduce__(self):
        return "SINGLETON"


SINGLETON = Singleton(a=np.ones(3))


def lazy():
    made = Lazy(3)
    assert made.table.sum() == 0
    return made


class Raw(bytearray):
    pass


KEEP = {
    "locks": Locked,
    "encoded": Encoded,
    "copied": Copied,
    "listed": lambda: Listed([1, 2]),
    "bytes": lambda: Text([1, 2]),
    "bytearray": lambda: Raw(b"xyz"),
    "value": lambda: Pointed(3),
    "lazy": lazy,
    "open": lambda: Open("a"),
    "odd": Odd,
    "counter": Counter,
    "schedule": lambda: Every(3),
    "logger": lambda: logging.getLogger("some"),
    "random": lambda: random.Random(3),
    "generator": lambda: np.random.default_rng(0),
    "masked": lambda: np.ma.MaskedArray([1, 2], [True, False]),
    "records": lambda: np.rec.fromarrays([[1], [2]], names="a,b"),
    "error": lambda: ValueError(3),
    "method": lambda: Holder().__init__,
    "deque": lambda: collections.deque([1], 3),
    "without a cache": WithoutCache,
    "a path": Path,
    "states": States,
    "a tuple of bytes": Bytes,
    "text": Textual,
    "a registry": lambda: Registry(a="b", c=object),
    "a whole list": lambda: WholeList(3, [1.5]),
    "items in the state": lambda: InState(3, [1.5]),
    "items of an attribute": lambda: FromAttribute([1.5]),
    "items that it sets": lambda: SetsState(3, [1.5]),
    "items that are iterated": lambda: Iterated(3, [1.5]),
    "an empty list": lambda: EmptyList(),
    "a dict that is its attributes": lambda: Attributed({"a": np.ones(3)}),
    "one object": lambda: SINGLETON,
    "ordered": lambda: collections.OrderedDict(a=1),
    "counts": lambda: collections.Counter("abc"),
    "default": lambda: collections.defaultdict(list, a=[1]),
    "a set": lambda: {1, 2},
    "a small array": lambda: np.ones(1).view(np.matrix),
    "a copyreg of all": TabledWhole,
    "a pattern": lambda: re.compile("a"),
    "namespace": lambda: types.SimpleNamespace(x=np.zeros(3)),
}


@pytest.mark.parametrize("name", KEEP)
def test_what_has_its_state_in_its_pickle_is_not_told_of(tmp_path, caplog, name):
    save(tmp_path, {"deep": [Holder(x=KEEP[name]())]})
    assert said(caplog) == []


def test_a_class_is_asked_once_how_it_is_pickled(tmp_path):
    calls = []

    class Own:
        def __reduce__(self):
            calls.append(1)
            return Holder, ()

    save(tmp_path, {"x": Own()})
    assert len(calls) == 1


@pytest.mark.torch
def test_optimizers_and_modules_of_torch_are_not_told_of(tmp_path, caplog):
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    save(tmp_path, {"all": [model, Holder(x=[optimizer, schedule, torch.Generator()])]})
    assert said(caplog) == []


@pytest.mark.torch
def test_the_running_returns_of_stable_baselines_are_told_of(tmp_path, caplog):
    pytest.importorskip("stable_baselines3")
    gymnasium = pytest.importorskip("gymnasium")
    from stable_baselines3.common import vec_env

    inner = vec_env.DummyVecEnv([lambda: gymnasium.make("CartPole-v1")])
    envs = vec_env.VecNormalize(inner)
    envs.reset()
    save(tmp_path, {"envs": envs})
    (message,) = said(caplog)
    assert "VecNormalize, whose pickle leaves out returns, so" in message


def test_what_several_leaves_hold_is_named_by_these(tmp_path, caplog):
    env = environment()
    save(tmp_path, {name: Holder(env=env) for name in "abc"})
    (message,) = said(caplog)
    assert message.startswith("agent/a (and 2 more) holds")
