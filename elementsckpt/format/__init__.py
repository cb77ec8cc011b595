"""The format of the bytes on disk, which is public; nothing here touches files.

The **manifest** describes a save. A **segment** is a file of array bytes with the
**header** of safetensors. Its **blocks** are ranges, each with a checksum. A **scalar**
is a value that is stored in the manifest itself.
"""

__all__ = [
    "codec",
    "compression",
    "digests",
    "dtypes",
    "header",
    "manifest",
    "names",
    "scalars",
    "sizes",
]
