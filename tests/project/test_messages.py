"""Each error says what is wrong, where, what was expected and found, and what to do."""

import ast
import contextlib
import pathlib
import re
import sys
import traceback

import pytest

import elementsckpt
from elementsckpt import CheckpointError, errors

from support import boxes, situations

PACKAGE = pathlib.Path(elementsckpt.__file__).parent
VERBS = (
    "add|allow|assign|bring|call|check|choose|close|convert|copy|correct|free|give|hold|"
    "initialize|install|keep|leave|let|load|make|map|move|name|pass|put|register|remove|"
    "restore|return|save|select|set|there are|try|update|use|wait|write"
)
REMEDY = re.compile(rf"(^|[.:;,] |\b(or|so|and) )({VERBS})\b", re.I | re.M)
# What looks into objects, instead of saying what they are.
INTERNALS = re.compile(r" at 0x|<\w+[ .]|Path\(|Error\(|Traceback")
LONGEST = 1000


@pytest.fixture
def loads(monkeypatch):
    """Return a list that gets what components load."""
    loads, load = [], boxes.Box.load

    def noted(self, data):
        loads.append(data)
        load(self, data)

    monkeypatch.setattr(boxes.Box, "load", noted)
    return loads


def tree(directory):
    """Return the content of each file in a directory, but of huge ones."""
    return {
        str(path): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.stat().st_size < 1e6
    }


def expected(situation, tmp):
    """Return a pattern of the whole message."""
    pattern = re.escape(situation.message).replace("…", ".+?")
    return re.compile(pattern.replace(re.escape("{tmp}"), re.escape(str(tmp))), re.S)


def check_words(said):
    """Check what holds for all messages."""
    assert said == said.strip()
    assert said.endswith(".")
    assert len(said) < LONGEST
    assert REMEDY.search(said)
    assert not INTERNALS.search(said)
    assert not re.search(r"(?<!\n)  | [.,:;]|,,|;;|::|(?<!['.])\.\.(?![./])", said)
    # What begins in lower case is a name, or goes on after a name with a period.
    assert not re.search(r"\. (?!elementsckpt)[a-z]\w* [a-z]", said)
    # What is not there has a name; as an argument it has this one.
    assert "None" not in re.sub(r"(pass|bytes, or|or|,) .*None", "", said)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.torch] if "tensor" in name else [])
        for name in situations.ALL
    ],
)
def test_an_error_says_what_to_know_and_what_to_do(tmp_path, monkeypatch, loads, name):
    situation = situations.ALL[name]
    steps = situation.steps(tmp_path, monkeypatch)
    next(steps)
    before = tree(tmp_path)
    loads.clear()
    with pytest.raises(situation.error) as caught:
        next(steps)
    monkeypatch.undo()
    said = str(caught.value)
    assert expected(situation, tmp_path).fullmatch(said), said
    check_words(said)
    if "othing was loaded" in said:
        assert loads == []
    if re.search("untouched|not touched|othing was written|not removed", said):
        after = tree(tmp_path)
        assert {path: after.get(path) for path in before} == before


# No error is left out

LEFT_OUT = "testing"  # Its errors are about training: test_check_resume.py.
FAMILY = {name for name in dir(errors) if name.endswith("Error")} | {"LostError"}
PLAIN = {"ValueError", "TypeError", "AttributeError"}


def errors_in(path):
    """Return first and last line of each place where a module makes an error."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in FAMILY:
                yield node.lineno, node.end_lineno
            case ast.Call(func=ast.Name(id=name)) if name in PLAIN and is_sentence(
                node
            ):
                yield node.lineno, node.end_lineno
            case ast.Raise(exc=ast.Call(func=ast.Name(id=name))) if name[0] == "_":
                if not name.endswith("Error"):
                    yield node.lineno, node.end_lineno


def is_sentence(call):
    """Tell messages from their parts, which `stored.damage` and others quote."""
    match call.args[0]:
        case ast.Constant(value=text) | ast.JoinedStr(values=[*_, ast.Constant(text)]):
            return text.endswith(".")
        case ast.JoinedStr():
            return False
    return True


class Lines:
    """The lines of this package that were at work when an error was made."""

    def __init__(self, monkeypatch):
        self._found = set()
        made = CheckpointError.__init__

        def noted(error, message):
            self.add(traceback.walk_stack(sys._getframe()))
            made(error, message)

        monkeypatch.setattr(CheckpointError, "__init__", noted)

    def add(self, frames):
        for frame, line in frames:
            self._found.add((frame.f_code.co_filename, line))

    def reach(self, path, first, last):
        return any((str(path), line) in self._found for line in range(first, last + 1))


def test_every_error_is_that_of_a_situation(tmp_path, monkeypatch):
    lines = Lines(monkeypatch)
    for name, situation in situations.ALL.items():
        (tmp_path / name).mkdir()
        with monkeypatch.context() as patch, contextlib.suppress(pytest.skip.Exception):
            steps = situation.steps(tmp_path / name, patch)
            next(steps)
            with pytest.raises(situation.error) as caught:
                next(steps)
            error = caught.value
            while error is not None:
                lines.add(traceback.walk_tb(error.__traceback__))
                error = error.__cause__
    paths = [path for path in PACKAGE.rglob("*.py") if path.parent.name != LEFT_OUT]
    places = {(path, *place) for path in paths for place in errors_in(path)}
    assert len(places) > 100
    left = [place for place in sorted(places) if not lines.reach(*place)]
    assert left == []
