"""Save folders and files in a directory: written, synced, renamed, read, removed.

A **draft** is a save folder that is being written; to **commit** is to give its
manifest the name that makes it a save. What a dead process left is **swept**. Only
`disk` opens or changes files.
"""

__all__ = [
    "disk",
    "drafts",
    "filetree",
    "fileview",
    "local",
    "paths",
    "reader",
    "segments",
]
