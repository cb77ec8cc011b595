"""Arguments that make no sense."""

from __future__ import annotations

import collections
import concurrent.futures
import pathlib
import shutil
import signal
from datetime import timedelta

import numpy as np

import elementsckpt
from elementsckpt import (
    Checkpoint,
    ComponentError,
    Every,
    Files,
    Keep,
    MismatchError,
    MissingKeyError,
    Saveable,
)

from support.boxes import Box, make

from .components import PAIRS, Replay
from .table import NOTHING, refused


@refused(ValueError, "every=1000: pass elementsckpt.Every(steps=1000), for example.")
def a_number_as_every(tmp, _):
    Checkpoint(tmp, every=1000)


@refused(ValueError, "staging_bytes=-1: pass a number of bytes, or None.")
def less_than_no_memory(tmp, _):
    Checkpoint(tmp, staging_bytes=-1)


@refused(
    ValueError, "compress='zip': pass 'auto', None, or a level of zstd from 1 to 22."
)
def another_compression(tmp, _):
    Checkpoint(tmp, compress="zip")


@refused(
    ValueError,
    "keep=0: pass the number of newest saves to keep, None for all, or "
    "elementsckpt.Keep(latest=..., best=..., metric=..., every=...).",
)
def keeping_nothing(tmp, _):
    Checkpoint(tmp, keep=0)


URL = (
    " looks like a URL, as a part of it ends in a colon, and only local paths are "
    "supported. Save to a local folder and copy that; to load a save from elsewhere, "
    "copy its folder here first."
)


@refused(ValueError, "gs://bucket/run", URL)
def a_bucket(tmp, _):
    Checkpoint("gs://bucket/run")


@refused(ValueError, "gs:/bucket/run", URL)
def a_bucket_to_read(tmp, _):
    elementsckpt.read(pathlib.Path("gs://bucket/run"))


@refused(
    ValueError,
    "~nobody-has-this-name/run begins with a home that was not found. Pass the path "
    "without `~`.",
)
def a_home_of_a_user_who_is_not_there(tmp, _):
    Checkpoint("~nobody-has-this-name/run")


@refused(
    ValueError,
    "{tmp}/${NO_SUCH_PLACE}/run names the variable ${NO_SUCH_PLACE}, which is not set, "
    "or empty. Set it, or pass the path itself.",
)
def a_variable_that_is_not_set(tmp, _):
    elementsckpt.save_pytree(tmp / "${NO_SUCH_PLACE}" / "run", 1)


@refused(
    ValueError,
    "This Checkpoint has no directory: pass a path, or a directory to Checkpoint().",
)
def a_save_without_a_directory(tmp, _):
    make(state=1).save()


@refused(
    ValueError,
    "This Checkpoint has no directory: pass a path, or a directory to Checkpoint().",
)
def a_load_without_a_directory(tmp, _):
    make(state=1).load()


@refused(ValueError, "A save to a path of its own is never pruned: leave pin= out.")
def a_pin_at_a_path(tmp, cp):
    cp.save(tmp / "save", pin="good")


@refused(
    ValueError,
    "pin='latest': pass a name without slashes, other than 'latest' and 'best'.",
)
def a_pin_that_is_called_latest(tmp, cp):
    cp.save(pin="latest")


@refused(
    ValueError,
    "save_if_due() needs to know when: pass every=Every(steps=1000), for example, to "
    "Checkpoint().",
)
def a_save_that_is_never_due(tmp, cp):
    cp.save_if_due()


@refused(
    ValueError,
    "5 is not a path: call save() without it. The step is that of the component "
    "cp.step, or of Checkpoint(step=...).",
)
def a_step_to_save(tmp, cp):
    cp.save(np.int64(5))


@refused(
    AttributeError,
    "No component 'latest_step' is registered; there are: 'agent'. If no component is "
    "meant, use saves()[-1].step.",
)
def a_method_of_another_library(tmp, cp):
    cp.latest_step()


@refused(
    ValueError,
    "5 is not a path: pass text or a pathlib.Path. A step is passed by name, to "
    "load(step=5), copy_of() or delete().",
)
def a_step_as_a_path(tmp, cp):
    cp.load(5)


@refused(ValueError, "Pass either the path or the step, not both.")
def a_path_and_a_step(tmp, cp):
    cp.load(tmp, step=5)


@refused(ValueError, "Pass either the path or the step of what to delete.")
def deleting_without_saying_what(tmp, cp):
    cp.delete()


@refused(ValueError, "{tmp} is a directory of saves: name the one to delete.")
def deleting_a_directory(tmp, cp):
    cp.save()
    cp.delete(tmp)


@refused(
    ValueError,
    "{tmp}/mine was not written as one of the saves in {tmp}, so it is not removed. "
    "Remove the folder yourself.",
)
def deleting_what_a_person_copied(tmp, cp):
    shutil.copytree(cp.save().path, tmp / "mine")
    cp.delete(tmp / "mine")


@refused(
    ValueError,
    "{tmp}/… is the only complete save, so it is not removed. Make another one first, "
    "or remove the folder yourself.",
)
def deleting_the_only_save(tmp, cp):
    cp.delete(cp.save().path)


@refused(
    ValueError,
    "Which save in {tmp} is the best? There are the metrics loss, return: pass "
    "keep=Keep(metric='loss') to Checkpoint(), with mode='min' if less is better.",
)
def the_best_by_one_of_two_metrics(tmp, cp):
    cp.save(metrics={"return": 1, "loss": 2})
    cp.best()


@refused(
    ValueError,
    "keys is a list of keys: pass keys=['agent']. Only load() takes a mapping, to the "
    "keys in the save.",
)
def a_mapping_of_keys_to_save(tmp, cp):
    cp.save(keys={"agent": "params"})


@refused(ValueError, "keys is a list of keys: pass keys=['agent'].")
def a_key_as_keys(tmp, cp):
    cp.save(keys="agent")


@refused(ValueError, "keys is a list of keys: pass keys=['agent'].")
def a_key_as_keys_to_read(tmp, cp):
    elementsckpt.read(cp.save().path, keys="agent")


@refused(
    ValueError,
    "verify=False is for mmap=True: leave it out, as what is read is verified on the "
    "way.",
)
def reading_without_verifying(tmp, cp):
    cp.save()
    cp.load(verify=False)


@refused(
    ValueError,
    "Signals can only be watched from the main thread, where Python handles them: call "
    "watch_signals() there, before other threads begin.",
)
def signals_in_another_thread(tmp, cp):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(cp.watch_signals).result()


@refused(
    ValueError,
    "SIGKILL cannot be watched: Invalid argument. Choose signals that may be handled, "
    "such as SIGTERM.",
)
def a_signal_that_nobody_can_handle(tmp, cp):
    cp.watch_signals([signal.SIGKILL])


@refused(AttributeError, "No component 'agnet' is registered; there are: 'agent'.")
def an_attribute_that_is_not_there(tmp, cp):
    return cp.agnet


@refused(AttributeError, "No component 'agnet' is registered; there are: 'agent'.")
def removing_what_is_not_registered(tmp, cp):
    del cp.agnet


@refused(ValueError, "save='x': pass a function that gets a folder.")
def a_path_instead_of_functions(tmp, _):
    Files(save="x", load=print)


@refused(ValueError, "attrs is a list of names: pass ['step'].")
def an_attribute_as_attrs(tmp, _):
    Saveable("step")


@refused(
    ValueError,
    "Saveable takes either attrs, names of attributes, or two functions, save and "
    "load.",
)
def half_of_a_saveable(tmp, _):
    Saveable(save=int)


@refused(
    ValueError,
    "Saveable takes the object that has the attributes as of=: pass "
    "Saveable(['pos'], of=it), where it is the Replay.",
)
def an_object_before_its_attributes(tmp, _):
    Saveable(Replay(), ["pos"])


@refused(
    MissingKeyError,
    "Not registered: 'params'. Registered are: 'agent'. Pass keys={'agent': 'params'}: "
    "it goes from keys here to those in the save.",
)
def keys_that_are_turned(tmp, cp):
    cp.load(keys={"params": "agent"})


@refused(
    MissingKeyError,
    "{tmp}/… has no 'critic'. It has 'agent'. Nothing was loaded. To go on without "
    "what it lacks, call load(keys=['agent']), once, in place of "
    "load_or_save(); the next save() has all that is registered.",
)
def a_component_more_than_the_run_had(tmp, cp):
    cp.save()
    cp.critic = Box()
    cp.load_or_save()


@refused(
    ComponentError,
    "Cannot register 'recent': an object of type deque has no usable save() and "
    "load(data). As its owner changes it in place, register the owner, or pass two "
    "functions: cp.recent = elementsckpt.Saveable(function_that_returns_its_content, "
    "function_that_fills_it).",
    PAIRS,
)
def a_queue(tmp, cp):
    cp.recent = collections.deque()


@refused(
    MismatchError,
    "No matched leaf of {tmp}/… is in the current state: agent/enc. Pass "
    "rename={'^enc$': 'torso'}, which goes from names in the save to current ones",
    NOTHING,
)
def a_rename_that_is_turned(tmp, _):
    make(tmp, {"enc": 1}).save()
    make(tmp, {"torso": 1}).load(rename={"^torso$": "enc"})


@refused(
    MismatchError,
    "regex='agent/w' matches no leaf of 'policy' in {tmp}/…. The nearest names in the "
    "save are 'w'. The key in full names is the one here, 'policy', not 'agent'. "
    "Correct the pattern, which must match from the start of a name, with or without "
    "the key",
    NOTHING,
)
def a_pattern_with_the_key_in_the_save(tmp, _):
    make(tmp, {"w": 1}).save()
    cp = Checkpoint(tmp)
    cp.policy = Box({"w": 1})
    cp.load(keys={"policy": "agent"}, regex="agent/w")


@refused(
    ValueError,
    "of= is the object that has the attributes in attrs: leave it out, as two "
    "functions need no such object.",
)
def functions_of_an_object(tmp, cp):
    Saveable(int, print, of=cp)


@refused(ValueError, "latest=-1: pass how many saves to keep, from 0 on.")
def keeping_less_than_nothing(tmp, _):
    Keep(latest=-1)


@refused(ValueError, "mode='most': pass 'max' or 'min'.")
def another_mode(tmp, _):
    Keep(mode="most")


@refused(
    ValueError,
    "metric=3: pass the name of a metric, or a function that takes the metrics and "
    "returns a number.",
)
def a_number_as_the_metric(tmp, _):
    Keep(metric=3)


@refused(
    ValueError,
    "best=2 needs metric=, by which to rank: pass metric='return', for example.",
)
def the_best_by_nothing(tmp, _):
    Keep(best=2)


@refused(ValueError, "every=datetime.timedelta(0): pass a time longer than zero.")
def keeping_one_in_no_time(tmp, _):
    Keep(every=timedelta(0))


@refused(
    ValueError,
    "every='1h': pass an int, for multiples of so many steps, or a datetime.timedelta.",
)
def keeping_one_in_a_text(tmp, _):
    Keep(every="1h")


@refused(
    ValueError, "Every() is never due: pass steps, seconds, overhead or a deadline."
)
def a_schedule_of_nothing(tmp, _):
    Every()


@refused(TypeError, "steps='1k': pass an integer.")
def a_text_as_steps(tmp, _):
    Every("1k")


@refused(ValueError, "steps=0: pass a positive integer.")
def every_zero_steps(tmp, _):
    Every(0)


@refused(TypeError, "seconds='1h': pass a number of seconds or a timedelta.")
def a_text_as_seconds(tmp, _):
    Every(seconds="1h")


@refused(ValueError, "deadline=-1: pass what is positive and finite.")
def a_deadline_in_the_past(tmp, _):
    Every(deadline=-1)


@refused(TypeError, "overhead='2%': pass a share, such as 0.02.")
def a_text_as_overhead(tmp, _):
    Every(overhead="2%")


@refused(ValueError, "overhead=2: pass a share between 0 and 1.")
def more_overhead_than_there_is_time(tmp, _):
    Every(overhead=2)


@refused(
    ValueError,
    "Every(steps=1000) counts steps: pass the step, as in every(step). A Checkpoint "
    "takes it from its argument step, or from a component that is named step.",
)
def a_schedule_that_is_not_told_the_step(tmp, _):
    Every(1000)()
