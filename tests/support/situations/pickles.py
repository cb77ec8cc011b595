"""Saves that need pickle, or a newer version of this package."""

from __future__ import annotations

import dataclasses
import functools
import pickle
import threading
from typing import Any, NamedTuple

from elementsckpt import Checkpoint, PickleError, ReadError, Value, VersionError

from support.boxes import make
from support.folders import forge

from .table import fail, says

# Pickle is needed


class Plain:
    pass


def foreign(tmp, state):
    """Return another object's checkpoint, and a save with this state."""
    return make(state=0), make(state=state).save(tmp / "save").path


CLASSES = "'state' in {tmp}/…/manifest.json is a Value's, with classes or static fields"
TEMPLATE = "Give the Value that loads it a template: Value(one_like_the_saved)"


class Settings(NamedTuple):
    """Is no plain container."""

    content: Any


def make_value(directory, content):
    """Return a checkpoint of a value that is saved with its class."""
    cp = Checkpoint(directory)
    cp.state = Value(Settings(content))
    cp.save()
    return cp


@says(
    PickleError,
    CLASSES,
    " that are pickled, and loading them could run any code. ",
    TEMPLATE,
    ", or pass allow_pickle=True if you trust who wrote the save.",
)
def classes_of_a_value_from_elsewhere(tmp, _):
    path = make_value(tmp, 1).latest()
    cp = Checkpoint()
    cp.state = Value()
    yield
    cp.load(path)


@says(PickleError, CLASSES, " that could not be pickled. ", TEMPLATE, ".")
def classes_of_a_value_that_cannot_be_pickled(tmp, _):
    lock = threading.Lock()
    make_value(tmp, [lambda: lock])
    cp = Checkpoint(tmp)
    cp.state = Value()
    yield
    cp.load()


@says(
    PickleError,
    CLASSES,
    " that cannot be unpickled: changed its mind. ",
    TEMPLATE,
    ".",
)
def classes_of_a_value_that_cannot_be_loaded(tmp, _):
    make_value(tmp, functools.partial(print, Fickle()))
    cp = Checkpoint(tmp)
    cp.state = Value()
    yield
    cp.load()


@says(
    PickleError,
    "agent/odd was saved with pickle, and loading it could run any code, so it needs "
    "allow_pickle=True. Pass that if you trust who wrote the save, or leave the leaf "
    "out with keys= or regex=.",
)
def a_pickle_from_elsewhere(tmp, _):
    cp, path = foreign(tmp, {"odd": Plain()})
    yield
    cp.load(path)


@says(
    PickleError,
    "agent/act is the function math:tanh, which is not in the component's current "
    "state or was not found. Pass allow_pickle=True if you trust who wrote the save, "
    "or leave the leaf out with keys= or regex=.",
)
def a_function_from_elsewhere(tmp, _):
    import math

    cp, path = foreign(tmp, {"act": math.tanh})
    yield
    cp.load(path)


class Fickle:
    def __reduce__(self):
        return fail, ("changed its mind",)


@says(
    PickleError,
    "agent/odd cannot be unpickled: changed its mind. Make its class importable, or "
    "leave it out with keys= or regex=.",
)
def a_pickle_that_cannot_be_loaded(tmp, _):
    cp = make(tmp, {"odd": Fickle()})
    cp.save()
    yield
    cp.load()


@dataclasses.dataclass
class Changing:
    x: Any


@says(
    ReadError,
    f"The new field 'link' of {__name__}.Changing cannot be given its default: "
    "'Fickle' object has no attribute 'missing'. Correct its default_factory; nothing "
    "was loaded.",
)
def a_new_field_whose_default_cannot_be_made(tmp, monkeypatch):
    @dataclasses.dataclass
    class Changed(Changing):
        link: Any = dataclasses.field(default_factory=lambda: Fickle().missing)

    make(tmp, {"a": Changing(1)}).save()
    cp = make(tmp)
    Changed.__qualname__, Changed.__module__ = "Changing", __name__
    monkeypatch.setitem(globals(), "Changing", Changed)
    yield
    cp.load()


def of_elements(folder, content):
    """Make a save as elements writes it, with these bytes."""
    folder.mkdir()
    (folder / "agent.pkl").write_bytes(content)
    (folder / "done").touch()
    return folder


@says(
    PickleError,
    f"agent in {{tmp}}/old/agent.pkl needs {__name__}.Plain, and more than builtin "
    "containers, scalars and NumPy arrays is read only with allow_pickle=True, because "
    "a pickle can run any code. Pass it if you trust who wrote the file.",
)
def a_class_in_a_folder_of_elements(tmp, _):
    path = of_elements(tmp / "old", pickle.dumps(Plain()))
    yield
    make().load(path)


@says(
    PickleError,
    "agent in {tmp}/old/agent.pkl needs a class that was not found: No module named "
    "'nowhere'. Make it importable, or leave agent out.",
)
def a_missing_class_in_a_folder_of_elements(tmp, _):
    path = of_elements(tmp / "old", b"cnowhere\nThing\n.")
    yield
    make().load(path, allow_pickle=True)


# A newer version


@says(
    VersionError,
    "{tmp}/…/manifest.json is in version 9 of the format, and this elementsckpt reads "
    "versions up to 2: update elementsckpt to load it.",
)
def a_save_of_a_newer_version(tmp, _):
    cp = make(tmp, 1)
    forge(cp.save().path, lambda manifest: manifest.update(version=9))
    yield
    cp.load()
