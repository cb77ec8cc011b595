"""Loading a part: `regex`, `rename`, `strict`, `cast`, `dry_run`."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, CheckpointError, MismatchError

from support.boxes import Box, block_with, damage, make_boxes


def params(value, shape=(2, 3), dtype=np.float32):
    return {
        "params": {
            "enc": {"w": np.full(shape, value, dtype), "b": np.full(3, value, dtype)},
            "dec": {"w": np.full((3, 2), value, dtype)},
        },
        "updates": int(value),
    }


def saved(directory, state, **options):
    """Write a save whose component `agent` has this state."""
    cp = Checkpoint(directory, **options)
    cp.agent = Box(state)
    cp.save()


def opened(directory, state):
    cp = Checkpoint(directory)
    cp.agent = Box(state)
    return cp


def names(*leaves):
    return {f"agent/{leaf}" for leaf in leaves}


# regex.


def test_matched_leaves_are_replaced_and_the_others_stay(tmp_path):
    saved(tmp_path, params(1))
    cp = opened(tmp_path, params(0))
    kept = cp.agent.state["params"]["dec"]["w"]
    report = cp.load(regex="params/enc")
    state = cp.agent.state
    assert (state["params"]["enc"]["w"] == 1).all()
    assert (state["params"]["enc"]["b"] == 1).all()
    assert state["params"]["dec"]["w"] is kept
    assert state["updates"] == 0
    assert list(state) == ["params", "updates"]
    assert cp.agent.loads == 1
    assert set(report.loaded) == names("params/enc/w", "params/enc/b")
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())


@pytest.mark.parametrize(
    ("regex", "loaded"),
    [
        (".*/w", {"params/enc/w", "params/dec/w"}),
        ("params/(enc/b|dec)", {"params/enc/b", "params/dec/w"}),
        (".*b$", {"params/enc/b"}),
        ("updates", {"updates"}),
        ("up", {"updates"}),
        ("", {"params/enc/w", "params/enc/b", "params/dec/w", "updates"}),
    ],
)
def test_selection_is_re_match_on_the_name_inside_the_component(
    tmp_path, regex, loaded
):
    saved(tmp_path, params(1))
    report = opened(tmp_path, params(0)).load(regex=regex)
    assert set(report.loaded) == names(*loaded)


@pytest.mark.parametrize("regex", ["enc", "gent/params", "w$", "x", "agent/x"])
def test_a_pattern_that_matches_no_beginning_matches_nothing(tmp_path, regex):
    saved(tmp_path, params(1))
    cp = opened(tmp_path, params(0))
    with pytest.raises(MismatchError):
        cp.load(regex=regex)
    assert cp.agent.loads == 0


def test_a_pattern_that_matches_nothing_lists_the_nearest_names(tmp_path):
    state = {f"layer{i}/kernel": np.ones(2) for i in range(200)}
    state["torso/kernel"] = np.ones(2)
    saved(tmp_path, state)
    cp = opened(tmp_path, state)
    with pytest.raises(MismatchError) as error:
        cp.load(regex="tosro/kernel")
    assert isinstance(error.value, ValueError)
    assert "tosro/kernel" in str(error.value)
    assert "torso/kernel" in str(error.value)
    assert len(str(error.value)) < 2000
    assert cp.agent.loads == 0


def test_leaves_are_picked_from_among_thousands_alike(tmp_path):
    saved(tmp_path, {f"w{i}": np.full(64, i) for i in range(10_000)} | {"n": [1, 2, 3]})
    cp = opened(tmp_path, {f"w{i}": np.zeros(64, int) for i in range(10_000)})
    cp.load(regex="w(0|4095|4096|7777|9999)$", strict=False)
    loaded = {name: x for name, x in cp.agent.state.items() if x.any()}
    assert set(loaded) == {"w4095", "w4096", "w7777", "w9999"}
    for name, array in loaded.items():
        np.testing.assert_array_equal(array, np.full(64, int(name[1:])))
    assert elementsckpt.read(tmp_path, regex="n/1") == {"agent": {"n": {1: 2}}}


def test_keys_with_slashes_are_part_of_the_leaf_name(tmp_path):
    saved(tmp_path, {"params": {"enc/conv0/kernel": np.ones(2), "head/w": np.ones(2)}})
    current = {"params": {"enc/conv0/kernel": np.zeros(2), "head/w": np.zeros(2)}}
    cp = opened(tmp_path, current)
    report = cp.load(regex=r"params/enc/.*/kernel")
    assert set(report.loaded) == names("params/enc/conv0/kernel")
    assert cp.agent.state["params"]["enc/conv0/kernel"].tolist() == [1, 1]
    assert cp.agent.state["params"]["head/w"].tolist() == [0, 0]


def test_lists_and_tuples_are_named_by_index_and_keep_their_type(tmp_path):
    saved(tmp_path, {"layers": [np.ones(2), (np.ones(3), 5)]})
    cp = opened(tmp_path, {"layers": [np.zeros(2), (np.zeros(3), 0)]})
    report = cp.load(regex="layers/1/")
    assert set(report.loaded) == names("layers/1/0", "layers/1/1")
    first, second = cp.agent.state["layers"]
    assert first.tolist() == [0, 0]
    assert type(second) is tuple
    assert (second[0].tolist(), second[1]) == ([1, 1, 1], 5)


def test_a_component_in_which_nothing_matches_is_left_alone(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.agent, cp.norm = Box({"w": np.ones(2)}), Box({"mean": np.ones(2)})
    cp.save()
    cp.agent.state, cp.norm.state = {"w": np.zeros(2)}, {"mean": np.zeros(2)}
    report = cp.load(regex="mean")
    assert (cp.agent.loads, cp.norm.loads) == (0, 1)
    assert set(report.loaded) == {"norm/mean"}
    assert cp.norm.state["mean"].tolist() == [1, 1]


def test_a_regex_with_keys_looks_only_into_those(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.agent, cp.target = Box({"w": np.ones(2)}), Box({"w": np.ones(2)})
    cp.save()
    report = cp.load(keys=["target"], regex="w")
    assert set(report.loaded) == {"target/w"}
    assert (cp.agent.loads, cp.target.loads) == (0, 1)


@pytest.mark.parametrize("compress", [None, 1])
def test_only_the_blocks_of_matched_leaves_are_read(tmp_path, compress):
    enc, dec = np.random.default_rng(0).integers(0, 7, (2, 300_000), np.uint8)
    saved(tmp_path, {"enc": enc, "dec": dec}, compress=compress)
    cp = opened(
        tmp_path, {"enc": np.zeros(300_000, np.uint8), "dec": np.zeros(300_000, "u1")}
    )
    path = cp.latest()
    damage(block_with(path, dec.tobytes()))
    with pytest.raises(elementsckpt.DamagedError, match="agent/dec"):
        cp.load(path)
    assert cp.agent.loads == 0
    report = cp.load(path, regex="enc")
    assert (cp.agent.state["enc"] == enc).all()
    assert (cp.agent.state["dec"] == 0).all()
    assert 300_000 <= report.bytes_read < 600_000
    assert (elementsckpt.read(path, regex="enc")["agent"]["enc"] == enc).all()


def test_a_replaced_leaf_is_of_the_kind_of_the_current_one(tmp_path):
    saved(tmp_path, {"a": np.ones(2, np.float32), "b": np.ones(2), "c": 1})
    device = jax.devices()[0]
    current = {
        "a": jax.device_put(np.zeros(2, np.float32), device),
        "b": np.zeros(2),
        "c": 0,
    }
    cp = opened(tmp_path, current)
    cp.load(regex="a|b|c")
    state = cp.agent.state
    assert isinstance(state["a"], jax.Array)
    assert np.asarray(state["a"]).tolist() == [1, 1]
    assert (type(state["b"]), type(state["c"])) == (np.ndarray, int)


def test_a_numpy_leaf_takes_what_was_a_jax_array(tmp_path):
    saved(tmp_path, {"a": jax.device_put(np.ones(2, np.float32))})
    cp = opened(tmp_path, {"a": np.zeros(2, np.float32)})
    cp.load(regex="a")
    assert type(cp.agent.state["a"]) is np.ndarray
    assert cp.agent.state["a"].tolist() == [1, 1]


def test_a_partial_load_maps_too(tmp_path):
    state = {"a": np.ones(100_000), "b": np.ones(100_000)}
    saved(tmp_path, state, compress=None)
    cp = opened(tmp_path, {"a": np.zeros(100_000), "b": np.zeros(100_000)})
    cp.load(regex="a", mmap=True)
    assert (cp.agent.state["a"] == 1).all()
    cp.agent.state["a"] += 1
    assert (cp.agent.state["b"] == 0).all()
    assert (elementsckpt.read(tmp_path)["agent"]["a"] == 1).all()


def test_leaves_in_too_many_places_are_not_called_damage(tmp_path):
    shared = {f"x{n}": float(n) for n in range(1000)}
    make_boxes(tmp_path, agent=[shared] * 2000).save()
    cp = make_boxes(tmp_path, agent=[dict.fromkeys(shared, 0.0)])
    with pytest.raises(elementsckpt.MismatchError, match="without regex"):
        cp.load(regex="0/.*")
    assert cp.agent.loads == 0


@pytest.mark.skipif(np.__version__ < "2", reason="StringDType is NumPy 2's")
@pytest.mark.parametrize("options", [{}, {"na_object": None}, {"na_object": np.nan}])
def test_strings_of_variable_length_load_partially(tmp_path, options):
    dtype = np.dtypes.StringDType(**options)
    names = np.array(["a", "long enough to be on the heap"], dtype)
    make_boxes(tmp_path, agent={"names": names, "w": np.ones(3)}).save()
    current = {"names": np.array(["", ""], dtype), "w": np.zeros(3)}
    cp = make_boxes(tmp_path, agent=current)
    report = cp.load(regex="names")
    assert report.loaded == ("agent/names",)
    assert cp.agent.state["names"].tolist() == names.tolist()
    assert cp.agent.state["names"].dtype == dtype
    assert cp.agent.state["w"] is current["w"]


def test_partial_loads_keep_the_objects_they_do_not_touch(tmp_path):
    def state(value):
        return {
            "params": {"w": np.full(3, value)},
            "rng": np.random.default_rng(int(value)),
            "legacy": np.random.RandomState(int(value)),
            "cache": collections.OrderedDict(k=[1, 2]),
        }

    make_boxes(tmp_path, agent=state(1.0)).save()
    current = state(0.0)
    cp = make_boxes(tmp_path, agent=current)
    cp.load(regex="params/.*")
    assert cp.agent.state["params"]["w"].tolist() == [1, 1, 1]
    for untouched in ("rng", "legacy", "cache"):
        assert cp.agent.state[untouched] is current[untouched]


# Mismatches.


def test_every_mismatch_is_in_one_error_and_nothing_is_loaded(tmp_path):
    saved(tmp_path, {"a": np.ones((2, 3)), "b": np.ones(4), "c": np.ones(5, "i4")})
    current = {"a": np.zeros((3, 2)), "b": np.zeros(4), "c": np.zeros(5, np.float32)}
    cp = opened(tmp_path, current)
    with pytest.raises(MismatchError) as error:
        cp.load(regex=".*")
    message = str(error.value)
    for part in ("agent/a", "[2,3]", "[3,2]", "agent/c", "int32", "float32"):
        assert part in message
    assert "agent/b" not in message
    assert cp.agent.loads == 0
    assert cp.agent.state is current


def test_mismatches_of_several_components_are_in_one_error(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.agent, cp.target, cp.norm = (Box({"w": np.ones(2)}) for _ in range(3))
    cp.save()
    cp.agent.state, cp.target.state = {"w": np.ones(3)}, {"w": np.ones(4)}
    with pytest.raises(MismatchError) as error:
        cp.load(regex="w")
    assert "agent/w" in str(error.value)
    assert "target/w" in str(error.value)
    assert (cp.agent.loads, cp.target.loads, cp.norm.loads) == (0, 0, 0)


def test_mismatches_outside_of_the_selection_do_not_matter(tmp_path):
    saved(tmp_path, {"torso": np.ones(2), "head": np.ones(4)})
    cp = opened(tmp_path, {"torso": np.zeros(2), "head": np.zeros(6)})
    cp.load(regex="torso")
    assert cp.agent.state["torso"].tolist() == [1, 1]
    assert cp.agent.state["head"].shape == (6,)


# cast.


def test_dtypes_must_match_exactly_and_the_remedy_is_cast(tmp_path):
    saved(tmp_path, {"w": np.ones(2, np.float64)})
    cp = opened(tmp_path, {"w": np.zeros(2, np.float32)})
    with pytest.raises(MismatchError, match="cast=True") as error:
        cp.load(regex="w")
    assert "float64" in str(error.value)
    assert "float32" in str(error.value)
    cp.load(regex="w", cast=True)
    assert cp.agent.state["w"].dtype == np.float32
    assert cp.agent.state["w"].tolist() == [1, 1]


def test_cast_alone_takes_the_dtypes_of_the_current_state(tmp_path):
    saved(tmp_path, params(1, dtype=np.float64))
    cp = opened(tmp_path, params(0, dtype=np.float32))
    report = cp.load(cast=True)
    assert len(report.loaded) == 4
    assert cp.agent.state["params"]["enc"]["w"].dtype == np.float32
    assert (cp.agent.state["params"]["enc"]["w"] == 1).all()


def test_cast_is_of_the_same_kind_and_never_of_shapes(tmp_path):
    saved(tmp_path, {"a": np.ones(2, np.float64), "b": np.ones((2, 3))})
    cp = opened(tmp_path, {"a": np.zeros(2, np.int32), "b": np.zeros((3, 2))})
    for regex, leaf in (("a", "agent/a"), ("b", "agent/b")):
        with pytest.raises(MismatchError, match=leaf):
            cp.load(regex=regex, cast=True)
    assert cp.agent.loads == 0


def test_a_plain_load_casts_nothing_and_leaves_shapes_to_the_component(tmp_path):
    saved(tmp_path, {"w": np.ones(5, np.float64)})
    cp = opened(tmp_path, {"w": np.zeros(2, np.float32)})
    cp.load()
    assert cp.agent.state["w"].dtype == np.float64
    assert cp.agent.state["w"].shape == (5,)


BFLOAT16 = "bfloat16"


CASTS = [
    ("int8", "uint8", False),
    ("float32", "int32", False),
    ("complex64", "float32", False),
    (BFLOAT16, "int32", False),
    ("uint8", "int8", True),
    ("int32", "float32", True),
    ("int32", BFLOAT16, True),
    ("float64", "float32", True),
    ("float32", BFLOAT16, True),
    (BFLOAT16, "float32", True),
    ([("x", "f4")], [("y", "f4")], False),
    ([("x", "f4"), ("y", "f4")], [("y", "f4"), ("x", "f4")], False),
    ([("x", "f4")], [("x", "f4"), ("y", "f4")], False),
    ([("x", "f4")], [("x", "i4")], False),
    ([("x", "f4")], "float32", False),
    ("float32", [("x", "f4")], False),
]


@pytest.mark.parametrize(("saved", "wanted", "allowed"), CASTS)
def test_cast_allows_what_numpy_calls_the_same_kind(tmp_path, saved, wanted, allowed):
    def dtype(spec):
        if spec == BFLOAT16:
            return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
        return np.dtype(spec)

    make_boxes(tmp_path, agent={"w": np.ones(3, dtype(saved))}).save()
    cp = make_boxes(tmp_path, agent={"w": np.zeros(3, dtype(wanted))})
    if not allowed:
        with pytest.raises(elementsckpt.MismatchError, match="agent/w: saved"):
            cp.load(cast=True)
        assert cp.agent.loads == 0
        return
    cp.load(cast=True)
    assert cp.agent.state["w"].dtype == dtype(wanted)
    assert cp.agent.state["w"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("wanted", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("saved_as", ["numpy", "torch"])
@pytest.mark.torch
def test_cast_converts_values_for_torch_components(tmp_path, saved_as, wanted):
    torch = pytest.importorskip("torch")
    saved = np.array([1, 2, 3], np.int32)
    saved = torch.from_numpy(saved) if saved_as == "torch" else saved
    make_boxes(tmp_path, agent={"w": saved}).save()
    cp = make_boxes(tmp_path, agent={"w": torch.zeros(3, dtype=getattr(torch, wanted))})
    cp.load(cast=True)
    loaded = cp.agent.state["w"]
    assert loaded.dtype == getattr(torch, wanted)
    assert loaded.tolist() == [1, 2, 3]


# strict.


def test_strict_refuses_a_matched_leaf_that_only_one_side_has(tmp_path):
    saved(tmp_path, {"enc/a": np.ones(2), "enc/old": np.ones(2), "x": 1})
    cp = opened(tmp_path, {"enc/a": np.zeros(2), "enc/new": np.zeros(2), "y": 1})
    with pytest.raises(MismatchError) as error:
        cp.load(regex="enc/")
    for part in ("agent/enc/old", "agent/enc/new", "strict=False"):
        assert part in str(error.value)
    assert cp.agent.loads == 0


def test_strict_false_loads_the_common_leaves_and_reports_the_rest(tmp_path):
    saved(tmp_path, {"enc/a": np.ones(2), "enc/old": np.ones(2), "x": 1})
    cp = opened(tmp_path, {"enc/a": np.zeros(2), "enc/new": np.zeros(2), "y": 1})
    report = cp.load(regex="enc/", strict=False)
    assert set(report.loaded) == names("enc/a")
    assert set(report.missing) == names("enc/new")
    assert set(report.unexpected) == names("enc/old")
    assert set(cp.agent.state) == {"enc/a", "enc/new", "y"}
    assert cp.agent.state["enc/a"].tolist() == [1, 1]
    assert cp.agent.state["enc/new"].tolist() == [0, 0]


def test_strict_false_without_a_regex_loads_all_common_leaves(tmp_path):
    saved(tmp_path, {"a": 1, "b": np.ones(2), "old": 1})
    cp = opened(tmp_path, {"a": 0, "b": np.zeros(2), "new": 0})
    report = cp.load(strict=False)
    assert set(report.loaded) == names("a", "b")
    assert set(report.missing) == names("new")
    assert set(report.unexpected) == names("old")
    assert (cp.agent.state["a"], cp.agent.state["new"]) == (1, 0)


def test_strict_false_still_refuses_a_wrong_shape(tmp_path):
    saved(tmp_path, {"a": np.ones(2), "b": np.ones(2)})
    cp = opened(tmp_path, {"a": np.zeros(2), "b": np.zeros(3)})
    with pytest.raises(MismatchError, match="agent/b"):
        cp.load(strict=False)
    assert cp.agent.loads == 0


# rename.


def test_rename_is_re_sub_on_the_saved_names(tmp_path):
    saved(tmp_path, {"torso/0/w": np.ones(2), "torso/1/w": np.ones(2), "head": 1})
    cp = opened(
        tmp_path, {"enc/layer0/w": np.zeros(2), "enc/layer1/w": np.zeros(2), "head": 0}
    )
    report = cp.load(regex="torso", rename={r"^torso/(\d)/": r"enc/layer\1/"})
    assert report.renamed == {
        "agent/torso/0/w": "agent/enc/layer0/w",
        "agent/torso/1/w": "agent/enc/layer1/w",
    }
    assert set(report.loaded) == names("enc/layer0/w", "enc/layer1/w")
    assert cp.agent.state["enc/layer1/w"].tolist() == [1, 1]
    assert cp.agent.state["head"] == 0


def test_rename_without_a_regex_takes_all_leaves(tmp_path):
    saved(tmp_path, {"old": {"w": np.ones(2)}, "n": 1})
    cp = opened(tmp_path, {"new": {"w": np.zeros(2)}, "n": 0})
    report = cp.load(rename={"^old/": "new/"})
    assert set(report.loaded) == names("new/w", "n")
    assert report.renamed == {"agent/old/w": "agent/new/w"}
    assert cp.agent.state["new"]["w"].tolist() == [1, 1]
    assert cp.agent.state["n"] == 1


def test_selection_goes_before_rename(tmp_path):
    saved(tmp_path, {"old/w": np.ones(2)})
    cp = opened(tmp_path, {"new/w": np.zeros(2)})
    with pytest.raises(MismatchError, match="old/w"):
        cp.load(regex="new", rename={"old": "new"})
    cp.load(regex="old", rename={"old": "new"})
    assert cp.agent.state["new/w"].tolist() == [1, 1]


def test_two_leaves_that_land_on_one_name_are_an_error(tmp_path):
    saved(tmp_path, {"a": np.ones(2), "b": np.ones(2)})
    cp = opened(tmp_path, {"c": np.zeros(2)})
    with pytest.raises(CheckpointError) as error:
        cp.load(rename={"a|b": "c"})
    assert "agent/a" in str(error.value)
    assert "agent/b" in str(error.value)
    assert "agent/c" in str(error.value)
    assert cp.agent.loads == 0


def test_online_loads_into_target_and_stays_itself(tmp_path):
    saved = {"online": {"w": np.ones(3)}, "target": {"w": np.full(3, 2.0)}}
    make_boxes(tmp_path, agent=saved).save()
    current = {"online": {"w": np.zeros(3)}, "target": {"w": np.zeros(3)}}
    cp = make_boxes(tmp_path, agent=current)
    report = cp.load(regex="online", rename={"^online": "target"})
    assert report.loaded == ("agent/target/w",)
    assert cp.agent.state["target"]["w"].tolist() == [1, 1, 1]
    assert cp.agent.state["online"] is current["online"]
    assert current["online"]["w"].tolist() == [0, 0, 0]


def test_a_group_that_a_pattern_lacks_is_a_mismatch(tmp_path):
    cp = make_boxes(tmp_path, agent={"x": np.zeros(3)})
    cp.save()
    with pytest.raises(elementsckpt.MismatchError, match="rename"):
        cp.load(rename={"^x": r"\3"})
    assert cp.agent.loads == 0


# dry_run.


def test_dry_run_reports_and_touches_nothing(tmp_path):
    saved(tmp_path, params(1))
    current = params(0)
    cp = opened(tmp_path, current)
    for arguments in ({}, {"regex": "params/enc"}):
        dry = cp.load(dry_run=True, **arguments)
        assert cp.agent.loads == 0
        assert cp.agent.state is current
        real = cp.load(**arguments)
        assert set(dry.loaded) == set(real.loaded)
        assert dry.path == real.path
        cp = opened(tmp_path, current)


def test_dry_run_reports_mismatches_instead_of_raising_them(tmp_path):
    saved(tmp_path, {"a": np.ones(2), "b": np.ones(2), "c": np.ones(2), "old": 1})
    cp = opened(
        tmp_path, {"a": np.ones(2), "b": np.ones(3), "c": np.ones(2, "f4"), "new": 1}
    )
    report = cp.load(regex=".*", dry_run=True)
    assert set(report.mismatched) == names("b", "c")
    assert set(report.missing) == names("new")
    assert set(report.unexpected) == names("old")
    assert "agent/a" in report.loaded
    assert cp.agent.loads == 0


@pytest.mark.parametrize("compress", [None, 1])
def test_dry_run_finds_damage(tmp_path, compress):
    noise = np.random.default_rng(0).integers(0, 7, 100_000, np.uint8)
    saved(tmp_path, {"a": noise}, compress=compress)
    cp = opened(tmp_path, {"a": np.zeros(100_000, np.uint8)})
    path = cp.latest()
    damage(block_with(path, noise.tobytes()))
    with pytest.raises(elementsckpt.DamagedError, match="agent/a"):
        cp.load(path, dry_run=True)


def test_functions_and_pickled_leaves_load_partially_as_what_they_were(tmp_path):
    odd = collections.UserDict(w=np.arange(3), j=jnp.arange(3))
    box = Box({"kept": jax.nn.relu, "f": jax.nn.relu, "odd": odd})
    cp = Checkpoint(tmp_path)
    cp.agent = box
    cp.save()
    box.state = {"kept": jax.nn.tanh, "f": jax.nn.tanh, "odd": collections.UserDict()}
    cp.load(regex="f|odd")
    assert box.state["kept"] is jax.nn.tanh
    assert box.state["f"] is jax.nn.relu
    np.testing.assert_array_equal(box.state["odd"]["w"], np.arange(3))
    assert isinstance(box.state["odd"]["j"], jax.Array)


def test_what_numpy_is_told_to_raise_stops_no_load(tmp_path):
    odd = np.array([1e300, 1e-300, -1e300, np.nan, np.inf])
    saved(tmp_path, {"w": odd, "v": jnp.float32(1e30), "x": 1e300, "y": np.nan})
    zero = jnp.zeros(5), jnp.bfloat16(0), np.float64(0), 0
    cp = opened(tmp_path, dict(zip("wvxy", zero, strict=True)))
    with np.errstate(all="raise"):
        cp.load(cast=True)
    state = cp.agent.state
    assert state["w"].tolist()[:3] == [np.inf, 0, -np.inf]
    assert state["v"].dtype == jnp.bfloat16
    assert state["x"] == 1e300
    assert np.isnan(state["y"])
