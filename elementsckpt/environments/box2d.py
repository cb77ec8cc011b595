"""Box2D, whose objects stand for others in C++: a world is refused by all of them."""

from __future__ import annotations

import sys

from .foreign_worlds import refuse

# The module is imported once Box2D is.
PARTS = {
    f"Box2D:{name}": refuse(f"a Box2D.{name}, whose world is not in Python")
    for name, cls in vars(sys.modules["Box2D"]).items()
    if isinstance(cls, type)
}
