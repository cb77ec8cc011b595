"""The user's side: attributes of objects, arguments of calls, advice and warnings.

An object of the user can run any code when an attribute is read, so reading is guarded.
A **hint** is advice in an error message, built from the names in use. A **notice** is a
warning that is logged once, not at each save.
"""

__all__ = ["arguments", "attributes", "hints", "notices", "times"]
