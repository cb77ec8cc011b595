"""What hurts the users of other checkpoint libraries: one rule, one test.

Each is what issues of those libraries are about. Where other tests here say more, these
are the short form.
"""

import collections
import errno
import logging
import math
import os
import shutil
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, Keep
from elementsckpt.storage import disk

from support import boxes, faults


def make(directory, keep=1, state=None, **options):
    cp = Checkpoint(directory, keep=keep, **options)
    cp.step = elementsckpt.Counter()
    cp.agent = boxes.Box({"w": np.zeros(3)} if state is None else state)
    return cp


def save(cp, step, **about):
    cp.step.load(step)
    cp.agent.state = {"w": np.full(3, step)}
    return cp.save(**about).path


def steps(cp):
    return [info.step for info in cp.saves()]


def test_rule_1_the_best_do_not_evict_the_newest(tmp_path):
    cp = make(tmp_path, Keep(latest=0, best=2, metric="return"))
    for step, score in enumerate([9, 8, 1, 2]):
        save(cp, step, metrics={"return": score})
    assert steps(cp) == [0, 1, 3]


def test_rule_2_order_is_not_by_names_or_times(tmp_path):
    cp = make(tmp_path, keep=2)
    for step in [9, 10, 8]:
        save(cp, step)
    assert steps(cp) == [10, 8]
    assert cp.load().step == 8


def test_rule_3_the_old_goes_when_the_new_is_there(tmp_path, monkeypatch):
    cp = make(tmp_path, keep=1)
    old = save(cp, 0)
    calls = faults.Records()
    monkeypatch.setattr(disk, "syscall", calls)
    new = save(cp, 1)
    commit = faults.Rename(new / ".manifest.json", new / "manifest.json")
    removal = faults.Rename(old, old.with_name(f".{old.name}"))
    assert calls.events.index(commit) < calls.events.index(removal)
    assert not old.exists()


def test_rule_4_a_reused_directory_does_not_eat_what_is_new(tmp_path, caplog):
    save(make(tmp_path), 1_000_000)
    cp = make(tmp_path, keep=2)
    save(cp, 0)
    save(cp, 1)
    assert steps(cp) == [0, 1]
    (record,) = [x for x in caplog.records if x.levelno == logging.WARNING]
    assert "step 1000000 of another run" in record.getMessage()


def test_rule_5_a_save_at_an_existing_step_is_made(tmp_path):
    cp = make(tmp_path, keep=2)
    first, second = save(cp, 7), save(cp, 7)
    assert first != second
    assert steps(cp) == [7, 7]
    assert cp.load().path == second


def test_rule_6_leftovers_of_a_crash_do_not_break_the_next_run(tmp_path):
    cp = make(tmp_path)
    save(cp, 1)
    unfinished = save(cp, 2, path=tmp_path / "20990101T000000F000000-000000000009")
    (unfinished / "manifest.json").rename(unfinished / ".manifest.json")
    again = make(tmp_path)
    assert again.load_or_save()
    assert again.step == 1
    save(again, 3)
    assert not unfinished.exists()


def test_rule_7_a_copied_save_is_one_and_stays(tmp_path):
    cp = make(tmp_path / "a")
    copy = shutil.copytree(save(cp, 1), tmp_path / "b" / "somewhere")
    other = make(tmp_path / "b")
    other.load(copy)
    assert other.step == 1
    save(other, 2)
    assert elementsckpt.checkpoint.exists(copy)


def test_rule_8_a_failure_in_the_background_is_raised(tmp_path, monkeypatch):
    cp = make(tmp_path, background=True)
    original = disk.syscall

    def refuse(call, *args):
        if call is os.fsync:
            raise OSError(errno.EIO, "Input/output error")
        return original(call, *args)

    monkeypatch.setattr(disk, "syscall", refuse)
    cp.save()
    with pytest.raises(OSError, match="Input/output error"):
        cp.close()


def test_rule_9_the_last_save_is_finished_when_the_process_ends(tmp_path):
    script = """
import sys, numpy, elementsckpt
cp = elementsckpt.Checkpoint(sys.argv[1], background=True)
cp.agent = elementsckpt.Saveable(["w"])
cp.agent.w = numpy.ones(10_000_000)
cp.save()
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert elementsckpt.read(tmp_path)["agent"]["w"].sum() == 10_000_000


def test_rule_10_the_snapshot_is_owned_before_save_returns(tmp_path):
    cp = make(tmp_path, background=True)
    array, donated = np.zeros(1_000_000), jnp.zeros(1_000_000)
    cp.agent.state = {"array": array, "donated": donated}
    cp.save()
    array[:] = 1
    jax.jit(lambda x: x + 1, donate_argnums=0)(donated)
    cp.wait()
    found = elementsckpt.read(tmp_path)["agent"]
    assert not found["array"].any()
    assert not found["donated"].any()


def test_rule_13_a_load_is_exact_or_all_mismatches_are_one_error(tmp_path):
    cp = make(tmp_path, state={"a": np.zeros(3, np.float32), "b": np.zeros(4)})
    cp.save()
    cp.agent.state = {"a": np.ones(3, np.float16), "b": np.ones(5)}
    with pytest.raises(ValueError, match=r"(?s)agent/.*\n.*agent/"):
        cp.load(regex=".*")
    assert cp.agent.state["a"].sum() == 3


def test_rule_14_a_report_says_what_was_loaded(tmp_path):
    cp = make(tmp_path, state={"a": np.zeros(3), "b": np.zeros(3)})
    cp.save()
    cp.agent.state = {"a": np.zeros(3), "c": np.zeros(3)}
    report = cp.load(keys=["agent"], regex=".*", strict=False)
    assert report.loaded == ("agent/a",)
    assert report.missing == ("agent/c",)
    assert report.unexpected == ("agent/b",)


def test_rule_15_only_the_weights_is_one_line_and_no_match_an_error(tmp_path):
    cp = make(tmp_path, state={"params": {"w": np.ones(3)}, "opt": np.ones(3)})
    cp.save()
    assert list(elementsckpt.read(tmp_path, regex="params/.*")["agent"]) == ["params"]
    with pytest.raises(ValueError, match="matches no leaf"):
        cp.load(regex="weights/.*")


def test_rule_16_metadata_needs_no_devices(tmp_path):
    cp = make(tmp_path, state={"w": jnp.zeros(3)}, metadata={"lr": 0.1})
    cp.save(metrics={"return": 1.0})
    script = """
import sys, elementsckpt
info = elementsckpt.info(sys.argv[1])
print(info.metadata, info.metrics, "jax" in sys.modules)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output == "{'lr': 0.1} {'return': 1.0} False\n"


def test_rule_17_keys_and_generators_are_state(tmp_path):
    rng = np.random.default_rng(7)
    rng.standard_normal(3)
    cp = make(tmp_path, state={"key": jax.random.key(3), "rng": rng})
    cp.save()
    expected = jax.random.normal(cp.agent.state["key"]), rng.standard_normal(3)
    cp.load()
    state = cp.agent.state
    assert jax.random.normal(state["key"]) == expected[0]
    assert (state["rng"].standard_normal(3) == expected[1]).all()


Pair = collections.namedtuple("Pair", "a b")


def test_rule_18_containers_come_back_as_they_were(tmp_path):
    state = {"empty": {}, "none": None, "text": "é", "pair": Pair((), []), 3: {1}}
    cp = make(tmp_path, state=state)
    cp.save()
    cp.load()
    assert cp.agent.state == state
    assert type(cp.agent.state["pair"]) is Pair


def test_rule_19_nothing_loaded_is_an_error(tmp_path):
    save(make(tmp_path), 1)
    with pytest.raises(elementsckpt.ComponentError, match="Nothing is registered"):
        Checkpoint(tmp_path).load_or_save()


def test_rule_20_replay_is_saved_and_costs_what_changed(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (500, 1 << 16), np.uint8)
    cp = make(tmp_path, keep=2, state={"frames": frames})
    cp.save()
    frames[0] += 1
    assert cp.save().bytes_written < 0.05 * frames.nbytes
    cp.load()
    assert (cp.agent.state["frames"] == frames).all()


def test_rule_21_a_map_of_an_old_save_outlives_it(tmp_path):
    cp = make(tmp_path, keep=1)
    save(cp, 5)
    cp.load(mmap=True)
    mapped = cp.agent.state["w"]
    save(cp, 6)
    mapped += 1
    assert (mapped == 6).all()
    assert (elementsckpt.read(tmp_path)["agent"]["w"] == 6).all()


def test_rule_23_any_path_and_any_thread_will_do(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    cp = make("relative/./ckpt")
    thread = threading.Thread(target=save, args=(cp, 1))
    thread.start()
    thread.join()
    assert steps(make("relative/ckpt")) == [1]
    assert capfd.readouterr() == ("", "")


def test_rule_24_a_cleanup_that_fails_does_not_end_training(
    tmp_path, monkeypatch, caplog
):
    cp = make(tmp_path, keep=1)
    old = save(cp, 0)
    original = disk.syscall

    def refuse(call, *args):
        if str(args[0]).startswith((str(old), str(old.with_name(f".{old.name}")))):
            raise OSError(errno.EIO, "Input/output error")
        return original(call, *args)

    monkeypatch.setattr(disk, "syscall", refuse)
    save(cp, 1)
    assert "Could not remove" in caplog.text
    assert cp.load().step == 1


def test_rule_25_a_metric_that_is_not_finite_is_never_the_best(tmp_path):
    cp = make(tmp_path, Keep(best=1, metric="return"))
    save(cp, 0, metrics={"return": -5.0})
    save(cp, 1, metrics={"return": math.nan})
    save(cp, 2, metrics={"return": math.inf})
    assert cp.load("best").step == 0
