"""What the command line does when something is in its way, and how it looks."""

import configparser
import importlib.metadata
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, Counter, Keep, Value
from elementsckpt.cli.main import main
from elementsckpt.storage.local import LocalStore

from support.boxes import environment
from support.folders import flip_block

ROOT = pathlib.Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "elementsckpt"]


def make(path, *, mode="max", count=3):
    keep = Keep(latest=None, best=1, metric="score", mode=mode)
    cp = Checkpoint(path, keep=keep, fsync=False)
    cp.step = Counter()
    for number in range(count):
        cp.step.value = 1000 * number
        cp.agent = Value({"b": {"x": np.ones(9) * number}, "a": 1, "c": number})
        cp.save(metrics={"loss": number, "score": -number})
    return path


@pytest.fixture
def run(tmp_path):
    return make(tmp_path / "run")


@pytest.fixture
def call(capsys):
    def run(*arguments):
        status = main([str(x) for x in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.mark.parametrize(("mode", "arrow"), [("max", "↑"), ("min", "↓")])
def test_ls_shows_first_which_metric_decides_and_what_is_better(
    tmp_path, call, mode, arrow
):
    _, out, _ = call("ls", make(tmp_path, mode=mode))
    titles = out.splitlines()[1]
    assert titles.index(f"score {arrow}") < titles.index("loss")
    assert "loss ↑" not in titles
    assert "loss ↓" not in titles


def test_ls_shows_no_arrow_where_nothing_is_best(tmp_path, call):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.agent = Value(1)
    cp.save(metrics={"score": 1})
    _, out, _ = call("ls", tmp_path)
    assert "score" in out
    assert "↑" not in out


def test_tree_has_guides_and_each_name_once(run, call):
    _, out, _ = call("tree", run)
    lines = [line.split("  ")[0] for line in out.splitlines()[3:]]
    assert [x for x in lines if x] == ["step", "agent", "├─ b", "│", "├─ a", "└─ c"]
    assert "│  └─ x" in out


def test_verify_names_a_damaged_file_once(run, call):
    flip_block(elementsckpt.info(run).path, 0, key="agent")
    status, out, _ = call("verify", run)
    assert status == 1
    assert out.count(".safetensors") == 1
    assert "is damaged between bytes" in out


@pytest.mark.parametrize(
    "arguments",
    [["stats", "{run}"], ["cat", "{run}", "agent/b/x"], ["export", "{run}", "{out}"]],
)
def test_what_needs_damaged_bytes_ends_with_2(run, call, tmp_path, arguments):
    flip_block(elementsckpt.info(run).path, 0, key="agent")
    out = tmp_path / "out.npz"
    status, shown, error = call(*(x.format(run=run, out=out) for x in arguments))
    assert (status, shown) == (2, "")
    assert "damaged" in error
    assert "Traceback" not in error
    assert not out.exists()


def test_ls_looks_at_a_directory_once(run, call, monkeypatch):
    """So its rows agree, whatever others do there meanwhile."""
    looks, names = [], LocalStore.names
    monkeypatch.setattr(
        LocalStore, "names", lambda self: looks.append(self.path) or names(self)
    )
    assert call("ls", run)[0] == 0
    assert looks == [run]


@pytest.mark.parametrize("verb", ["ls", "du", "verify", "stats", "tree"])
def test_a_save_that_goes_meanwhile_is_no_error(run, call, monkeypatch, verb):
    cp, names = Checkpoint(run, keep=None, fsync=False), LocalStore.names
    gone = [cp.saves()[0].path]

    def names_and_remove(self):
        found = names(self)
        while gone:
            cp.delete(gone.pop())
        return found

    monkeypatch.setattr(LocalStore, "names", names_and_remove)
    status, out, error = call(verb, run)
    assert (status, error) == (0, "")
    assert out


@pytest.mark.slow
def test_a_thousand_saves_are_a_thousand_rows(tmp_path, call):
    cp = Checkpoint(tmp_path, keep=None, fsync=False)
    cp.agent = Value(1)
    for _ in range(1000):
        cp.save()
    status, out, _ = call("ls", tmp_path)
    assert status == 0
    assert len(out.splitlines()) == 1002


def test_an_array_to_a_closed_pipe_is_141(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.agent = Value({"w": np.ones(1_000_000)})
    cp.save()
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "cat", tmp_path, "agent/w", "--npy"],
        env=environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_interrupt_is_130_and_silent(run):
    watching = subprocess.Popen(
        [*COMMAND, "watch", run],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, error = watching.communicate()
    assert (watching.returncode, error) == (130, b"")


def test_a_command_of_watch_that_fails_is_told_and_watching_goes_on(run):
    command = [*COMMAND, "watch", run, "--exec", f"{sys.executable} -c 'raise OSError'"]
    watching = subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout.readline().startswith("#3")
    while (line := watching.stderr.readline()) and "ended with 1." not in line:
        pass
    assert line
    cp = Checkpoint(run, keep=None, fsync=False)
    cp.agent = Value(1)
    cp.save()
    assert watching.stdout.readline().startswith("#4")
    watching.send_signal(signal.SIGINT)
    watching.communicate()


def test_a_command_of_watch_that_is_not_there_is_2(run):
    command = [*COMMAND, "watch", run, "--exec", "no-such-command"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert "cannot run no-such-command" in done.stderr


def test_watch_waits_for_a_directory_and_says_so(tmp_path):
    command = [*COMMAND, "watch", tmp_path / "later"]
    watching = subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = watching.stderr.readline()
    assert line == f"elementsckpt: waiting for the first save in {tmp_path}/later.\n"
    make(tmp_path / "later", count=1)
    assert watching.stdout.readline().startswith("#1")
    watching.send_signal(signal.SIGINT)
    watching.communicate()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("ls {run} >&-", 2, "cannot print: standard output is closed."),
        ("--help >&-", 2, "cannot print: standard output is closed."),
        ("tree {run} >&- 2>&-", 2, ""),
        ("tree {run} 2>&-", 0, ""),
        ("cat {run} agent/a 2>&-", 0, ""),
        ("rm {run}@0 <&-", 2, "pass --yes to remove, or -n"),
    ],
)
def test_streams_that_are_closed(run, words, status, said):
    line = f'"{sys.executable}" -m elementsckpt {words.format(run=run)}'
    done = subprocess.run(
        line, shell=True, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert bool(done.stdout) == (status == 0)


def test_a_dumb_terminal_and_a_pipe_have_no_colours(run):
    done = subprocess.run(
        [*COMMAND, "ls", run], env=environment(TERM="dumb"), capture_output=True
    )
    assert b"\x1b" not in done.stdout


@pytest.mark.parametrize("words", [["rm", "{run}@0"], ["prune", "{run}", "--latest=1"]])
def test_what_the_disk_does_not_remove_is_2(run, call, monkeypatch, words):
    monkeypatch.setattr(LocalStore, "remove", lambda self, name, **_: False)
    status, out, _ = call(*(x.format(run=run) for x in words), "--yes")
    assert status == 2
    assert "Removed 0 saves, 0 B freed." in out


def test_the_nearest_names_are_in_errors(run, call):
    for words, expected in [
        (["tree", f"{run}@1500"], "1000, 2000"),
        (["tree", f"{run}@pin:x"], "No save there is pinned"),
        (["cat", run, "agent/bb"], "agent/b/x"),
        (["stats", run, "-r", "nothing"], "agent/"),
    ]:
        status, out, error = call(*words)
        assert (status, out) == (2, ""), words
        assert expected in error


def test_a_program_is_installed_that_is_the_command_line():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    (line,) = config["options.entry_points"]["console_scripts"].strip().splitlines()
    found = importlib.metadata.EntryPoint(*line.split(" = "), "console_scripts")
    assert (found.name, found.load()) == ("elementsckpt", main)
