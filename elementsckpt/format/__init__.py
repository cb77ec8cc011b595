"""The bytes on disk, whose specification is public; nothing here reads or writes.

The **manifest** describes a save. A **segment** is a file of array bytes with the
**header** of safetensors; its **blocks** are the ranges that have checksums. A
**scalar** is a value that the manifest holds itself.
"""

__all__ = ["compression", "dtypes", "header", "manifest", "names", "scalars", "sizes"]
