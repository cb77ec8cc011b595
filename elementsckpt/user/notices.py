"""Warnings that would repeat at each save, logged once."""

from __future__ import annotations

import logging
from collections.abc import Hashable

_logger = logging.getLogger("elementsckpt")


class Notices:
    """Logs each warning once, and again only after `settle` was called for it."""

    def __init__(self) -> None:
        self._said: set[Hashable] = set()

    def warn(self, about: Hashable, message: str, *args: object) -> None:
        """Log a warning, unless one about the same subject was logged already.

        Args:
          about: The subject of the warning.
          message: As for `logging`.
          args: As for `logging`.
        """
        if about not in self._said:
            self._said.add(about)
            _logger.warning(f"{message} This warning is logged once.", *args)

    def settle(self, about: Hashable) -> None:
        """Note that the subject is in order now, so that `warn` logs it again."""
        self._said.discard(about)
