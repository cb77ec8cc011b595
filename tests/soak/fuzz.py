"""Saves are changed in ways that the code which they reach suggests."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import subprocess
import sys

from .run import require

_SCRIPT = pathlib.Path(__file__).parent.parent / "fuzz.py"


def fuzz(root, rng, *, minutes):
    """Let atheris look for saves that do harm.

    Args:
      root: An empty folder, where it leaves what it finds.
      rng: Source of chance.
      minutes: For how long.

    Returns:
      The figures, in words.
    """
    if importlib.util.find_spec("atheris") is None:
        return "left out, as atheris is not installed."
    options = ["--minutes", str(minutes), "--seed", str(rng.randrange(1, 1 << 31))]
    done = subprocess.run(
        [sys.executable, _SCRIPT, *options], cwd=root, capture_output=True, text=True
    )
    said = done.stdout + done.stderr
    require(done.returncode == 0, said[-5000:])
    (runs,) = re.findall(r"^Done (\d+) runs", said, re.MULTILINE)
    return (
        f"{int(runs):,} saves with the right digests were changed, guided by the code "
        f"that they reached. None gave another error than a CheckpointError, and none "
        f"took 20 s or 2 GB."
    )
