"""Places for saves: here saves are written, committed, read and removed.

A **store** is such a place; `store` is its protocol, and `local` is the store of a
directory. A **draft** is a save that is being written, and a **source** reads one. To
**commit** a draft is to give it the manifest that makes it a save. To **sweep** is to
remove what a dead process left. Only `disk` changes files.
"""

__all__ = [
    "component_files",
    "descriptors",
    "disk",
    "file_view",
    "files",
    "folders",
    "paths",
    "places",
    "pool",
    "reader",
    "store",
    "streams",
    "transfers",
    "trials",
]
