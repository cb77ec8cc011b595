"""Attacks on saves, at random and at length; `python -m soak --help` tells which."""

import os

# Threads of a library would make this a process that should not fork.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
