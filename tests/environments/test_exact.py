"""A loaded environment is the one that was saved: each step and draw, to the bit."""

import functools

import pytest

from support import lives, zoo

EVERY_POINT = range(1, 61)


@pytest.fixture(scope="module")
def proved(tmp_path_factory):
    """Return what is wrong with environments, by name; three processes for them all."""

    @functools.cache
    def prove():
        folder = tmp_path_factory.mktemp("saves")
        return lives.prove([*zoo.FAST], folder, [0, 1, 8, 23, 37, 60], [37])

    return prove


@pytest.mark.parametrize("name", zoo.FAST)
def test_a_loaded_environment_goes_on_as_if_never_stopped(proved, name):
    assert proved()[name] == ""


@pytest.mark.environments
@pytest.mark.parametrize("name", zoo.FAST)
def test_an_environment_goes_on_from_wherever_it_was_saved(tmp_path, name):
    assert lives.prove([name], tmp_path, EVERY_POINT, [1, 30, 60])[name] == ""


@pytest.mark.environments
@pytest.mark.parametrize("name", zoo.SIMULATED)
def test_a_loaded_simulation_goes_on_as_if_never_stopped(tmp_path, name):
    zoo.require(name)
    assert lives.prove([name], tmp_path, EVERY_POINT, [1, 30, 60])[name] == ""
