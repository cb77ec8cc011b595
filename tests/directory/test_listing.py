"""Which saves there are, while others save and prune, and after crashes."""

import functools
import os
import shutil

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint
from elementsckpt.storage import files, folders
from elementsckpt.storage.segments import SaveFolder

from support import boxes
from support.boxes import make_boxes
from support.folders import forge


def make(directory, keep=None, **options):
    cp = Checkpoint(directory, keep=keep, fsync=False, **options)
    cp.step = elementsckpt.Counter()
    cp.box = boxes.Box(0)
    return cp


def save(cp, step, **about):
    cp.step.load(step)
    return cp.save(**about).path


def steps(cp):
    return [info.step for info in cp.saves()]


def test_what_is_being_removed_is_no_save_any_more(tmp_path):
    cp = make(tmp_path)
    first, second = save(cp, 1), save(cp, 2)
    os.rename(second, second.with_name(f".{second.name}"))
    cp = make(tmp_path)
    assert cp.latest() == first
    assert steps(cp) == [1]
    with pytest.raises(ValueError, match="only complete save"):
        cp.delete(step=1)
    assert cp.load().path == first
    save(cp, 3)
    assert sorted(boxes.visible(tmp_path)) == sorted(
        ["latest", first.name, cp.latest().name]
    )
    assert not second.with_name(f".{second.name}").exists()


@pytest.fixture
def meanwhile(monkeypatch):
    """Returns a function that has something done just after folders are listed."""

    def arrange(action, times=1):
        left = [action] * times
        original = folders.folders_in

        def folders_in(path):
            found = original(path)
            if left:
                left.pop()()
            return found

        monkeypatch.setattr(folders, "folders_in", folders_in)

    return arrange


@pytest.mark.parametrize("times", [1, 3])
def test_a_listing_during_a_save_that_prunes_is_never_empty(tmp_path, meanwhile, times):
    trainer = make(tmp_path, keep=1)
    save(trainer, 1)
    numbers = iter(range(2, 100))
    nested = []

    def go_on():
        if not nested:  # Saving lists, too.
            nested.append(1)
            save(trainer, next(numbers))
            nested.clear()

    for call in (
        lambda: elementsckpt.exists(tmp_path),
        lambda: elementsckpt.read(tmp_path),
        lambda: Checkpoint(tmp_path).latest(),
        lambda: Checkpoint(tmp_path).saves(),
        lambda: make(tmp_path).load_or_save(),
    ):
        meanwhile(go_on, times)
        assert call()


def test_a_removed_save_of_a_link_is_left_alone(tmp_path):
    cp = make(tmp_path / "ckpt", keep=1)
    path = save(cp, 1)
    moved = path.rename(tmp_path / "moved")
    path.symlink_to(moved)
    save(cp, 2)
    save(cp, 3)
    assert (moved / "manifest.json").exists()
    assert path.is_symlink()


def test_a_save_of_some_does_not_keep_a_run_from_resuming(tmp_path, caplog):
    cp = make(tmp_path, keep=1)
    full = save(cp, 1)
    save(cp, 2, keys=["step"])
    resumed = make(tmp_path, keep=1)
    assert resumed.load_or_save()
    assert resumed.step == 1
    assert "lacks some of the components" in caplog.text
    only = Checkpoint(tmp_path)
    only.step = elementsckpt.Counter()
    only.load(keys=["step"])
    assert only.step == 2
    assert Checkpoint(tmp_path).prune() == []
    assert full.exists()


def test_a_process_that_does_not_write_removes_nothing(tmp_path):
    cp = make(tmp_path)
    for step in range(3):
        save(cp, step)
    other = make(tmp_path, keep=1, write=False)
    assert other.prune() == []
    assert other.delete(step=1) == []
    assert steps(cp) == [0, 1, 2]


def test_a_save_is_deleted_through_any_path_to_it(tmp_path):
    cp = make(tmp_path / "ckpt")
    for step in range(3):
        save(cp, step)
    (tmp_path / "link").symlink_to(tmp_path / "ckpt")
    path = cp.saves()[0].path
    assert cp.delete(tmp_path / "link" / path.name) == [path]
    assert steps(cp) == [1, 2]


def test_a_misspelled_pin_is_told_which_there_are(tmp_path):
    cp = make(tmp_path)
    save(cp, 1, pin="before-finetune")
    with pytest.raises(FileNotFoundError, match="near it are 'before-finetune'"):
        cp.load("before-finetunig")
    assert cp.exists("before-finetune")
    assert not cp.exists("before-finetunig")


def test_functional_values_are_compared_before_anything_is_loaded(tmp_path):
    import numpy as np

    value = elementsckpt.Value({"w": np.ones(2)})
    box = boxes.Box(1)
    fns = {"a": box.save, "s": value.save}
    elementsckpt.checkpoint.save(tmp_path / "save", fns)
    other, template = boxes.Box(0), elementsckpt.Value({"w": np.ones(3)})
    with pytest.raises(ValueError, match="s/w"):
        elementsckpt.checkpoint.load(
            tmp_path / "save", {"a": other.load, "s": template.load}
        )
    assert other.state == 0
    fitting = elementsckpt.Value({"w": np.zeros(2)})
    fns = {"a": other.load, "s": fitting.load}
    elementsckpt.checkpoint.load(tmp_path / "save", fns)
    assert fitting.value["w"].tolist() == [1, 1]


def test_a_save_that_was_moved_and_linked_back_is_found_and_stays(tmp_path):
    directory, elsewhere = tmp_path / "ckpt", tmp_path / "archive"
    save = make_boxes(directory, agent=5).save().path
    shutil.move(save, elsewhere)
    save.symlink_to(elsewhere)
    cp = make_boxes(directory, agent=None)
    assert cp.load_or_save()
    assert cp.agent.state == 5
    for _ in range(3):
        cp.save()
    assert save.is_symlink()
    assert elementsckpt.info(elsewhere).sequence == 1
    assert elementsckpt.info(directory).sequence == 4
    assert (elsewhere / "manifest.json").exists()


@pytest.mark.parametrize("sequence", [(1 << 52) - 1, 1 << 52, (1 << 53) - 1])
def test_a_copy_with_a_huge_sequence_does_not_stop_the_run(tmp_path, sequence):
    same = np.random.default_rng(0).bytes(200_000)
    cp = make_boxes(tmp_path, keep=2, agent=(0, same))
    copy = tmp_path / "copy"
    shutil.copytree(cp.save().path, copy)
    forge(copy, lambda x: x.update(sequence=sequence))
    for number in range(1, 4):
        cp.agent.state = (number, same, np.full(3, number))
        path = cp.save().path
        again = make_boxes(tmp_path, agent=None)
        again.load(path)
        assert again.agent.state[:2] == (number, same)
        again.load()
        assert again.agent.state[:2] == (number, same)


def test_a_link_to_a_save_that_is_not_there_never_means_a_fresh_start(tmp_path):
    cp = make_boxes(tmp_path / "ckpt", agent=1)
    path = cp.save().path
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "unmounted")
    with pytest.raises(elementsckpt.DamagedError, match="link to a folder that is not"):
        make_boxes(tmp_path / "ckpt", agent=2).load_or_save()


# What a verb looks at


@pytest.fixture
def opened(monkeypatch):
    """Return a list that gets the folder of each manifest that is opened."""
    folders, file = [], files.File

    class Noted(file):
        def __init__(self, path, **options):
            super().__init__(path, **options)
            if self.path.name == "manifest.json":
                folders.append(self.path.parent)

    monkeypatch.setattr(files, "File", Noted)
    return folders


SPELLINGS = {
    "path": lambda path: path,
    "text": str,
    "text with a slash": lambda path: f"{path}/",
    "name": lambda path: path.name,
}
VERBS = {
    "load": lambda cp, path: cp.load(path),
    "load of a part": lambda cp, path: cp.load(path, regex=".*", keys=["box"]),
    "dry run": lambda cp, path: cp.load(path, dry_run=True),
    "copy_of": lambda cp, path: cp.copy_of("box", path),
    "exists": lambda cp, path: cp.exists(path),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("verb", VERBS)
def test_a_save_that_is_named_is_the_only_one_that_is_opened(
    tmp_path, monkeypatch, opened, verb, spelling
):
    cp = make(tmp_path)
    paths = [save(cp, step) for step in range(5)]
    monkeypatch.chdir(tmp_path)
    cp = make(tmp_path)
    opened.clear()
    assert VERBS[verb](cp, SPELLINGS[spelling](paths[1]))
    assert {folder.resolve() for folder in opened} == {paths[1]}


def test_a_pin_is_found_by_its_name_whatever_else_is_there(tmp_path, monkeypatch):
    cp = make(tmp_path)
    save(cp, 1, pin="good")
    save(cp, 2)
    monkeypatch.chdir(tmp_path)
    assert make(tmp_path).load("good").step == 1
    with pytest.raises(elementsckpt.SaveNotFoundError, match="near it are 'good'"):
        make(tmp_path).load("goo")


@pytest.fixture
def looks(monkeypatch):
    """The names of the saves whose manifests were looked for, in order."""
    found = []
    original = SaveFolder.signature

    def signature(self):
        found.append(self.path.name)
        return original(self)

    monkeypatch.setattr(SaveFolder, "signature", signature)
    return found


def test_what_else_is_beside_the_saves_costs_no_second_look(tmp_path, looks):
    cp = make(tmp_path)
    old = save(cp, 1).name
    (tmp_path / "tensorboard").mkdir()
    looks.clear()
    save(cp, 2)
    assert looks.count(old) == 1


def test_a_save_looks_at_no_more_saves_if_there_are_more(tmp_path, looks):
    cp = make(tmp_path)
    counts = []
    for step in range(100):
        looks.clear()
        save(cp, step)
        counts.append(len(looks))
    assert counts[-1] == counts[50] < 50


def test_what_others_change_in_old_saves_is_seen(tmp_path):
    cp = make(tmp_path)
    paths = [save(cp, step) for step in range(50)]
    (paths[3] / "manifest.json").write_bytes(b"damaged")
    shutil.rmtree(paths[5])
    save(cp, 50)
    expected = [step for step in range(51) if step not in (3, 5)]
    assert steps(cp) == expected


def test_whether_there_is_a_save_is_told_by_one(tmp_path, looks):
    cp = make(tmp_path)
    for step in range(20):
        save(cp, step)
    cp = make(tmp_path)
    for exists in (cp.exists, functools.partial(elementsckpt.exists, tmp_path)):
        looks.clear()
        assert exists()
        assert len(looks) <= 2


def test_a_save_that_others_make_meanwhile_comes_first(tmp_path):
    cp, other = make(tmp_path), make(tmp_path)

    class Slow:
        def save(self):
            save(other, 2)
            return 1

        def load(self, data):
            pass

    (tmp_path / "tensorboard").mkdir()
    cp.slow = Slow()
    save(cp, 1)
    assert steps(cp) == [2, 1]
