"""A place for saves: written, committed, read and removed there.

A **store** is such a place, in the terms of `store`; that of a directory is `local`. A
**draft** is a save that is being written, a **source** one that is read; to **commit**
is to give a draft the manifest that makes it a save. What a dead process left is
**swept**. Only `disk` opens or changes files.
"""

__all__ = [
    "descriptors",
    "disk",
    "files",
    "fileview",
    "folders",
    "paths",
    "places",
    "reader",
    "store",
]
