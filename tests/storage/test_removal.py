"""Old saves go after a new one: whatever keeps them from it only warns."""

import errno
import os
import shutil

import numpy as np
import pytest

from support.boxes import make_boxes


@pytest.mark.parametrize("refused", [os.unlink, os.rmdir, os.replace])
@pytest.mark.parametrize("background", [False, True])
def test_a_cleanup_that_fails_only_warns(
    tmp_path, inject, warnings, refused, background
):
    cp = make_boxes(tmp_path, agent=np.zeros(3), background=background)
    old = cp.save().path
    cp.wait()

    def refuse(call, *args):
        if call is refused and old.name in str(args[0]):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return call(*args)

    inject(refuse)
    cp.agent.state = np.ones(3)
    report = cp.save()
    cp.wait()
    assert old.name in warnings.text
    again = make_boxes(tmp_path, agent=None)
    assert again.load().path == report.path
    assert again.agent.state.tolist() == [1, 1, 1]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [os.replace, os.unlink, os.rmdir])
@pytest.mark.parametrize("background", [False, True])
def test_an_old_save_may_vanish_under_the_cleanup(
    tmp_path, inject, step, when, background
):
    cp = make_boxes(tmp_path, agent=np.zeros(3), background=background)
    old = cp.save().path
    cp.wait()
    vanished = []

    def vanish():
        for folder in tmp_path.glob(f"*{old.name}"):
            shutil.rmtree(folder)
        vanished.append(old)

    def interleave(call, *args):
        is_step = call is step and old.name in str(args[0]) and not vanished
        if is_step and when == "before":
            vanish()
        result = call(*args)
        if is_step and when == "after":
            vanish()
        return result

    inject(interleave)
    report = cp.save()
    cp.wait()
    assert vanished
    assert make_boxes(tmp_path, agent=None).load().path == report.path
    assert {p.name for p in tmp_path.iterdir()} == {"latest", report.path.name}


def test_a_save_that_cannot_be_listed_when_it_is_to_go_only_warns(
    tmp_path, inject, warnings, monkeypatch
):
    def refuse(path):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    def revoke(call, *args):
        result = call(*args)
        if call is os.replace and args[1].name == "latest":
            monkeypatch.setattr(os, "listdir", refuse)
        return result

    old = make_boxes(tmp_path, agent=1).save().path
    cp = make_boxes(tmp_path, agent=2)  # Another object must list it.
    inject(revoke)
    path = cp.save().path
    monkeypatch.undo()
    assert str(old) in warnings.text
    assert make_boxes(tmp_path, agent=None).load().path == path


def listed_by(monkeypatch, call):
    """Return the names of the folders that a call lists."""
    found = []
    list_of = {name: getattr(os, name) for name in ("listdir", "scandir")}
    with monkeypatch.context() as patch:
        for name, listing in list_of.items():

            def noting(path, listing=listing):
                found.append(os.path.basename(path))
                return listing(path)

            patch.setattr(os, name, noting)
        call()
    return found


def test_a_save_of_this_object_is_removed_without_a_listing(tmp_path, monkeypatch):
    cp = make_boxes(tmp_path, agent=np.zeros(3), other=np.ones(1_000_000))
    cp.save()
    for _ in range(3):
        cp.agent.state = cp.agent.state + 1
        assert listed_by(monkeypatch, cp.save) == [tmp_path.name] * 2
        assert len(cp.saves()) == 1
    assert {x.name for x in tmp_path.iterdir()} == {"latest", cp.latest().name}


def test_one_of_another_object_is_listed(tmp_path, monkeypatch):
    old = make_boxes(tmp_path, agent=np.zeros(3)).save().path
    cp = make_boxes(tmp_path, agent=np.ones(3))
    assert listed_by(monkeypatch, cp.save) == [*[tmp_path.name] * 2, old.name]
    assert not old.exists()


def test_segments_that_are_gone_or_unknown_keep_no_save_from_its_removal(tmp_path):
    cp = make_boxes(tmp_path, agent=np.zeros(3))
    old = cp.save().path
    (segment,) = old.glob("*.safetensors")
    segment.rename(old / "x-000001-00007.safetensors")
    (old / "x-000001.files").mkdir()
    cp.agent.state = np.ones(3)
    cp.save()
    assert {x.name for x in tmp_path.iterdir()} == {"latest", cp.latest().name}


def test_files_that_people_put_into_a_save_stay_where_they_were(tmp_path, warnings):
    cp = make_boxes(tmp_path, agent=np.zeros(3))
    old = cp.save().path
    (old / "notes.txt").write_text("mine")
    newest = cp.save().path
    assert [file.name for file in old.iterdir()] == ["notes.txt"]
    assert (old / "notes.txt").read_text() == "mine"
    assert str(old) in warnings.text
    cp.save()
    assert (old / "notes.txt").read_text() == "mine"
    assert not newest.exists()
