"""`stats` says what the elements of leaves are like, as NumPy would."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as npst

import elementsckpt
from elementsckpt import DamagedError, MismatchError, MissingKeyError

from support.boxes import make_boxes
from support.folders import flip_block, noise
from support.strategies import PROPERTY


def of(directory, array):
    make_boxes(directory, box={"x": array}).save()
    (leaf,) = elementsckpt.stats(directory)
    return leaf


def test_figures_of_an_array_with_nan_and_infinities(tmp_path):
    leaf = of(tmp_path, np.array([1.0, np.nan, -3.0, np.inf, 5.0], np.float32))
    assert (leaf.key, leaf.name, leaf.full_name) == ("box", "x", "box/x")
    assert (leaf.dtype, leaf.shape, leaf.count) == ("float32", (5,), 5)
    assert (leaf.nan, leaf.inf, leaf.is_finite) == (1, 1, False)
    assert (leaf.min, leaf.max, leaf.mean) == (-3.0, 5.0, 1.0)
    assert leaf.rms == pytest.approx(np.sqrt(35 / 3))
    assert leaf.histogram == (1, *[0] * 7, 1, *[0] * 6, 1)


def test_integers_are_exact_and_bools_are_counted(tmp_path):
    big = 2**53 + 1
    leaf = of(tmp_path, np.array([[big, -7]]))
    assert (leaf.min, leaf.max, type(leaf.min)) == (-7, big, int)
    leaf = of(tmp_path, np.array([True, False, True]))
    assert (leaf.min, leaf.max, leaf.mean) == (0, 1, 2 / 3)


@pytest.mark.parametrize(
    "array", [np.zeros(0), np.array([np.nan, np.inf])], ids=["empty", "not finite"]
)
def test_without_a_finite_element_there_are_no_figures(tmp_path, array):
    leaf = of(tmp_path, array)
    assert (leaf.min, leaf.max, leaf.mean, leaf.rms) == (None,) * 4
    assert leaf.histogram == (0,) * 16


def test_extremes_of_a_dtype_do_not_overflow(tmp_path):
    limits = np.finfo(np.float64)
    leaf = of(tmp_path, np.array([limits.min, 0.0, limits.max]))
    assert (leaf.min, leaf.max) == (limits.min, limits.max)
    assert sum(leaf.histogram) == 3
    assert (leaf.histogram[0], leaf.histogram[8], leaf.histogram[-1]) == (1, 1, 1)


def test_only_bools_integers_and_floats_have_statistics(tmp_path):
    state = {
        "f": np.ones(2, ml_dtypes.bfloat16),
        "c": np.ones(2, complex),
        "s": np.array(["a"]),
        "t": "text",
        "n": 3,
        "v": np.zeros(2, "i4,f4"),
    }
    make_boxes(tmp_path, box=state).save()
    assert [leaf.name for leaf in elementsckpt.stats(tmp_path)] == ["f"]


def test_bad_arguments_and_damage(tmp_path):
    path = make_boxes(tmp_path, box={"x": noise(1, 5000), "y": 1}).save().path
    assert elementsckpt.stats(path, regex="y") == []
    with pytest.raises(MismatchError, match="box/x"):
        elementsckpt.stats(path, regex="box/z")
    with pytest.raises(MissingKeyError):
        elementsckpt.stats(path, keys=["agent"])
    flip_block(path, 0, key="box")
    with pytest.raises(DamagedError, match="box/x"):
        elementsckpt.stats(path)


@given(npst.arrays(npst.floating_dtypes(sizes=(16, 32, 64)), 30))
@PROPERTY
def test_any_floats_have_the_figures_of_numpy(tmp_path_factory, array):
    leaf = of(tmp_path_factory.mktemp("any"), array)
    finite = array[np.isfinite(array)]
    assert leaf.nan == np.isnan(array).sum()
    assert leaf.inf == np.isinf(array).sum()
    assert sum(leaf.histogram) == finite.size
    if finite.size:
        assert (leaf.min, leaf.max) == (finite.min(), finite.max())
