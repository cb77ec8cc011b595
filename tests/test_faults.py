"""The process dies, the disk refuses, the power fails: at every call of a save."""

import ast
import errno
import itertools
import logging
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from faults import (
    ALL,
    PLAIN,
    ROOT,
    Again,
    Box,
    Broken,
    Counts,
    Create,
    Explicit,
    Fails,
    First,
    Graveyard,
    Interjects,
    Medium,
    Records,
    Remove,
    Rename,
    Stream,
    Sync,
    Write,
    WritesShort,
    files_of,
    make,
    use_small_segments,
    value_of,
)

import elementsckpt
from elementsckpt import Checkpoint, CheckpointError, WriteError, disk

CODES = errno.ENOSPC, errno.EIO, errno.EROFS


@pytest.fixture(autouse=True)
def deadline():
    """Turn a save that never ends into a failure."""

    def stop(*_):
        raise TimeoutError("the save never ends")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(100)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    use_small_segments(monkeypatch.setattr)


@pytest.fixture(scope="module")
def graveyard():
    with Graveyard() as process:
        yield process


@pytest.fixture
def fresh(tmp_path):
    """Return a function that prepares a situation in a folder of its own."""
    numbers = itertools.count()
    templates = {}

    def prepared(kind):
        if kind not in templates:
            templates[kind] = tmp_path / kind.__name__
            templates[kind].mkdir()
            kind(templates[kind]).prepare()
        situation = kind(tmp_path / str(next(numbers)))
        shutil.copytree(templates[kind], situation.root)
        return situation

    return prepared


@pytest.fixture
def inject(monkeypatch):
    """Return a function that puts a fault into the place of `disk.syscall`."""
    real = disk.syscall

    def put(fault):
        monkeypatch.setattr(disk, "syscall", fault or real)
        return fault

    return put


def unsynced(call, *args):
    """Make a call, for the saves in between that no power failure can meet."""
    return None if call is os.fsync else call(*args)


def resumed(situation):
    """Return the value that a new process finds; None if there is no save."""
    cp = situation.checkpoint(-1)
    if isinstance(situation, Explicit):
        if not elementsckpt.checkpoint.exists(situation.directory):
            return None
        cp.load(situation.directory)
    elif not cp.exists():
        return None
    else:
        assert cp.load_or_save()
    assert cp.agent.loads == cp.step.loads == cp.replay.loads == 1
    return value_of(cp)


def saves_again(situation):
    """Check that the next save works and that it leaves nothing but saves."""
    if isinstance(situation, Explicit):
        if not elementsckpt.checkpoint.exists(situation.directory):
            situation.save(situation.checkpoint())
        assert resumed(situation) == situation.new
    else:
        situation.checkpoint(9).save()
        assert resumed(situation) == 9
    assert_tidy(situation)


def assert_tidy(situation):
    """Check that nothing is there but whole saves and `latest`."""
    saves = [situation.directory]
    if not isinstance(situation, Explicit):
        saves = [x.path for x in situation.checkpoint().saves()]
        names = {save.name for save in saves}
        assert set(os.listdir(situation.directory)) == {*names, "latest"} - (
            set() if names else {"latest"}
        )
        assert not saves or (situation.directory / "latest").read_text() in names
    for save in saves:
        assert set(os.listdir(save)) == files_of(save)
    top = situation.directory.relative_to(situation.root).parts[0]
    assert os.listdir(situation.root) == [top]


# The process dies


@pytest.mark.parametrize("when", ["before", "half", "after"])
@pytest.mark.parametrize("kind", ALL)
def test_death_at_any_call_leaves_the_old_save_or_the_new(
    kind, when, fresh, graveyard, inject
):
    inject(unsynced)
    for n in itertools.count(1):
        situation = fresh(kind)
        died = graveyard.dies(situation, n, when)
        if not died:
            assert resumed(situation) == situation.new
            assert_tidy(situation)
            break
        assert resumed(situation) in (situation.old, situation.new)
        saves_again(situation)
        shutil.rmtree(situation.root)
    assert n > (10 if when == "half" else 30)
