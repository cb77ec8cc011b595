"""Look for saves that do harm, guided by the code that they reach, for long.

    python tests/fuzz.py --minutes 10

It needs atheris (`pip install atheris`) and says so where that is missing. What it
finds is one of: an exception that is no `CheckpointError`, a crash, more than 20 s or
2 GB for a save of a few kB. It then stops with an error, the traceback and a file with
the bytes that decided on the changes, and `--again FILE` does the same once more.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import pathlib
import shutil
import subprocess
import sys
import tempfile
import warnings

LIMITS = ("-timeout=20", "-rss_limit_mb=2048", "-malloc_limit_mb=1024")
LENGTHS = ("-max_len=100", "-len_control=0")


def run(folder: pathlib.Path, arguments: list[str]) -> None:
    """Change and look at saves in a folder until libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["elementsckpt"]):
        from support import mutations

    saves = mutations.seeds(folder / "seeds")
    names = [mutations.name_of(save) for save in saves]
    directory = folder / "directory"

    def look(data: bytes) -> None:
        number = data[0] % len(saves) if data else 0
        save = directory / names[number]
        content = mutations.mutate(saves[number], mutations.choices(data[1:]))
        mutations.write(save, content)
        try:
            mutations.look(save)
        finally:
            shutil.rmtree(directory)

    atheris.Setup([sys.argv[0], *arguments], look)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0, help="0: a random one")
    parser.add_argument("--again", help="a file that it wrote")
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("Skipped: atheris is not installed; pip install atheris.")
        return 0
    if args.folder is None:
        # In memory if possible, as each save is written anew. In a process of its own,
        # as libFuzzer ends it without leaving anybody the time to tidy up.
        memory = "/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None
        with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory) as folder:
            command = [sys.executable, *sys.argv, "--folder", folder]
            return subprocess.run(command, check=False).returncode
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("error")
    time = f"-max_total_time={60 * args.minutes:.0f}"
    arguments = [*LIMITS, *LENGTHS, time, f"-seed={args.seed}"]
    run(args.folder, arguments + ([args.again] if args.again else []))
    return 0


if __name__ == "__main__":
    sys.exit(main())
