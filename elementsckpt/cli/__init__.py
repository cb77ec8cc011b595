"""The command line: what `elementsckpt` and `python -m elementsckpt` do.

A **verb** is a module with `configure`, which adds its arguments to a parser, and
`run`, which calls functions of the public face, prints and returns the exit status. The
**screen** is where it prints: a terminal, a pipe or a file.
"""

__all__ = []
