"""Warnings that would repeat at each save, said once."""

from __future__ import annotations

import logging
from collections.abc import Hashable

_logger = logging.getLogger("elementsckpt")


class Notices:
    """Says each warning once, until what it is about has been right meanwhile."""

    def __init__(self) -> None:
        self._said: set[Hashable] = set()

    def warn(self, about: Hashable, message: str, *args: object) -> None:
        """Log a warning, unless one about the same was.

        Args:
          about: What it is about.
          message: As for `logging`.
          args: As for `logging`.
        """
        if about not in self._said:
            self._said.add(about)
            _logger.warning(f"{message} This is said once.", *args)

    def settle(self, about: Hashable) -> None:
        """Take note that it is right now, so that it is said again if it changes."""
        self._said.discard(about)
