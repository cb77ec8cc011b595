"""`usage` counts each file once, however many saves link to it."""

import os
import shutil

import pytest

import elementsckpt
from elementsckpt import SaveNotFoundError

from support.boxes import make_boxes
from support.faults import use_small_segments
from support.folders import noise


@pytest.fixture
def run(tmp_path, monkeypatch):
    use_small_segments(monkeypatch.setattr)
    cp = make_boxes(tmp_path / "run", keep=None, compress=None, a=noise(1, 60_000))
    for number in range(4):
        cp.a.state[number * 9000] ^= 1
        cp.save()
    return tmp_path / "run"


def disk_bytes(*folders):
    """Return the size of the files in folders, each counted once."""
    files = [x for folder in folders for x in folder.rglob("*") if x.is_file()]
    return sum({x.stat().st_ino: x.stat().st_size for x in files}.values())


def test_sizes_are_those_of_the_files(run):
    report = elementsckpt.usage(run)
    paths = [save.path for save in report.saves]
    assert paths == [info.path for info in elementsckpt.saves(run)]
    assert report.bytes_on_disk == disk_bytes(*paths)
    assert report.bytes_of_state == 4 * 60_000
    for save in report.saves:
        assert save.bytes_written + save.bytes_linked == disk_bytes(save.path)
    assert sum(save.bytes_written for save in report.saves) == report.bytes_on_disk


def test_what_is_freed_is_a_union_and_true(run):
    report = elementsckpt.usage(run)
    first, second, *others = [save.path for save in report.saves]
    alone = [report.saves[0].bytes_freed, report.saves[1].bytes_freed]
    both = report.freed([first, second])
    assert both >= sum(alone)
    assert both == report.bytes_on_disk - disk_bytes(*others)
    shutil.rmtree(first)
    assert disk_bytes(second, *others) == report.bytes_on_disk - alone[0]


def test_a_link_elsewhere_keeps_the_space(run):
    newest = elementsckpt.info(run).path
    before = elementsckpt.usage(run).saves[-1]
    file = max(newest.glob("*.safetensors"))
    os.link(file, run.parent / "kept")
    after = elementsckpt.usage(run).saves[-1]
    assert after.bytes_freed == before.bytes_freed - file.stat().st_size
    assert after.bytes_only_here == before.bytes_only_here


def test_a_damaged_save_counts(run):
    newest = elementsckpt.info(run).path
    (newest / "manifest.json").write_text("{}")
    save = elementsckpt.usage(run).saves[-1]
    assert (save.path, save.sequence) == (newest, None)
    assert save.bytes_written + save.bytes_linked == disk_bytes(newest)


def test_without_saves_it_says_what_is_there(tmp_path):
    with pytest.raises(SaveNotFoundError, match="the folder is empty"):
        elementsckpt.usage(tmp_path)
