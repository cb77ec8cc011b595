"""What may be registered.

A **component** is an object under a **key** that saves and loads its state, by one of
the **protocols** or as itself. A **value** is a component that is replaced, not
changed; a **template** says what it can become. A **target** is a component as a
load sees it.
"""

__all__ = [
    "copies",
    "files",
    "protocols",
    "registry",
    "rng",
    "staging",
    "targets",
    "torch_states",
    "value",
]
