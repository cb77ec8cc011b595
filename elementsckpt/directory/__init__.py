"""A directory of saves: which there are, which one is meant, and which stay.

A **listing** has the saves in the order of their commits. **Metadata** and **metrics**
are what the caller says about a save. **Retention** decides what stays.
"""

__all__ = ["listing", "lookup", "metadata", "retention"]
