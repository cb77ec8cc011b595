"""The documentation does what it says: its code runs, its links and tests exist."""

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
PAGES += (ROOT / "examples").glob("*.md")


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


def test_commands_in_the_readme_are_targets_of_the_makefile():
    commands = re.findall(
        r"^make (\S+)", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert commands
    assert set(commands) <= set(targets)
