"""Ctrl-C costs the call that it ends, and no more, whenever it comes."""

import gc
import itertools
import logging
import signal
import sys

import pytest
from faults import use_small_segments
from interrupts import HOLDING, VERBS, Attack, folder_in_memory

SAMPLES = 40
GAPS = 1, 2, 3, 5, 8, 13, 21, 34, 55, 89  # From one interrupt to the next.


class TookTooLong(BaseException):
    """The call did not end."""


@pytest.fixture(autouse=True)
def deadline():
    """Turn what never ends into a failure."""

    def stop(*_):
        raise TookTooLong

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def attack(tmp_path, monkeypatch):
    """Return a function that begins an attack on a verb."""
    use_small_segments(monkeypatch.setattr)
    monkeypatch.setattr(logging.getLogger("elementsckpt"), "disabled", True)
    gc.freeze()  # So that collecting garbage takes no time.
    with folder_in_memory(tmp_path) as root:
        yield lambda verb: Attack(root, verb, modules=HOLDING)
    gc.unfreeze()


@pytest.mark.parametrize("verb", VERBS)
def test_an_interrupt_at_any_place_costs_the_call_alone(verb, attack):
    attack = attack(verb)
    count = attack.run()
    for place in range(0, count, max(1, count // SAMPLES)):
        attack.run(place)


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="a with statement can lose its end"
)
@pytest.mark.parametrize("verb", ["save", "save in the background", "load", "close"])
def test_a_second_interrupt_while_cleaning_up_is_harmless(verb, attack):
    attack = attack(verb)
    count = attack.run()
    places = range(0, count, max(1, count // SAMPLES))
    for place, gap in zip(places, itertools.cycle(GAPS), strict=False):
        attack.run(place, place + gap)
