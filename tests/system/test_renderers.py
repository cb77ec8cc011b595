"""The bar in real terminals, and the output of a notebook's cell."""

import contextlib
import fcntl
import importlib.util
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import numpy as np
import pytest

from elementsckpt import Checkpoint, Progress, Value
from elementsckpt.system import renderers

from support.boxes import environment

# Shows each step at once, of a load that is told of in steps of 1 MB.
SCRIPT = """
import os, sys, elementsckpt
from elementsckpt.system import progress, renderers
renderers._PATIENCE_S = renderers._REFRESH_S = 0
progress.STEP_BYTES = 1_000_000
def load(path):
    elementsckpt.read(path, mmap=False)
"""


@pytest.fixture(scope="module")
def save(tmp_path_factory):
    cp = Checkpoint(tmp_path_factory.mktemp("run"), fsync=False)
    cp.agent = Value({f"w{n}": np.ones(1_000_000) for n in range(3)})
    return cp.save(pin="golden", metadata={"note": "hello"}).path


def shown(script, columns, **variables):
    """Return the status of a script, and what it wrote to a terminal."""
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environ = environment(**{"TERM": "xterm"} | variables)
    environ.pop("COLUMNS", None)
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT + script],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=other,
    )
    os.close(other)
    output = b""
    with contextlib.suppress(OSError):  # The last one has closed the terminal.
        while part := os.read(main, 65536):
            output += part
    os.close(main)
    return process.wait(), output.decode()


def frames(output):
    """Return what was in the line each time that it was drawn."""
    return [frame.removesuffix("\x1b[K") for frame in output.split("\r")[1:]]


@pytest.mark.parametrize("columns", [46, 80])
def test_the_bar_is_one_line_within_the_width_and_is_cleared(save, columns):
    status, output = shown(f"load({str(save)!r})", columns)
    assert status == 0
    assert "\n" not in output
    assert output.endswith("\r\x1b[K")
    drawn = frames(output)[:-1]
    assert len(drawn) > 20
    assert max(map(len, drawn)) < columns
    percents = [int(re.match(r"read +(\d+) %", frame)[1]) for frame in drawn]
    assert percents == sorted(percents)
    assert percents[0] == 0
    assert percents[-1] == 100
    assert all("[#" in frame for frame in drawn[len(drawn) // 2 :])
    assert len({(x.index("["), x.index("]")) for x in drawn}) == 1  # It does not jump.
    assert all(re.search(r"of 24\.0 MB, \d", frame) for frame in drawn)


def test_a_narrow_terminal_has_the_percent_alone(save):
    _, output = shown(f"load({str(save)!r})", 12)
    assert max(len(frame) for frame in frames(output)) < 12
    assert "100 %" in output


@pytest.mark.parametrize("how", ["KeyboardInterrupt", "an error"])
def test_an_interrupt_clears_the_bar(save, how):
    script = f"""
from elementsckpt.storage import reader
check, calls = reader._verify, []
def interrupt(*arguments):
    calls.append(1)
    if len(calls) == 2:
        raise {"KeyboardInterrupt" if how == "KeyboardInterrupt" else "OSError(5, 'x')"}
    check(*arguments)
reader._verify = interrupt
sys.excepthook = lambda *_: os.write(2, b"END")
load({str(save)!r})
"""
    status, output = shown(script, 80)
    assert status == (130 if how == "KeyboardInterrupt" else 1) or status < 0
    assert re.search(r"\d %", output)
    assert "\r\x1b[K" in output
    assert re.sub(r"END$", "", output).endswith("\r\x1b[K")
    assert output.count("\n") == 0


@pytest.mark.parametrize(
    "variables", [{"TERM": "dumb"}, {"ELEMENTSCKPT_PROGRESS": "0"}]
)
def test_nothing_is_drawn_where_it_is_not_wanted(save, variables):
    assert shown(f"load({str(save)!r})", 80, **variables) == (0, "")


def test_a_short_load_shows_nothing(save):
    script = f"renderers._PATIENCE_S = 1e9\nload({str(save)!r})"
    assert shown(script, 80) == (0, "")


def test_a_save_in_the_foreground_shows_nothing(tmp_path):
    script = f"""
import numpy as np
cp = elementsckpt.Checkpoint({str(tmp_path)!r}, fsync=False)
cp.agent = elementsckpt.Value({{"w": np.ones(1_000_000)}})
cp.save()
"""
    assert shown(script, 80) == (0, "")


def test_a_stream_that_breaks_ends_no_work(save):
    status, _ = shown(f"os.close(2); load({str(save)!r})", 80)
    assert status == 0
    status, _ = shown(f"sys.stderr = None; load({str(save)!r})", 80)
    assert status == 0


def test_the_width_follows_the_narrower_of_terminal_and_variable(monkeypatch):
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    with os.fdopen(other, "w") as stream:
        monkeypatch.delenv("COLUMNS", raising=False)
        assert renderers._width(stream) == 60
        monkeypatch.setenv("COLUMNS", "40")
        assert renderers._width(stream) == 40
        fcntl.ioctl(stream, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        assert renderers._width(stream) == 40
        monkeypatch.delenv("COLUMNS")
        assert renderers._width(stream) == 80
    os.close(main)


@pytest.mark.parametrize("columns", range(1, 120, 7))
def test_no_line_fills_the_terminal(columns):
    progress = Progress("verify", 123_456_789, 999_999_999_999, 86_399.0, False)
    assert len(renderers.line(progress, columns)) < columns


# Notebooks

HAS_NOTEBOOKS = all(map(importlib.util.find_spec, ["nbclient", "ipykernel"]))
needs_notebooks = pytest.mark.skipif(
    not HAS_NOTEBOOKS, reason="needs nbclient and ipykernel"
)


def executed(cells, tmp_path, *, allow_errors=False):
    """Return the outputs of each cell of a notebook."""
    import nbclient
    import nbformat

    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells]
    )
    client = nbclient.NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        allow_errors=allow_errors,
        resources={"metadata": {"path": str(tmp_path)}},
    )
    found_here = os.pathsep.join(filter(None, sys.path))
    client.execute(env=environment(PYTHONWARNINGS="ignore", PYTHONPATH=found_here))
    return [cell.outputs for cell in notebook.cells]


@needs_notebooks
@pytest.mark.filterwarnings("ignore")
def test_a_notebook_shows_reports_and_one_output_of_progress(save, tmp_path):
    path = str(save)
    cells = [
        SCRIPT + "renderers._PATIENCE_S = 1e9",
        f"load({path!r})",
        "renderers._PATIENCE_S = 0",
        f"load({path!r})",
        f"cp = elementsckpt.Checkpoint({str(save.parent)!r}); cp",
        "cp.saves()",
        "cp.saves()[0]",
        f"elementsckpt.leaves({path!r})",
        "renderers._PATIENCE_S = 1e9",
        f"elementsckpt.stats({path!r})",
        f"elementsckpt.verify({path!r})",
        f"elementsckpt.diff({path!r}, {path!r})",
        f"elementsckpt.usage({str(save.parent)!r})",
        "renderers._PATIENCE_S = 0\n"
        "def refuse(*_): raise KeyboardInterrupt\n"
        "from elementsckpt.storage import reader\n"
        "reader._verify = refuse",
        f"load({path!r})",
    ]
    outputs = executed(cells, tmp_path, allow_errors=True)
    assert outputs[1] == []  # It took less than a second.
    (bar,) = outputs[3]
    assert bar.output_type == "display_data"
    assert "100 %" in bar.data["text/plain"]
    assert '<progress value="1.0000"' in bar.data["text/html"]
    for cell, found in list(zip(cells, outputs, strict=True))[4:13]:
        if cell.startswith("renderers"):
            continue
        (output,) = found
        assert output.output_type == "execute_result", cell
        assert "text/html" in output.data, cell
        assert "<script" not in output.data["text/html"]
    assert "golden" in outputs[4][0].data["text/html"]
    assert "hello" in outputs[6][0].data["text/html"]
    *shown_, error = outputs[-1]
    assert error.output_type == "error"
    assert [output.data.get("text/plain") for output in shown_] == [""]


def test_a_kernel_is_known_by_its_shell(monkeypatch):
    class Shell:
        kernel = object()

    module = type(sys)("IPython")
    module.get_ipython = lambda: None
    monkeypatch.setitem(sys.modules, "IPython", module)
    assert not renderers._is_notebook()  # IPython in a terminal has none, either.
    module.get_ipython = Shell
    assert renderers._is_notebook()
    assert type(renderers.default()).__name__ == "_Display"
    monkeypatch.setenv("ELEMENTSCKPT_PROGRESS", "0")
    assert renderers.default() is None
