"""The threads of the library in this process."""

import threading


def running():
    """Return those that run.

    Python lists one whose start another test interrupted for ever; it never ran.
    """
    return [
        thread
        for thread in threading.enumerate()
        if thread.name == "elementsckpt" and thread.is_alive()
    ]


def join(timeout=60):
    """Return when none runs any more: no save is under way."""
    for thread in running():
        thread.join(timeout)
        assert not thread.is_alive(), "a thread does not end"
