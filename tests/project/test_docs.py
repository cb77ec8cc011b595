"""The documentation does what it says: its code runs, its links and tests exist."""

import ast
import contextlib
import io
import pathlib
import re
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
PAGES += [ROOT / "CONTRIBUTING.md", *(ROOT / "examples").glob("*.md")]
PACKAGE = ROOT / "elementsckpt"


def code_blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_on_each_page_runs_and_prints_what_it_says(
    page, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": "__main__"}
    printed = io.StringIO()
    watched = {x: signal.getsignal(x) for x in (signal.SIGTERM, signal.SIGUSR1)}
    with contextlib.redirect_stdout(printed):
        for block in code_blocks(page, "python"):
            exec(compile(block, str(page), "exec"), scope)
    for number, handler in watched.items():  # As the end of a program would.
        signal.signal(number, handler)
    for output in code_blocks(page, "text"):
        if "/" not in output.splitlines()[0]:  # Not a picture of a folder.
            assert output in printed.getvalue()


def test_the_readme_begins_with_the_quickstart():
    first = code_blocks(ROOT / "README.md", "python")[0]
    assert first == (ROOT / "examples" / "quickstart.py").read_text("utf-8")
    code = [x for x in first.splitlines() if x.strip()]
    assert len(code) == 12


def test_the_quickstart_resumes_when_it_runs_again(tmp_path):
    script = [sys.executable, "-W", "error", ROOT / "examples" / "quickstart.py"]
    outputs = [
        subprocess.run(
            script, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout
        for _ in range(2)
    ]
    assert outputs == ["Started at step 0\n", "Resumed at step 10\n"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text("utf-8"), re.MULTILINE)
            anchors = [heading.lower().replace(" ", "-") for heading in headings]
            assert anchor in anchors, target


def test_each_promise_names_tests_that_exist():
    text = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
    files = ROOT.glob("tests/*/test_*.py")
    sources = "".join(path.read_text("utf-8") for path in files)
    promises = re.split(r"^## Promise (\d+)$", text, flags=re.MULTILINE)[1:]
    numbers, sections = promises[::2], promises[1::2]
    for number, section in zip(numbers, sections, strict=True):
        named = re.findall(rf"`(test_promise_{number}_\w+)`", section)
        assert named, f"promise {number} names no test"
        for name in named:
            assert f"def {name}(" in sources, name


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_commands_are_targets_of_the_makefile(page):
    commands = re.findall(r"^make (\S+)", (ROOT / page).read_text(), re.MULTILINE)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert commands
    assert set(commands) <= set(targets)


# The design, without the decisions: what they have rejected is not there.
TOUR = re.sub(
    r"\n## (Decisions|Dependencies)\n.*?(?=\n## |\Z)",
    "",
    (ROOT / "docs" / "design.md").read_text("utf-8"),
    flags=re.DOTALL,
)


def code_in(text):
    """Return what is between backticks, without what has a blank to be filled in."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [x for x in re.findall(r"`([^`]+)`", text) if "<" not in x]


def test_contributors_are_told_of_all_that_tests_share():
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    shared = {path.stem for path in (ROOT / "tests" / "support").iterdir()}
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == shared - {"__init__", "__pycache__"}


@pytest.mark.parametrize("page", ["docs/design.md", "CONTRIBUTING.md"])
def test_paths_lead_to_files(page):
    code = code_in((ROOT / page).read_text("utf-8"))
    paths = [x for x in code if re.fullmatch(r"[\w./]+(\.py|/)", x)]
    assert paths
    for path in paths:
        assert (ROOT / path).exists() or (PACKAGE / path).exists(), path


def test_the_tour_leads_to_all_modules():
    packages = re.findall(r"^- `(\w+)/`(.*?)(?=^- |\n\n)", TOUR, re.DOTALL | re.M)
    assert {name for name, _ in packages} == {
        x.parent.name for x in PACKAGE.glob("*/__init__.py")
    }
    for name, text in packages:
        modules = {path.stem for path in (PACKAGE / name).glob("*.py")}
        named = {x for x in code_in(text) if not x.endswith(".py")}
        assert named - {"check_resume"} == modules - {"__init__"}


def names_in(path):
    """Yield the names of what a module defines, alone and after what it is in."""
    yield path.stem
    for owner in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(owner, (ast.Module, ast.ClassDef)):
            of = getattr(owner, "name", path.stem)
            for name in names_of(owner):
                yield from (name, f"{of}.{name}")


def names_of(owner):
    choices = [x for x in owner.body if isinstance(x, ast.If)]
    for node in [*owner.body, *(y for x in choices for y in [*x.body, *x.orelse])]:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]):
                yield name
    for node in ast.walk(owner):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                yield name


def test_the_tour_names_what_is_there():
    known = {name for path in PACKAGE.rglob("*.py") for name in names_in(path)}
    known |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    code = [x.partition("(")[0] for x in code_in(TOUR)]
    named = {x for x in code if re.fullmatch(r"\w+(\.(?!py$)\w+)?", x)}
    assert len(named) > 100
    assert sorted(named - known) == []
