"""The story of a load: a save → states, and only then the components' `load()`.

A **request** says which leaves of which components to load. An **open save** is read
and verified. All of its leaves are compared with the current states first; if one does
not fit, the whole load is **refused**.
"""

__all__ = [
    "candidates",
    "component",
    "decoding",
    "load",
    "loaded",
    "patterns",
    "request",
    "verbs",
]
