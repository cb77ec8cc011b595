"""Ctrl-C costs the call that it ends, and no more, whenever it comes.

Here it comes at some places of each verb, in `make soak` at every one.
"""

import faulthandler
import gc
import itertools
import logging
import signal
import sys
import traceback

import pytest

from support import interrupts, library_threads
from support.faults import use_small_segments
from support.folders import folder_in_memory
from support.interrupts import HOLDING, VERBS, Attack

SAMPLES = 9
GAPS = 1, 2, 3, 5, 8, 13, 21, 34, 55, 89  # From one interrupt to the next.
LIMIT_S, AGAIN_S, LAST_S = 120, 5, 300


class TookTooLong(BaseException):
    """The call did not end."""


@pytest.fixture(autouse=True)
def deadline():
    """Turn what never ends into a failure, and end what that does not.

    The exception is raised again where something drops it or waits in spite of it. What
    waits where no exception comes ends with the process.
    """

    def stop(_, frame):
        files = [x.f_code.co_filename for x, _ in traceback.walk_stack(frame)]
        if interrupts.__file__ in files:  # Else the test has ended.
            raise TookTooLong

    previous = signal.signal(signal.SIGALRM, stop)
    end_late()
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S, AGAIN_S)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)
    faulthandler.cancel_dump_traceback_later()
    if library_threads.running():
        end_late()  # It could keep the process from ending.


def end_late():
    """End the process if it is still there then, and say where its threads are."""
    faulthandler.dump_traceback_later(LAST_S, exit=True, file=sys.__stderr__)


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
    step = max(1, count // SAMPLES)
    # What verbs have in common has its interrupts at other places in each.
    start = step * [*VERBS].index(verb) // len(VERBS)
    for place in range(start, count, step):
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
