"""What may be registered.

A **component** is an object under a **key** that saves and loads its state, by one of
the **protocols** or as itself. A **value** is a component that is replaced, not
changed; a **template** says what it can become.
"""

__all__ = ["copies", "files", "protocols", "registry", "rng", "torch_states", "value"]
