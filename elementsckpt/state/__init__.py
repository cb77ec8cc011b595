"""Nested state ⇄ named leaves.

State is taken apart into a **tree** of **nodes**, which end in leaves. Leaves that
differ in name and content only are a **group**. A **spec** is what a leaf must be to
take the place of another, and to **match** is to find which saved leaf goes where.
"""

__all__ = [
    "callables",
    "flattening",
    "grouping",
    "growth",
    "matching",
    "plain",
    "pytrees",
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
    "wholes",
]
