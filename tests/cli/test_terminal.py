"""What a terminal, a pipe and a broken pipe get."""

import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest

from elementsckpt import Checkpoint, Keep, Value
from elementsckpt.cli.screen import wrapped
from elementsckpt.cli.verbs import NAMES
from elementsckpt.reports.outline import width

from support.boxes import environment

COMMAND = [sys.executable, "-m", "elementsckpt"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    cp = Checkpoint(directory, keep=None, fsync=False)
    for number in range(3):
        cp.agent = Value({f"layer{n}/漢字": np.ones(9) * number for n in range(30)})
        metrics = {f"metric_{n}": n / 3 for n in range(4)}
        cp.save(metrics=metrics | {"return": float("nan")})
    return directory


def in_terminal(*arguments, columns=80, keys=b"", **variables):
    """Run a command in a terminal; return its status and what was on the screen."""
    main, other = pty.openpty()
    environ = environment(**{"TERM": "xterm", "COLUMNS": str(columns)} | variables)
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env=environ,
        stdin=other,
        stdout=other,
        stderr=other,
    )
    os.close(other)
    if keys:
        os.write(main, keys)
    output = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # The last one has closed the terminal.
            break
        if not part:
            break
        output += part
    os.close(main)
    return process.wait(), output.decode()


def plain(text):
    """Return text without colours."""
    return re.sub(r"\x1b\[\d*m", "", text)


@pytest.mark.parametrize("columns", [46, 80, 100])
@pytest.mark.parametrize(
    "line",
    [
        *("ls {run}", "du {run}", "verify {run}", "doctor {run}"),
        *("tree {run}", "stats {run}", "diff {run}@#1 {run}", "prune {run} -n"),
        *("ls {run}/none", "cat {run} agent/layer/漢", "cat {run} agent/layer1/漢字"),
        *("nonsense", "--help", "diff", *(f"{verb} --help" for verb in NAMES)),
    ],
)
def test_no_line_is_wider_than_the_terminal(run, line, columns):
    words = line.format(run=run).split()
    _, output = in_terminal(*words, columns=columns)
    lines = plain(output).splitlines()
    assert lines
    assert [line for line in lines if width(line) > columns] == []


def test_words_are_not_broken(run):
    _, output = in_terminal("prune", run, columns=46)
    assert plain(output).splitlines()[1].startswith("nothing was removed: pass")
    words = {*plain(in_terminal("prune", "--help", columns=46)[1]).split()}
    assert {"removes;", "elementsckpt", "runs/walker"} <= words


def test_what_is_worth_most_stays(tmp_path):
    keep = Keep(latest=None, best=1, metric="return")
    cp = Checkpoint(tmp_path, keep=keep, fsync=False)
    cp.agent = Value(1)
    cp.save(metrics={"a_long_name_of_a_loss": 1.0, "return": 2.0})
    lines = plain(in_terminal("ls", tmp_path, columns=46)[1]).splitlines()
    assert any("return ↑" in line for line in lines)
    assert "Hidden: new, a_long_name_of_a_loss." in " ".join(lines)


def test_figures_stay_beside_long_values(tmp_path):
    cp = Checkpoint(tmp_path, keep=None, fsync=False)
    for number in range(2):
        rng = np.random.default_rng(number)
        cp.rng, cp.net = Value(rng), Value({"w": np.ones(3) * number})
        cp.save()
    lines = plain(in_terminal("diff", f"{tmp_path}@#1", tmp_path)[1]).splitlines()
    titles = next(line for line in lines if "largest" in line)
    assert {"form", "changed", "rel.", "norm", "largest"} <= {*titles.split()}
    row = next(line for line in lines if "net/w" in line)
    assert row.split()[-4:] == ["100", "%", "inf", "1"]
    assert any("…" in line and "→" in line for line in lines if "state" in line)


def test_nan_and_infinities_stay_where_there_is_little_room(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    values = np.arange(3) / 7 * np.array([1, np.nan, np.inf])
    cp.agent = Value({"params/layer/kernel": values})
    cp.save()
    lines = plain(in_terminal("stats", tmp_path, columns=46)[1]).splitlines()
    titles = next(line for line in lines if line.startswith("leaf"))
    assert titles.split()[:3] == ["leaf", "nan", "inf"]


def test_one_long_name_does_not_take_the_room_of_all(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    long = "x" * 300
    cp.agent = Value({"w": np.ones(3), long: np.ones(3)})
    cp.save()
    lines = plain(in_terminal("tree", tmp_path, columns=80)[1]).splitlines()
    row = next(line for line in lines if " w " in line)
    assert row.split()[-2:] == ["24", "B"]
    assert max(map(len, lines)) <= 80
    assert "".join(lines).count("x") == 300


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("short", ["short"]),
        ("two  words and more", ["two  words", "and more"]),
        ("  indented line of words", ["  indented", "  line of", "  words"]),
        ("averyverylongword", ["averyverylo", "ngword"]),
        ("漢字漢字漢字漢字", ["漢字漢字漢", "字漢字"]),
    ],
)
def test_lines_are_wrapped(line, found):
    assert wrapped(line, 11) == found


def test_columns_that_drop_out_are_named(run):
    _, output = in_terminal("ls", run, columns=30)
    lines = plain(output).splitlines()
    hidden = [line for line in lines if line.startswith("Hidden: ")]
    assert hidden
    assert "latest" in plain(output)


def test_colours_are_for_terminals(run):
    assert "\x1b[" in in_terminal("ls", run)[1]
    assert "\x1b[" not in in_terminal("ls", run, NO_COLOR="1")[1]
    piped = subprocess.run(
        [*COMMAND, "ls", run], env=environment(), capture_output=True
    )
    assert b"\x1b" not in piped.stdout
    forced = subprocess.run(
        [*COMMAND, "ls", run], env=environment(FORCE_COLOR="1"), capture_output=True
    )
    assert b"\x1b[" in forced.stdout


def test_a_pipe_is_never_cut(run):
    narrow = environment(COLUMNS="20")
    piped = subprocess.run([*COMMAND, "ls", run], env=narrow, capture_output=True)
    assert b"metric_3" in piped.stdout


def test_head_ends_it_silently(run):
    script = f"{sys.executable} -m elementsckpt ls {run} --json | head -c 10"
    done = subprocess.run(
        ["bash", "-c", f"{script}; echo ${{PIPESTATUS[0]}} >&2"],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.stderr.strip() in ("0", "141")
    closed = subprocess.run(
        [
            "bash",
            "-c",
            f"{script.replace('head -c 10', 'true')}; exit ${{PIPESTATUS[0]}}",
        ],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert closed.returncode in (0, 141)
    assert closed.stderr == ""


def test_a_full_disk_behind_the_output_is_an_error(run):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "ls", run],
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr == "elementsckpt: cannot print: No space left on device.\n"


def test_what_an_encoding_lacks_is_escaped(run):
    latin = environment(PYTHONIOENCODING="latin-1")
    done = subprocess.run([*COMMAND, "tree", run], env=latin, capture_output=True)
    assert b"\\u6f22\\u5b57" in done.stdout
    done = subprocess.run([*COMMAND, "verify", run], env=latin, capture_output=True)
    assert b"ok #1" in done.stdout
    done = subprocess.run([*COMMAND, "stats", run], env=latin, capture_output=True)
    assert b"\\u258" not in done.stdout


def test_removal_asks_on_a_terminal(tmp_path):
    cp = Checkpoint(tmp_path, keep=None, fsync=False)
    cp.agent = Value(1)
    for _ in range(3):
        cp.save()
    status, output = in_terminal("prune", tmp_path, "--latest", "1", keys=b"\n")
    assert status == 2
    assert "Remove 2 saves? [y/N]" in plain(output)
    assert "Nothing was removed." in plain(output)
    assert len(cp.saves()) == 3
    status, output = in_terminal("prune", tmp_path, "--latest", "1", keys=b"y\n")
    assert status == 0
    assert len(cp.saves()) == 1


def test_no_array_is_written_to_a_terminal(run):
    status, output = in_terminal("cat", run, "agent/layer0/漢字", "--npy")
    assert status == 2
    assert "standard output is a terminal: redirect it" in output
    assert "NUMPY" not in output
