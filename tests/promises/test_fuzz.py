"""Saves changed at random, signed as if they were right, are refused or harmless.

A few, each time others; `tests/fuzz.py` tries more, guided by what code they reach.
"""

import importlib.util
import json
import logging
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.boxes import ROOT, python
from support.folders import sealed, texts_of
from support.mutations import (
    MANIFEST,
    WAYS,
    choices,
    contents,
    look,
    mutate,
    name_of,
    seeds,
    write,
)

SETTINGS = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


class Seeds(list):
    """Saves that are shown by one word.

    Hypothesis refuses to print 700 kB, and that would hide what a change has led to.
    """

    def __repr__(self):
        return "Seeds"


@pytest.fixture(scope="module")
def saves(tmp_path_factory):
    return Seeds(seeds(tmp_path_factory.mktemp("seeds")))


@pytest.fixture(autouse=True)
def quiet():
    """Log nothing: that a save is damaged is no news here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_saves_that_are_not_changed_are_looked_at_in_all_ways(saves, tmp_path):
    for number, content in enumerate(saves):
        folder = tmp_path / str(number) / name_of(content)
        write(folder, content)
        assert contents(folder) == content
        # What elements saved has numbers where the current state has generators.
        assert look(folder) == len(WAYS) - (MANIFEST not in content)


@pytest.mark.parametrize("keys", [[], ["other"]])
def test_changed_saves_may_lack_what_is_looked_for(saves, tmp_path, keys):
    content = dict(saves[0])
    document = json.loads(content[MANIFEST])
    component = document["components"][0]
    document["components"] = [{**component, "key": key} for key in keys]
    folder = tmp_path / name_of(content)
    write(folder, {**content, MANIFEST: sealed(*texts_of(document))})
    look(folder)


@SETTINGS
@given(data=st.binary(min_size=10, max_size=60), number=st.integers(0, 2))
def test_changed_saves_are_refused_or_harmless(saves, tmp_path, data, number):
    folder = tmp_path / "directory" / name_of(saves[number])
    write(folder, mutate(saves[number], choices(data)))
    try:
        look(folder)
    finally:
        shutil.rmtree(folder.parent)


def test_the_fuzzer_says_what_it_needs():
    if importlib.util.find_spec("atheris") is not None:
        pytest.skip("it would start")
    script = (ROOT / "tests" / "fuzz.py").read_text()
    found = python(script, check=True)
    assert found.stdout.startswith("Skipped: atheris is not installed")
