"""What may be registered.

A **component** is an object under a **key** that saves and loads its state, by one of
the **protocols**; some objects need none. A **value** is a component that is replaced
instead of changed; its **template** says what it can become. A **target** is what a
load knows of a component.
"""

__all__ = [
    "component",
    "files",
    "protocols",
    "registry",
    "rng",
    "torch_states",
    "value",
    "wrappers",
]
