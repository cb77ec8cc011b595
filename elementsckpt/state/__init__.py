"""Nested state ⇄ named leaves.

A state is flattened into a **tree** of **nodes** that end in leaves. Leaves that differ
only in name and content are a **group**. A **spec** has the properties that a leaf
needs to replace another one. To **match** is to find which saved leaf replaces which
current one.
"""

__all__ = [
    "callables",
    "flattening",
    "matching",
    "new_leaves",
    "plain",
    "pytrees",
    "recurring",
    "replacing",
    "same_names",
    "saved_tree",
    "selection",
    "sharing",
    "skeletons",
    "specs",
    "static_parts",
    "unflattening",
    "view_leaves",
    "walking",
]
