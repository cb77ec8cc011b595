"""A save that cannot be begun: nothing of it is written, or left."""

import errno
import os
import types

import numpy as np
import pytest

import elementsckpt
from elementsckpt.storage import disk

from support.boxes import make_boxes, visible


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_save_that_fails_early_leaves_no_folders(tmp_path, inject, depth):
    path = tmp_path / "a" / "b" / "save"
    refused = [path.parent.parent, path.parent, path][depth]

    def full(call, *args):
        if call is os.mkdir and args[0] == refused:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return call(*args)

    inject(full)
    with pytest.raises(elementsckpt.WriteError):
        make_boxes(agent=1).save(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("background", [False, True])
def test_what_does_not_fit_is_refused_before_it_is_written(
    tmp_path, monkeypatch, background
):
    cp = make_boxes(tmp_path, background=background, compress=None, agent=np.zeros(9))
    cp.save()
    cp.wait()
    real = os.statvfs(tmp_path)
    free = real.f_frsize * 10

    def little(path):
        return types.SimpleNamespace(
            f_frsize=real.f_frsize, f_bfree=10, f_bavail=10, f_blocks=real.f_blocks
        )

    monkeypatch.setattr(os, "statvfs", little)
    written = []
    original = disk.syscall

    def record(call, *args):
        written.extend([len(args[1])] if call is os.pwrite else [])
        return original(call, *args)

    monkeypatch.setattr(disk, "syscall", record)
    cp.agent.state = np.random.default_rng(0).random(1_000_000)
    with pytest.raises(OSError, match=rf"needs 8,\d+,\d+ bytes.*{free:,} are free"):
        save_and_wait(cp)
    assert not written
    assert visible(tmp_path) == visible_saves(cp)
    cp.agent.state = np.zeros(99)
    save_and_wait(cp)


def save_and_wait(cp):
    cp.save()
    cp.wait()


def visible_saves(cp):
    return sorted(["latest", *(info.path.name for info in cp.saves())])
