"""A moment of each attack of `make soak`."""

import os
import subprocess
import sys

import pytest
from boxes import ROOT


@pytest.mark.parametrize(
    "attack",
    ["kill", "corrupt", "race", "full", "calls", "interrupt", "power", "fuzz"],
)
def test_a_moment_of_each_attack_is_withstood(attack, tmp_path):
    options = ["--quick", "--only", attack, "--seed", "1", "--directory", tmp_path]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "soak", *options],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert f"- {attack}, " in result.stdout
    assert result.stderr == ""
    assert not list(tmp_path.iterdir())
