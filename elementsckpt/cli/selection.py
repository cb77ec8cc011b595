"""The option that chooses leaves by name, which several verbs have."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        *("-r", "--regex"),
        help="only leaves whose names, without the key, begin with a match; if there "
        "are none, with the key",
    )
