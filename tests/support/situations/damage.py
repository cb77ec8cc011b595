"""Saves that are damaged, or forged."""

from __future__ import annotations

import errno
import os
import pickle
import shutil

import numpy as np

import elementsckpt
from elementsckpt import (
    Checkpoint,
    DamagedError,
    Files,
    ReadError,
    Ring,
    SaveNotFoundError,
)

from support.boxes import Box, Stream, make
from support.faults import use_small_segments
from support.folders import (
    flip,
    flip_block,
    forge,
    manifest_of,
    noise,
    sealed,
    texts_of,
)

from .pickles import of_elements
from .table import failing, refuse, says

OTHER = " Load another save by its path, or restore this one from a copy."
CLAIMS = "{tmp}/…/manifest.json is damaged, or not what it claims to be: it "


def saved(tmp, change):
    """Save leaves and files, change the save, and return the object."""
    cp = make(tmp, {"n": 1, "w": noise(0), "v": np.zeros(100_000)})
    cp.policy = Files(save=lambda x: (x / "a").write_text("12"), load=lambda _: None)
    change(cp.save().path)
    return cp


def forged(tmp, change):
    return saved(tmp, lambda path: forge(path, lambda x: change(x["components"])))


def make_hole(path, size):
    """Make a file of zeros, which take no space on the disk."""
    os.truncate(path, 0)
    os.truncate(path, size)


def raw(path):
    return min(path.glob("*.safetensors"), key=lambda x: "U8" in repr(x.read_bytes()))


@says(
    DamagedError, "{tmp}/…/manifest.json is damaged: its digest does not match.", OTHER
)
def a_manifest_that_changed(tmp, _):
    cp = saved(tmp, lambda path: flip(path / "manifest.json", 30))
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/manifest.json is damaged: its digest does not match. Restore it from a "
    "copy, or choose another save.",
)
def the_information_of_a_damaged_save(tmp, _):
    saved(tmp, lambda path: flip(path / "manifest.json", 30))
    yield
    elementsckpt.info(tmp)


@says(
    DamagedError,
    "All 2 saves in {tmp} are damaged:\n"
    "  …: {tmp}/…/manifest.json is damaged: its digest does not match.\n"
    "  …: {tmp}/…/manifest.json is damaged: its digest does not match.\n"
    "Restore one from a copy, or start in another directory.",
)
def two_saves_that_changed(tmp, _):
    cp = make(tmp, 1, keep=2)
    for _ in range(2):
        flip(cp.save().path / "manifest.json", 30)
    yield
    cp.load_or_save()


@says(
    DamagedError,
    "{tmp}/…/manifest.json is damaged: it has 4294967297 bytes, more than ….",
    OTHER,
)
def a_huge_manifest(tmp, _):
    cp = saved(tmp, lambda path: make_hole(path / "manifest.json", (1 << 32) + 1))
    yield
    cp.load()


@says(DamagedError, "{tmp}/…/manifest.json is damaged: byte … of it is zero.", OTHER)
def a_manifest_with_a_hole(tmp, _):
    cp = saved(tmp, lambda path: make_hole(path / "manifest.json", 1 << 31))
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/manifest.json is not a manifest: Expected `int | null`, got `str` - at "
    "`$.step`.",
    OTHER,
)
def a_manifest_of_something_else(tmp, _):
    cp = saved(tmp, lambda path: forge(path, lambda x: x.update(step="one")))
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/manifest.json is not a manifest: metrics that are not numbers.",
    OTHER,
)
def metrics_that_are_none(tmp, _):
    cp = saved(
        tmp, lambda path: forge(path, lambda x: x.update(metrics={"return": "x"}))
    )
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/… is a link to a folder that is not there. Bring the folder back, or remove "
    "the link.",
    OTHER,
)
def a_link_that_leads_nowhere(tmp, _):
    cp = make(tmp, 1)
    path = cp.save().path
    shutil.rmtree(path)
    path.symlink_to(tmp / "elsewhere")
    yield
    cp.load()


@says(
    DamagedError,
    "Cannot read {tmp}/…/agent-000001-00000.safetensors: No such file or directory. It "
    "holds agent/….",
    OTHER,
)
def a_segment_that_is_gone(tmp, _):
    cp = saved(tmp, lambda path: (path / "agent-000001-00000.safetensors").unlink())
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/agent-000001-00000.safetensors is not a regular file. It holds agent/….",
    OTHER,
)
def a_pipe_in_the_place_of_a_segment(tmp, _):
    def replace(path):
        (path / "agent-000001-00000.safetensors").unlink()
        os.mkfifo(path / "agent-000001-00000.safetensors")

    cp = saved(tmp, replace)
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/agent-000001-00000.safetensors is damaged: it has 100 bytes, expected …. "
    "It holds agent/….",
    OTHER,
)
def a_segment_that_is_shorter(tmp, _):
    cp = saved(
        tmp, lambda path: os.truncate(path / "agent-000001-00000.safetensors", 100)
    )
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/agent-….safetensors is truncated: it ends at byte 0, … bytes "
    "early. It holds agent/….",
    OTHER,
)
def a_segment_that_gets_shorter_meanwhile(tmp, monkeypatch):
    cp = saved(tmp, lambda _: None)
    read = os.preadv

    def end(fd, *args):
        is_segment = "safetensors" in os.readlink(f"/proc/self/fd/{fd}")
        return 0 if is_segment else read(fd, *args)

    yield
    monkeypatch.setattr(os, "preadv", end)
    cp.load(keys=["agent"])


@says(
    DamagedError,
    "Cannot read {tmp}/…/agent-….safetensors: Input/output error. It holds agent/….",
    OTHER,
)
def a_disk_that_cannot_read(tmp, monkeypatch):
    cp = saved(tmp, lambda _: None)
    read = os.preadv

    def fail(fd, *args):
        if "safetensors" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(fd, *args)

    yield
    monkeypatch.setattr(os, "preadv", fail)
    cp.load(keys=["agent"])


@says(
    DamagedError,
    "{tmp}/…/agent-000001-00000.safetensors is damaged in its first … bytes: their "
    "digest is …, expected …. It holds agent/….",
    OTHER,
)
def the_header_of_a_segment_that_changed(tmp, _):
    cp = saved(tmp, lambda path: flip(path / "agent-000001-00000.safetensors", 10))
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/agent-000001-….safetensors is damaged between bytes … and …: the digest "
    "is …, expected …. It holds agent/w.",
    OTHER,
)
def a_block_that_changed(tmp, _):
    cp = make(tmp, {"w": noise(0)})
    flip_block(cp.save().path, 0)
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/agent-000001-….safetensors is damaged between bytes … and …: it is not "
    "a zstd frame (…). It holds agent/v.",
    OTHER,
)
def a_compressed_block_that_changed(tmp, _):
    cp = make(tmp, {"v": np.zeros(100_000)})
    flip_block(cp.save().path, 0)
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/agent-000001-….safetensors is damaged between bytes … and …: its zstd "
    "frame does not hold … bytes. It holds agent/v.",
    OTHER,
)
def a_compressed_block_of_another_size(tmp, _):
    cp = make(tmp, {"v": np.zeros(100_000)})

    def shorten(manifest):
        (component,) = manifest["components"]
        component["size_bytes"] -= 8
        component["blocks"][0][4] -= 8
        component["trees"][0]["leaves"][0]["shape"] = [99_999]

    forge(cp.save().path, shorten)
    yield
    cp.load()


@says(
    DamagedError,
    "'agent' in {tmp}/…/manifest.json is not a valid save (ValueError: a group has "
    "more or fewer values than leaves).",
    OTHER,
)
def leaves_without_values(tmp, _):
    cp = make(tmp, {"n": 1})

    def empty(manifest):
        manifest["components"][0]["trees"][0]["leaves"][0]["value"] = []

    forge(cp.save().path, empty)
    yield
    cp.load()


@says(DamagedError, CLAIMS, "names '../x', which is not a segment.", OTHER)
def a_segment_elsewhere(tmp, _):
    cp = forged(tmp, lambda x: x[0]["segments"][0].__setitem__(0, "../x"))
    yield
    cp.load()


@says(DamagedError, CLAIMS, "has a block in a segment that it lacks.", OTHER)
def a_block_without_a_segment(tmp, _):
    cp = forged(tmp, lambda x: x[0]["blocks"][0].__setitem__(0, 9))
    yield
    cp.load()


@says(DamagedError, CLAIMS, "has a block of 16777217 bytes, more than 16777216.", OTHER)
def a_block_that_is_too_large(tmp, _):
    cp = make(tmp, {"w": noise(0)})
    forge(
        cp.save().path,
        lambda x: x["components"][0]["blocks"][0].__setitem__(2, (16 << 20) + 1),
    )
    yield
    cp.load()


@says(
    DamagedError,
    CLAIMS,
    "has a block at bytes 0 to … of agent-….safetensors that overlaps another, or an "
    "end of the file.",
    OTHER,
)
def blocks_that_overlap(tmp, _):
    cp = forged(tmp, lambda x: x[0]["blocks"][0].__setitem__(1, 0))
    yield
    cp.load()


@says(DamagedError, CLAIMS, "is not what its head says.", OTHER)
def a_head_of_other_components(tmp, _):
    cp = make(tmp, {"n": 1})
    path = cp.save().path
    content = manifest_of(path)
    content["summaries"][0]["leaf_count"] = 2
    (path / "manifest.json").write_bytes(sealed(*texts_of(content, lies=True)))
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/manifest.json is damaged: the digest of its head differs.",
    OTHER,
)
def a_head_that_changed(tmp, _):
    cp = make(tmp, {str(n): n for n in range(5000)})
    flip(cp.save().path / "manifest.json", 30)
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/manifest.json is damaged: it has 9000 bytes, expected ….",
    OTHER,
)
def a_manifest_that_is_truncated(tmp, _):
    cp = make(tmp, {str(n): n for n in range(5000)})
    os.truncate(cp.save().path / "manifest.json", 9000)
    yield
    cp.load()


@says(DamagedError, CLAIMS, "has data of agent-….safetensors beyond its end.", OTHER)
def a_segment_that_is_all_header(tmp, _):
    cp = forged(tmp, lambda x: x[0]["segments"][0].__setitem__(2, 1 << 40))
    yield
    cp.load()


@says(DamagedError, CLAIMS, "has blocks of … bytes, for leaves of 1.", OTHER)
def more_blocks_than_leaves(tmp, _):
    cp = forged(tmp, lambda x: x[0].update(size_bytes=1))
    yield
    cp.load()


@says(DamagedError, CLAIMS, "has 0 trees, expected 1.", OTHER)
def a_component_without_a_structure(tmp, _):
    cp = forged(tmp, lambda x: x[0]["trees"].clear())
    yield
    cp.load()


@says(DamagedError, CLAIMS, "has a component with files and a state.", OTHER)
def a_component_of_two_kinds(tmp, _):
    cp = forged(tmp, lambda x: x[0].update(files=x[1]["files"]))
    yield
    cp.load()


@says(DamagedError, CLAIMS, "names '..', which is not a folder of files.", OTHER)
def files_in_a_folder_elsewhere(tmp, _):
    cp = forged(tmp, lambda x: x[1]["files"].update(folder=".."))
    yield
    cp.load()


@says(DamagedError, CLAIMS, "names 'a' twice.", OTHER)
def a_file_that_is_there_twice(tmp, _):
    cp = forged(tmp, lambda x: x[1]["files"]["files"].append(x[1]["files"]["files"][0]))
    yield
    cp.load()


@says(DamagedError, CLAIMS, "names a file '../a' outside of policy.files.", OTHER)
def a_file_elsewhere(tmp, _):
    cp = forged(tmp, lambda x: x[1]["files"]["files"][0].__setitem__(0, "../a"))
    yield
    cp.load()


@says(DamagedError, "{tmp}/…/policy.files is not a folder.", OTHER)
def a_link_in_the_place_of_the_files(tmp, _):
    def replace(path):
        (path / "policy.files").rename(tmp / "away")
        (path / "policy.files").symlink_to(tmp / "away")

    cp = saved(tmp, replace)
    yield
    cp.load()


@says(
    DamagedError,
    "Cannot read {tmp}/…/policy.files: No such file or directory.",
    OTHER,
)
def files_that_are_gone(tmp, _):
    cp = saved(tmp, lambda path: shutil.rmtree(path / "policy.files"))
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/policy.files/a is damaged: it has 3 bytes, expected 2.",
    OTHER,
)
def a_file_that_grew(tmp, _):
    def grow(path):
        (path / "policy.files" / "a").unlink()
        (path / "policy.files" / "a").write_text("123")

    cp = saved(tmp, grow)
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/policy.files/a is damaged: its digest is …, expected ….",
    OTHER,
)
def a_file_that_changed(tmp, _):
    def change(path):
        (path / "policy.files" / "a").unlink()
        (path / "policy.files" / "a").write_text("21")

    cp = saved(tmp, change)
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/policy.files/a has changed while 'policy' was loaded, so the save is "
    "damaged, and others that share the file. What loads it must not write to the "
    "folder that it gets: let it copy first.",
)
def a_load_that_writes_to_its_folder(tmp, _):
    cp = saved(tmp, lambda _: None)

    def write(folder):
        (folder / "a").chmod(0o644)
        (folder / "a").write_text("changed")

    cp.policy = Files(load=write)
    yield
    cp.load(keys=["policy"])


@says(
    DamagedError,
    "{tmp}/…/policy.files/a has changed while 'policy' was loaded. What loads it must "
    "not write to the folder that it gets: let it copy first.",
)
def a_load_that_moves_its_files(tmp, _):
    cp = saved(tmp, lambda _: None)
    cp.policy = Files(load=lambda folder: (folder / "a").rename(tmp / "a"))
    yield
    cp.load(keys=["policy"])


@says(
    ReadError,
    "{tmp}/…/policy.files/b is not of the save, and what loads 'policy' would see it. "
    "The files of the save could not be linked elsewhere (Read-only file system). "
    "Remove it, or copy the save to where links can be made.",
)
def a_file_of_others_where_nothing_can_be_linked(tmp, monkeypatch):
    cp = saved(tmp, lambda path: (path / "policy.files" / "b").touch())
    refuse(monkeypatch, os.mkdir, errno.EROFS)
    yield
    cp.load()


@says(
    SaveNotFoundError,
    "{tmp}/… was removed while 'policy' was loaded from it, which may have seen some "
    "of its files only. They could not be linked elsewhere (Read-only file system). "
    "Load again, or from another save.",
)
def a_save_that_is_removed_where_nothing_can_be_linked(tmp, monkeypatch):
    cp = saved(tmp, lambda _: None)
    cp.policy = Files(load=lambda folder: shutil.rmtree(folder.parent))
    refuse(monkeypatch, os.mkdir, errno.EROFS)
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/old/agent.pkl, which holds agent, is not a valid pickle (KeyError: 110).",
    OTHER,
)
def a_folder_of_elements_without_a_pickle(tmp, _):
    path = of_elements(tmp / "old", b"no pickle.")
    yield
    make().load(path)


@says(DamagedError, "{tmp}/old/agent.pkl is damaged: it does not end with b'.'.", OTHER)
def a_folder_of_elements_with_a_hole(tmp, _):
    path = of_elements(tmp / "old", pickle.dumps(7))
    os.truncate(path / "agent.pkl", 1 << 31)
    yield
    make().load(path)


@says(
    DamagedError,
    "{tmp}/old lacks shard 1 of agent: agent-0002.pkl is next.",
    OTHER,
)
def a_folder_of_elements_that_lacks_a_shard(tmp, _):
    path = of_elements(tmp / "old", b"")
    (path / "agent.pkl").unlink()
    for number in (0, 2):
        (path / f"agent-{number:04d}.pkl").write_bytes(pickle.dumps(number))
    yield
    make().load(path)


@says(
    DamagedError,
    "{tmp}/…/replay-….safetensors is damaged between bytes … and …: the digest is …, "
    "expected …. The save that was to reuse it was not made. Save again: the next one "
    "does without.",
)
def a_reused_block_that_is_lost(tmp, monkeypatch):
    use_small_segments(monkeypatch.setattr)
    state = {"kept": noise(0, 2048), "changed": noise(1, 4096)}
    cp = Checkpoint(tmp, fsync=False)
    cp.replay = Stream([state])
    path = cp.save().path
    state["changed"][:] = noise(2, 4096)
    yield
    for file in path.glob("*.safetensors"):
        flip(file, 600, keep_time=True)
    cp.save()


@says(
    DamagedError,
    "{tmp}/…/agent-….safetensors was to be reused, and is damaged. The save was not "
    "made. Save again: the next one does without.",
)
def rows_of_a_ring_that_are_lost(tmp, monkeypatch):
    use_small_segments(monkeypatch.setattr)
    rows = noise(0, 8 * 2048).reshape(8, -1)
    cp = Checkpoint(tmp, fsync=False, background=True, compress=None)
    cp.agent = Box(Ring(rows, 8))
    path = cp.save().path
    cp.wait()
    cp.agent.state = Ring(rows, 9)
    for file in path.glob("*.safetensors"):
        flip(file)
    yield
    cp.save()
    cp.wait()


# Files of others


@says(
    DamagedError,
    "{tmp}/text is not a file of safetensors or npz: it begins with b'hello'. Convert "
    "it to one of these first.",
)
def a_file_of_another_format(tmp, _):
    (tmp / "text").write_text("hello")
    yield
    elementsckpt.convert(tmp / "text", tmp / "new")


@says(
    DamagedError,
    "{tmp}/file is not a valid safetensors file: its arrays end at byte 0 of 1. "
    "Restore it from a copy, or write it again.",
)
def a_file_of_safetensors_with_a_hole(tmp, _):
    (tmp / "file").write_bytes(b"\x02" + bytes(7) + b"{}1")
    yield
    elementsckpt.convert(tmp / "file", tmp / "new")


@says(
    ReadError,
    "{tmp}/file.npz cannot be read here (too large). It may be fine: free memory, or "
    "install ml_dtypes, and try again.",
)
def a_file_that_does_not_fit_into_memory(tmp, monkeypatch):
    np.savez(tmp / "file.npz", a=np.ones(3))
    yield
    monkeypatch.setattr("zipfile.ZipFile", failing(MemoryError("too large")))
    elementsckpt.convert(tmp / "file.npz", tmp / "new")
