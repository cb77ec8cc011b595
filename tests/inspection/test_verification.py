"""`verify` reads every byte once, and names file, range and leaves of damage."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

import elementsckpt
from elementsckpt import (
    Checkpoint,
    Files,
    MissingKeyError,
    ReadError,
    SaveNotFoundError,
)
from elementsckpt.cli.main import main
from elementsckpt.inspection import verification

from support.boxes import Box, Stream, environment, make_boxes
from support.faults import use_small_segments
from support.folders import component_of, flip, flip_block, inodes_of, noise


def write(folder):
    (folder / "weights.bin").write_bytes(bytes(range(100)))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a directory of three saves that link to each other, of all components."""
    use_small_segments(monkeypatch.setattr)
    cp = make_boxes(tmp_path / "run", keep=None, agent=None, compress=None)
    cp.replay = Stream([noise(n, 9000) for n in range(2)])
    cp.policy = Files(save=write, load=list)
    for number in range(3):
        table = noise(7, 50_000)
        table[number] = 0
        cp.agent.state = {"w": table, "small": np.arange(50.0) + number, "n": number}
        cp.save()
    return tmp_path / "run"


@pytest.fixture
def refusing(monkeypatch):
    """Return a function: the system then refuses to open files of these names."""

    def refuse(*names):
        real = os.open

        def opened(path, *args, **options):
            if str(path).endswith(names):
                raise PermissionError(errno.EACCES, "Permission denied")
            return real(path, *args, **options)

        monkeypatch.setattr(os, "open", opened)

    return refuse


def saves(run):
    return [info.path for info in elementsckpt.saves(run)]


def test_good_saves_are_good_and_each_byte_is_read_once(run):
    report = elementsckpt.verify(run)
    assert report.is_good
    assert [x.is_good for x in report.saves] == [True] * 3
    assert [x.sequence for x in report.saves] == [1, 2, 3]
    assert report.newest_good == saves(run)[-1]
    assert report.bytes_read <= elementsckpt.usage(run).bytes_on_disk
    alone = elementsckpt.verify(saves(run)[0])
    assert report.bytes_read < 2 * alone.bytes_read


def test_a_flipped_bit_is_named_with_range_and_leaves(run):
    newest = saves(run)[-1]
    file = flip_block(newest, 0, key="agent")
    offset, size = component_of(newest)["blocks"][0][1:3]
    report = elementsckpt.verify(newest)
    (check,) = report.saves
    (problem,) = check.problems
    assert not report.is_good
    assert report.newest_good is None
    assert (problem.file, problem.offset, problem.size_bytes) == (
        file.name,
        offset,
        size,
    )
    assert problem.leaves == ("agent/small",)


def test_what_several_saves_link_to_damages_each(run):
    first, *others = saves(run)
    linked = inodes_of(first).items()
    shared = [x for x in linked if all(x in inodes_of(y).items() for y in others)]
    flip(first / shared[0][0], component_of(first)["blocks"][0][1])
    assert [x.is_good for x in elementsckpt.verify(run).saves] == [False] * 3


def test_a_missing_file_has_all_its_leaves(run):
    newest = saves(run)[-1]
    segment = min(newest.glob("*.safetensors"))
    size = segment.stat().st_size
    segment.unlink()
    (problem,) = elementsckpt.verify(newest).saves[0].problems
    assert (problem.file, problem.offset, problem.size_bytes) == (segment.name, 0, size)
    assert problem.leaves


def test_files_of_components_are_verified(run):
    newest = saves(run)[-1]
    flip(next(newest.glob("policy.files/*")))
    (problem,) = elementsckpt.verify(newest).saves[0].problems
    assert problem.file == "policy.files/weights.bin"
    assert problem.leaves == ("policy/weights.bin",)


def test_a_damaged_manifest_is_a_problem_and_the_rest_goes_on(run):
    newest = saves(run)[-1]
    manifest = newest / "manifest.json"
    manifest.write_text(manifest.read_text("utf-8")[:-40], "utf-8")
    report = elementsckpt.verify(run)
    check = report.saves[-1]
    assert check.sequence is None
    assert [x.file for x in check.problems] == ["manifest.json"]
    assert report.newest_good == saves(run)[-2]


def test_only_chosen_components_are_read(run):
    flip_block(saves(run)[-1], 0, key="agent")
    assert elementsckpt.verify(saves(run)[-1], keys=["replay", "policy"]).is_good
    with pytest.raises(MissingKeyError):
        elementsckpt.verify(run, keys=["actor"])
    with pytest.raises(ValueError, match="keys is a list"):
        elementsckpt.verify(run, keys="agent")
    with pytest.raises(SaveNotFoundError):
        elementsckpt.verify(run.parent)


def test_dead_data_of_earlier_saves_is_no_problem(tmp_path, monkeypatch):
    use_small_segments(monkeypatch.setattr)
    table = noise(1, 9000)
    cp = make_boxes(tmp_path, keep=None, agent={"a": table}, compress=None)
    first = cp.save().path
    offset = component_of(first)["blocks"][0][1]
    table[0] ^= 1
    newest = cp.save().path
    (linked,) = inodes_of(first).items() & inodes_of(newest).items()
    flip(newest / linked[0], offset)
    assert [x.is_good for x in elementsckpt.verify(tmp_path).saves] == [False, True]


SCRIPT = """
import resource, sys, elementsckpt
elementsckpt.verify(sys.argv[2])  # What is imported and opened once.
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert elementsckpt.verify(sys.argv[1]).is_good
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_it_takes_at_most_64_mb(tmp_path):
    for name, size in (("large", 120), ("small", 1)):
        cp = Checkpoint(tmp_path / name, fsync=False, compress=None)
        cp.agent = Box(noise(3, size << 20))
        cp.save()
    grown_kib = int(
        subprocess.run(
            [sys.executable, "-c", SCRIPT, tmp_path / "large", tmp_path / "small"],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert grown_kib <= 64 << 10


def test_a_damaged_header_that_components_share_is_one_problem(tmp_path):
    cp = make_boxes(tmp_path, a=noise(1, 5000), b=noise(2, 5000))
    save = cp.save().path
    (segment,) = save.glob("*.safetensors")
    flip(segment, 20)
    (found,) = elementsckpt.verify(tmp_path).saves
    (problem,) = found.problems
    assert problem.offset == 0
    assert {name.split("/")[0] for name in problem.leaves} == {"a", "b"}


@pytest.mark.parametrize(
    "file", ["agent-000002-00000.safetensors", "policy.files/weights.bin"]
)
def test_a_file_that_cannot_be_read_is_a_problem_and_the_rest_is_verified(
    run, refusing, file
):
    first, second, _ = saves(run)
    if file.startswith("policy"):
        file = f"{second.name}/{file}"
    refusing(file)
    report = elementsckpt.verify(run)
    assert len(report.saves) == 3
    assert report.saves[0].is_good
    assert not report.saves[1].is_good
    problem = report.saves[1].problems[0]
    assert problem.is_unread
    assert problem.leaves
    assert "Permission denied" in problem.reason
    assert "not read" in repr(problem)
    assert "damaged or not read" in repr(report)
    assert "is_unread" not in problem.to_dict()
    assert "The save itself may be fine" in problem.to_dict()["reason"]
    assert report.newest_good in (first, saves(run)[2])


def test_a_manifest_that_cannot_be_read_is_a_problem(run, refusing, capsys):
    newest = saves(run)[-1]
    refusing(f"{newest.name}/manifest.json")
    last = elementsckpt.verify(run).saves[-1]
    assert [x.is_unread for x in last.problems] == [True]
    assert main(["ls", str(run)]) == 0
    assert "unreadable" in capsys.readouterr().out


def test_a_block_that_cannot_be_read_is_a_problem(run, monkeypatch):
    def refuse(*_):
        raise ReadError("Cannot read it.")

    monkeypatch.setattr(verification, "read_block", refuse)
    report = elementsckpt.verify(run)
    assert all(x.is_unread for save in report.saves for x in save.problems)
    assert report.newest_good is None


def test_verify_goes_on_after_what_cannot_be_read(run, tmp_path, refusing, capsys):
    refusing("agent-000002-00000.safetensors")
    none = tmp_path / "none"
    first = saves(run)[0]
    assert main(["verify", str(none), str(first)]) == 2
    out, err = capsys.readouterr()
    assert str(none) in err
    assert "Nothing is damaged." in out
    assert main(["verify", str(run)]) == 2
    out, _ = capsys.readouterr()
    assert "cannot be read, and may be good." in out
    assert "Of what can be read, nothing is damaged." in out
    assert "not read: agent/" in out
    flip_block(first, 0, key="replay")
    assert main(["verify", str(run), str(first)]) == 2
    assert "is damaged between bytes" in capsys.readouterr().out
    assert main(["verify", str(first)]) == 1
