"""A library of arrays on devices, in the manner of CuPy, whose devices are not there.

The elements are in the memory of the host and pretend that they are not: NumPy gets
them from `get()` only.
"""

import types

import numpy as np

ON_DEVICE = 2  # What DLPack calls CUDA.


class ndarray:
    """An array on a device."""

    def __init__(self, elements, device=0):
        self._elements = np.array(elements)
        self.device = types.SimpleNamespace(id=device)

    @property
    def dtype(self):
        return self._elements.dtype

    @property
    def shape(self):
        return self._elements.shape

    @property
    def __cuda_array_interface__(self):
        return {**self._elements.__array_interface__, "version": 3, "stream": None}

    def __dlpack__(self, **options):
        raise BufferError("the elements are not on the host")

    def __dlpack_device__(self):
        return ON_DEVICE, self.device.id

    def __array__(self, *args, **options):
        raise TypeError("it is not converted to a NumPy array: use get()")

    def __eq__(self, other):
        raise TypeError("what compares elements makes an array of them")

    __hash__ = None

    def get(self):
        """Return the elements as a NumPy array."""
        return self._elements.copy()


def array(elements, device=0):
    """Return an array of such elements on a device."""
    return ndarray(elements, device)
