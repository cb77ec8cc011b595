"""Classes and functions of the program itself, which is run again to resume."""

import pytest

SCRIPT = """
import enum, sys
import elementsckpt

class Phase(enum.Enum):
    EXPLORE = 1
    EXPLOIT = 2

class Stats:
    def __init__(self):
        self.count = 0
    def name(self):
        return VERSION

def schedule(step):
    return VERSION

s = elementsckpt.Saveable(["phase", "stats", "table", "schedule"])
s.phase, s.stats, s.table = Phase.EXPLORE, Stats(), {Phase.EXPLORE: 0.1}
s.schedule = schedule
cp = elementsckpt.Checkpoint(sys.argv[1])
cp.s = s
resumed = cp.load_or_save()
print(resumed, s.phase is Phase.EXPLORE, type(s.stats) is Stats, s.stats.name(),
      s.table[Phase.EXPLORE], s.schedule is schedule)
"""


@pytest.fixture
def run(forked):
    def run(script, directory):
        done = forked(script, directory)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    return run


def test_they_come_back_as_what_they_are_in_the_program_that_resumes(run, tmp_path):
    old = SCRIPT.replace("VERSION", "'old'")
    new = SCRIPT.replace("VERSION", "'new'")
    assert run(old, tmp_path) == ["False", "True", "True", "old", "0.1", "True"]
    assert run(new, tmp_path) == ["True", "True", "True", "new", "0.1", "True"]


def test_another_program_gets_them_as_they_were(run, tmp_path):
    run(SCRIPT.replace("VERSION", "'old'"), tmp_path)
    script = """
import sys, elementsckpt
state = elementsckpt.read(sys.argv[1], allow_pickle=True)["s"]
print(state["stats"].name(), state["phase"].name)
"""
    assert run(script, tmp_path) == ["old", "EXPLORE"]


def test_the_end_of_a_program_is_silent(run, tmp_path):
    script = """
import sys, jax, elementsckpt
cp = elementsckpt.Checkpoint(sys.argv[1])
cp.step = elementsckpt.Counter()
cp.load_or_save()
cp.watch_signals()
"""
    assert run(script, tmp_path) == []
