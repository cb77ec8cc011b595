"""Files of safetensors and npz: read as they are, or refused with one error."""

import io
import json
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from elementsckpt import CheckpointError, DamagedError
from elementsckpt.foreign import npz_files, safetensors_files

from support.strategies import PROPERTY

OF_SAFETENSORS = [
    *(np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32),
    *(np.uint64, np.float16, np.float32, np.float64, ml_dtypes.bfloat16),
]
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9)


def bits(arrays):
    return {name: (x.dtype, x.shape, x.tobytes()) for name, x in arrays.items()}


def arrays_of(dtypes):
    shapes = npst.array_shapes(min_dims=0, min_side=0, max_side=4)
    arrays = st.sampled_from(dtypes).flatmap(
        lambda dtype: shapes.map(lambda shape: np.ones(shape, dtype))
    )
    return st.dictionaries(NAMES.filter(lambda x: x != "__metadata__"), arrays)


@given(arrays_of(OF_SAFETENSORS))
@PROPERTY
def test_what_safetensors_wrote_is_read(tmp_path_factory, arrays):
    path = tmp_path_factory.mktemp("x") / "file"
    safetensors.numpy.save_file(arrays, path, {"a": "b"})
    found = safetensors_files.read(path, path.parent)
    assert bits(found.values) == bits(arrays)
    assert found.metadata == {"a": "b"}


SCALARS = npst.scalar_dtypes() | npst.unicode_string_dtypes() | npst.array_dtypes()


@pytest.mark.filterwarnings("ignore:Stored array in format")
@given(npst.arrays(SCALARS, npst.array_shapes(min_dims=0, min_side=0, max_side=4)))
@PROPERTY
def test_what_numpy_wrote_is_read(tmp_path_factory, array):
    folder = tmp_path_factory.mktemp("x")
    arrays = {"a": array, "b/c": np.asfortranarray(array), "d": np.zeros((2, 0))}
    for save in (np.savez, np.savez_compressed):
        save(folder / "file", **arrays)
        found = npz_files.read(folder / "file.npz", folder).values
        with np.load(folder / "file.npz") as wanted:
            assert bits(found) == bits(wanted)
        assert [x.name for x in folder.iterdir()] == ["file.npz"]


def test_two_raw_bytes_are_bfloat16_and_an_entry_says_more(tmp_path):
    path = tmp_path / "x.npz"
    half, eighth = np.ones(3, ml_dtypes.bfloat16), np.ones(3, ml_dtypes.float8_e5m2)
    np.savez(path, half=half, eighth=eighth.view("V1"), both=eighth.view("V1"))
    found = npz_files.read(path, tmp_path).values
    assert found["half"].dtype == half.dtype
    assert found["eighth"].dtype == np.dtype("V1")
    own = np.array(json.dumps({"eighth": "float8_e5m2"}))
    np.savez(path, half=half, eighth=eighth.view("V1"), __dtypes__=own)
    found = npz_files.read(path, tmp_path).values
    assert bits(found) == bits({"half": half, "eighth": eighth})


def test_pickles_are_left_out(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(2), b=np.array([object], object))
    found = npz_files.read(tmp_path / "x.npz", tmp_path)
    assert list(found.values) == ["a"]
    assert found.left_out == ["b"]


# Hostile files


def header(text, data=b""):
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(begin=0, end=4, dtype="F32", shape=(1,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


FOUR = b"1234"
BAD_SAFETENSORS = {
    "would have": struct.pack("<Q", 1 << 60) + b"{}",
    "expected": header([1]),
    "the entry 'a'": header({"a": {"dtype": "F32"}}, FOUR),
    "no dtype that is known is called 'O'": header({"a": tensor(dtype="O")}, FOUR),
    "'a': 4 bytes, where its shape needs 8": header({"a": tensor(shape=[2])}, FOUR),
    "no array has the shape": header({"a": tensor(shape=[-1, -1])}, FOUR),
    "larger than any memory": header({"a": tensor(shape=[1 << 62, 9])}, FOUR),
    "'a' is at bytes 0 to 8": header({"a": tensor(0, 8, shape=[2])}, FOUR),
    "'a' is at bytes 4 to 8, expected from 0": header({"a": tensor(4, 8)}, 2 * FOUR),
    "'b' is at bytes 2 to 6": header({"a": tensor(), "b": tensor(2, 6)}, 2 * FOUR),
    "its arrays end at byte 4 of 8": header({"a": tensor()}, 2 * FOUR),
    "has 'a' twice": header(
        b'{"a":%b,"a":%b}' % (2 * (json.dumps(tensor()).encode(),)), FOUR
    ),
    "is not a valid safetensors": header(b'{"a": ' + b"[" * 100_000),
}


@pytest.mark.parametrize("problem", BAD_SAFETENSORS)
def test_a_bad_safetensors_file_is_refused(tmp_path, problem):
    path = tmp_path / "file"
    path.write_bytes(BAD_SAFETENSORS[problem])
    with pytest.raises(DamagedError, match=r"file is not a valid safetensors") as found:
        safetensors_files.read(path, tmp_path)
    assert problem.lower() in str(found.value).lower()


def npy(described="'<f4'", shape="(1,)", data=FOUR, extra="", size=None):
    text = f"{{'descr': {described}, 'fortran_order': False, 'shape': {shape}{extra}}}"
    size = struct.pack("<H", len(text) if size is None else size)
    return b"\x93NUMPY\x01\x00" + size + text.encode() + data


def of_dtypes(text):
    content = npy(f"'<U{len(text)}'", "()", text.encode("utf-32-le"))
    return "__dtypes__.npy", content


def zipped(*entries, method=zipfile.ZIP_STORED):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return memory.getvalue()


def with_flipped_data():
    content = bytearray(zipped(("a.npy", npy())))
    content[content.index(FOUR)] ^= 1
    return bytes(content)


def overlapping():
    """Two entries of the directory that mean the same bytes."""
    content = zipped(("a.npy", npy()), ("b.npy", npy()))
    place = content.rindex(b"PK\x01\x02") + 42
    return content[:place] + bytes(4) + content[place + 4 :]


BAD_NPZ = {
    "'a.txt' in it is not an array": zipped(("a.txt", b"hello, you there")),
    "is not the name of a dtype": zipped(("a.npy", npy("'f4,i4'"))),
    "the header of 'a.npy'": zipped(("a.npy", npy("__import__('os')"))),
    "4 bytes for the shape (2,)": zipped(("a.npy", npy(shape="(2,)"))),
    "no array has the shape": zipped(("a.npy", npy(shape="(-1,)"))),
    "larger than any memory": zipped(("a.npy", npy(shape=f"({1 << 62}, 4)"))),
    "it has 'a' twice": zipped(("a.npy", npy()), ("a", npy())),
    "bad crc-32": with_flipped_data(),
    "overlap": overlapping(),
    "compressed in another way": zipped(("a.npy", npy()), method=zipfile.ZIP_LZMA),
    "has 20000 bytes": zipped(("a.npy", npy(extra=" " * 20_000, size=20_000))),
    "__dtypes__ is not json": zipped(of_dtypes("[]")),
    "__dtypes__ says": zipped(("a.npy", npy()), of_dtypes('{"a": 1}')),
    "not a zip file": b"PK\x05\x06" + bytes(9),
}


@pytest.mark.parametrize("problem", BAD_NPZ)
def test_a_bad_npz_file_is_refused(tmp_path, problem):
    path = tmp_path / "file"
    path.write_bytes(BAD_NPZ[problem])
    with pytest.raises(DamagedError, match=r"file is not a valid npz file") as found:
        npz_files.read(path, tmp_path)
    assert problem.lower() in str(found.value).lower()
    assert [x.name for x in tmp_path.iterdir()] == ["file"]


def test_a_bomb_needs_the_room_that_it_says(tmp_path):
    content = zipped(("a.npy", npy(shape="(1000,)", data=bytes(4000))), method=8)
    place = content.rindex(b"PK\x01\x02") + 24  # The size, in the directory.
    bomb = content[:place] + struct.pack("<I", 0xFFFFFF00) + content[place + 4 :]
    (tmp_path / "file").write_bytes(bomb)
    with pytest.raises(DamagedError, match=r"429496\d* bytes for the shape"):
        npz_files.read(tmp_path / "file", tmp_path)


def good():
    memory = io.BytesIO()
    np.savez_compressed(memory, a=np.arange(9), c=np.ones((2, 3)))
    arrays = {"a": np.arange(9), "b/c": np.ones((2, 3), np.float32)}
    stored = io.BytesIO()
    np.savez(stored, **arrays)
    return [
        (safetensors_files, safetensors.numpy.save(arrays)),
        (npz_files, memory.getvalue()),
        (npz_files, stored.getvalue()),
    ]


@given(
    st.sampled_from(good()),
    st.lists(st.tuples(st.integers(0, 1 << 12), st.integers(0, 255)), max_size=4),
    st.integers(0, 1 << 12),
)
@PROPERTY
def test_whatever_changes_is_read_or_refused(tmp_path_factory, one, changes, cut):
    form, content = one
    changed = bytearray(content)
    for place, value in changes:
        changed[place % len(changed)] = value
    folder = tmp_path_factory.mktemp("fuzzed")
    (folder / "file").write_bytes(changed if cut > 3000 else changed[:cut])
    error, found = None, {}
    try:
        found = form.read(folder / "file", folder).values
    except CheckpointError as raised:
        error = str(raised)
    assert error is None or str(folder / "file") in error
    assert sum(x.nbytes for x in found.values()) <= 1 << 20
    assert [x.name for x in folder.iterdir()] == ["file"]
