"""`follow` yields the saves of a run as they come, also while it prunes them."""

import itertools
import subprocess
import sys
import threading

import pytest

import elementsckpt
from elementsckpt import SaveNotFoundError
from elementsckpt.inspection import following

from support.boxes import environment, make_boxes


@pytest.fixture
def cp(tmp_path):
    return make_boxes(tmp_path / "run", keep=None, box=1)


def test_it_begins_with_the_newest_and_goes_on(cp, tmp_path):
    cp.save()
    cp.save()
    found = elementsckpt.follow(tmp_path / "run", poll_s=0.001, timeout_s=60)
    assert next(found).sequence == 2
    cp.save()
    cp.save()
    assert next(found).sequence == 4


def test_with_every_it_leaves_none_out(cp, tmp_path):
    cp.save()
    cp.save()
    found = elementsckpt.follow(tmp_path / "run", every=True, poll_s=0.001)
    assert [x.sequence for x in itertools.islice(found, 2)] == [1, 2]
    cp.save()
    cp.save()
    assert [x.sequence for x in itertools.islice(found, 2)] == [3, 4]


def test_it_ends_when_nothing_new_came_for_so_long(cp, tmp_path):
    assert list(elementsckpt.follow(tmp_path / "later", timeout_s=0)) == []
    cp.save()
    found = elementsckpt.follow(tmp_path / "run", timeout_s=0, poll_s=0)
    assert [x.sequence for x in found] == [1]


def test_the_directory_may_come_later(cp, tmp_path):
    found = elementsckpt.follow(tmp_path / "run", poll_s=0.001)
    thread = threading.Timer(0.05, cp.save)
    thread.start()
    assert next(found).sequence == 1
    thread.join()


def test_damaged_and_unfinished_saves_are_passed_over(cp, tmp_path):
    cp.save()
    damaged = cp.save().path
    (damaged / "manifest.json").write_text("{}")
    (tmp_path / "run" / "20260101T000000F000000").mkdir()
    found = elementsckpt.follow(tmp_path / "run", every=True, timeout_s=0, poll_s=0)
    assert [x.sequence for x in found] == [1]


TRAINING = """
import sys, elementsckpt
cp = elementsckpt.Checkpoint(sys.argv[1], keep=1, fsync=False)
cp.number = elementsckpt.Counter()
for number in range(60):
    cp.number.value = number
    cp.save()
"""


def test_it_follows_another_process_that_prunes(tmp_path):
    training = subprocess.Popen(
        [sys.executable, "-c", TRAINING, tmp_path], env=environment()
    )
    last = 0
    for info in elementsckpt.follow(tmp_path, poll_s=0.001, timeout_s=60):
        assert info.sequence > last
        last = info.sequence
        if last == 60:
            break
    assert training.wait() == 0


@pytest.mark.parametrize("options", [{"timeout_s": -1}, {"poll_s": "1"}, {"every": 3}])
def test_arguments_are_checked_at_once(tmp_path, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}="):
        elementsckpt.follow(tmp_path, **options)


def test_what_is_watched_is_the_newest_and_then_each(cp, tmp_path):
    cp.save()
    cp.save()
    found = following.watch(following.checked(tmp_path / "run"))
    assert next(found).sequence == 2
    cp.save()
    cp.save()
    cp.save()
    assert [x.sequence for x in itertools.islice(found, 3)] == [3, 4, 5]


def test_what_is_no_directory_is_refused_at_once(cp, tmp_path):
    save = cp.save().path
    (tmp_path / "file").touch()
    with pytest.raises(SaveNotFoundError, match="is a file: pass the directory"):
        elementsckpt.follow(tmp_path / "file")
    with pytest.raises(ValueError, match="is a save: pass the directory"):
        elementsckpt.follow(save)
    with pytest.raises(SaveNotFoundError, match="is not an address"):
        elementsckpt.follow(f"{tmp_path}/run@bset")
