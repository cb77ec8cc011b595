"""Old folders from anywhere: plain data loads, hostile pickles end soon and small."""

import collections
import pickle
import pickletools
import random
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elementsckpt.foreign.limits import ForbiddenError
from elementsckpt.foreign.restricted_pickle import load_restricted

MIB = 1 << 20


def same(left, right):
    """Equality of type and value, all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and same([*left.values()], [*right.values()])
    if isinstance(left, (list, tuple, collections.deque)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray):
        return (
            (left.dtype, left.shape) == (right.dtype, right.shape)
            and left.dtype.isalignedstruct == right.dtype.isalignedstruct
            and left.flags.f_contiguous == right.flags.f_contiguous
            and same(left.ravel().tolist(), right.ravel().tolist())
        )
    return left == right or (left != left and right != right)


def object_array(items):
    array = np.empty(len(items), object)
    for index, item in enumerate(items):
        array[index] = item
    return array


SHARED = np.arange(3)
PLAIN = {
    "scalars": [
        None,
        True,
        False,
        0,
        -1,
        10**30,
        -(1 << 70),
        0.5,
        float("inf"),
        1 - 2j,
    ],
    "text": ["", "é", "\ud800", "long" * 1000, b"", b"\xff", b"x" * 70_000],
    "bytearrays": [bytearray(), bytearray(b"abc"), bytearray(70_000)],
    "tuples": [(), (1,), (1, (2, (3, 4, 5, 6)))],
    "sets": [set(), {1, "a", (2, 3)}, frozenset({1.5, frozenset({2})})],
    "keys": {1: 1, -1: 2, -2: 3, 2.5: 4, (1, ("a", b"b")): 5, None: 6, b"\xff": 7},
    "long keys": {"k" * 5000: 1, tuple(range(500)): 2, 1 << 5000: 3},
    "many keys": {(i, i + 1): i for i in range(2500)},
    "OrderedDict": collections.OrderedDict(b=1, a=[2]),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "defaultdict of deques": collections.defaultdict(
        collections.deque, {i: collections.deque([i]) for i in range(2500)}
    ),
    "no factory": collections.defaultdict(None, a=1),
    "Counter": collections.Counter("hello"),
    "deques": [collections.deque(range(2000)), collections.deque([1], maxlen=4)],
    "codes": [np.arange(3).astype(code) for code in "?bBhHiIlLqQefdgFDG"],
    "byte orders": [np.arange(3).astype(code) for code in (">i2", ">f8", "<c8", ">U3")],
    "times": [np.array(["2026-11-20", "NaT"], "M8[D]"), np.zeros(2, "m8[25us]")],
    "no unit": np.zeros(2, "m8"),
    "strings": [np.array(["a", "é"]), np.array([b"a", b"bc"]), np.zeros(2, "V3")],
    "no strings": [np.zeros(2, "S0"), np.zeros(2, "U0"), np.zeros(2, [])],
    "record": np.array([(1, [2, 3])], [("a", "<i4"), ("b", ">f8", (2,))]),
    "records in records": np.zeros(2, [("a", [("b", "i1"), ("c", "U2", (2, 2))])]),
    "aligned": np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    "titled": np.zeros(2, [(("title", "a"), "i1")]),
    "shapes": [np.array(2.0), np.zeros((0, 3)), np.ones((2, 1, 2))],
    "orders": [
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
        np.arange(6).reshape(2, 3)[:, ::2],
    ],
    "NumPy scalars": [np.float32(0.5), np.int64(3), np.bool_(True), np.str_("é")],
    "more NumPy scalars": [np.datetime64("2026-11-20"), np.str_(""), np.void(b"abc")],
    "objects": object_array([None, [1], {"a": SHARED}, "text", np.array(5), ()]),
    "objects, 2-D": object_array([1, "a", None, 2.5, b"b", (1,)]).reshape(2, 3),
    "objects, Fortran": np.asfortranarray(object_array([*"abcdef"]).reshape(2, 3)),
    "objects of objects": object_array([object_array([SHARED]), object_array([])]),
    "dtypes": [np.dtype("f4"), np.dtype([("a", "i4")])],
    "shared": [SHARED, SHARED],
}
NUMPYS = ["numpy.core", "numpy._core"]


def dumped(value, protocol, numpy="numpy.core"):
    """Pickle as that NumPy does.

    Opcode by opcode: the padding of a long double holds whatever was in memory, so
    its bytes may look like any pattern that is searched for in the text.
    """
    text = pickle.dumps(value, protocol)
    ops = list(pickletools.genops(text))
    ends = [position for _, _, position in ops[1:]] + [len(text)]
    parts = []
    for (op, argument, start), end in zip(ops, ends, strict=True):
        # A frame's length counts the names too, and a pickle may do without frames.
        if op.name == "SHORT_BINUNICODE" and re.match(r"numpy\._?core\.", argument):
            name = re.sub(r"^numpy\._?core", numpy, argument).encode()
            parts.append(bytes([text[start], len(name)]) + name)
        elif op.name != "FRAME":
            parts.append(text[start:end])
    return b"".join(parts)


@pytest.mark.parametrize("numpy", NUMPYS)
@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("name", list(PLAIN))
def test_plain_data_loads_as_it_was(name, protocol, numpy):
    value = load_restricted(dumped(PLAIN[name], protocol, numpy))
    assert same(value, PLAIN[name])


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_whole_state_loads_with_its_frames(protocol):
    assert same(load_restricted(pickle.dumps(PLAIN, protocol)), PLAIN)


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "int4"])
def test_the_types_of_ml_dtypes_load(name, protocol):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.arange(4).astype(getattr(ml_dtypes, name))
    value = load_restricted(pickle.dumps([array, array[1]], protocol))
    assert same(value, [array, array[1]])


@pytest.mark.parametrize("protocol", [4, 5])
def test_what_was_one_object_is_one_again(protocol):
    one, other = load_restricted(pickle.dumps([SHARED, SHARED], protocol))
    assert one is other


@pytest.mark.parametrize("protocol", [4, 5])
def test_arrays_are_writable(protocol):
    array = load_restricted(pickle.dumps(np.zeros(3), protocol))
    array += 1
    assert array.tolist() == [1, 1, 1]


class Custom:
    pass


FORBIDDEN = {
    "an instance": (pickle.dumps(Custom()), "Custom"),
    "a function": (pickle.dumps(len), "builtins.len"),
    "a matrix": (pickle.dumps(np.ma.zeros(2)), "numpy.ma"),
    "a range": (pickle.dumps(range(3)), "builtins.range"),
    "a persistent reference": (b"\x80\x04K\x01Q.", "more than data"),
    "an extension": (b"\x80\x04\x82\x01.", "more than data"),
    "a call of int": (b"\x80\x04cbuiltins\nint\n)R.", "a call of a type"),
    "attributes of a dict": (b"\x80\x04}}b.", "a dict with attributes"),
}


@pytest.mark.parametrize("name", list(FORBIDDEN))
def test_what_needs_more_is_forbidden_and_named(name):
    content, what = FORBIDDEN[name]
    with pytest.raises(ForbiddenError, match=what):
        load_restricted(content)


# Hostile pickles, put together opcode by opcode.

START, STOP = b"\x80\x04", b"."
DEQUE, DEFAULTDICT = b"ccollections\ndeque\n", b"ccollections\ndefaultdict\n"
COUNTER, BYTEARRAY = b"ccollections\nCounter\n", b"cbuiltins\nbytearray\n"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85C\x01btR"


def put(index):
    return b"r" + struct.pack("<I", index)


def get(index):
    return b"j" + struct.pack("<I", index)


def dtype(code, *state):
    """A dtype with a forged state, each item in opcodes or plain."""
    items = b"".join(x if isinstance(x, bytes) else number(x) for x in state)
    made = b"cnumpy\ndtype\n(" + text(code) + b"\x89\x88tR"
    return made + b"(" + items + b"tb"


def number(value):
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def data(value):
    return b"B" + struct.pack("<I", len(value)) + value


def numbers(*values):
    return b"(" + b"".join(map(number, values)) + b"t"


def basic(code):
    return dtype(code, 3, text("<"), None, None, None, -1, -1, 0)


def fields(names, formats, offsets, itemsize, flags=0):
    """A structured dtype; the formats are opcodes."""
    table = b"}("
    for name, format, offset in zip(names, formats, offsets, strict=True):
        table += text(name) + b"(" + format + number(offset) + b"t"
    listed = b"(" + b"".join(map(text, names)) + b"t"
    state = 3, text("|"), None, listed, table + b"u", itemsize, 1, flags
    return dtype(f"V{itemsize}", *state)


def array(shape, dtype, items, is_fortran=False):
    return ARRAY + b"(K\x01" + shape + dtype + number(is_fortran) + items + b"tb"


def doubled(levels, pair=b"\x86"):
    """A tuple of a tuple twice, and so on."""
    steps = b"".join(put(i) + get(i) + pair for i in range(levels))
    return b"K\x01" + steps


def doubled_fields(levels):
    steps = basic("i1")
    for i in range(levels):
        steps += put(i) + b"0"
        steps += fields("ab", [get(i), get(i)], [0, 0], 1)
    return steps


def frozensets(levels, base):
    """Two equal ones, whose comparison takes two of the level below, and so on."""
    steps = b"(K\x01\x91" + put(base) + b"0"
    for i in range(base, base + levels):
        steps += b"(" + get(i) + get(i) + b"\x85\x91" + put(i + 1) + b"0"
    return steps + get(base + levels)


def nested(start, add, levels):
    """Each one holds the one before."""
    return b"N" + (put(0) + b"0" + start + get(0) + add) * levels


OBJECTS = basic("O8")
HUGE = data(b"x" * MIB)
COLLIDING = b"".join(number(i * ((1 << 61) - 1)) + b"N" for i in range(100_000))
ATTACKS = {
    # NumPy's own __setstate__ believes all this.
    "a dtype that hides its objects": array(
        numbers(1), fields("a", [OBJECTS], [0], 8), data(b"A" * 8)
    ),
    "objects by their address": array(numbers(1), OBJECTS, data(b"A" * 8)),
    "objects by their address, from a buffer": (
        b"cnumpy.core.numeric\n_frombuffer\n("
        + (data(b"A" * 8) + OBJECTS + numbers(1) + text("C"))
        + b"tR"
    ),
    "a scalar by its address": (
        b"cnumpy.core.multiarray\nscalar\n" + OBJECTS + data(b"A" * 8) + b"\x86R"
    ),
    "NumPy strings by their address": array(
        numbers(1), dtype("T16", 3, text("|"), None, None, None, 16, 8, 0), HUGE
    ),
    "fields beyond the end": array(
        numbers(1), fields("a", [basic("f8")], [1 << 30], 8), data(b"A" * 8)
    ),
    "a negative offset": array(
        numbers(1), fields("a", [basic("f8")], [-(1 << 20)], 8), data(b"A" * 8)
    ),
    "a negative itemsize": array(
        numbers(1), fields("a", [basic("f8")], [0], -8), data(b"A" * 8)
    ),
    "a dtype set twice": basic("f8") + b"(K\x03" + text("<") + b"NNNK\1K\1K\0tb",
    "an array set twice": array(numbers(1), basic("i1"), data(b"A"))
    + (b"(K\x01" + numbers(1) + OBJECTS + b"\x89" + data(b"A" * 8) + b"tb"),
    # Sizes that are not there.
    "a huge index in the memo": b"Nr\0\0\0\x10",
    "the largest index in the memo": b"Nr\xff\xff\xff\xff",
    "a huge shape": array(numbers(1 << 40), basic("f8"), data(b"")),
    "a shape that overflows": array(numbers(1 << 62, 1 << 62), basic("f8"), data(b"")),
    "a negative shape": array(numbers(-1), basic("f8"), data(b"A" * 8)),
    "too large a shape": array(numbers(1000), basic("f8"), data(b"A" * 8)),
    "too large a shape of objects": array(numbers(1 << 32), OBJECTS, b"]"),
    "endless empty items": array(numbers(1 << 40), basic("V0"), data(b"")),
    "endless empty items in a field": array(
        numbers(0),
        dtype(
            "V0",
            *(3, text("|"), basic("V0") + numbers(1 << 30) + b"\x86", None, None),
            *(0, 1, 0),
        ),
        data(b""),
    ),
    "a product of large numbers": number(1 << 2000) + put(0) + b"0"
    + array(b"(" + get(0) * 100_000 + b"t", basic("i1"), data(b"")),
    "a huge bytearray": BYTEARRAY + number(1 << 40) + b"\x85R",
    "huge bytes": b"\x8e" + struct.pack("<Q", 1 << 40),
    "huge text": b"\x8d" + struct.pack("<Q", 1 << 40),
    "a huge BYTEARRAY8": b"\x96" + struct.pack("<Q", 1 << 40),
    "the largest BYTEARRAY8": b"\x96" + b"\xff" * 8,
    "a huge frame": b"\x95" + struct.pack("<Q", 1 << 40) + b"N",
    "a huge number": b"\x8b" + struct.pack("<i", (1 << 31) - 1),
    "a huge step of time": dtype(
        "M8", 4, text("<"), None, None, None, -1, -1, 0,
        b"N(C\x01D" + number(1 << 1000) + b"K\1K\1t\x86",
    ),
    "an int of text": b"cbuiltins\nint\n" + text("9" * MIB) + b"\x85R",
    # A few bytes that name much, often.
    "copies of an array": HUGE + put(0) + b"0]("
    + array(numbers(MIB), basic("i1"), get(0)) * 8000 + b"e",
    "copies of a bytearray": HUGE + put(0) + b"0]("
    + (BYTEARRAY + get(0) + b"\x85R") * 8000 + b"e",
    "copies of a Counter": b"}(" + b"".join(number(i) + b"N" for i in range(50_000))
    + b"u" + put(0) + b"0](" + (COUNTER + get(0) + b"\x85R") * 8000 + b"e",
    "copies of arguments": b"(" + b"N" * 300_000 + b"t" + put(0) + b"0]("
    + DEQUE + put(1) + b"0" + (get(1) + get(0) + b"R") * 50_000 + b"e",
    "copies of objects": b"](" + b"N" * 300_000 + b"e" + put(0) + b"0]("
    + array(numbers(300_000), OBJECTS, get(0)) * 3000 + b"e",
    "a key of doubled tuples": b"}" + doubled(200) + b"Ns",
    "doubled tuples in a set": b"\x8f(" + doubled(200) + b"\x90",
    "doubled tuples in a frozenset": b"(" + doubled(200) + b"\x91",
    "doubled frozensets": b"}(" + frozensets(100, 0) + b"N" + frozensets(100, 200)
    + b"Nu",
    "a function of doubled tuples": doubled(200) + b")R",
    "a name of doubled tuples": doubled(200) + text("x") + b"\x93",
    "a name of a field of doubled tuples": array(
        numbers(1),
        dtype("V8", 3, text("|"), None, doubled(200) + b"\x85", b"}", 8, 1, 0),
        data(b"A" * 8),
    ),
    "a title of doubled tuples": dtype(
        "V8", 3, text("|"), None, text("a") + b"\x85",
        b"}" + text("a") + basic("f8") + b"K\0" + doubled(200) + b"\x87s",
        8, 1, 0,
    ),
    "doubled tuples for a dtype": array(numbers(1), doubled(200), b"]Na"),
    "attributes of doubled tuples": doubled(200) + b"}b",
    "doubled tuples": doubled(200),
    "doubled lists": b"]" + b"".join(
        put(i) + b"0](" + get(i) * 2 + b"e" for i in range(200)
    ),
    "doubled dicts": b"}" + b"".join(
        put(i) + b"0}(K\0" + get(i) + b"K\1" + get(i) + b"u" for i in range(200)
    ),
    "doubled deques": DEQUE + b")R" + b"".join(
        put(i) + b"0" + DEQUE + b")R(" + get(i) * 2 + b"e" for i in range(90)
    ),
    "doubled object arrays": b"N" + b"".join(
        put(i) + b"0" + array(numbers(2), OBJECTS, b"](" + get(i) * 2 + b"e")
        for i in range(90)
    ),
    "doubled fields": array(numbers(1), doubled_fields(200), data(b"A")),
    "many times a long number": b"\x8b" + struct.pack("<i", MIB) + b"\1" * MIB + put(0)
    + b"0}(" + (get(0) + b"N") * 300_000 + b"u",
    "many times an equal long text": HUGE + put(0) + b"0" + HUGE + put(1) + b"0}("
    + get(0) + b"N" + (get(1) + b"N") * 300_000 + b"u",
    "many times a long key": b"(" + b"N" * 4000 + b"t" + put(0) + b"0}("
    + (get(0) + b"N") * 300_000 + b"u",
    "keys of one hash": b"}(" + COLLIDING + b"u",
    # Nesting that overflows the stack of C.
    "a deep tuple": b")" + b"\x85" * 500_000,
    "a deep key": b"})" + b"\x85" * 500_000 + b"Ns",
    "keys one in another": b"}(" + b")" + put(0) + b"N"
    + (get(0) + b"\x85" + put(0) + b"N") * 50_000 + b"u",
    "a deep frozenset": b"(\x91" + (put(0) + b"0(" + get(0) + b"\x91") * 200_000,
    "deep deques": nested(DEQUE + b")R", b"a", 100_000),
    "deep deques that are dropped": nested(DEQUE + b")R", b"a", 100_000) + b"0N",
    "deep defaultdicts": nested(DEFAULTDICT + b")RK\0", b"s", 100_000),
    "deep object arrays": b"N" + b"".join(
        [put(0) + b"0" + array(numbers(1), OBJECTS, b"]" + get(0) + b"a")] * 50_000
    ),
    "deques that are filled from the outside": DEQUE + b")R" + put(0)
    + (DEQUE + b")R" + put(1) + b"0" + get(1) + b"a0" + get(1)) * 100_000,
    "deep fields": array(
        numbers(1),
        basic("i1") + (put(0) + b"0" + fields("a", [get(0)], [0], 1)) * 10_000,
        data(b"A"),
    ),
    "a deque that holds itself": DEQUE + b")R" + put(0) + get(0) + b"a",
    "an array that holds itself": ARRAY + put(0) + b"(K\x01" + numbers(1) + OBJECTS
    + b"\x89]" + get(0) + b"atb",
    "an array without its state": ARRAY,
    "marks": b"(" * 200_000,
    # What plain data has no use for.
    "a new object": b"cbuiltins\nlist\n)\x81",
    "a new object with keywords": b"cbuiltins\nlist\n)}\x92",
    "an old instance": b"(ibuiltins\nlist\n",
    "an old object": b"(cbuiltins\nlist\no",
    "a wrong append": BYTEARRAY + b")RK\1a",
    "items of an array": array(numbers(1), basic("i1"), data(b"A")) + b"K\0K\1s",
    "a list by index": b"]NaK\0K\1s",
    "a list as a set": b"](K\1\x90",
    "a deque of another": DEQUE + b"]\x85R",
    "a defaultdict of a function": DEFAULTDICT
    + b"cnumpy.core.multiarray\nscalar\n\x85R",
    "a complex of text": b"cbuiltins\ncomplex\n" + text("1") + number(0) + b"\x86R",
}  # fmt: skip

# Loads each pickle that it is given, in a child that may take a minute and as much
# memory as 64 times its size.
LOAD = """
import os, resource, signal, sys
import numpy as np
from elementsckpt.foreign.restricted_pickle import load_restricted
try:
    import ml_dtypes
except ImportError:
    pass

def outcome(content):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    limit = used + 64 * len(content) + (64 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(60)
    try:
        load_restricted(content)
    except MemoryError:
        return "too much memory"
    except Exception as error:
        return f"refused {type(error).__name__} {str(error)[:200]!r}"
    return "loaded"

while size := sys.stdin.buffer.readline():
    content = sys.stdin.buffer.read(int(size))
    process = os.fork()
    if not process:
        print(outcome(content), flush=True)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    if status:
        print("died", status, flush=True)
"""

# What is no more than odd.
HARMLESS = {
    *("a huge index in the memo", "the largest index in the memo", "a huge frame"),
}


@pytest.fixture(scope="module")
def outcome():
    """Return a function that tells what came of loading a pickle."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", LOAD], **pipes) as process:

        def load(content):
            process.stdin.write(b"%d\n" % len(content) + content)
            process.stdin.flush()
            return process.stdout.readline().decode().strip()

        yield load


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory in /proc")
@pytest.mark.parametrize("name", list(ATTACKS))
def test_a_hostile_pickle_is_refused_soon_and_without_much_memory(name, outcome):
    result = outcome(START + ATTACKS[name] + STOP)
    assert result.startswith("loaded" if name in HARMLESS else "refused"), result


# Damage of any kind.

SEEDS = [
    pickle.dumps(value, protocol)
    for protocol in (4, 5)
    for value in (
        *(PLAIN["record"], PLAIN["aligned"], PLAIN["objects"], PLAIN["orders"]),
        *(PLAIN["times"], PLAIN["NumPy scalars"], PLAIN["shapes"], PLAIN["dtypes"]),
        [PLAIN["sets"], PLAIN["Counter"], PLAIN["deques"][1], PLAIN["no factory"]],
    )
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SEEDS), st.randoms(use_true_random=False))
def test_a_mutated_pickle_loads_or_raises(content, rng: random.Random):
    content = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content))
        match rng.randrange(4):
            case 0:
                content[at] = rng.randrange(256)
            case 1:
                del content[at : at + rng.randint(1, 8)]
            case 2:
                content[at:at] = rng.choice(b"()}]NRbsuae0\x85\x86\x91\x94").to_bytes(
                    1, "big"
                )
            case 3:
                source = rng.randrange(len(content))
                content[at:at] = content[source : source + rng.randint(1, 20)]
        content = content or bytearray(b".")
    try:
        value = load_restricted(bytes(content))
    except Exception:
        return
    pickle.dumps(value)  # All of it can be read.
