"""What other tools see: under its own name, a leaf has the value of this very save.

What is called otherwise says of which save it is, and that is true.
"""

import copy
import gc
import pathlib
import re
import shutil
import tempfile

import numpy as np
import pytest
import safetensors.numpy
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import elementsckpt
from elementsckpt import Checkpoint
from elementsckpt.format import header
from elementsckpt.format.sizes import Sizes
from elementsckpt.saving.component_writer import ComponentWriter
from elementsckpt.storage import disk

from support.boxes import Box, Stream, make, make_boxes
from support.faults import unsynced, use_sizes
from support.folders import (
    HEADERS,
    MB,
    check_folder,
    forge,
    inodes_of,
    noise,
    use_small_blocks,
)

RAW = {"keep": None, "fsync": False, "compress": None}
DATED = re.compile(r"(.*?)(?:\[(\d+):(\d+)\])?(\.zst)?@\d+(?:~\d+)?", re.S)


def seen(save, key="agent"):
    """Return what the safetensors package finds in the segments, by file and name."""
    found = {}
    for file in save.glob(f"{key}-*.safetensors"):
        for name, tensor in safetensors.numpy.load_file(file).items():
            if not re.fullmatch(r"__padding_\d+__", name):
                found[file, name] = tensor
    return found


def plain(save, key="agent"):
    """Return what is called by the own name of a leaf."""
    return {name: x for (_, name), x in seen(save, key).items() if "@" not in name}


def leaves_of(state, name=""):
    """Return name and content of each leaf, as segments hold it if they do."""
    if isinstance(state, (dict, list)):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        prefix = f"{name}/" if name else ""
        return [leaf for key, x in items for leaf in leaves_of(x, f"{prefix}{key}")]
    if isinstance(state, np.ndarray):
        is_fortran = state.flags.f_contiguous and not state.flags.c_contiguous
        return [(name, np.ascontiguousarray(state.T if is_fortran else state))]
    if isinstance(state, bytes):
        return [(name, np.frombuffer(state, np.uint8))]
    return [(name, None)]


class Names:
    """Checks the names in all saves of a directory."""

    def __init__(self):
        self._saved = {}  # LeafGroup, by path.
        self._written = {}  # Leaves of the save that wrote a file, by its name.

    def note(self, save, state):
        """Take note of a save that was just made, and check those that are there."""
        self._saved[save] = leaves = leaves_of(copy.deepcopy(state))
        for file in inodes_of(save):
            self._written.setdefault(file, leaves)
        self.check()

    def check(self):
        for save, leaves in self._saved.items():
            if not save.exists():
                continue
            for (file, name), tensor in seen(save).items():
                if "@" in name:
                    leaves_then = self._written[file.name]
                    assert is_of(name, tensor, leaves_then), (save, name)
                else:
                    (leaf,) = (leaf for known, leaf in leaves if known == name)
                    assert np.array_equal(tensor, leaf), (save, name)


def is_of(entry, tensor, leaves):
    """Tell whether a dated entry is one of the leaves, some rows of it, or a frame."""
    name, start, stop, is_frame = DATED.fullmatch(entry).groups()
    if is_frame:
        tensor = np.frombuffer(zstandard.decompress(tensor), np.uint8)
    if " ... " in name:
        return is_frame
    (leaf,) = (leaf for known, leaf in leaves if known == name)
    if start is None:
        return tensor.tobytes() == leaf.tobytes()
    # Where a row is larger than a block, these are elements.
    rows = slice(int(start), int(stop))
    return tensor.tobytes() in (leaf[rows].tobytes(), leaf.reshape(-1)[rows].tobytes())


def written(cp, names):
    """Save, check all names, and return how many bytes were written."""
    report = cp.save()
    report = cp.wait() or report
    names.note(report.path, cp.agent.state)
    check_folder(report.path)
    return report.bytes_written


# Without writing again what did not change


@pytest.mark.parametrize("background", [False, True])
def test_rows_that_change_are_written_and_the_others_have_no_wrong_name(
    tmp_path, background
):
    weight = np.random.default_rng(0).normal(size=(3000, 2000)).astype(np.float32)
    cp = make(tmp_path, {"weight": weight}, **RAW, background=background)
    names = Names()
    assert written(cp, names) > 24_000_000
    for start in (100, 2000):
        weight[start : start + 20] += 1
        assert written(cp, names) <= 2 * MB + HEADERS
    assert not plain(cp.latest())
    assert {name for _, name in seen(cp.latest())} == {
        *("weight@1", "weight[0:131]@2", "weight[1965:2096]@3"),
    }


def test_a_list_whose_front_is_dropped_keeps_its_data_and_has_no_wrong_name(tmp_path):
    cp, names = make(tmp_path, [], **RAW), Names()
    for turn in range(8):
        size = 100_000 if turn % 2 else 10_000
        cp.agent.state = [*cp.agent.state[-6:], noise(turn, size)]
        assert written(cp, names) <= 200_000 + HEADERS


def test_leaves_that_change_their_names_are_not_written_again(tmp_path):
    w, v, b = noise(1, 3 * MB), noise(2, 200_000), noise(3, 1000)
    cp, names = make(tmp_path, {"w": w, "v": v, "b": b}, **RAW), Names()
    written(cp, names)
    cp.agent.state = {"v": w, "w": v, "b": b}
    assert written(cp, names) <= HEADERS
    cp.agent.state = {"new": {"w": w}, "w": v, "b": b}
    assert written(cp, names) <= HEADERS


# Where leaves have their own names


def test_a_component_of_one_block_has_its_leaves_under_their_names(tmp_path):
    state = {"w": noise(1, 200 * 300).reshape(200, 300), "b": np.arange(3), "step": 1}
    cp, names = make(tmp_path, state, **RAW), Names()
    written(cp, names)
    assert plain(cp.latest()).keys() == {"w", "b"}
    assert written(cp, names) <= HEADERS
    assert plain(cp.latest()).keys() == {"w", "b"}
    # What is in the block is the same, but not its names.
    cp.agent.state = {"v": state["w"], "w": state["b"], "step": 1}
    written(cp, names)
    assert plain(cp.latest()).keys() == {"v", "w"}
    # With more than one block, they stay where they are while they are true.
    cp.agent.state = {**cp.agent.state, "x": noise(2, 70_000)}
    assert written(cp, names) <= 70_000 + HEADERS
    assert plain(cp.latest()).keys() == {"v", "w"}
    cp.agent.state = {"a": cp.agent.state["v"], **cp.agent.state, "v": np.arange(4)}
    written(cp, names)
    assert not plain(cp.latest())


def test_an_array_by_itself_is_called_as_its_component(tmp_path):
    save = make(tmp_path, noise(1), **RAW).save().path
    assert plain(save).keys() == {"agent"}


def test_a_save_to_a_path_has_its_leaves_under_their_names(tmp_path):
    state = {"weight": noise(1, 3 * MB), "b": np.arange(3), "n": 1}
    cp = make(tmp_path / "run", state, **RAW)
    cp.save()
    taken = cp.save(tmp_path / "run" / "taken").path
    elementsckpt.save_pytree(tmp_path / "tree", state)
    for save, key in ((taken, "agent"), (tmp_path / "tree", "tree")):
        found = plain(save, key)
        assert found.keys() == {"weight", "b"} == {name for _, name in seen(save, key)}
        assert np.array_equal(found["weight"], state["weight"])
    # Nothing is linked to it, so that its names stay true.
    cp.agent.state["weight"][:10] += 1
    cp.save()
    assert {x.stat().st_nlink for x in taken.iterdir()} == {1}


@pytest.mark.parametrize("compress", [5, "auto"])
@pytest.mark.parametrize("target", [None, "taken"])
def test_a_frame_is_never_called_by_the_name_of_a_leaf(tmp_path, compress, target):
    state = {"w": np.zeros(90_000), "v": np.zeros((100, 30_000)), "n": noise(1, 10)}
    cp = make(tmp_path, state, compress=compress)
    save = cp.save(target and tmp_path / target).path
    names = Names()
    names.note(save, state)
    assert "w" not in plain(save)
    assert {name.partition("@")[0] for _, name in seen(save)} >= {"w.zst"}


# Names that could be taken for others

HOSTILE = [
    *("w", "w@1", "w@2", "w@1~1", "w~1", "w[0:131]", "w[0:131]@1", "w.zst", "w.zst@1"),
    *("__padding_1__", "__metadata__", "__padding_2__@1", "v ... w", "@1", "@", "~1"),
]


@pytest.mark.parametrize("target", [None, "taken"])
@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("compress", [None, 3])
def test_an_entry_without_a_date_is_a_leaf_whatever_others_are_called(
    tmp_path, size, target, compress
):
    cp = make(tmp_path, keep=None, compress=compress)
    for turn in range(3):
        state = {x: noise(n, size) for n, x in enumerate(HOSTILE, turn % 2)}
        state["v"] = np.zeros(300_000)
        state["odd size"] = noise(99, 3)
        cp.agent.state = state
        save = cp.save(target and tmp_path / f"{target}{turn}").path
        for name, tensor in plain(save).items():
            assert np.array_equal(tensor, state[name]), name


@pytest.mark.parametrize("target", [None, "taken"])
def test_a_name_that_several_leaves_have_is_of_none(tmp_path, target):
    state = {"a/b": noise(1, 70_000), "a": {"b": noise(2, 80_000)}, "c": np.ones(3)}
    state |= {"d/e": np.ones(2), "d": {"e": 5}}
    cp = make(tmp_path, state, **RAW)
    save = cp.save(target and tmp_path / target).path
    assert plain(save).keys() <= {"c"}
    sizes = {x.nbytes for (_, name), x in seen(save).items() if name[:4] == "a/b@"}
    assert sizes == {70_000, 80_000}


def test_names_of_one_block_that_are_repeated_are_linked_all_the_same(tmp_path):
    cp = make(tmp_path, {"a/b": np.ones(1), "a": {"b": np.zeros(1)}, "c@1": np.ones(2)})
    cp.save()
    first = inodes_of(cp.latest())
    cp.save(keys=["agent"])
    cp.save()
    assert inodes_of(cp.latest()) == first


# Segments that were written before names had dates


def undated(monkeypatch):
    """Have names as version 1 of the format had them."""
    begin = header.Header.__init__
    monkeypatch.setattr(header.Naming, "of_leaves", lambda self, names: names)
    monkeypatch.setattr(header.Naming, "of_others", lambda self, names: list(names))
    monkeypatch.setattr(header.Header, "__init__", lambda self, date: begin(self, ""))
    # What was linked had any names.
    monkeypatch.setattr(ComponentWriter, "_untrue", lambda self: set())


def make_old(save):
    def change(content):
        content["version"] = 1

    forge(save, change)


@pytest.mark.parametrize("kind", [Box, Stream])
def test_what_version_1_wrote_is_linked_while_its_names_are_true(
    tmp_path, monkeypatch, kind
):
    state = [noise(1, 5 * MB).reshape(-1, 256), noise(2, 300_000), np.arange(9)]
    with monkeypatch.context() as patch:
        undated(patch)
        cp = make(tmp_path, **RAW)
        cp.agent = kind(state)
        old = cp.save().path
    make_old(old)
    cp = make(tmp_path, **RAW)
    cp.agent, names = kind(state), Names()
    for turn in range(4):
        report = cp.save()
        names.note(report.path, named(kind, state))
        same_files = inodes_of(report.path).items() & inodes_of(old).items()
        assert bool(same_files) == (turn < 2)
        if turn != 2:  # Then all is written once.
            assert report.bytes_written <= 2 * MB + HEADERS
        if turn:
            state[0][100 * turn] ^= 255
        if turn == 1:
            cp = make(tmp_path, **RAW)
            cp.agent = kind(state)


def named(kind, state):
    """Return the state as it is called: the leaf of a shard by itself has no name."""
    return {f"{n}/": x for n, x in enumerate(state)} if kind is Stream else state


def test_ranges_of_version_1_are_not_linked(tmp_path, monkeypatch):
    """A range that was called as a leaf can be, `w[0:131]`, is under a plain name."""
    w = noise(1, 5_240_000).reshape(-1, 8000)
    with monkeypatch.context() as patch:
        undated(patch)
        cp = make(tmp_path, {"w": w}, **RAW)
        cp.save()
        w[0] ^= 255
        make_old(cp.save().path)
        assert "w[0:131]" in plain(cp.latest())
    cp, names = make(tmp_path, {"w": w}, **RAW), Names()
    written(cp, names)
    assert not plain(cp.latest())


# After any history

KEYS = ["w", "v", "u", "x y", "0"]
ROWS = [1, 3, 20, 33, 90]


def content(seed, rows, changed, kind):
    array = np.random.default_rng(seed).random((rows, 16), np.float32)
    if kind == "zeros":
        array[:] = 0
    array[changed % rows] = changed
    return np.asfortranarray(array) if kind == "fortran" else array


contents = st.builds(
    content,
    st.integers(0, 2),
    st.sampled_from(ROWS),
    st.integers(0, 9),
    st.sampled_from(["noise", "noise", "zeros", "fortran"]),
)
leaf = st.one_of(contents, contents, st.integers(0, 3), st.just(bytes(1600)))
tree = st.dictionaries(st.sampled_from(KEYS), leaf, min_size=1, max_size=5)
changes = st.fixed_dictionaries(
    {},
    optional={
        "new": tree,
        "swap": st.just(True),
        "drop": st.sampled_from(KEYS),
        "alias": st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS)),
        "copy": st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS)),
        "rows": st.integers(0, 9),
        "restart": st.booleans(),
        "other": st.booleans(),
        "compress": st.sampled_from([None, "auto", 1]),
        "keep": st.sampled_from([None, 1, 2]),
    },
)


def changed(state, change):
    """Return the state with leaves added, exchanged, dropped, shared and written to."""
    state = {**state, **change.get("new", {})}
    if "swap" in change:
        state = dict(zip(state, reversed(state.values()), strict=True))
    state.pop(change.get("drop"), None)
    for how in ("alias", "copy"):
        source, target = change.get(how, ("", ""))
        if source in state:
            value = state[source]
            state[target] = value if how == "alias" else copy.deepcopy(value)
    if "rows" in change:
        state = copy.deepcopy(state)
        for array in state.values():
            if isinstance(array, np.ndarray):
                array[change["rows"] % len(array)] += 1
    return state


@pytest.mark.parametrize("kind", [Box, Stream])
@given(first=tree, steps=st.lists(changes, max_size=8))
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_no_name_is_wrong_after_any_history(kind, first, steps):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as path:
        use_small_blocks(patch.setattr)
        patch.setattr(disk, "syscall", unsynced)
        names, state, cp = Names(), first, None
        for change in [{}, *steps]:
            state = changed(state, change)
            if cp is None or change.get("restart"):
                options = {"keep": None, "compress": None} | {
                    k: change[k] for k in ("keep", "compress") if k in change
                }
                cp = Checkpoint(path, **options)
                cp.agent, cp.other = kind(), Box(1)
            cp.agent.state = [state] if kind is Stream else state
            if change.get("other"):
                cp.save(keys=["other"])
            names.note(cp.save().path, cp.agent.state)
            taken = cp.save(pathlib.Path(path) / "taken").path
            Names().note(taken, cp.agent.state)
            assert options["compress"] or plain(taken).keys() == {
                x for _, x in seen(taken)
            }
            shutil.rmtree(taken)


def test_segments_of_many_small_leaves_open_elsewhere(tmp_path, monkeypatch):
    safetensors = pytest.importorskip("safetensors")
    limit = Sizes().segment_leaves
    use_sizes(monkeypatch.setattr, segment_leaves=10_000)
    state = {f"layer/{n:06d}": np.full(1, n, np.float32) for n in range(30_000)}
    path = make_boxes(tmp_path, agent=state).save().path
    names = []
    for file in sorted(path.glob("*.safetensors")):
        with safetensors.safe_open(str(file), "np") as opened:
            found = [x for x in opened.keys() if not x.startswith("__")]  # noqa: SIM118
        assert len(found) <= 10_000
        size = int.from_bytes(file.read_bytes()[:8], "little")
        assert size / len(found) * limit < 100_000_000
        names += found
    assert sorted(names) == [f"{name}@1" for name in sorted(state)]
    cp = make_boxes(tmp_path, agent=None)
    cp.load()
    assert cp.agent.state == state
    gc.collect()
