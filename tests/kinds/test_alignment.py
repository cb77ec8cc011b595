"""Arrays of every element type of every library, wherever their bytes lie.

Small leaves share blocks, so they begin where the ones before them end. Torch ends the
process where it reads elements of 16 bytes from an address that is none of theirs.
"""

import importlib

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint
from elementsckpt.format.manifest import LeafGroup
from elementsckpt.kinds import leaves
from elementsckpt.kinds.kind import Stored

from support import boxes

NUMPY = [
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64", "longdouble"),
    *("complex64", "complex128", "clongdouble"),
    *(">i2", ">f8", ">c16", "S3", "U2", "V5", "M8[ns]", "m8[D]", "i1,f8", "u1,c16"),
]
ML_DTYPES = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4"]
JAX = [
    *("bool", "uint8", "uint16", "uint32", "int8", "int16", "int32"),
    *("float16", "bfloat16", "float32", "float8_e4m3fn", "float8_e5m2", "complex64"),
]
TORCH = [
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "bfloat16", "float32", "float64"),
    *("complex32", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2"),
    *("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
]
ALL = [
    *(("numpy", name) for name in NUMPY),
    *(("ml_dtypes", name) for name in ML_DTYPES),
    *(("jax", name) for name in JAX),
    *(pytest.param(("torch", name), marks=pytest.mark.torch) for name in TORCH),
]
COUNTS = range(1, 18)  # Of the elements, or bytes, before the array.

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf")


WAYS = {
    "load": {},
    "mmap": {"mmap": True},
    "regex": {"regex": "x"},
    "mapped regex": {"regex": "x", "mmap": True},
}


@pytest.fixture(params=ALL, ids=lambda x: "-".join(x))
def make(request):
    """Return what makes an array of a library's type from small integers."""
    library, name = request.param
    module = pytest.importorskip(library)
    if library == "torch":
        dtype = getattr(module, name, None) or pytest.skip(f"this torch has no {name}")
        return lambda numbers: module.tensor(numbers, dtype=module.float32).to(dtype)
    if library == "jax":
        dtype, put = module.numpy.dtype(name), module.numpy.asarray
        return lambda numbers: put(np.array(numbers).astype(dtype))
    dtype = np.dtype(getattr(module, name) if library == "ml_dtypes" else name)
    if dtype.names or dtype.kind in "SUV":
        data = [bytes([0] * (dtype.itemsize - 1) + [n]) for n in range(3)]
        cast = dtype if dtype.kind != "U" else f"V{dtype.itemsize}"
        table = {n: np.frombuffer(raw, cast)[0] for n, raw in enumerate(data)}
        if dtype.kind == "U":
            table = {n: chr(n) * 2 for n in range(3)}
        return lambda numbers: np.array([table[n] for n in numbers], dtype)
    return lambda numbers: np.array(numbers).astype(dtype)


def before(x, count):
    """Return as many elements of another type of the same library and alignment."""
    name = f"int{8 * min(8, encoded(x)[1].dtype.alignment)}"
    library = leaves.kind_of(x).name
    if library == "torch":
        torch = importlib.import_module("torch")
        return torch.ones(count, dtype=getattr(torch, name))
    ones = np.ones(count, name)
    is_numpy = library == "numpy"
    return ones if is_numpy else importlib.import_module("jax.numpy").asarray(ones)


def encoded(array):
    return leaves.encode(array, leaves.kind_of(array))


def bits(array):
    """Return all elements as bytes, having computed with them as they are."""
    if leaves.kind_of(array).name == "torch":
        assert array.data_ptr() % 64 == 0
        uint8 = importlib.import_module("torch").uint8
        return bytes(array.clone().reshape(-1).view(uint8).tolist())
    return np.array(array, copy=True).tobytes()


def component(wrap, x, count):
    return wrap({"a": before(x, count), "x": x})


@pytest.mark.parametrize("wrap", [boxes.Box, elementsckpt.Value])
def test_an_array_comes_back_from_behind_others(tmp_path, make, wrap):
    x, other = make([0, 1, 2, 1, 0]), make([0] * 5)
    cp, loaded = Checkpoint(tmp_path, fsync=False), Checkpoint()
    for count in COUNTS:
        setattr(cp, f"box{count}", component(wrap, x, count))
    cp.save()
    for way, options in WAYS.items():
        for count in COUNTS:
            setattr(loaded, f"box{count}", component(wrap, other, count))
        loaded.load(tmp_path, **options)
        found = [vars(getattr(loaded, key)) for key in loaded]
        arrays = [(box.get("value") or box["state"])["x"] for box in found]
        assert [bits(array) for array in arrays] == [bits(x)] * len(COUNTS), way
        # As NumPy's own: how torch and BLAS sum up depends on it, and so the last bit.
        arrays = [x for x in arrays if isinstance(x, np.ndarray)]
        assert all(x.flags.aligned for x in arrays), way
        assert "map" in way or not any(x.ctypes.data % 16 for x in arrays), way
    read = elementsckpt.read(tmp_path)
    assert {read[key]["x"].tobytes() for key in read} == {bits(x)}


def test_an_array_comes_back_from_behind_any_bytes(make):
    """What other writers may do, as the format asks for no alignment."""
    x = make([0, 1, 2, 1, 0])
    form, storage, _ = encoded(x)
    content = np.ascontiguousarray(storage).reshape(-1).view(np.uint8)
    group = LeafGroup(
        kind=form.kind, dtype=form.dtype, shape=form.shape, value=form.value, names=[""]
    )
    for count in COUNTS:
        memory = np.concatenate([np.full(count, 7, np.uint8), content])
        stored = Stored(leaves.layout_of(group), memory, count)
        decoded = [leaves.decode(group, stored)]
        leaves.build([(group, decoded[0])], "box", "box")
        assert bits(decoded[0][0]) == bits(x)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", ["u1", "f4", "f8", "i1,f8"])
def test_arrays_of_one_form_each_begin_where_those_of_numpy_do(tmp_path, name, order):
    rows = [np.full((3, 5), n).astype(name, order) for n in range(9)]
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = boxes.Box(rows)
    cp.save()
    cp.load()
    assert not any(x.ctypes.data % 16 for x in cp.box.state)
    assert [x.tobytes() for x in cp.box.state] == [x.tobytes() for x in rows]
    assert [x.strides for x in cp.box.state] == [x.strides for x in rows]
