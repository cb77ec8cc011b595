"""Saves that other packages wrote, in the formats of these.

Their pickles are **restricted**: plain data and NumPy arrays, unless the user asks for
more.
"""

__all__ = ["elements"]
