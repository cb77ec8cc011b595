"""The user's side: attributes of objects, arguments of calls, and what is told.

Objects of others can do anything when they are asked, so it is done with care. A
**hint** is advice in an error, made of the names at hand; a **notice** is a warning
that is said once, not at each save.
"""

__all__ = ["arguments", "attributes", "hints", "notices"]
