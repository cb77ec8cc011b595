"""Nested state ⇄ named leaves.

A state is flattened into a **tree** of **nodes** that end in leaves. Leaves that differ
only in name and content are a **group**. A **spec** has the properties that a leaf
needs to replace another one. To **match** is to find which saved leaf replaces which
current one.
"""

__all__ = [
    "callables",
    "flattening",
    "growth",
    "homonyms",
    "matching",
    "plain",
    "pytrees",
    "recurring",
    "replacing",
    "selection",
    "sharing",
    "skeletons",
    "specs",
    "tree",
    "unflattening",
    "unsaved",
    "view_leaves",
    "walking",
]
