"""Environments saved and loaded within a process, without a checkpoint."""

import copy

import pytest

from elementsckpt import Environment


def saved(env):
    """Return the state of an environment, which stays what it is."""
    return copy.deepcopy(Environment(env).save())


def refusal(error, function, *arguments):
    """Return the message of the error that a function raises."""
    with pytest.raises(error) as caught:
        function(*arguments)
    return str(caught.value)


def steps(env, count):
    """Return what steps with sampled actions return, as texts."""
    from support import lives

    return [lives.step(env) for _ in range(count)]
