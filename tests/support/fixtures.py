"""Fixtures of tests in several packages; tests/conftest.py makes them known."""

import logging

import pytest

from elementsckpt.storage import disk

from support.folders import Gate, Reads
from support.forks import Forks

FORKED = "elementsckpt.engine", "elementsckpt.run.background", "support.faults"
FORKED += "support.folders", "support.numbered"
# A library's threads would make it a process that should not fork.
SINGLE = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def inject(monkeypatch):
    """Return a function that puts something into the place of `disk.syscall`."""

    def put(fault):
        monkeypatch.setattr(disk, "syscall", fault)
        return fault

    return put


@pytest.fixture
def gate(monkeypatch):
    """Hold saves in the background until the gate is opened."""
    gate = Gate()
    monkeypatch.setattr(disk, "syscall", gate)
    yield gate
    gate.open()


@pytest.fixture
def reads(monkeypatch):
    """Count the bytes that are read."""
    reads = Reads()
    monkeypatch.setattr("os.preadv", reads)
    return reads


@pytest.fixture
def warnings(caplog):
    """Return the log, with the warnings of this library in it."""
    caplog.set_level(logging.WARNING, "elementsckpt")
    return caplog


@pytest.fixture(scope="session")
def forked(tmp_path_factory):
    """Run a script as `boxes.python` does, in a process that has imported for it."""
    with Forks(tmp_path_factory.mktemp("forked"), *FORKED, **SINGLE) as forks:
        yield forks.run
