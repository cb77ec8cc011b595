"""How much memory saving and loading take, measured in processes of their own."""

import json

import pytest

from support.boxes import python

START = """
import json, os, pathlib, re, sys
import numpy as np
from support.boxes import Box, LazyStream
from elementsckpt import Checkpoint

MB = 1 << 20
DATA = 128 * MB  # Twice the limit: a copy of half of it is found.
directory = pathlib.Path(sys.argv[1])
found = {}

def memory_mb(field):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(field + r":\\s+(\\d+)", status)[1]) / 1024

def grown(call):
    "Return by how many MB memory grew at most during a call."
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # The peak becomes what is.
    before = memory_mb("VmRSS")
    call()
    return memory_mb("VmHWM") - before

def checkpoint(state, kind=Box, **options):
    cp = Checkpoint(directory, fsync=False, **options)
    cp.agent = kind(state)
    return cp

# Once, with threads: what imports and threads take is not asked for.
warm = checkpoint([np.arange(MB), np.zeros(MB), "text" * 1000], compress=1)
warm.save()
warm.load()
"""


def run(script, *arguments):
    """Run the script after the start; return the numbers that it found, in MB."""
    child = python(f"{START}{script}\nprint(json.dumps(found))", *arguments)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


def over(found, limit):
    return {name: round(grown) for name, grown in found.items() if grown > limit}


SAVES = """
data = np.arange(DATA // 8)
base = np.arange(DATA // 800 * 101).reshape(-1, 101)
shards = ({"x": np.full(4 * MB, n, np.uint8)} for n in range(DATA // (4 * MB)))
states = {
    "one array": lambda: {"w": data},
    "many arrays": lambda: np.split(data, 512),
    "small arrays": lambda: np.split(data, 8192),
    "columns": lambda: {"w": base[:, :100]},
    "Fortran": lambda: {"w": data.reshape(8192, -1).T},
    "transposed": lambda: {"w": data.reshape(64, 64, -1).swapaxes(0, 1)},
    "reversed": lambda: {"w": data[::-1]},
    "big-endian": lambda: {"w": data.view(">i8")},
}
for compress in (None, "auto"):
    for name, state in states.items():
        if compress is None or name in ("one array", "columns"):
            cp = checkpoint(state(), compress=compress)
            found[f"{name}, {compress}"] = grown(cp.save)
zeros = np.zeros(DATA, np.uint8)
zeros[:] = 0
found["zeros"] = grown(checkpoint(zeros).save)
found["stream"] = grown(checkpoint(shards, LazyStream, compress=None).save)
"""


def test_a_save_takes_no_more_than_64_mb(tmp_path):
    found = run(SAVES, tmp_path)
    assert len(found) == 12
    assert over(found, 64) == {}


REUSES = """
chunks = np.split(np.arange(DATA // 8), 256)
cp = checkpoint(chunks, compress=None)
cp.save()
found["nothing changed"] = grown(cp.save)
cp.agent.state = [*chunks[25:], *(x + 1 for x in chunks[:25])]
found["front dropped"] = grown(cp.save)
report = None

def save():
    global report
    report = cp.save()

cp.agent.state = cp.agent.state[50::3]
found["moved"] = grown(save)
assert report.bytes_written > DATA / 5
cp = checkpoint(cp.agent.state, compress=None)
found["by another object"] = grown(save)
assert report.bytes_written < MB
"""


def test_a_save_that_reuses_and_moves_takes_no_more_than_64_mb(tmp_path):
    found = run(REUSES, tmp_path)
    assert len(found) == 4
    assert over(found, 64) == {}


LOADS = """
data = np.arange(DATA // 8)
states = {
    "one array": {"w": data},
    "many arrays": np.split(data, 512),
    "Fortran": {"w": data.reshape(8192, -1).T},
}
for name, state in states.items():
    for compress in (None, 1):
        if compress is None or name == "one array":
            checkpoint(state, compress=compress).save()
            cp = checkpoint(None)
            found[f"{name}, {compress}"] = grown(cp.load) - DATA / MB
            if compress is None:
                del cp
                cp = checkpoint(None)
                mapped = grown(lambda: cp.load(mmap=True))
                found[f"{name}, mapped"] = mapped - DATA / MB
                del cp
                cp = checkpoint(None)
                found["unverified"] = grown(lambda: cp.load(mmap=True, verify=False))
            del cp
cp = checkpoint(None)
checkpoint([data[:MB], data]).save()
cp.agent.state = [data[:MB], data]
found["a part"] = grown(lambda: cp.load(regex="0")) - 8
"""


def test_a_load_takes_no_more_than_the_data_and_64_mb(tmp_path):
    found = run(LOADS, tmp_path)
    assert len(found) == 9
    assert over(found, 64) == {}


STAGES = """
data = np.arange(DATA // 8)
for limit in (0, 16, 64):
    cp = checkpoint(data, compress=None, background=True, staging_bytes=limit * MB)

    def save():
        cp.agent.state += 1
        cp.save()
        cp.wait()

    found[f"bound of {limit} MB"] = grown(save) - limit
    before = memory_mb("VmRSS")
    cp.close()
    freed = before - memory_mb("VmRSS")
    assert freed >= limit - 1, freed
    found[f"after a close, {limit} MB"] = grown(save) - limit
"""


def test_copies_in_the_background_stay_below_their_bound_and_close_frees_them(tmp_path):
    found = run(STAGES, tmp_path)
    assert len(found) == 6
    assert over(found, 64) == {}


REPEATS = """
jax = None
if sys.argv[2] == "jax":
    os.environ["JAX_PLATFORMS"] = "cpu"  # Drivers of others keep memory of their own.
    import jax

def state(turn):
    arrays = np.split(np.arange(MB // 4) + turn, 8) + [np.full(10, turn)] * 100
    return [jax.device_put(x.astype(np.int32)) for x in arrays] if jax else arrays

cp = checkpoint(state(0), background=True, keep=2)
sizes = []
for turn in range(50):
    cp.agent.state = state(turn)
    cp.save()
    if turn in (9, 49):
        cp.wait()
        sizes.append(memory_mb("VmRSS"))
found["growth"] = sizes[1] - sizes[0]
"""


@pytest.mark.parametrize("arrays", ["numpy", "jax"])
def test_fifty_saves_in_the_background_take_no_more_than_ten(tmp_path, arrays):
    if arrays == "jax":
        pytest.importorskip("jax")
    assert over(run(REPEATS, tmp_path, arrays), 16) == {}
