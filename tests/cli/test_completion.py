"""What shells offer for the words of a command line."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import warnings

import pytest

from elementsckpt import Checkpoint, Counter, Value

from support.boxes import environment

SHELLS = ["bash", "zsh", "fish"]
COMPLETE = {
    "bash": """
source <(elementsckpt completion bash)
COMP_LINE=$1 COMP_POINT=${#1}
_elementsckpt
printf '%s\\n' "${COMPREPLY[@]}"
""",
    "fish": """
elementsckpt completion fish | source
complete --do-complete $argv[1] | string replace --regex '\\t.*' ''
""",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a run and the program."""
    place = tmp_path_factory.mktemp("place")
    program = place / "bin" / "elementsckpt"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m elementsckpt "$@"\n')
    program.chmod(0o755)
    cp = Checkpoint(place / "run", keep=None, fsync=False)
    names = ["kernel", "$(touch obeyed)", "a\nb", "\x1b[31m"]
    cp.agent = Value(dict.fromkeys(names, 1))
    cp.step = Counter(4000)
    cp.save(pin="paper", metrics={"return": 1.0, "loss": 2.0})
    cp.step.value = 8000
    cp.save(pin="a b")
    return place


def environ(place):
    path = f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return environment(PATH=path, HOME=str(place), TERM="xterm")


def offered(shell, line, place):
    """Return what a shell would put in place of the last word, or of its end."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    options = {"bash": ["--norc", "-c"], "fish": ["--no-config", "-c"]}[shell]
    name = ["_"] if shell == "bash" else []
    command = [shell, *options, COMPLETE[shell], *name, f"elementsckpt {line}"]
    done = subprocess.run(
        command, cwd=place, env=environ(place), capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_verbs_and_options(place, shell):
    assert offered(shell, "ve", place) == ["verify"]
    assert offered(shell, "prune --be", place) == ["--best"]
    assert offered(shell, "completion zs", place) == ["zsh"]


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_values_of_options(place, shell):
    modes = offered(shell, "prune run --mode m", place)
    assert [x for x in modes if x[-1] != "/"] == ["max", "min"]
    assert offered(shell, "prune run --metric ret", place) == ["return"]
    assert offered(shell, "stats run -r agent/k", place) == ["agent/kernel"]


def test_bash_gets_what_begins_where_it_breaks_words(place):
    assert offered("bash", "ls run@la", place) == ["@latest"]
    assert offered("bash", "ls run@", place)[:3] == ["@latest", "@best", "@4000"]
    assert offered("bash", "tree run@pin:pa", place) == ["paper"]
    assert offered("bash", "tree run@pin:a", place) == ["a\\ b"]
    assert offered("bash", "diff run@4000 run@8", place) == ["@8000"]


def test_fish_gets_whole_addresses(place):
    assert offered("fish", "ls run@la", place) == ["run@latest"]
    assert offered("fish", "tree run@pin:pa", place) == ["run@pin:paper"]


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_names_of_leaves_are_quoted_and_none_controls_the_terminal(place, shell):
    found = offered(shell, "cat run agent/", place)
    assert "agent/kernel" in found
    assert not any("\x1b" in line or line == "b" for line in found)
    if shell == "bash":
        assert r"agent/\$\(touch\ obeyed\)" in found
    assert not (place / "obeyed").exists()
    assert offered(shell, "cat run@latest agent/k", place) == ["agent/kernel"]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("ve", "elementsckpt verify"),
        ("ls run@la", "elementsckpt ls run@latest"),
        ("tree run@pin:a", r"elementsckpt tree run@pin:a\ b"),
        ("cat run agent/k", "elementsckpt cat run agent/kernel"),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_person_who_presses_tab(place, shell, typed, expected):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    start = "autoload -U compinit; compinit -u -D;" if shell == "zsh" else ""
    option = "--norc" if shell == "bash" else "-f"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of threads of JAX: the child forks to exec.
        child, terminal = pty.fork()
        if not child:
            os.chdir(place)
            os.execvpe(shell, [shell, option, "-i"], environ(place))
    try:
        script = f"source <(elementsckpt completion {shell}); echo rea''dy"
        os.write(terminal, f"{start} {script}\n".encode())
        assert "ready" in until(terminal, "ready")
        os.write(terminal, f"elementsckpt {typed}\t".encode())
        assert expected in until(terminal, expected)
    finally:
        os.kill(child, 9)
        os.close(terminal)
        os.waitpid(child, 0)


def until(terminal, expected):
    """Return what a terminal shows, until it shows this, or nothing for long."""
    shown = ""
    while expected not in shown and select.select([terminal], [], [], 20)[0]:
        try:
            shown += os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # The shell has ended.
            break
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
        while shown != (shorter := re.sub("[^\b]\b", "", shown, count=1)):
            shown = shorter
    return shown
