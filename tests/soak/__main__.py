"""Attack saves, at random and at length.

From the repository's root:

    PYTHONPATH=tests python -m soak                       about 45 minutes
    PYTHONPATH=tests python -m soak --only kill --seed 1
    PYTHONPATH=tests python -m soak --quick               a little of each part

The same seed makes the same random choices, though processes never meet at quite the
same moments twice. It ends with the figures, or at the first failure with 1, and then
leaves the directory there to be looked at.
"""

from __future__ import annotations

import argparse
import logging
import pathlib
import random
import shutil
import tempfile
import time

from .calls import calls
from .corrupt import corrupt
from .full import full
from .fuzz import fuzz
from .interrupt import interrupt
from .kill import kill
from .power import power
from .race import race

# Each with how much of it makes an hour of all, and how much a few seconds.
PARTS = {
    "kill": (kill, {"lives": 1000}, {"lives": 8}),
    "corrupt": (corrupt, {"saves": 10_000}, {"saves": 40}),
    "race": (race, {"minutes": 10}, {"minutes": 0.01}),
    "full": (full, {"fills": 10, "every": 1}, {"fills": 1, "every": 30}),
    "calls": (calls, {"kinds": None, "every": 1}, {"kinds": 1, "every": 20}),
    "interrupt": (interrupt, {"every": 1, "verbs": None}, {"every": 2500, "verbs": 2}),
    "power": (power, {"rounds": 20, "kinds": None}, {"rounds": 1, "kinds": 2}),
    "fuzz": (fuzz, {"minutes": 10}, {"minutes": 0.01}),
}


def main():
    args = _arguments()
    # What the library warns of is looked at, and not printed.
    logging.getLogger("elementsckpt").propagate = False
    logging.getLogger("elementsckpt").addHandler(logging.NullHandler())
    root = pathlib.Path(tempfile.mkdtemp(prefix="soak-", dir=args.directory))
    print(f"Seed {args.seed}, in {root}.", flush=True)
    for name in args.only:
        folder = root / name
        folder.mkdir()
        start = time.monotonic()
        rng = random.Random(f"{args.seed} {name}")
        attack, full_size, quick_size = PARTS[name]
        figures = attack(folder, rng, **(quick_size if args.quick else full_size))
        seconds = time.monotonic() - start
        print(f"- {name}, {seconds:.0f} s: {figures}", flush=True)
        shutil.rmtree(folder)
    root.rmdir()


def _arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().getrandbits(32)
    )
    parser.add_argument("--directory", type=pathlib.Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
