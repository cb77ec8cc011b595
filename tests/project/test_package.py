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

from support.boxes import ROOT, printed, python

EXPORTS = {
    "Checkpoint",
    "Counter",
    "Environment",
    "Recorded",
    "Every",
    "Keep",
    "Files",
    "GlobalRNG",
    "Ring",
    "Saveable",
    "checkpoint",
    "delete",
    "diff",
    "convert",
    "export",
    "follow",
    "info",
    "leaves",
    "pin",
    "prune",
    "saves",
    "stats",
    "unpin",
    "usage",
    "verify",
    "write_report",
    "read",
    "exists",
    "Progress",
    "progress",
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


OF_A_CHECKPOINT = {
    "checkpoint",
    "components",
    "components.files",
    "components.registry",
    "directory",
    "directory.retention",
    "errors",
    "format",
    "format.compression",
    "format.manifest",
    "format.sizes",
    "loading",
    "loading.request",
    "loading.verbs",
    "run",
    "run.schedule",
    "run.signals",
    "run.timing",
    "run.wakeup",
    "saving",
    "saving.options",
    "system",
    "system.forks",
    "system.memory",
    "user",
    "user.arguments",
    "user.attributes",
    "user.hints",
    "user.notices",
    "user.times",
}


def test_a_checkpoint_without_components_needs_neither_numpy_nor_what_saves(tmp_path):
    script = """
import sys, elementsckpt
every, keep = elementsckpt.Every(2), elementsckpt.Keep(latest=3)
with elementsckpt.Checkpoint(sys.argv[1], keep, every=every, background=True) as cp:
    cp.watch_signals()
    assert not cp.preempted and cp.wait() is None
assert not {"numpy", "xxhash", "zstandard", "cloudpickle"} & sys.modules.keys()
own = (name.partition(".") for name in sys.modules)
print(*(name for package, _, name in own if package == "elementsckpt" and name))
"""
    assert {*printed(script, tmp_path)} == OF_A_CHECKPOINT


def test_the_first_component_brings_all_that_a_verb_calls(tmp_path):
    """So a signal handler, or a forked child, imports nothing when it saves."""
    script = """
import sys, elementsckpt
keep = elementsckpt.Keep(best=1, metric="loss", mode="min")
cp = elementsckpt.Checkpoint(sys.argv[1], keep, every=elementsckpt.Every(1))
cp.step = elementsckpt.Counter(3)
cp.policy = elementsckpt.Files(load=print)
before = {*sys.modules}
cp.load_or_save()
with cp.staging("policy", metrics={"loss": 0.5}) as folder:
    (folder / "weights").write_bytes(b"1")
del cp.policy
cp.save_if_due(final=True)
cp.load(regex=".*", rename={"^$": ""}, strict=False)
cp.copy_of("step", cp.save(metrics={"loss": 0.25}, pin="good").path)
assert cp.load_or_save() and cp.exists("good") and cp.best() == cp.latest()
cp.prune(), cp.save(cp.latest().with_name("other")), cp.wait(), repr(cp), cp.close()
cp.delete(cp.save(pin="new").path)
print("nothing", *sys.modules.keys() - before)
"""
    assert printed(script, tmp_path)[-1:] == ["nothing"]


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_program_may_replace_datetime_before_the_first_use(tmp_path, line):
    lines = [
        "import datetime, sys, elementsckpt",
        "cp = elementsckpt.Checkpoint(sys.argv[1])",
        "cp.step = elementsckpt.Counter(3)",
        "cp.save()",
        "print(cp.saves()[0].step)",
    ]
    lines[line] += """
class Fake(datetime.datetime):
    pass

datetime.datetime = Fake
"""
    assert printed("\n".join(lines), tmp_path) == ["3"]


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


def test_version_is_the_newest_of_the_changelog():
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    version, unreleased = re.search(
        r"^## ([\d.]+)(, unreleased)?$", changes, re.M
    ).groups()
    assert elementsckpt.__version__ == version + (".dev0" if unreleased else "")


def test_type_hints_are_shipped():
    assert importlib.resources.files(elementsckpt).joinpath("py.typed").is_file()


def test_import_warns_of_nothing():
    command = [sys.executable, "-W", "error", "-c", "import elementsckpt"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
