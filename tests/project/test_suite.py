"""What is said of tests that were skipped, and that one day they are run."""

import pathlib

from support import boxes

SUITE = """
import pytest

@pytest.mark.parametrize("x", range(3))
def test_somewhere_else(x):
    pytest.skip("there is no accelerator")

@pytest.mark.torch
def test_marked():
    pytest.importorskip("torchrl.nothing")

def test_not_marked():
    pytest.importorskip("torchrl.nothing")

@pytest.mark.xfail
def test_to_fail():
    raise ValueError

def test_done():
    pass
"""


def run(folder, *flags):
    """Run these tests with what holds for all tests here."""
    (folder / "test_it.py").write_text(SUITE)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = torch\n")
    here = pathlib.Path(__file__).parents[1]
    script = (
        f"import os, sys\n"
        f"os.chdir({str(folder)!r}); sys.path.insert(0, {str(here)!r})\n"
        f"os.environ['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] = '1'\n"  # They take a while.
        f"import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    )
    return boxes.python(script, "-p", "conftest", *flags, "test_it.py").stdout


def test_skipped_tests_are_counted_and_named_by_reason(tmp_path):
    output = run(tmp_path, "-p", "xdist", "-n", "1")
    name = "  test_it.py::test_somewhere_else (3 times)\n"
    assert f"\n3 because there is no accelerator:\n{name}" in output
    assert "\n  test_it.py::test_marked\n" in output
    assert "FAILED test_it.py::test_not_marked - Mark it with" in output
    assert "1 failed, 1 passed, 4 skipped, 1 xfailed" in output


def test_what_needs_torch_is_chosen_by_its_mark(tmp_path):
    output = run(tmp_path, "-m", "torch")
    assert "1 skipped, 6 deselected" in output
