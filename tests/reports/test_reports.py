"""Reports: fields for programs, `to_dict` for JSON, a text and HTML for people."""

import html.parser
import json
import math
import pathlib

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, Keep, Value
from elementsckpt.reports import figures
from elementsckpt.reports.work import Progress

from support.boxes import make_boxes

HOSTILE = "\x1b[31m<b>&\u202e\n{x}"


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Return one report of each kind, of saves with a hostile name in them."""
    directory = tmp_path_factory.mktemp("run")
    cp = Checkpoint(directory, keep=None, fsync=False)
    paths, done = [], {}
    for number in range(2):
        cp.agent = Value({HOSTILE: np.arange(4.0) + number, "n": number})
        metrics = {"return": math.nan, HOSTILE: 1.0}
        done["save"] = cp.save(metrics=metrics, metadata={HOSTILE: HOSTILE})
        paths.append(done["save"].path)
    return done | {
        "checkpoint": cp,
        "load": cp.load(),
        "info": elementsckpt.info(directory),
        "lineage": elementsckpt.info(directory).lineage,
        "component": elementsckpt.info(directory).components["agent"],
        "saves": elementsckpt.saves(directory),
        "own saves": cp.saves(),
        "leaves": elementsckpt.leaves(directory),
        "leaf": elementsckpt.leaves(directory)[0],
        "verify": elementsckpt.verify(directory),
        "diff": elementsckpt.diff(*paths),
        "stats": elementsckpt.stats(directory),
        "usage": elementsckpt.usage(directory),
        "prune": elementsckpt.prune(directory, Keep(latest=1), dry_run=True),
        "delete": elementsckpt.delete(paths[0], dry_run=True),
        "progress": Progress("load", 5, 10, 1.0, is_finished=False),
    }


KINDS = [
    *("save", "load", "info", "lineage", "component", "saves", "own saves", "leaves"),
    *("leaf", "verify", "diff", "stats", "usage", "prune", "delete", "progress"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_dict_has_the_fields_in_json_types(reports, kind):
    report = reports[kind]
    found = report.to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    if not isinstance(report, list):
        fields = [name for name in report.__struct_fields__ if name[0] != "_"]
        assert list(found) == fields


@pytest.mark.parametrize("kind", KINDS)
def test_text_and_html_obey_no_name(reports, kind):
    text = repr(reports[kind])
    assert "\x1b" not in text
    assert "\u202e" not in text
    Checker().feed(reports[kind]._repr_html_())


def test_a_checkpoint_shows_its_saves(reports):
    page = reports["checkpoint"]._repr_html_()
    Checker().feed(page)
    assert "2 saves" in page


class Checker(html.parser.HTMLParser):
    """Fails on a tag that the library does not use."""

    def handle_starttag(self, tag, attrs):
        known = "style div b table tr th td details summary"
        assert tag in known.split()
        assert {name for name, _ in attrs} <= {"class", "open"}


def test_not_a_number_is_text_in_json_and_a_number_in_fields(reports):
    assert reports["info"].to_dict()["metrics"]["return"] == "nan"
    assert math.isnan(reports["info"].metrics["return"])
    assert isinstance(reports["info"].path, pathlib.Path)
    assert reports["info"].to_dict()["path"] == str(reports["info"].path)
    assert HOSTILE in reports["info"].to_dict()["metadata"]


def test_a_report_cannot_be_changed(reports):
    with pytest.raises(AttributeError):
        reports["diff"].a = None


def test_a_long_report_is_cut_in_text_and_says_so(tmp_path):
    make_boxes(tmp_path, box={f"leaf{n}": n for n in range(50)}).save()
    lines = repr(elementsckpt.leaves(tmp_path)).splitlines()
    assert lines[0] == "50 leaves, 0 B"
    assert lines[-1].strip() == "and 30 more"
    assert len(lines) == 23


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    {
        0: "0 B",
        999: "999 B",
        1000: "1.00 kB",
        1049: "1.05 kB",
        45_800_000: "45.8 MB",
        999_499: "999 kB",
        999_500: "1.00 MB",
        10**24: "1000000 EB",
    }.items(),
)
def test_sizes_have_three_digits(size_bytes, text):
    assert figures.size(size_bytes) == text


@pytest.mark.parametrize(
    ("value", "text"),
    {0: "now", 59: "59 s", 3600: "1 h", 86_400: "1 day", 200_000: "2 days"}.items(),
)
def test_ages(value, text):
    assert figures.age(value) == text


def test_figures_of_none_nan_and_large_steps():
    assert figures.step(None) == "-"
    assert figures.step(2**60) == "1,152,921,504,606,846,976"
    assert figures.number(math.nan) == "nan"
    assert figures.number(None) == "-"
    assert figures.share(1e-9) == "<0.01 %"
    assert figures.share(1.0) == "100 %"
    assert figures.seconds(0.0042) == "4.2 ms"
    assert figures.bars([0, 1, 8]) == " ▁█"
    assert figures.bars([0, 0]) == ""
