"""The story of a load: a save → states, and only then the components' `load()`.

A **request** says which leaves of which components are asked for. An **open save** is
read and verified; what it gives is checked against the current state as a whole, and
**refused** as a whole.
"""

__all__ = ["candidates", "load", "refusals", "request", "verbs"]
