"""What was saved does not fit into what is there."""

from __future__ import annotations

import collections

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, Files, MismatchError, MissingKeyError, Value

from support.boxes import Stream, make
from support.folders import forge

from .table import NOTHING, says


@says(
    MismatchError,
    "The current state and {tmp}/… differ in 3 leaves:\n"
    "  agent/w: saved float32[3], expected float32[4]\n"
    "  agent/new: not in the save\n"
    "  agent/old: only in the save\n"
    "Nothing was loaded. Leave these leaves out with "
    "load(regex='(?!(?:w$|new$|old$))'), or map names in the save to current ones, as "
    "with rename={'^old$': 'new'}, or load what only both have with strict=False.",
)
def leaves_that_do_not_fit(tmp, _):
    make(tmp, {"w": np.ones(3, "f4"), "b": [0] * 3, "old": 1}).save()
    cp = make(tmp, {"w": np.ones(4, "f4"), "b": [0] * 3, "new": 1})
    yield
    cp.load(regex=".*")


@says(
    MismatchError,
    "The current state and {tmp}/… differ in 1 leaf:\n"
    "  agent/w: saved float64[3], expected float32[3]\n"
    "Nothing was loaded. Convert dtypes, never shapes, with cast=True.",
)
def a_leaf_of_another_type(tmp, _):
    make(tmp, {"w": np.ones(3)}).save()
    cp = make(tmp, {"w": np.ones(3, "f4")})
    yield
    cp.load(regex=".*")


@says(
    MismatchError,
    "The current state and {tmp}/… differ in 1 leaf:\n"
    "  agent/w: saved int64[2], expected int64[3]\n"
    "Nothing was loaded. Register an object like the one that was saved.",
)
def the_only_leaf_that_does_not_fit(tmp, _):
    make(tmp, {"w": np.arange(2)}).save()
    cp = make(tmp, {"w": np.arange(3)})
    yield
    cp.load(regex=".*")


LIKE = (
    "Nothing was loaded. Load into a value like the one that was saved, which "
    "elementsckpt.read shows"
)


@says(
    MismatchError,
    "The current state and {tmp}/save differ in 2 leaves:\n"
    "  tree/w: saved int64[3], expected int64[4]\n"
    "  tree/n: saved float, expected bool\n",
    LIKE,
    ", or leave these leaves out with load_pytree(regex='(?!(?:w$|n$))').",
)
def a_template_that_does_not_fit(tmp, _):
    elementsckpt.save_pytree(tmp / "save", {"w": np.arange(3), "n": 0.5, "b": [1, 2]})
    yield
    elementsckpt.load_pytree(tmp / "save", {"w": np.arange(4), "n": True, "b": [1, 2]})


@says(
    MismatchError,
    "The current state and {tmp}/save differ in 2 leaves:\n"
    "  tree/b: not in the save\n"
    "  tree/a: only in the save\n",
    LIKE,
    ", or map names in the save to current ones, as with rename={'^a$': 'b'}.",
)
def a_template_of_other_names(tmp, _):
    elementsckpt.save_pytree(tmp / "save", {"a": 1})
    yield
    elementsckpt.load_pytree(tmp / "save", {"b": 1})


@says(
    MismatchError,
    "The current state and {tmp}/save differ in 1 leaf:\n"
    "  tree/w: saved float64[3], expected float32[3]\n",
    LIKE,
    ".",
)
def a_value_of_functions_that_does_not_fit(tmp, _):
    elementsckpt.save_pytree(tmp / "save", {"w": np.ones(3)})
    value = Value({"w": np.ones(3, "f4")})
    yield
    elementsckpt.checkpoint.load(tmp / "save", {"tree": value.load})


@says(
    MissingKeyError,
    "{tmp}/… has no 'tree'. It has 'agent'. Nothing was loaded. Pass key= to load one "
    "of these.",
)
def a_pytree_that_is_a_component(tmp, _):
    make(tmp, 1).save()
    yield
    elementsckpt.load_pytree(tmp, 0)


@says(
    MissingKeyError,
    "{tmp}/… has no 'critic'. It has 'agent'. Nothing was loaded. Pass keys that it "
    "has.",
)
def keys_to_read_that_are_not_there(tmp, _):
    make(tmp, 1).save()
    yield
    elementsckpt.read(tmp, keys=["critic"])


@says(
    MissingKeyError,
    "{tmp}/… has no 'critic'. It has 'agent'. Nothing was loaded. Pass functions for "
    "what it has.",
)
def functions_for_what_is_not_there(tmp, _):
    make(tmp, 1).save()
    yield
    elementsckpt.checkpoint.load(tmp, {"critic": print})


@says(
    MissingKeyError,
    "regex names 'critic', but the keys to load are 'agent'. Correct its keys",
    NOTHING,
)
def a_pattern_of_another_component(tmp, _):
    cp = make(tmp, 1)
    cp.save()
    yield
    cp.load(regex={"agent": ".*", "critic": ".*"})


@says(
    MismatchError,
    "rename has replacements beside mappings: pass {pattern: replacement}, or {key: "
    "{pattern: replacement}} for some of the components",
    NOTHING,
)
def a_rename_of_two_forms(tmp, _):
    cp = make(tmp, 1)
    cp.save()
    yield
    cp.load(rename={"agent": {"a": "b"}, "c": "d"})


@says(
    MismatchError,
    "rename takes agent/old out of its component, to old. Keep 'agent' in the "
    "replacement, or load what is saved under another key with "
    "keys={key_here: key_in_the_save}",
    NOTHING,
)
def a_rename_that_loses_the_key(tmp, _):
    cp = make(tmp, {"old": 1})
    cp.save()
    yield
    cp.load(rename={"^agent/": ""})


@says(
    MismatchError,
    "rename takes agent/old out of its component, to policy/old. Keep 'agent' in the "
    "replacement, or load what is saved under another key with "
    "keys={'policy': 'agent'}",
    NOTHING,
)
def a_rename_of_the_key(tmp, _):
    cp = make(tmp, {"old": 1})
    cp.save()
    yield
    cp.load(rename={"^agent/": "policy/"})


@says(
    MismatchError,
    "The current state and what load() was given differ in 1 leaf:\n"
    "  The value: saved float64[2], expected float64[3]\n"
    "Nothing was loaded. Load into a value like the one that was saved.",
)
def a_value_that_is_given_something_else(tmp, _):
    value = Value(np.ones(3))
    yield
    value.load(np.ones(2))


@says(
    MismatchError,
    "regex='enc/.*' matches no leaf of 'agent' in {tmp}/…. The nearest names in "
    "the save are 'head', 'torso/kernel'. Correct the pattern, which must match from "
    "the start of a name, with or without the key",
    NOTHING,
)
def a_pattern_that_matches_nothing(tmp, _):
    make(tmp, {"torso": {"kernel": 1}, "head": 2}).save()
    yield
    elementsckpt.read(tmp, regex="enc/.*")


@says(
    MismatchError,
    "regex='torso/.*' matches no leaf of 'agent' in {tmp}/…. The nearest names in the "
    "save are 'trunk/w', 'trunk/b'. It matches 'torso/w' of the current state, and "
    "patterns match names in the save, which rename= maps to current ones. Correct "
    "the pattern, which must match from the start of a name, with or without the key",
    NOTHING,
)
def a_pattern_for_the_current_state(tmp, _):
    make(tmp, {"trunk": {"w": 1, "b": 2}}).save()
    cp = make(tmp, {"torso": {"w": 1, "b": 2}})
    yield
    cp.load(regex="torso/.*")


@says(
    MismatchError,
    "regex='.*' matches no leaf of 'agent' in {tmp}/…, where no leaf has a name: "
    "either there are none, or all are in attributes of containers. Load it whole, "
    "without regex=",
    NOTHING,
)
def a_pattern_for_what_is_in_attributes(tmp, _):
    state = collections.OrderedDict()
    state.version = np.arange(3)
    make(tmp, state).save()
    yield
    elementsckpt.read(tmp, regex=".*")


@says(
    MismatchError,
    "No matched leaf of {tmp}/… is in the current state: agent/old. Map names in the "
    "save to current ones, as with rename={'^old$': 'new'}",
    NOTHING,
)
def matched_leaves_that_are_not_there_now(tmp, _):
    make(tmp, {"old": 1}).save()
    cp = make(tmp, {"new": 1})
    yield
    cp.load(regex="o.*")


@says(
    MismatchError,
    "No matched leaf of {tmp}/… is in the current state: agent/odd. Correct "
    "rename={'l': 'd'}, which does not make these names fit, as "
    "rename={'l': 'd', '^odd$': 'new'} may",
    NOTHING,
)
def names_that_a_rename_does_not_make_fit(tmp, _):
    make(tmp, {"old": 1}).save()
    cp = make(tmp, {"new": 1})
    yield
    cp.load(rename={"l": "d"})


@says(
    MismatchError,
    "rename gives agent/a and agent/b the same name agent/c. Make the pattern or the "
    "regex more specific",
    NOTHING,
)
def two_leaves_renamed_to_one_name(tmp, _):
    make(tmp, {"a": 1, "b": 2}).save()
    cp = make(tmp, {"c": 1})
    yield
    cp.load(rename={"a|b": "c"})


@says(
    MismatchError,
    "'(enc' is not a regular expression: missing ), unterminated subpattern at "
    "position 0. Correct it, or pass re.escape(name) to match a name as it is",
    NOTHING,
)
def a_pattern_that_is_none(tmp, _):
    cp = make(tmp, 1)
    cp.save()
    yield
    cp.load(regex="(enc")


@says(
    MismatchError,
    r"Cannot rename 'enc' by 'e' to '\\1': invalid group reference 1 at position 1. "
    r"Correct "
    "the replacement, which is as for re.sub",
    NOTHING,
)
def a_replacement_that_is_none(tmp, _):
    make(tmp, {"enc": 1}).save()
    cp = make(tmp, {"dec": 1})
    yield
    cp.load(rename={"e": r"\1"})


@says(
    MismatchError,
    "rename is of type list: pass a dict from pattern to replacement, such as "
    "{'^encoder': 'torso'}.",
)
def a_rename_that_is_a_list(tmp, _):
    cp = make(tmp, 1)
    cp.save()
    yield
    cp.load(rename=["enc", "torso"])


NO_NAMES = ", so its leaves have no names to select or compare them by. Leave it out"


def streaming(directory):
    cp = make(directory, {"w": 1})
    cp.replay = Stream([1, 2])
    return cp


@says(
    MismatchError,
    "'replay' in {tmp}/… was saved in shards by a generator",
    NO_NAMES,
    " with keys=['agent']",
    NOTHING,
)
def a_pattern_for_a_generator(tmp, _):
    streaming(tmp).save()
    yield
    elementsckpt.read(tmp, regex="w")


@says(
    MismatchError,
    "'agent' is saved in shards by a generator",
    NO_NAMES,
    " with keys=[...]",
    NOTHING,
)
def a_pattern_for_what_is_a_generator_now(tmp, _):
    make(tmp, {"w": 1}).save(tmp / "save")
    cp = Checkpoint(tmp)
    cp.agent = Stream([1])
    yield
    cp.load(tmp / "save", regex="w")


@says(
    MismatchError,
    "'policy' in {tmp}/… was saved as files",
    NO_NAMES,
    " with keys=['agent']",
    NOTHING,
)
def a_pattern_for_files(tmp, _):
    cp = make(tmp, {"w": 1})
    cp.policy = Files(save=lambda _: None, load=print)
    cp.save()
    yield
    cp.load(regex=".*")


@says(
    MismatchError,
    "'replay' in {tmp}/… was saved in shards by a generator, so its leaves have no "
    "names to select or compare them by. Load it with a Checkpoint, into what it was "
    "saved from",
    NOTHING,
)
def a_generator_as_a_pytree(tmp, _):
    streaming(tmp).save()
    yield
    elementsckpt.load_pytree(tmp, 0, key="replay")


@says(
    MismatchError,
    "'agent' in {tmp}/… is a folder of files, and what loads it takes a state. Use "
    "elementsckpt.Files(load=function), or leave it out with keys=",
    NOTHING,
)
def files_for_what_takes_a_state(tmp, _):
    cp = Checkpoint(tmp)
    cp.agent = Files(save=lambda _: None, load=print)
    cp.save()
    yield
    make(tmp).load()


@says(
    MismatchError,
    "'agent' in {tmp}/… is a state, and what loads it is a Files, which takes a "
    "folder. Use what it was saved with, or leave it out with keys=",
    NOTHING,
)
def a_state_for_what_takes_files(tmp, _):
    make(tmp, 1).save()
    cp = Checkpoint(tmp)
    cp.agent = Files(load=print)
    yield
    cp.load()


@says(
    MismatchError,
    "The selected leaves of 'agent' do not make a valid state with the others: …. "
    "Select more or fewer of them with another regex",
    NOTHING,
)
def leaves_that_make_no_generator(tmp, _):
    cp = make(tmp, {"rng": np.random.default_rng(0)})

    def change(manifest):
        for group in manifest["components"][0]["trees"][0]["leaves"]:
            for number, name in enumerate(group["names"]):
                if name.endswith("pool_size"):
                    group["value"][number] = 1

    forge(cp.save().path, change)
    yield
    cp.load(regex=".*", strict=False)


@says(
    MismatchError,
    "agent/w is a JAX array of int64, which JAX would silently make 32 bits wide. Set "
    "jax_enable_x64, as the run that saved it did.",
)
def an_array_too_wide_for_jax(tmp, monkeypatch):
    jax = pytest.importorskip("jax")
    cp = make(tmp, {"w": jax.numpy.ones(3)})
    path = cp.save().path

    def widen(manifest):
        manifest["components"][0]["trees"][0]["leaves"][0]["dtype"] = "<i8"
        manifest["components"][0]["trees"][0]["leaves"][0]["shape"] = [0]

    forge(path, widen)
    yield
    cp.load()


@says(
    MismatchError,
    "In 'agent' in {tmp}/…/manifest.json the same containers appear in too many "
    "places, or too deep ones, for their leaves to be selected by name. Load it whole, "
    "without regex=",
    NOTHING,
)
def containers_that_hold_each_other_many_times(tmp, _):
    state = [0]
    for _ in range(30):
        state = [state, state]
    make(tmp, state).save()
    yield
    elementsckpt.read(tmp, regex="0")
