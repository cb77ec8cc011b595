"""What a user can run into, and what the error says then: a table by name.

Each function sets a situation up, yields, and does what fails. Above it is the error
and its message, in which {tmp} is the directory that the function gets, and … anything.
"""

from . import (  # noqa: F401 (each fills the table)
    argument_types,
    arguments,
    components,
    damage,
    environments,
    looking,
    misfits,
    missing,
    pickles,
    states,
    system,
)
from .table import ALL

__all__ = ["ALL"]
