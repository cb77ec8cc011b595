"""What a command line imports, which is most of what it costs."""

import pathlib

import pytest

from elementsckpt import Checkpoint, Value
from elementsckpt.cli import manual, verbs

from support.boxes import printed

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "elementsckpt"
ARRAYS = {"numpy", "jax", "torch", "zstandard", "cloudpickle", "ml_dtypes"}


def imported(directory, *words):
    script = f"""
import contextlib, io, sys
from elementsckpt.cli.main import main
sys.argv[1:] = {[*words]!r}
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
print(*sys.modules)
"""
    return {*printed(script, directory)}


@pytest.fixture
def run(tmp_path):
    cp = Checkpoint(tmp_path, keep=None, fsync=False)
    cp.agent = Value({"w": 1.0})
    for number in range(3):
        cp.save(metrics={"return": number}, pin=f"pin{number}")
    return tmp_path


def test_help_imports_no_reports(tmp_path):
    found = imported(tmp_path, "--help")
    assert not found & {*ARRAYS, "msgspec", "html", "inspect", "subprocess"}
    own = {x for x in found if x.startswith("elementsckpt.")}
    assert {x for x in own if not x.startswith("elementsckpt.cli")} == {
        "elementsckpt.errors",
        "elementsckpt.reports",
        "elementsckpt.reports.figures",
        "elementsckpt.reports.outline",
        "elementsckpt.user",
        "elementsckpt.user.attributes",
    }


def test_ls_imports_nothing_that_loads_arrays(run):
    found = imported(run, "ls", str(run))
    assert not found & {*ARRAYS, "html", "subprocess", "difflib", "secrets", "shutil"}
    packages = {"kinds", "state", "components", "loading", "saving", "run", "page"}
    assert not {f"elementsckpt.{name}" for name in packages} & found
    verbs = {x for x in found if x.startswith("elementsckpt.cli.verbs.")}
    assert verbs == {"elementsckpt.cli.verbs.ls"}
    assert "elementsckpt.inspection.infos" in found


def test_verbs_are_modules_and_help_names_each():
    found = {path.stem for path in (PACKAGE / "cli" / "verbs").glob("*.py")}
    assert sorted(verbs.NAMES) == sorted(found - {"__init__"})


def test_the_manual_is_what_help_says():
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert page == manual.page(), "run `make manual`"
