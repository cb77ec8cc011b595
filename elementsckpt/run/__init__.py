"""When a run saves, in which thread, who else writes, and where the run comes from.

A **schedule** says when a save is due. A **watch** notices the signals that ask the
process to end. **Provenance** is which run, host and commit a state comes from.
"""

__all__ = ["saver", "schedule", "signals", "timing"]
