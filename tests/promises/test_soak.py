"""A moment of each attack of `make soak`."""

import contextlib
import os
import signal
import subprocess
import sys

from support.boxes import environment

ATTACKS = "kill", "corrupt", "race", "full", "calls", "interrupt", "power", "fuzz"


def test_a_moment_of_each_attack_is_withstood(tmp_path):
    child = subprocess.Popen(
        [
            *(sys.executable, "-W", "error", "-m", "soak", "--quick"),
            *("--only", *ATTACKS, "--seed", "1", "--directory", tmp_path),
        ],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = child.communicate(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):  # It has children, too.
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    assert child.returncode == 0, output + errors
    for attack in ATTACKS:
        assert f"- {attack}, " in output
    assert errors == ""
    assert not list(tmp_path.iterdir())
