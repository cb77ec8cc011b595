"""The pages about looking at saves show what the command line does."""

import pathlib
import re
import shlex
import subprocess
import sys
import webbrowser

import pytest

from elementsckpt.cli.main import main

from support.boxes import environment

DOCS = pathlib.Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "looking.md").read_text("utf-8")
# What differs between machines: ages, times, and sizes with manifests.
VARIES = re.compile(r"\b(now|\d+ s|[\d.]+ kB|\d+-\d+-\d+ \d+:\d+:\d+)\b")
SHELL = re.compile(r"[|<>*]")
FINDS = 1  # Exit status of `diff` if there are differences.


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a folder in which the Python of the page has run."""
    monkeypatch.chdir(tmp_path)
    scope = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, scope)
    return tmp_path


def in_shell(command, folder):
    """Run a command in bash, where `elementsckpt` and `python` are ours."""
    shell = f"""
        elementsckpt() {{ {sys.executable} -m elementsckpt "$@"; }}
        python() {{ {sys.executable} "$@"; }}
        fpath=({folder}); mkdir -p .config/fish/completions
        {command}"""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell],
        env=environment(HOME=str(folder)),
        capture_output=True,
        text=True,
    )


def test_outputs_of_commands_are_what_they_print(run, capsys):
    blocks = re.findall(r"```sh\n(\$ .*?)```", PAGE, re.DOTALL)
    shown = re.findall(r"^\$ elementsckpt (.*)\n((?:(?!\$).*\n)+)", blocks[0], re.M)
    assert len(shown) == 2
    for command, output in shown:
        capsys.readouterr()
        assert main(command.split()) == 0
        printed = capsys.readouterr().out
        assert VARIES.sub("", printed).split() == VARIES.sub("", output).split()


def test_values_reach_other_programs_by_a_pipe(run):
    (command,) = re.findall(r"```sh\n(elementsckpt cat .*?)```", PAGE, re.DOTALL)
    done = in_shell(command, run)
    assert (done.stdout, done.stderr[-200:].count("Error")) == ("[]\n", 0)


def test_examples_of_the_manual_work_on_the_run_of_the_page(run, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    manual = (DOCS / "cli.md").read_text("utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", manual, re.DOTALL)
    lines = [line for block in blocks[1::2] for line in block.splitlines()]
    assert len(lines) > 25
    for line in lines:
        words = shlex.split(line)[1:]
        if "watch" in words:  # It does not end.
            continue
        if SHELL.search(line) and "params/.*" not in line:
            done = in_shell(line, run)
            status, error = done.returncode, done.stderr
        else:
            status, error = main(words), ""
        assert status == (FINDS if words[0] == "diff" else 0), f"{line}\n{error}"
    assert len(opened) == 1
