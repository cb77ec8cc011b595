"""One kind of leaf ⇄ bytes: NumPy, JAX, torch, Python's values, code, and pickles.

A **leaf** ends nested state. It is stored as the **array** of its elements; its
**kind** and **dtype** say how to rebuild it from them. `kind` is the protocol, `leaves`
the list of kinds, and each `*_kinds` has the kinds of one library. A **view** is an
array in the memory of another. A **reference** is the import path of a class or
function.
"""

__all__ = [
    "classes",
    "closures",
    "generators",
    "jax_arrays",
    "jax_kinds",
    "kind",
    "leaves",
    "losses",
    "numpy_kinds",
    "pickles",
    "python_kinds",
    "reductions",
    "references",
    "remote",
    "ring",
    "torch_tensors",
    "views",
]
