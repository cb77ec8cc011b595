"""Arguments of another type than what is asked for."""

from __future__ import annotations

import numpy as np

import elementsckpt
from elementsckpt import (
    Checkpoint,
    ComponentError,
    Counter,
    Every,
    GlobalRNG,
    MismatchError,
    Ring,
    Saveable,
    StateError,
)

from .components import Replay
from .table import refused


@refused(ValueError, "write='False': pass True or False.")
def a_text_instead_of_a_truth_value(tmp, _):
    Checkpoint(tmp, write="False")


@refused(
    ValueError,
    "keys=3: pass a list of keys, such as keys=['agent'], or leave it out for all "
    "components.",
)
def a_number_as_keys(tmp, cp):
    cp.load(keys=3)


@refused(
    ValueError,
    "keys={'agent': 3}: pass a mapping from keys here to those in the save, such as "
    "keys={'agent': 'params'}.",
)
def a_number_as_a_key_in_the_save(tmp, cp):
    cp.load(keys={"agent": 3})


@refused(
    ValueError,
    "key=['agent']: pass the key of one component, such as key='agent'.",
)
def a_list_as_a_key(tmp, cp):
    cp.copy_of(["agent"])


@refused(
    ValueError,
    "staging(['policy']): pass keys one by one, as in staging('policy', 'critic').",
)
def a_list_of_keys_to_stage(tmp, cp):
    with cp.staging(["policy"]):
        pass


@refused(
    ValueError,
    "savefns={'agent': 3}: pass functions that save a component, by key, such as "
    "{'agent': agent.save}.",
)
def a_number_as_a_function(tmp, _):
    elementsckpt.checkpoint.save(tmp / "save", {"agent": 3})


@refused(ValueError, "step='7': pass an integer.")
def a_text_as_the_step_of_a_save(tmp, cp):
    cp.load(step="7")


@refused(ValueError, "b'run' is not a path: pass text or a pathlib.Path.")
def a_path_of_bytes(tmp, _):
    elementsckpt.info(b"run")


@refused(
    ValueError, "The path is empty text. Pass '.' if the working directory is meant."
)
def an_empty_path(tmp, _):
    Checkpoint("")


@refused(
    ValueError,
    r"'a\x00b' is not a path: it has a character that file names cannot have. "
    "Leave it out.",
)
def a_path_that_no_file_can_have(tmp, _):
    Checkpoint("a\x00b")


@refused(
    ComponentError,
    "Nothing is registered. Assign the components first, such as cp.agent = agent; "
    "what is registered later is not loaded.",
)
def a_load_of_nothing(tmp, cp):
    Checkpoint().load(cp.save().path)


@refused(
    MismatchError,
    "regex names no component, so nothing would be loaded. Pass {key: pattern}, or one "
    "pattern for all of the components.",
)
def a_pattern_for_no_component(tmp, cp):
    cp.save()
    cp.load(regex={})


@refused(
    MismatchError,
    "b'w' is not a regular expression. Pass one as text, in which | is between "
    "alternatives, as in 'enc/|dec/', or pass a mapping from keys to such; nothing was "
    "loaded.",
)
def a_pattern_of_bytes(tmp, cp):
    cp.save()
    cp.load(regex=b"w")


@refused(
    MismatchError,
    "rename replaces names by text, not by 3. Pass a dict from pattern to replacement; "
    "nothing was loaded.",
)
def a_number_as_a_replacement(tmp, cp):
    cp.load_or_save(rename={"w": 3})


@refused(
    ValueError,
    "signals=['SIGTERM']: pass a list of signals, such as [signal.SIGTERM].",
)
def the_name_of_a_signal(tmp, cp):
    cp.watch_signals(["SIGTERM"])


@refused(
    ValueError,
    "attrs=[0]: pass a list of names of attributes, such as ['pos', 'full'].",
)
def a_number_as_an_attribute(tmp, _):
    Saveable([0])


@refused(
    StateError,
    "Component 'replay': Replay has no attribute 'size'; it has 'full', 'pos'. Correct "
    "the names that Saveable was given.",
)
def an_attribute_that_an_object_lacks(tmp, cp):
    cp.replay = Saveable(["pos", "size"], of=Replay())
    cp.save()


@refused(
    MismatchError,
    "Component 'agent': Saved is 'w', without 'pos', 'full'. Load it into what it was "
    "saved from, or load what both have with strict=False; no attribute has changed.",
)
def attributes_that_were_not_saved(tmp, cp):
    cp.agent.state = {"w": 1}
    cp.save()
    cp.agent = Saveable(["pos", "full"], of=Replay())
    cp.load()


@refused(ValueError, "initial='0': pass a number.")
def a_text_as_a_number(tmp, _):
    Counter("0")


@refused(
    MismatchError,
    "Component 'agent': Saved is {'w': 1}, and a Counter loads a number. Register what "
    "it was saved from; this counter has not changed.",
)
def a_counter_for_something_else(tmp, cp):
    cp.agent.state = {"w": 1}
    cp.save()
    cp.agent = Counter()
    cp.load()


@refused(
    MismatchError,
    "Component 'agent': Saved is 1, and a GlobalRNG loads states of global generators. "
    "Register what it was saved from; they have not changed.",
)
def global_generators_for_something_else(tmp, cp):
    cp.save()
    cp.agent = GlobalRNG()
    cp.load()


@refused(TypeError, "step=[]: pass a number, as int() takes it.")
def a_list_as_a_step_of_a_schedule(tmp, _):
    Every(10)([])


@refused(ValueError, "seconds_blocked=nan: pass a number of seconds, from 0 on.")
def a_time_that_is_no_number(tmp, _):
    Every(10).mark(10, seconds_blocked=float("nan"))


@refused(
    ValueError,
    "Ring([1, 2]): pass an array of NumPy or JAX, or a tensor of torch, with at least "
    "one axis.",
)
def a_list_as_a_ring(tmp, _):
    Ring([1, 2], 0)


@refused(
    ValueError,
    "added=1.5: pass how many rows have been written since the buffer was made, an "
    "integer from 0 on.",
)
def a_fraction_of_a_row_in_a_ring(tmp, _):
    Ring(np.zeros(3), 1.5)


@refused(ValueError, "axis=2: pass an axis of the array, from 0 to 1.")
def an_axis_that_a_ring_lacks(tmp, _):
    Ring(np.zeros((3, 2)), 1, axis=2)


@refused(
    ValueError, "callback=3: pass a function of one Progress, or None for silence."
)
def a_number_as_callback_of_progress(tmp, _):
    with elementsckpt.progress(3):
        pass
