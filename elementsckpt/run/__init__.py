"""When a run saves, in which thread, who else writes, and where the run comes from.

A **saver** makes the saves, one at a time. A **schedule** says when one is due. A
**watch** notices the signals that ask the process to end. **Provenance** is which run,
host and commit a state comes from.
"""

__all__ = ["saver", "schedule", "signals", "timing"]
