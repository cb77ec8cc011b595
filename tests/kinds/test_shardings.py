"""Arrays on meshes of devices: saved from one sharding, loaded into another."""

import json
import pathlib

import pytest

import shardings
from support.boxes import python

SCRIPT = """
import os, sys
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
sys.path.insert(0, sys.argv[1])
import shardings
shardings.main()
"""


@pytest.fixture(scope="module")
def results():
    """Return what a process with eight devices found wrong with each claim."""
    folder = pathlib.Path(__file__).parent
    result = python(SCRIPT, folder, flags=["-W", "error"])
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("claim", [claim.__name__ for claim in shardings.CLAIMS])
def test_on_eight_devices(results, claim):
    assert not results[claim], results[claim]
