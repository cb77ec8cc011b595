"""Wrong arguments are refused before anything is done; suggestions work."""

import collections
import math
import pathlib
import re

import numpy as np
import pytest

import elementsckpt
from elementsckpt import (
    Checkpoint,
    ComponentError,
    Counter,
    Every,
    Files,
    Keep,
    MismatchError,
    MissingKeyError,
    Saveable,
    SaveNotFoundError,
    Value,
    testing,
)

from support.boxes import Box, Stream, make

LONG = "x" * 5000
ODD = (math.nan, 1.5, 1j, b"x", object(), Box, len, np.zeros(2), np.zeros(0), ...)
NO_FLAGS = (*ODD, "False", "", 2, [], [True], {}, set())
NO_PATHS = (*ODD, True, "", "a\0b", "\ud800", [], ["x"], {}, np.zeros(()))
NO_LISTS = (*ODD, 3, True, LONG, [], [3], [None], [[]], [b"agent"], {}, {3: "x"})
NO_KEYS = ("agent", *NO_LISTS)
NO_STEPS = (*ODD, True, "7", LONG, [], [7], {})
NO_PATTERNS = (*ODD[:-3], 3, True, b"", "(", [], ["w"], {}, {"agent": 3}, {3: "w"})
NO_RENAMES = (*ODD, "w", ["w"], {"(": "x"}, {b"w": b"x"}, {"w": 3}, {"x": {"w": 3}})
NO_FUNCTIONS = (*ODD, 3, "agent", [], {}, {"agent": 3}, {3: len}, {"agent": None})
NO_NUMBERS = (*ODD[2:], None, True, math.nan, "1", LONG, [], {})
LEVELS = (*ODD, 0, 23, -1, True, "zip", LONG, [], {})


def flags(call, *names):
    return [(call, name, NO_FLAGS) for name in names]


def a_checkpoint(cp, directory="other", **arguments):
    return Checkpoint(directory, **arguments)


def saving(cp, **arguments):
    return cp.save(**arguments)


def saving_at_last(cp, **arguments):
    return cp.save_if_due(**arguments)


def loading(cp, **arguments):
    return cp.load(**arguments)


def resuming(cp, **arguments):
    return cp.load_or_save(**arguments)


def copying(cp, key="agent", **arguments):
    return cp.copy_of(key, **arguments)


def deleting(cp, **arguments):
    return cp.delete(**arguments)


def reading(cp, path="run", **arguments):
    return elementsckpt.read(path, **arguments)


def saving_a_tree(cp, path="other", **arguments):
    return elementsckpt.save_pytree(path, 1, **arguments)


def loading_a_tree(cp, path="run", key="agent", **arguments):
    return elementsckpt.load_pytree(path, {"w": 1}, key=key, **arguments)


def saving_by_functions(cp, path="other", savefns=None, **arguments):
    savefns = {"agent": cp.agent.save} if savefns is None else savefns
    return elementsckpt.checkpoint.save(path, savefns, **arguments)


def loading_by_functions(cp, path="run", loadfns=None, **arguments):
    loadfns = {"agent": cp.agent.load} if loadfns is None else loadfns
    return elementsckpt.checkpoint.load(path, loadfns, **arguments)


CASES = [
    *flags(a_checkpoint, "write", "background", "fsync"),
    *flags(loading, "strict", "cast", "mmap", "verify", "allow_pickle", "dry_run"),
    *flags(resuming, "strict", "cast"),
    *flags(saving_at_last, "final"),
    *flags(reading, "mmap", "verify", "allow_pickle"),
    *flags(loading_a_tree, "mmap", "verify", "allow_pickle"),
    *flags(saving_a_tree, "fsync"),
    *flags(loading_by_functions, "mmap", "verify", "allow_pickle"),
    *flags(saving_by_functions, "write", "fsync"),
    (a_checkpoint, "directory", NO_PATHS),
    (a_checkpoint, "keep", (*ODD, 0, -1, True, "all", LONG)),
    (a_checkpoint, "every", (*ODD, 1000, True, LONG)),
    (a_checkpoint, "compress", LEVELS),
    (a_checkpoint, "staging_bytes", (*ODD, -1, True, LONG)),
    (saving, "path", (*NO_PATHS, 5)),
    (saving, "keys", (*NO_KEYS, {"agent": "agent"})),
    (saving, "pin", (*ODD, "", "a/b", "best", 3, [])),
    (saving, "metrics", (*ODD, 3, "x", [], {3: 1}, {"r": "x"}, {"r": [1]})),
    (loading, "path", (*NO_PATHS, 5)),
    (loading, "keys", (*NO_KEYS, {"agent": 3}, {"agent": None})),
    (loading, "regex", NO_PATTERNS),
    (loading, "rename", NO_RENAMES),
    (loading, "step", NO_STEPS),
    (resuming, "rename", NO_RENAMES),
    (copying, "key", (*ODD, 3, None, ["agent"], LONG)),
    (copying, "path", NO_PATHS),
    (deleting, "path", NO_PATHS),
    (deleting, "step", NO_STEPS),
    (reading, "path", (*NO_PATHS, None)),
    (reading, "keys", NO_KEYS),
    (reading, "regex", NO_PATTERNS),
    (saving_a_tree, "path", (*NO_PATHS, None)),
    (saving_a_tree, "compress", LEVELS),
    (loading_a_tree, "path", (*NO_PATHS, None)),
    (loading_a_tree, "key", (*ODD, 3, ["agent"], LONG)),
    (loading_a_tree, "regex", NO_PATTERNS[:-3]),
    (loading_a_tree, "rename", NO_RENAMES),
    (loading_by_functions, "loadfns", NO_FUNCTIONS),
    (saving_by_functions, "savefns", NO_FUNCTIONS),
]


def check_refusal(error):
    """A raw error of Python ends without a period, and has no remedy."""
    said = str(error)
    assert isinstance(error, (ValueError, TypeError, LookupError))
    assert said.endswith("."), said
    assert len(said) < 1000
    assert " at 0x" not in said


def contents(directory):
    return sorted(str(path) for path in directory.rglob("*"))


@pytest.mark.parametrize(
    ("call", "name", "values"), CASES, ids=lambda x: getattr(x, "__name__", str(x)[:20])
)
def test_a_wrong_argument_is_refused_before_anything_is_done(
    tmp_path, monkeypatch, call, name, values
):
    monkeypatch.chdir(tmp_path)
    cp = make(tmp_path / "run", {"w": 1})
    cp.save()
    saves, before = cp.agent.saves, contents(tmp_path)
    for value in values:
        with pytest.raises(Exception) as error:  # noqa: PT011
            call(cp, **{name: value})
        check_refusal(error.value)
        assert cp.agent.loads == 0
        assert contents(tmp_path) == before
    if call in (saving, saving_at_last, saving_by_functions, a_checkpoint):
        assert cp.agent.saves == saves


NO_OBJECTS = [
    *[(Keep, name, (*NO_NUMBERS, -1)) for name in ("best",)],
    (Keep, "latest", (*ODD, True, "1", -1)),
    (Keep, "mode", (*ODD, None, 3, "most", LONG)),
    (Keep, "metric", (1.5, 3, True, b"x", [], np.zeros(2))),
    (Keep, "every", (*ODD, True, 0, "1h", LONG)),
    (Every, "steps", (*ODD, True, 0, "1k", LONG)),
    *[(Every, name, (*ODD[2:], True, "1h", 0, -1)) for name in ("seconds", "deadline")],
    (Every, "overhead", (*ODD[2:], True, "2%", 0, 2)),
    (Every(10), "step", (*ODD[2:], math.nan, math.inf, "x", LONG, [])),
    (Every(10).mark, "step", (*ODD[2:], math.nan, math.inf, "x", LONG, [])),
    (Every(10).mark, "seconds_blocked", (*NO_NUMBERS[:7], math.nan, -1, math.inf)),
    (Every(10).unmark, "seconds_blocked", (*NO_NUMBERS, -1, math.inf)),
    (Saveable, "attrs", (*ODD[:4], *ODD[7:], 3, "w", [], {"w": 1}, [3], np.zeros(()))),
    (Counter, "initial", NO_NUMBERS),
    (Counter().increment, "amount", NO_NUMBERS),
    (Counter().load, "value", NO_NUMBERS),
    (Files, "load", (None, 3, "x", LONG, [])),
    (
        Checkpoint().watch_signals,
        "signals",
        (*ODD[:-3], 3, None, "TERM", ["TERM"], [9999]),
    ),
]


@pytest.mark.parametrize(
    ("make", "name", "values"), NO_OBJECTS, ids=lambda x: repr(x).split(" at ")[0][:30]
)
def test_a_wrong_argument_makes_no_object(make, name, values):
    for value in values:
        with pytest.raises((ValueError, TypeError)) as error:
            make(**{name: value})
        check_refusal(error.value)


@pytest.mark.parametrize("value", [None, 3, "x", []])
def test_what_is_no_function_trains_nothing(value):
    for arguments in ((value, print), (dict, value)):
        with pytest.raises(ValueError, match=r"pass a function, as in check_resume"):
            testing.check_resume(*arguments)


def test_truth_values_and_numbers_of_other_libraries_are_arguments(tmp_path):
    jnp = pytest.importorskip("jax.numpy")
    step = Counter(np.int64(3))
    for true in (np.True_, np.array(True), jnp.array(True), 1):
        cp = make(tmp_path, {"w": 1}, write=true, step=step, keep=None)
        cp.save(keys=np.array(["agent"]))
        step.increment(jnp.array(1))
        assert cp.load(step=np.int32(3), strict=true).step == 3
    assert len(cp.saves()) == 4
    assert make(tmp_path, 1, write=np.False_).save().bytes_written == 0


def test_a_compiled_pattern_is_one(tmp_path):
    cp = make(tmp_path, {"w": 1, "v": 2})
    cp.save()
    assert cp.load(regex=re.compile("W", re.IGNORECASE)).loaded == ("agent/w",)
    with pytest.raises(MismatchError, match=r"nearest names in the save are 'w', 'v'"):
        cp.load(regex=re.compile("ww"))


def test_the_empty_text_is_no_directory_but_a_path_of_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"empty text\. Pass '\.'"):
        elementsckpt.exists("")
    assert elementsckpt.exists(pathlib.Path()) is False


@pytest.mark.parametrize("keep", [2.0, 0, True, -1, "2"])
def test_keep_is_a_number_of_saves(tmp_path, keep):
    with pytest.raises(ValueError, match="keep="):
        Checkpoint(tmp_path, keep=keep)


# What a message suggests works.


def suggestion(error, function):
    """Return the arguments with which a message says to call a function."""
    found = re.search(rf"\b{function}\((\w+=.*?)\)(?=,|\.|;|$)", str(error.value))
    return eval(f"dict({found[1]})")


def renaming(error):
    return eval(re.search(r"(?:with|ass) rename=(\{.*?\}+)", str(error.value))[1])


def check_avoiding(tmp_path, saved, current, loaded):
    make(tmp_path, saved).save()
    cp = make(tmp_path, current)
    with pytest.raises(MismatchError) as error:
        cp.load(regex=".*")
    report = cp.load(**suggestion(error, "load"))
    assert report.loaded == loaded


@pytest.mark.parametrize(
    "name", ["w", "w+b", "a.b (c)", "p/q|r", "^", "häd/ß", "'\"\\"]
)
def test_leaves_that_do_not_fit_are_left_out_as_the_message_says(tmp_path, name):
    saved, current = ({name: np.ones(n), f"{name}x": 1} for n in (2, 3))
    check_avoiding(tmp_path, saved, current, (f"agent/{name}x",))


def test_many_leaves_that_do_not_fit_are_left_out_by_their_folder(tmp_path):
    saved, current = (
        {"head": {f"w{i}": np.ones(n) for i in range(9)}, "b": {"w1": [1] * 9}}
        for n in (2, 3)
    )
    check_avoiding(tmp_path, saved, current, tuple(f"agent/b/w1/{i}" for i in range(9)))


def test_what_cannot_be_left_out_shortly_is_not_suggested(tmp_path):
    saved, current = ({f"w{i}": np.ones(n + i % 2) for i in range(9)} for n in (2, 3))
    make(tmp_path, {**saved, "b": 1}).save()
    with pytest.raises(MismatchError) as error:
        make(tmp_path, {**current, "b": 1}).load(regex=".*")
    assert "regex" not in str(error.value)


def test_a_pattern_is_narrowed_by_what_does_not_fit(tmp_path):
    make(tmp_path, {"a": 1, "b": np.ones(2), "c": 3}).save()
    cp = make(tmp_path, {"a": 0, "b": np.ones(3), "c": 0})
    for regex in ("a|b", "agent/[ab]", {"agent": "a|b"}):
        with pytest.raises(MismatchError) as error:
            cp.load(regex=regex)
        assert cp.load(**suggestion(error, "load")).loaded == ("agent/a",)


def test_components_are_named_where_there_are_others(tmp_path):
    cp = make(tmp_path, {"a": 1, "w": np.ones(2)})
    cp.critic = Box({"w": 5})
    cp.save()
    cp.agent.state = {"a": 0, "w": np.ones(3)}
    with pytest.raises(MismatchError) as error:
        cp.load(regex=".*")
    assert cp.load(**suggestion(error, "load")).loaded == ("agent/a", "critic/w")


def test_leaving_out_is_not_suggested_where_most_would_be(tmp_path):
    make(tmp_path, {"step": 1, "params": [np.ones(2), np.ones(2)]}).save()
    cp = make(tmp_path, {"step": 1, "params": [np.ones(3), np.ones(3)]})
    with pytest.raises(MismatchError) as error:
        cp.load(regex=".*")
    assert "regex" not in str(error.value)


def test_leaving_out_is_not_suggested_beside_what_has_no_names(tmp_path):
    def opened(size):
        cp = Checkpoint(tmp_path)
        cp.value = Value({"a": 1, "b": 2, "w": np.ones(size)})
        cp.files = Files(
            save=lambda folder: (folder / "x").touch(), load=lambda _: None
        )
        return cp

    opened(2).save()
    with pytest.raises(MismatchError) as error:
        opened(3).load()
    assert "regex" not in str(error.value)


@pytest.mark.parametrize(
    ("saved", "current"),
    [
        ({"enc": {"w": 1, "b": 2}}, {"torso": {"w": 3, "b": 4}}),
        ({"_orig_mod.l.w": 1, "_orig_mod.l.b": 2}, {"l.w": 3, "l.b": 4}),
        ({"l.w": 1, "l.b": 2}, {"module.l.w": 3, "module.l.b": 4}),
        ({"old (1)": 1}, {"new": 2}),
    ],
)
def test_names_are_mapped_as_the_message_says(tmp_path, saved, current):
    make(tmp_path, saved).save()
    cp = make(tmp_path, current)
    with pytest.raises(
        MismatchError, match="names in the save to current ones"
    ) as error:
        cp.load(regex=".*")
    report = cp.load(rename=renaming(error))
    assert len(report.loaded) == len(report.renamed) > 0


def network(*layers, sizes):
    shapes = zip(layers, sizes, sizes[1:], strict=False)
    return {x: {"kernel": np.ones((n, m)), "bias": np.ones(m)} for x, n, m in shapes}


@pytest.mark.parametrize("sizes", [(3, 5, 7, 2), (3, 5, 5, 2)])
def test_layers_are_mapped_to_those_of_their_shapes(tmp_path, sizes):
    def state(*layers):
        return {name: network(*layers, sizes=sizes) for name in ("params", "mu", "nu")}

    make(tmp_path, state("torso0", "torso1", "head")).save()
    cp = make(tmp_path, state("enc_in", "enc_out", "policy"))
    with pytest.raises(MismatchError) as error:
        cp.load(regex=".*")
    renamed = cp.load(rename=renaming(error)).renamed
    assert len(renamed) == 18
    assert renamed["agent/mu/torso1/bias"] == "agent/mu/enc_out/bias"


@pytest.mark.parametrize(
    ("saved", "current"),
    [
        (
            network("torso0", "torso1", sizes=(4, 4, 4)),
            network("a", "b", sizes=[4] * 3),
        ),
        ({"old": np.ones(3)}, {"new": np.ones(2)}),
        ({"old": np.ones(3)}, {"a": np.ones(3), "b": np.ones(3)}),
        ({"a": np.ones(3), "b": np.ones(3)}, {"new": np.ones(3)}),
        ({"old": np.ones(3)}, {"new": np.ones(3, "f4")}),
        ({"x": {"w": 1, "b": 2}}, {"y": {"w": 1, "b": "text"}}),
        ({"x": {"w": 1}, "z": {"w": 1}}, {"y": {"w": 1}}),
        (1, {"new": 1}),
        ({"old": 1}, 1),
    ],
)
def test_names_of_what_does_not_fit_are_not_mapped(tmp_path, saved, current):
    make(tmp_path, saved).save()
    with pytest.raises(MismatchError) as error:
        make(tmp_path, current).load(regex=".*")
    assert not re.search(r"with rename=\{'", str(error.value))


def test_a_leaf_that_was_asked_for_is_mapped_to_one_of_its_shape(tmp_path):
    make(tmp_path, {"old": np.ones(3), "same": np.ones(2)}).save()
    cp = make(tmp_path, {"new": np.zeros(3), "same": np.zeros(2)})
    with pytest.raises(MismatchError) as error:
        cp.load(regex="old")
    report = cp.load(regex="old", rename=renaming(error))
    assert report.renamed == {"agent/old": "agent/new"}


def test_names_are_mapped_in_the_component_that_has_them(tmp_path):
    def opened(name):
        cp = Checkpoint(tmp_path)
        cp.value, cp.other = Value({name: np.ones(3)}), Value({"old": np.ones(2)})
        cp.files = Files(
            save=lambda folder: (folder / "x").touch(), load=lambda _: None
        )
        return cp

    opened("old").save()
    cp = opened("new")
    with pytest.raises(MismatchError) as error:
        cp.load()
    assert cp.load(rename=renaming(error)).renamed == {"value/old": "value/new"}


@pytest.mark.parametrize("is_by_key", [False, True])
@pytest.mark.parametrize(
    ("saved", "current", "rename"),
    [
        ({"enc": {"w": 1}}, {"torso": {"w": 2}}, {"^torso/": "enc/"}),
        ({"enc": {"w": 1}}, {"torso": {"w": 2}}, {"torso": "enc"}),
        ({"w": 1}, {"_orig_mod.w": 2}, {r"^_orig_mod\.": ""}),
        ({"a.b": 1, "c": 3}, {"x": 2, "c": 4}, {"^x$": "a.b"}),
    ],
)
def test_a_rename_that_is_turned_is_turned_round(
    tmp_path, caplog, saved, current, rename, is_by_key
):
    given = {"agent": rename} if is_by_key else rename
    make(tmp_path, saved).save()
    cp = make(tmp_path, current)
    with pytest.raises(MismatchError, match="from names in the save to") as error:
        cp.load(rename=given)
    report = cp.load(rename=renaming(error))
    assert len(report.renamed) == 1
    assert not report.missing
    if len(current) > 1:  # Else the lenient load has nothing to load, and says so.
        cp.load(rename=given, strict=False)
        found = re.search(r"Pass rename=(\{.*?\}+)", caplog.text)
        assert eval(found[1]) == renaming(error)


def test_a_rename_that_matches_nothing_is_told_of_where_leaves_are_left(
    tmp_path, caplog
):
    make(tmp_path, {"trunk": {"w": 1}, "b": 2}).save()
    cp = make(tmp_path, {"torso": {"w": 0}, "b": 0})
    for load in (cp.load, cp.load_or_save):
        caplog.clear()
        load(strict=False, rename={"^trnk/": "torso/", "^b": "b"})
        (record,) = [x for x in caplog.records if x.levelname == "WARNING"]
        assert "matched by '^trnk/'," in record.getMessage()
        assert "nearest names in the save are 'trunk/w'" in record.getMessage()


def test_a_rename_that_nothing_needs_is_silent(tmp_path, caplog):
    make(tmp_path, {"w": 1}).save()
    cp = make(tmp_path, {"w": 0})
    for strict in (True, False):
        cp.load(rename={r"^_orig_mod\.": ""}, strict=strict)
    assert "rename" not in caplog.text


def test_keys_are_mapped_as_the_message_says(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.policy, cp.values = Box(1), Box(2)
    cp.save()
    cp = Checkpoint(tmp_path)
    cp.polic = Box(0)
    with pytest.raises(MissingKeyError, match="from keys here to those in") as error:
        cp.load()
    cp.load(**suggestion(error, "load"))
    assert cp.polic.state == 1


def saving_a_learner(directory):
    cp = Checkpoint(directory)
    cp.step, cp.agent, cp.rng = Counter(7), Box({"a": 1, "b": 2}), Box({"key": 3})
    cp.save()


def test_a_key_is_mapped_to_what_holds_the_same_leaves(tmp_path):
    saving_a_learner(tmp_path)
    cp = Checkpoint(tmp_path)
    cp.step, cp.learner = Counter(), Box({"a": 0, "b": 0})
    with pytest.raises(MissingKeyError) as error:
        cp.load()
    cp.load(**suggestion(error, "load"))
    assert (cp.step, cp.learner.state) == (7, {"a": 1, "b": 2})


@pytest.mark.parametrize("state", [{"x": 0}, None, 0, {"a": 0, "x": 1, "y": 2}])
def test_a_key_is_not_mapped_to_what_holds_other_leaves(tmp_path, state):
    saving_a_learner(tmp_path)
    cp = Checkpoint(tmp_path)
    cp.learner = Box(state)
    with pytest.raises(MissingKeyError) as error:
        cp.load()
    assert "keys=" not in str(error.value)


def test_keys_that_are_turned_are_turned_round(tmp_path):
    saving_a_learner(tmp_path)
    cp = Checkpoint(tmp_path)
    cp.learner = Box()
    with pytest.raises(MissingKeyError, match="from keys here to those in") as error:
        cp.load(keys={"agent": "learner"})
    cp.load(keys=eval(re.search(r"keys=(\{.*?\})", str(error.value))[1]))
    assert cp.learner.state == {"a": 1, "b": 2}


def test_a_run_with_one_more_component_resumes_as_the_message_says(tmp_path):
    make(tmp_path, 1).save()
    cp = make(tmp_path)
    cp.critic = Box(2)
    with pytest.raises(MissingKeyError, match="in place of load_or_save") as error:
        cp.load_or_save()
    cp.load(**suggestion(error, "load"))
    cp.save()
    assert cp.load_or_save()
    assert (cp.agent.state, cp.critic.state) == (1, 2)


def test_what_load_or_save_does_not_take_is_said_to_be_of_load(tmp_path):
    cp = make(tmp_path, {"w": 1})
    cp.replay = Stream([1, 2])
    cp.save()
    with pytest.raises(MismatchError, match=r"Leave it out with keys= of load\(\);"):
        cp.load_or_save(rename={"v": "w"})


def test_a_pattern_with_the_key_in_the_save_is_told_of_ours(tmp_path):
    make(tmp_path, {"w": 1}).save()
    cp = Checkpoint(tmp_path)
    cp.policy = Box({"w": 0})
    with pytest.raises(MismatchError, match=r"the one here, 'policy', not 'agent'\."):
        cp.load(keys={"policy": "agent"}, regex="agent/w")
    assert cp.load(keys={"policy": "agent"}, regex="policy/w").loaded == ("policy/w",)


class Buffer:
    def __init__(self):
        self.action_space, self.actions = "Discrete", {"kind": "none"}
        self._data, self.pos, self.full = np.zeros(3), 0, False
        vars(self).update({f"extra{i}": "x" for i in range(9)})


def test_attributes_of_an_object_are_named_and_not_chosen():
    cp = Checkpoint()
    with pytest.raises(ComponentError) as error:
        cp.buffer = Buffer()
    said = str(error.value)
    assert "Saveable([...], of=it)" in said
    assert "of 'pos', 'full', '_data', 'action_space'," in said
    assert "and of 2 more." in said


@pytest.mark.parametrize(
    "value", [collections.deque([1]), {1}, bytearray(3), [collections.deque()]]
)
def test_what_its_owner_changes_in_place_is_no_value(value):
    cp = Checkpoint()
    with pytest.raises(ComponentError, match=r"register the owner") as error:
        cp.buffer = value
    assert "Value(" not in str(error.value)


@pytest.mark.torch
def test_tensors_are_no_values():
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(2, 2)
    for value in (layer.weight, list(layer.parameters()), [layer], {"a": [layer.bias]}):
        with pytest.raises(ComponentError, match=r"register the owner"):
            Checkpoint().weights = value


@pytest.mark.parametrize("arguments", [(Buffer(), ["pos"]), (["pos"], Buffer())])
def test_the_owner_of_attributes_is_not_passed_by_position(arguments):
    with pytest.raises(ValueError, match=re.escape("Saveable(['pos'], of=it)")):
        Saveable(*arguments)


def test_what_the_save_has_is_loaded_as_the_message_says(tmp_path):
    make(tmp_path, 1).save()
    cp = make(tmp_path)
    cp.critic = Box()
    with pytest.raises(MissingKeyError) as error:
        cp.load()
    assert suggestion(error, "load") == {"keys": ["agent"]}
    cp.load(**suggestion(error, "load"))
    assert cp.agent.state == 1


def test_a_key_that_a_rename_would_change_is_mapped_as_the_message_says(tmp_path):
    make(tmp_path, {"w": 7}).save()
    cp = make(tmp_path)
    cp.policy = Box()
    with pytest.raises(MismatchError, match="out of its component") as error:
        cp.load(keys=["agent"], rename={"^agent/": "policy/"})
    keys = eval(re.search(r"keys=(\{.*?\})", str(error.value))[1])
    cp.load(keys=keys)
    assert cp.policy.state == {"w": 7}


def test_what_is_no_text_is_no_key():
    assert [] not in make()
    assert "agent" in make()


def test_a_name_that_is_nearly_one_comes_first(tmp_path):
    cp = make(tmp_path, 1, keep=None)
    cp.save(pin="before")
    cp.save()
    for typo, right in {"bestt": "best", "lates": "latest", "befor": "before"}.items():
        with pytest.raises(SaveNotFoundError, match=f"near it are '{right}'"):
            cp.load(typo)
