"""The story of a save: components → blocks → segments → a committed manifest.

A leaf is **cut** into blocks, or **gathered** in one with others. What an **earlier**
save holds is **reused**: its segment is linked. In the background a save owns copies,
which are in its **arenas**, and writes after `save()` has returned.
"""

__all__ = ["arenas", "blocks", "earlier_save", "history", "options", "save"]
