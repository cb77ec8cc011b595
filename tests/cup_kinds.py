"""A kind of leaf that is added to elementsckpt: its module, as in `elementsckpt.kinds`.

The line is `leaves.register(ARRAY)`.
"""

import importlib
import sys

from elementsckpt.kinds.kind import ArrayKind


class _Arrays(ArrayKind):
    name = "cup"
    is_of_type = True
    maker = "Cup"

    def recognise(self, value):
        cls = getattr(sys.modules.get("cuparrays"), "ndarray", ())
        return self if isinstance(value, cls) else None

    def numbers(self, value):
        return value.get()

    def make(self, array, current=None):
        library = importlib.import_module("cuparrays")
        return library.array(array, 0 if current is None else current.device.id)

    def where(self, current):
        return f"device {current.device.id}"

    def device_key(self, current):
        return current.device.id


ARRAY = _Arrays()
