"""The states of the golden saves, one for each version, and the script that wrote them.

`python tests/format/golden.py tests/data/golden-2-head` writes the newest again, and
`golden-2-shared` beside it. Only a change of the format before its release is a reason
for that.
"""

import collections
import dataclasses
import decimal
import pathlib
import shutil
import sys
import tempfile
import typing

import flax.core
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

import elementsckpt


class Pair(typing.NamedTuple):
    first: object
    second: object


@dataclasses.dataclass
class Point:
    x: object
    y: object = 2


def python():
    shared = [1, 2]
    return {
        "scalars": [None, True, 7, -(1 << 70), 0.1, -0.0, float("nan"), 1e300, 2 - 1j],
        "text": ["", "plain", "é\U0001f600", "\ud800 alone", "long " * 500],
        "bytes": [b"", b"\xff\x00", bytearray(b"ab"), b"x" * 2000, bytearray(2000)],
        "sets": [set(), {1, "a", (2, 3)}, frozenset({1.5})],
        "keys": {1: "int", 2.5: "float", (1, "a"): "tuple", None: "none", b"\xff": 0},
        "maps": [
            collections.OrderedDict(b=1, a=2),
            collections.Counter("hello"),
            collections.defaultdict(list, a=[1]),
            flax.core.FrozenDict({"a": {"b": 1}}),
        ],
        "sequences": [[], (), [[], ()], collections.deque([1, 2], maxlen=4)],
        "classes": [Pair(1, []), Point(1), Point("a", Pair(1, 2))],
        "shared": [shared, shared],
    }


def numpy():
    rng = np.random.default_rng(3)
    rng.spawn(1)
    shared = np.arange(4)
    codes = "?bBhHiIlLqQefdFD"
    return {
        "dtypes": [np.arange(3).astype(code) for code in codes],
        "orders": [np.arange(3).astype(code) for code in (">i2", ">f8", "<c8")],
        "small": [np.arange(3).astype(getattr(ml_dtypes, x)) for x in SMALL],
        "times": np.array(["2026-11-20", "NaT"], "M8[D]"),
        "text": np.array(["a", "é"]),
        "bytes": np.array([b"a", b"bc"]),
        "record": np.array([(1, [2, 3])], [("a", "<i4"), ("b", ">f8", (2,))]),
        "shapes": [np.float32(1), np.array(2.0), np.zeros((0, 3)), np.ones((2, 1, 2))],
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "large": np.arange(40_000, dtype="<i4").reshape(200, 200) % 7,
        "shared": [shared, shared],
        "generators": [rng, np.random.RandomState(5)],
    }


SMALL = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "int4")


def jax_arrays():
    weak = jnp.asarray(1.0)
    return {
        "arrays": [jnp.arange(6.0).reshape(2, 3), jnp.ones(2, jnp.bfloat16), weak],
        "keys": [
            jax.random.wrap_key_data(jnp.arange(2, dtype="u4"), impl="threefry2x32"),
            jax.random.wrap_key_data(
                jnp.arange(8, dtype="u4").reshape(2, 4), impl="rbg"
            ),
        ],
    }


def torch_tensors():
    import torch

    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    return [weight, torch.ones(2, dtype=torch.bfloat16), weight]


def functions():
    return [jax.nn.relu, collections.OrderedDict]


def pickled():
    array = np.arange(5)
    odd = np.empty(2, object)
    odd[:] = [array, decimal.Decimal("1.5")]
    return {"odd": odd, "array": array}


def shards():
    for number in range(3):
        yield {"number": number, "data": np.full(10, number)}


def attributes():
    described = collections.OrderedDict(w=1)
    described._metadata = {"": {"version": 2}}
    counted = collections.Counter("hello")
    counted.note = np.arange(2)
    return {"ordered": described, "counter": counted}


def views():
    memory = np.arange(20, dtype="<f4").reshape(4, 5)
    rows, columns = memory[1:3], memory[:, ::-2]
    return {"whole": memory, "rows": rows, "columns": columns, "raw": rows.view("<i4")}


class Holder:
    """Is pickled."""

    def __init__(self, content):
        self.content = content

    def __eq__(self, other):
        return self.content == other.content


def shared():
    inner, listed = [1, 2], [3]
    return {"a": Holder([inner, listed]), "b": Holder([inner]), "listed": listed}


def strides():
    import torch

    image = torch.arange(24.0).reshape(1, 2, 3, 4)
    images = [image.to(memory_format=torch.channels_last) for _ in range(2)]
    images[0].note = "set by hand"
    return images


def tree():
    noted = Pair(np.ones(2), [])
    named = collections.OrderedDict(b=1, a=noted)
    named.note = {"when": np.datetime64("2026-11-30")}
    return Pair({(0, 1): np.arange(3), 2: jax.nn.relu, "named": named}, 0.5)


TREE = elementsckpt.Value(tree())

OLD_STATES = {
    "python": python,
    "numpy": numpy,
    "jax": jax_arrays,
    "torch": torch_tensors,
    "functions": functions,
    "pickled": pickled,
    "shards": shards,
    "any text: é/..\ud800": lambda: "key",
}
STATES = OLD_STATES | {
    "attributes": attributes,
    "views": views,
    "shared": shared,
    "strides": strides,
    "value": TREE.save,
}


def shared_segments(added=12):
    """Return what small components of a run hold, which share segments."""
    frames = np.zeros((10, 4), "<f4")
    for row in range(added):
        frames[row % 10] = row
    weights = np.arange(300.0)
    return {
        "replay": {"frames": elementsckpt.Ring(frames, added), "added": added},
        "agent": {"w": weights, "b": np.float32(added)},
        "target": {"w": weights[::-1].copy(), "step": added},
    }


def write_shared(path):
    """Write the second save of a run, with a segment of the first and one of its own.

    Args:
      path: Where to copy it to.
    """
    with tempfile.TemporaryDirectory() as directory:
        cp = elementsckpt.Checkpoint(directory)
        for added in (5, 12):
            for key, state in shared_segments(added).items():
                setattr(cp, key, elementsckpt.Value(state))
            saved = cp.save().path
        shutil.copytree(saved, path)


if __name__ == "__main__":
    sys.modules["golden"] = sys.modules["__main__"]
    for cls in (Pair, Point, Holder):
        cls.__module__ = "golden"
    print(elementsckpt.checkpoint.save(sys.argv[1], STATES, metadata={"for": "ever"}))
    write_shared(pathlib.Path(sys.argv[1]).with_name("golden-2-shared"))
