"""A load of little costs little: it reads the manifest once, decodes what it needs."""

import collections

import numpy as np
import pytest

import elementsckpt
from elementsckpt import checkpoint
from elementsckpt.directory import entries
from elementsckpt.format import names
from elementsckpt.kinds.numpy_kinds import NUMPY
from elementsckpt.storage import files, reader

from support.boxes import make
from support.folders import noise

STATE = {f"layer{number:03}": np.full(1000 + number, number) for number in range(300)}


@pytest.fixture
def save(tmp_path):
    path = checkpoint.save(tmp_path / "save", {"agent": lambda: STATE}).path
    assert (path / names.MANIFEST).stat().st_size > 3 * (8 << 10)
    return path


@pytest.fixture
def reads(monkeypatch):
    """Return the bytes that are read of manifests, one number for each call."""
    read, sizes = files.File.read, []

    def counted(self, memory, offset):
        if self.path.name == names.MANIFEST and len(memory):
            sizes.append(len(memory))
        read(self, memory, offset)

    monkeypatch.setattr(files.File, "read", counted)
    return sizes


def load_layer(path):
    cp = make(None, {name: np.zeros_like(array) for name, array in STATE.items()})
    cp.load(path, regex="layer064")
    assert (cp.agent.state["layer064"] == 64).all()


LOADS = {
    "a layer": load_layer,
    "all": lambda path: make(None).load(path),
    "read": elementsckpt.read,
    "a layer, read": lambda path: elementsckpt.read(path, regex="layer064"),
    "functions": lambda path: checkpoint.load(path, {"agent": id}),
    "a tree": lambda path: elementsckpt.load_pytree(path, STATE, key="agent"),
    "named": lambda path: make(path.parent).load(path),
}


@pytest.mark.parametrize("load", LOADS)
def test_the_manifest_of_a_save_that_is_named_is_read_once(save, reads, load):
    LOADS[load](save)
    assert reads == [(save / names.MANIFEST).stat().st_size]


def test_a_large_manifest_is_read_to_its_head_and_then_whole(save, reads, monkeypatch):
    monkeypatch.setattr(entries, "_WHOLE_BYTES", (4096,))
    load_layer(save)
    assert reads == [4096, (save / names.MANIFEST).stat().st_size]


def test_what_is_selected_is_all_that_is_described(save, monkeypatch):
    described, specs = collections.Counter(), type(NUMPY).specs

    def counted(self, group):
        described.update(group.names)
        return specs(self, group)

    monkeypatch.setattr(type(NUMPY), "specs", counted)
    load_layer(save)
    assert described == {"layer064": 1}


def test_no_thread_is_started_for_little(tmp_path, monkeypatch):
    make(tmp_path, [noise(0, 3 << 20), noise(1, 3 << 20)]).save()

    def refuse(*_, **__):
        raise AssertionError("threads take longer to start")

    monkeypatch.setattr(reader, "run", refuse)
    make(tmp_path).load()


def test_memory_is_asked_for_once_if_leaves_share_no_blocks(tmp_path, monkeypatch):
    make(tmp_path, [noise(0, 2 << 20), noise(1, 1 << 20)]).save()
    asked = []
    monkeypatch.setattr(reader, "require_memory", lambda size, *_: asked.append(size))
    make(tmp_path).load()
    assert asked == [3 << 20]
