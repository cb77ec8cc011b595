"""`diff` compares two saves leaf by leaf, and reads only blocks that may differ."""

import math

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import elementsckpt
from elementsckpt import (
    Checkpoint,
    DamagedError,
    Files,
    MismatchError,
    MissingKeyError,
    SaveNotFoundError,
)

from support.boxes import Box, Stream
from support.folders import flip_block, noise
from support.strategies import PROPERTY, states


@pytest.fixture
def save(tmp_path):
    """Return a function that makes a save of a box, and returns its path."""
    cp = Checkpoint(tmp_path / "run", keep=None, fsync=False)

    def make(state, compress=None):
        cp.box = Box(state)
        return cp.save().path

    return make


def only(report):
    (leaf,) = report.changed
    return leaf


def test_what_is_added_removed_changed_and_same(save):
    a = save({"same": np.ones(3), "gone": 1, "n": 1, "x": np.zeros(4)})
    b = save({"same": np.ones(3), "new": 1, "n": 2, "x": np.ones(4)})
    report = elementsckpt.diff(a, b)
    assert (report.a, report.b) == (a, b)
    assert report.added == ("box/new",)
    assert report.removed == ("box/gone",)
    assert report.same == ("box/same",)
    assert [leaf.full_name for leaf in report.changed] == ["box/x", "box/n"]
    assert (report.changed[1].value_a, report.changed[1].value_b) == (1, 2)
    assert not report.is_same
    assert elementsckpt.diff(a, a).is_same


def test_figures_are_of_the_elements_that_differ(save):
    a, b = np.arange(8.0), np.arange(8.0)
    b[3], b[4] = 6.0, np.nan
    a[6] = np.inf
    leaf = only(elementsckpt.diff(save({"x": a}), save({"x": b})))
    assert leaf.changed_share == 3 / 8
    assert leaf.relative_norm == 1.0  # |6 - 3| / |3|.
    assert leaf.max_difference == 3.0
    assert (leaf.nan_a, leaf.nan_b, leaf.inf_a, leaf.inf_b) == (0, 1, 1, 0)


def test_a_difference_from_zeros_is_infinite_and_one_without_numbers_none(save):
    zeros, ones = save({"x": np.zeros(3)}), save({"x": np.ones(3)})
    assert only(elementsckpt.diff(zeros, ones)).relative_norm == math.inf
    nan = save({"x": np.full(3, np.nan)})
    leaf = only(elementsckpt.diff(ones, nan))
    assert (leaf.relative_norm, leaf.max_difference) == (None, None)
    assert leaf.changed_share == 1


@pytest.mark.parametrize(
    ("dtype", "one", "other", "largest"),
    [
        ("u8", 2**64 - 1, 2**64 - 11, 10),
        ("u8", 0, 2**64 - 1, 2**64 - 1),
        ("i8", -(2**63), 2**63 - 1, 2**64 - 1),
        ("i8", 2**62 + 1, 2**62, 1),
        ("i1", -128, 127, 255),
        ("u1", 255, 0, 255),
    ],
)
def test_the_largest_difference_of_integers_is_exact(save, dtype, one, other, largest):
    paths = [save({"x": np.array([7, value], dtype)}) for value in (one, other)]
    leaf = only(elementsckpt.diff(*paths))
    assert leaf.max_difference == largest
    assert isinstance(leaf.max_difference, int)
    assert leaf.relative_norm == (largest / abs(one) if one else math.inf)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("dtype", "one", "other", "norm", "largest"),
    [
        ("f8", 1e300, -1e300, 2, 2e300),
        ("f8", 1e-300, 3e-300, 2, 2e-300),
        ("f8", 5e-324, 1e-323, 1, 5e-324),
        ("f8", 1.5e308, -1.5e308, math.inf, math.inf),
        ("f8", 1e-300, 1e300, math.inf, 1e300),
        ("f4", 3e38, -3e38, 2, 6e38),
        ("c16", 1e300j, -1e300, math.sqrt(2), math.sqrt(2) * 1e300),
    ],
)
def test_only_figures_that_overflow_themselves_are_infinite(
    save, dtype, one, other, norm, largest
):
    table = np.full(1000, one, dtype)
    changed = table.copy()
    changed[:] = other
    leaf = only(elementsckpt.diff(save({"x": table}), save({"x": changed})))
    assert leaf.relative_norm == pytest.approx(norm)
    assert leaf.max_difference == pytest.approx(largest, rel=1e-6, abs=0)


def test_a_norm_over_several_blocks_is_of_all_of_them(save):
    table = np.geomspace(1e-200, 1e200, 3 << 20)
    changed = 3 * table[::-1]
    leaf = only(elementsckpt.diff(save({"x": table}), save({"x": changed})))
    unit = table / 1e200
    norm = np.linalg.norm(3 * unit[::-1] - unit) / np.linalg.norm(unit)
    assert leaf.relative_norm == pytest.approx(norm)


def test_a_text_has_the_form_or_value_of_what_only_one_save_has(save):
    a = save({"gone": np.ones((2, 3), "f4")})
    b = save({"new": 7, "long": "x" * 300})
    report = elementsckpt.diff(a, b)
    assert report.form("box/gone") == "float32[2,3]"
    assert report.form("box/new") == "7"
    assert "box/gone  float32[2,3]" in repr(report)
    assert len(report.form("box/long")) == 40
    assert "form" not in "".join(report.to_dict())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.ones(3, "f4"), np.ones(3, "f8")),
        (np.ones(3), np.ones(4)),
        (np.ones(3, "f4"), jnp.ones(3)),
        (np.array(["a"]), np.array(["b"])),
        (b"x" * 2000, b"y" * 2000),
        ("a", 1),
        (1, True),
        (np.zeros(2, "i4,f4"), np.ones(2, "i4,f4")),
    ],
)
def test_what_is_not_numeric_or_of_another_form_has_no_figures(save, one, other):
    leaf = only(elementsckpt.diff(save({"x": one}), save({"x": other})))
    assert leaf.changed_share is None
    assert leaf.relative_norm is None
    assert leaf.max_difference is None
    assert leaf.nan_a is None


def test_nan_equals_nan_and_the_sign_of_zero_counts(save):
    a = save({"x": np.array([np.nan, 0.0]), "n": math.nan})
    payload = np.array([0x7FF8000000000001], "u8").view("f8")[0]
    b = save({"x": np.array([payload, 0.0]), "n": math.nan})
    assert elementsckpt.diff(a, b).is_same
    c = save({"x": np.array([np.nan, -0.0]), "n": math.nan})
    assert only(elementsckpt.diff(a, c)).max_difference == 0


def test_how_a_leaf_is_stored_makes_no_difference(tmp_path):
    table = np.zeros((400, 500))
    table[7, 8] = 3
    paths = []
    for name, array, compress in [
        ("plain", table, None),
        ("packed", table, 3),
        ("transposed", np.asfortranarray(table), None),
    ]:
        cp = Checkpoint(tmp_path / name, compress=compress, fsync=False)
        cp.box = Box({"x": array})
        paths.append(cp.save().path)
    for path in paths[1:]:
        report = elementsckpt.diff(paths[0], path)
        assert report.is_same, path


def test_small_floats_are_numeric(save):
    a = np.ones(4, ml_dtypes.bfloat16)
    b = a.copy()
    b[0] = 3
    leaf = only(elementsckpt.diff(save({"x": a}), save({"x": b})))
    assert (leaf.changed_share, leaf.max_difference) == (0.25, 2.0)


def test_blocks_with_one_digest_are_not_read(save):
    table = noise(5, 64 << 20)
    a = save({"x": table})
    table[40 << 20] ^= 1
    b = save({"x": table})
    report = elementsckpt.diff(a, b)
    assert only(report).changed_share == 1 / table.size
    assert report.bytes_read <= 4 << 20


def test_shards_and_files_are_compared(tmp_path):
    cp = Checkpoint(tmp_path, keep=None, fsync=False)
    cp.stream = Stream([{"x": np.zeros(3)}, {"x": np.zeros(3)}])
    cp.files = Files(save=lambda folder: (folder / "a").write_text("1"), load=list)
    first = cp.save().path
    cp.stream.state[1]["x"][0] = 5
    cp.files = Files(save=lambda folder: (folder / "a").write_text("2"), load=list)
    report = elementsckpt.diff(first, cp.save().path)
    assert [x.full_name for x in report.changed] == ["stream/1/x", "files/a"]
    assert report.same == ("stream/0/x",)


def test_bad_arguments(save, tmp_path):
    a, b = save({"x": 1, "y": np.ones(3)}), save({"x": 2, "y": np.zeros(3)})
    assert only(elementsckpt.diff(a, b, regex="x")).full_name == "box/x"
    with pytest.raises(MismatchError, match="box/x"):
        elementsckpt.diff(a, b, regex="box/xx")
    with pytest.raises(MissingKeyError):
        elementsckpt.diff(a, b, keys=["agent"])
    with pytest.raises(ValueError, match="keys is a list"):
        elementsckpt.diff(a, b, keys="box")
    with pytest.raises(SaveNotFoundError):
        elementsckpt.diff(a, tmp_path / "none")


def test_damage_in_what_must_be_read_is_an_error_that_names_leaves(save):
    a, b = save({"x": noise(1, 5000)}), save({"x": noise(2, 5000)})
    flip_block(b, 0, key="box")
    with pytest.raises(DamagedError, match="box/x"):
        elementsckpt.diff(a, b)


@given(states())
@PROPERTY
def test_any_state_is_the_same_as_itself(tmp_path_factory, state):
    cp = Checkpoint(tmp_path_factory.mktemp("any"), keep=None, fsync=False)
    cp.box = Box(state)
    a, b = cp.save().path, cp.save().path
    assert elementsckpt.diff(a, b).is_same


@given(
    npst.arrays(np.float32, npst.array_shapes(min_side=0, max_side=9)),
    st.data(),
)
@PROPERTY
def test_figures_agree_with_numpy(tmp_path_factory, a, data):
    b = data.draw(npst.arrays(np.float32, a.shape))
    cp = Checkpoint(tmp_path_factory.mktemp("two"), keep=None, fsync=False)
    paths = []
    for array in (a, b):
        cp.box = Box({"x": array})
        paths.append(cp.save().path)
    report = elementsckpt.diff(*paths)
    bits = a.view(np.uint32) != b.view(np.uint32)
    differ = bits & ~(np.isnan(a) & np.isnan(b))
    assert report.is_same == (not differ.any())
    if differ.any():
        leaf = only(report)
        assert leaf.changed_share == differ.sum() / a.size
        assert leaf.nan_b == np.isnan(b[differ]).sum()
        both = differ & np.isfinite(a) & np.isfinite(b)
        if both.any():
            wide = b[both].astype(np.float64) - a[both].astype(np.float64)
            assert leaf.max_difference == np.abs(wide).max()
        else:
            assert leaf.max_difference is None
