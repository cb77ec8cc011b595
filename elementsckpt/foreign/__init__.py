"""Saves that other packages wrote, in their formats.

By default, reading their pickles is **restricted** to plain data and NumPy arrays; the
user can allow more.
"""

__all__ = ["elements", "npz_files", "safetensors_files"]
