"""Fixtures of tests in several packages; tests/conftest.py makes them known."""

import logging

import pytest

from elementsckpt.storage import disk

from support.folders import Gate, Reads
from support.zygote import Zygote


@pytest.fixture
def inject(monkeypatch):
    """Return a function that puts something into the place of `disk.syscall`."""

    def put(fault):
        monkeypatch.setattr(disk, "syscall", fault)
        return fault

    return put


@pytest.fixture(scope="session")
def forked():
    """Return a function that runs a script in a new process, which is a child."""
    with Zygote() as zygote:
        yield zygote


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
