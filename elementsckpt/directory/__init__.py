"""A directory of saves: lists them, finds the one that is meant, decides which to keep.

A **listing** has the saves in the order of their commits. **Metadata** and **metrics**
are the caller's information about a save. **Retention** decides which saves stay.
"""

__all__ = ["choice", "entries", "listing", "lookup", "metadata", "records", "retention"]
