"""What a user of the package sees before calling anything: names, version, typing."""

import ast
import importlib.metadata
import importlib.resources
import pathlib
import re
import rlcompleter
import subprocess
import sys
import types

import pytest

import elementsckpt

from support.boxes import printed, python

EXPORTS = {
    "Checkpoint",
    "Counter",
    "Every",
    "Keep",
    "Files",
    "GlobalRNG",
    "Ring",
    "Saveable",
    "checkpoint",
    "info",
    "read",
    "exists",
    "save_pytree",
    "load_pytree",
    "Value",
    "SaveInfo",
    "SaveReport",
    "LoadReport",
    "ComponentInfo",
    "Lineage",
    "CheckpointError",
    "ComponentError",
    "DamagedError",
    "MetadataError",
    "MismatchError",
    "MissingKeyError",
    "PickleError",
    "ReadError",
    "SaveExistsError",
    "SaveNotFoundError",
    "StateError",
    "VersionError",
    "WriteError",
}


def test_exports():
    assert {*elementsckpt.__all__} - {"__version__"} == EXPORTS


def test_exported_classes_are_the_package_s_own():
    for name in EXPORTS:
        value = getattr(elementsckpt, name)
        if isinstance(value, type):
            assert value.__module__.partition(".")[0] == "elementsckpt"
            assert value.__name__ == name


def test_functional_forms():
    assert isinstance(elementsckpt.checkpoint, types.ModuleType)
    for name in ("save", "load", "exists"):
        assert callable(getattr(elementsckpt.checkpoint, name))


def test_tab_completion_shows_what_is_public_and_no_internal_module():
    public = {*EXPORTS, "__version__", "testing"}
    assert {*dir(elementsckpt)} == public
    scope = {"elementsckpt": elementsckpt}
    completer = rlcompleter.Completer(scope)
    found = []
    while name := completer.complete("elementsckpt.", len(found)):
        found.append(name)
    assert {name.partition(".")[2].rstrip("()") for name in found} == {
        name for name in public if not name.startswith("_")
    }
    assert {*dir(elementsckpt.checkpoint)} == {"Checkpoint", "exists", "load", "save"}
    assert {*dir(elementsckpt.testing)} == {
        "ResumeError",
        "ResumeReport",
        "check_resume",
    }


def test_what_is_imported_is_what_is_asked_for():
    script = """
import sys
before = {*sys.modules}
import elementsckpt
print(*{name.partition(".")[0] for name in sys.modules.keys() - before})
assert elementsckpt.DamagedError is elementsckpt.errors.DamagedError
assert "numpy" not in sys.modules
for name in elementsckpt.__all__:
    assert getattr(elementsckpt, name) is getattr(elementsckpt, name)
"""
    assert set(printed(script)) <= {"elementsckpt", "importlib", "warnings"}


def test_a_program_may_replace_datetime_before_the_first_use(tmp_path):
    script = """
import datetime, sys, elementsckpt

class Fake(datetime.datetime):
    pass

datetime.datetime = Fake
cp = elementsckpt.Checkpoint(sys.argv[1])
cp.step = elementsckpt.Counter(3)
cp.save()
print(cp.saves()[0].step)
"""
    assert printed(script, tmp_path) == ["3"]


def test_testing_is_there_when_it_is_asked_for_and_not_before():
    script = """
import sys, elementsckpt
assert "elementsckpt.testing" not in sys.modules
assert not hasattr(elementsckpt, "nothing")
elementsckpt.testing.check_resume
assert "elementsckpt.testing" in sys.modules
"""
    result = python(script)
    assert result.returncode == 0, result.stderr


PACKAGE = pathlib.Path(elementsckpt.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize(
    "path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_docstrings_point_to_nothing_that_pip_does_not_install(path):
    tree = ast.parse(path.read_text())
    kinds = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, kinds):
            found = ast.get_docstring(node) or ""
            assert not re.search(r"\bdocs/|\bexamples/|\btests/|README|\.md\b", found)


def test_version_is_that_of_the_installed_distribution():
    assert elementsckpt.__version__ == importlib.metadata.version("elementsckpt")


def test_type_hints_are_shipped():
    assert importlib.resources.files(elementsckpt).joinpath("py.typed").is_file()


def test_import_warns_of_nothing():
    command = [sys.executable, "-W", "error", "-c", "import elementsckpt"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
