"""Addresses such as DIR@best, wherever the path of a save is expected."""

import shutil

import pytest

import elementsckpt
from elementsckpt import Checkpoint, Keep, SaveNotFoundError, Value

from support.boxes import load_agent


@pytest.fixture
def run(tmp_path):
    """Return a directory of five saves, the third the best, the second pinned."""
    directory = tmp_path / "run@home" / "ckpt"
    keep = Keep(latest=None, metric="return", best=1)
    cp = Checkpoint(directory, keep=keep, fsync=False)
    for number, value in enumerate([1.0, 2.0, 9.0, float("nan"), 3.0]):
        cp.agent, cp.step = Value({"number": number}), Value(10 * number)
        pin = "paper" if number == 1 else None
        cp.save(metrics={"return": value}, pin=pin)
    return directory


@pytest.mark.parametrize(
    ("address", "number"),
    {
        "@latest": 4,
        "@best": 2,
        "@30": 3,
        "@#1": 0,
        "@pin:paper": 1,
        "@latest~1": 3,
        "@best~2": 0,
        "@pin:paper~0": 1,
    }.items(),
)
def test_an_address_means_one_save(run, address, number):
    path = f"{run}{address}"
    assert elementsckpt.exists(path)
    assert elementsckpt.info(path).sequence == number + 1
    assert elementsckpt.read(path)["agent"] == {"number": number}
    assert load_agent(path) == {"number": number}
    assert elementsckpt.load_pytree(path, {"number": 0}, key="agent") == {
        "number": number
    }


def test_of_one_step_the_newest_is_meant(tmp_path):
    cp = Checkpoint(tmp_path, keep=None, step=7, fsync=False)
    for number in range(2):
        cp.agent = Value(number)
        cp.save()
    assert elementsckpt.read(f"{tmp_path}@7")["agent"] == 1


def test_a_path_that_exists_wins(run):
    copy = run.parent / f"{run.name}@latest"
    shutil.copytree(sorted(run.iterdir())[0], copy)
    assert elementsckpt.info(copy).sequence == 1


@pytest.mark.parametrize(
    ("address", "said"),
    {
        "@35": "Choose one of the nearest: 0, 10, 20, 30, 40.",
        "@#9": "Choose one of the nearest: #1, #2, #3, #4, #5.",
        "@pin:papers": "Choose one of the pins there: paper.",
        "@latest~5": ": 4 before",
        "@bset": "'bset' is not an address; is it 'best'",
        "@pn:paper": "is it 'pin:paper'",
        "@1,0": "is not an address",
        "@newest": "is not an address. Choose latest, best, a step",
        "@": "is not an address. Choose latest, best, a step",
        "@~1": "is not an address. Choose latest, best, a step",
    }.items(),
)
def test_an_address_without_a_save_names_what_is_near(run, address, said):
    with pytest.raises(SaveNotFoundError) as error:
        elementsckpt.info(f"{run}{address}")
    assert said in str(error.value)
    assert not elementsckpt.exists(f"{run}{address}")


def test_an_address_in_an_empty_directory_says_what_is_there(tmp_path):
    with pytest.raises(SaveNotFoundError, match="the folder is empty"):
        elementsckpt.info(f"{tmp_path}@latest")


def test_no_best_without_a_ranking_or_a_finite_metric(tmp_path):
    cp = Checkpoint(tmp_path, keep=None, fsync=False)
    cp.agent = Value(1)
    cp.save()
    with pytest.raises(SaveNotFoundError, match="has a finite metric"):
        elementsckpt.info(f"{tmp_path}@best")
    cp.save(metrics={"return": 1.0})
    with pytest.raises(SaveNotFoundError, match="records what is best"):
        elementsckpt.info(f"{tmp_path}@best")


def test_a_step_may_be_given_as_it_is_shown(tmp_path):
    cp = Checkpoint(tmp_path, keep=None, fsync=False)
    cp.step = elementsckpt.Counter()
    for step in (2700, 1_234_567, -1000):
        cp.step.value = step
        cp.save()
        assert elementsckpt.info(f"{tmp_path}@{step:,}").step == step
