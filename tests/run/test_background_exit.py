"""However a process ends, it finishes its save in the background, unless it is killed.

The commit waits for the end of the main thread, so the save is in flight by then.
"""

import signal

import pytest

from support.boxes import make, visible

START = """
import atexit, os, signal, sys, threading
import numpy as np
from support.boxes import Box
from elementsckpt import Checkpoint
from elementsckpt.storage import disk

real = disk.syscall
main = threading.main_thread()

def late(call, *args):
    "Make the calls of the thread in the background when the main one has ended."
    thread = threading.current_thread()
    if thread.name == "elementsckpt" and not thread.daemon:
        main.join()
    return real(call, *args)

def begin(value, **options):
    cp = Checkpoint(sys.argv[1], background=True, **options)
    cp.agent = Box({"value": value, "w": np.full(300_000, value)})
    return cp
"""
LATE = "\ndisk.syscall = late\n"

ENDS = {
    "the end": ("", 0),
    "an exception": ("raise RuntimeError('mine')", 1),
    "sys.exit": ("sys.exit(3)", 3),
    "sys.exit in a thread": ("threading.Thread(target=sys.exit).start()", 0),
    "the end of a with block": ("with cp: sys.exit(3)", 3),
    "a later thread": ("threading.Thread(target=lambda: main.join()).start()", 0),
    "an interrupt": ("os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT),
}


def saved(directory):
    """Return the value that the newest save holds."""
    cp = make()
    cp.load(directory)
    state = cp.agent.state
    assert set(state["w"]) == {state["value"]}
    return state["value"]


@pytest.mark.parametrize("end", ENDS)
def test_promise_6_the_interpreter_finishes_a_save_in_the_background(
    tmp_path, forked, end
):
    code, status = ENDS[end]
    late = "" if "with" in code else LATE  # Which waits in the main thread.
    child = forked(f"{START}{late}cp = begin(1)\ncp.save()\n{code}", tmp_path)
    assert child.returncode == status, child.stderr
    assert saved(tmp_path) == 1
    assert len(visible(tmp_path)) == 2


KILLS = ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "os.abort()"]


@pytest.mark.parametrize("kill", KILLS)
def test_a_process_that_is_killed_loses_the_save_in_flight_alone(
    tmp_path, forked, kill
):
    script = f"{START}cp = begin(1)\ncp.save()\ncp.wait()\n{LATE}"
    script += f"cp.agent.state = {{'value': 2}}\ncp.save()\n{kill}"
    forked(script, tmp_path)
    assert saved(tmp_path) == 1
    assert len([x for x in tmp_path.iterdir() if x.is_dir()]) == 2
    cp = make(tmp_path, {"value": 3, "w": [3]}, background=True)
    assert cp.load_or_save() is True
    cp.agent.state = {"value": 3, "w": [3]}
    cp.save()
    cp.wait()
    assert saved(tmp_path) == 3
    assert visible(tmp_path) == [cp.latest().name, "latest"]
    assert len([x for x in tmp_path.iterdir() if x.is_dir()]) == 1


def test_what_goes_wrong_after_the_end_is_told_on_stderr(tmp_path, forked):
    script = f"""{START}
def fails(call, *args):
    if call is os.replace and args[1].name == "manifest.json":
        main.join()
        raise OSError(28, "injected")
    return real(call, *args)

disk.syscall = fails
cp = begin(1)
cp.save()
"""
    child = forked(script, tmp_path)
    assert "injected" in child.stderr
    assert visible(tmp_path) == []


AT_EXIT = """
import time

def slow(call, *args):
    if threading.current_thread() is not main and call is os.replace:
        time.sleep(0.2)  # An interpreter that does not wait for it is gone by then.
    return real(call, *args)

disk.syscall = slow
cp = begin(1, keep=None)
"""


@pytest.mark.parametrize("before", ["", "cp.save()"])
def test_an_exit_hook_may_save(tmp_path, forked, before):
    child = forked(f"{START}{AT_EXIT}{before}\natexit.register(cp.save)", tmp_path)
    assert (child.returncode, child.stderr) == (0, "")
    assert saved(tmp_path) == 1
    assert len([*tmp_path.glob("*/manifest.json")]) == 1 + bool(before)


def test_an_exit_hook_may_save_and_wait(tmp_path, forked):
    hook = "atexit.register(lambda: (cp.save(), cp.wait(), cp.load(), cp.close()))"
    child = forked(f"{START}{AT_EXIT}{hook}", tmp_path)
    assert (child.returncode, child.stderr) == (0, "")
    assert saved(tmp_path) == 1


def test_a_daemon_thread_may_save_just_before_the_end(tmp_path, forked):
    script = f"""{START}{LATE}
begun = threading.Event()

def work():
    cp = begin(1)
    cp.save()
    begun.set()
    cp.wait()

threading.Thread(target=work, daemon=True).start()
begun.wait()
"""
    child = forked(script, tmp_path)
    assert child.returncode == 0, child.stderr
    assert saved(tmp_path) == 1


def test_threads_that_outlive_the_main_one_may_save(tmp_path, forked):
    script = f"""{START}
def work():
    main.join()
    cp = begin(1)
    for value in range(3):
        cp.agent.state["value"] = value
        cp.agent.state["w"][:] = value
        cp.save()

threading.Thread(target=work).start()
"""
    child = forked(script, tmp_path)
    assert child.returncode == 0, child.stderr
    assert saved(tmp_path) == 2


# Other processes

PROCESS = """
import multiprocessing, os, sys, threading
import numpy as np
from support.boxes import Box
from elementsckpt import Checkpoint
from elementsckpt.storage import disk

def work(directory):
    cp = Checkpoint(directory, background=True)
    cp.agent = Box({"value": 1, "w": np.full(300_000, 1)})
    cp.save()

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    process = context.Process(target=work, args=sys.argv[1:2])
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_process_of_multiprocessing_finishes_its_save(tmp_path, forked, method):
    script = tmp_path / "script.py"
    script.write_text(PROCESS)
    run = "import runpy, sys\n"
    run += f"sys.argv[0] = {str(script)!r}\n"
    run += "runpy.run_path(sys.argv[0], run_name='__main__')"
    child = forked(run, tmp_path / "ckpt", method)
    assert child.returncode == 0, child.stderr
    assert saved(tmp_path / "ckpt") == 1


FORK = """
import pathlib
from support.folders import Gate

directory = pathlib.Path(sys.argv[1])
to_child, to_parent = os.pipe(), os.pipe()

def tell(pipe):
    os.write(pipe[1], b"x")

def hear(pipe):
    os.read(pipe[0], 1)

def state(value):
    return {"value": value, "w": np.full(300_000, value)}
"""

FORKED = {
    "has nothing to wait for": (
        """
gate = disk.syscall = Gate()
cp.save()
pid = os.fork()
if not pid:
    os._exit(0 if cp.wait() is None else 1)
status = os.waitpid(pid, 0)[1]
gate.open()
cp.wait()
sys.exit(os.waitstatus_to_exitcode(status))
""",
        {"": 1},
    ),
    "saves what it has": (
        """
gate = disk.syscall = Gate()
cp.save()
pid = os.fork()
if not pid:
    disk.syscall = real
    cp.agent.state = state(2)
    cp.save(directory / "child")
    cp.wait()
    os._exit(0)
os.waitpid(pid, 0)
gate.open()
cp.wait()
""",
        {"": 1, "child": 2},
    ),
    "and its parent save at the same time": (
        """
cp.save()
cp.wait()
pid = os.fork()
if not pid:
    gate = disk.syscall = Gate()
    cp.agent.state = state(2)
    cp.save(directory / "child")
    tell(to_parent)
    hear(to_child)
    gate.open()
    cp.wait()
    os._exit(0)
hear(to_parent)
cp.agent.state = state(3)
cp.save(directory / "parent")
cp.wait()
tell(to_child)
os.waitpid(pid, 0)
""",
        {"": 1, "child": 2, "parent": 3},
    ),
}


@pytest.mark.parametrize("what", FORKED)
def test_a_forked_child(tmp_path, forked, what):
    code, expected = FORKED[what]
    child = forked(f"{START}{FORK}cp = begin(1)\n{code}", tmp_path)
    assert child.returncode == 0, child.stderr
    assert {name: saved(tmp_path / name) for name in expected} == expected


def test_the_thread_is_no_daemon_and_sets_no_signal_handler(tmp_path, forked):
    script = f"""{START}{LATE}
before = [signal.getsignal(x) for x in signal.valid_signals()]
cp = begin(1)
cp.save()
assert before == [signal.getsignal(x) for x in signal.valid_signals()]
assert [x.daemon for x in threading.enumerate() if x is not main] == [False]
"""
    child = forked(script, tmp_path)
    assert child.returncode == 0, child.stderr
