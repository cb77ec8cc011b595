"""Each verb prints what its function returns, for people and for programs."""

import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, Keep, Value
from elementsckpt.cli.main import main

from support.boxes import environment
from support.folders import flip_block

HOSTILE = "\x1b[31m\u202e<b>\nx"


@pytest.fixture
def run(tmp_path):
    """Return a directory of four saves: the first pinned, the second the best."""
    keep = Keep(latest=None, best=1, metric="return")
    cp = Checkpoint(tmp_path / "run", keep=keep, fsync=False)
    cp.step = elementsckpt.Counter()
    table = np.arange(1000.0)
    for number, value in enumerate([1.0, 9.0, float("nan"), 2.0]):
        cp.step.value = 1000 * number
        table[number] = np.nan if number == 3 else -1
        cp.agent = Value({"w": table, HOSTILE: number})
        metrics = {"return": value} | ({HOSTILE: 1} if number == 2 else {})
        cp.save(metrics=metrics, pin="paper" if number == 0 else None)
    return tmp_path / "run"


@pytest.fixture
def call(capsys):
    """Return a function that runs a command line: its status, output and errors."""

    def run(*arguments):
        status = main([str(x) for x in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def objects(output):
    found = [json.loads(line) for line in output.splitlines()]
    assert all(x.pop("schema") == 1 for x in found)
    return found


def test_ls_lists_saves(run, call):
    status, out, _ = call("ls", run)
    assert status == 0
    lines = out.splitlines()
    assert lines[0].startswith(f"{run}  4 saves, ")
    assert lines[1].split()[:5] == ["#", "step", "age", "size", "new"]
    assert [line.split()[0] for line in lines[2:]] == ["1", "2", "3", "4"]
    assert lines[2].endswith("pin paper")
    assert lines[3].endswith("best")
    assert "nan" in lines[4]
    assert lines[5].endswith("latest")


def test_ls_in_json_has_a_line_for_each_save(run, call):
    _, out, _ = call("ls", run, "--json")
    found = objects(out)
    infos = elementsckpt.saves(run)
    usage = elementsckpt.usage(run)
    for one, info, size in zip(found, infos, usage.saves, strict=True):
        assert one.pop("bytes_written") == size.bytes_written
        assert one.pop("size_bytes") == info.size_bytes
        one.pop("marks")
        assert one == info.to_dict()
    marks = [one["marks"] for one in objects(out)]
    assert marks == [["pin paper"], ["best"], [], ["latest"]]


def test_a_damaged_manifest_is_a_row_and_the_rest_goes_on(run, call):
    (elementsckpt.info(run).path / "manifest.json").write_text("{}")
    status, out, _ = call("ls", run)
    assert status == 0
    assert out.splitlines()[-1].split()[0] == "-"
    assert out.splitlines()[-1].endswith("damaged")
    assert "latest" in out.splitlines()[-2]
    last = objects(call("ls", run, "--json")[1])[-1]
    assert (last["step"], last["sequence"]) == (3000, None)
    assert last["error"]


def test_tree_shows_components_and_leaves(run, call):
    _, out, _ = call("tree", run)
    assert "agent" in out
    assert "float64[1000]" in out
    _, out, _ = call("tree", run, "-d", "1")
    assert "float64" not in out
    _, out, _ = call("tree", run, "--json", "-r", "w")
    (leaf,) = objects(out)
    assert leaf == elementsckpt.leaves(run, regex="w")[0].to_dict()


def test_verbs_say_which_save_they_show(run, call):
    line = r"#2  step 1,000  \d{4}-.* UTC  8.00 kB  return 9\n"
    for verb in ("tree", "stats"):
        assert re.match(line, call(verb, f"{run}@best")[1])
    out = call("diff", f"{run}@pin:paper", f"{run}@best")[1]
    assert re.match(rf"A  #1  step 0 .*  pin paper\nB  {line}", out)
    _, out, err = call("cat", f"{run}@best", "step")
    assert re.fullmatch(line, err)
    assert "#2" not in out
    assert call("cat", f"{run}@best", "step", "--json")[2] == ""


def test_verbs_say_that_the_newest_save_is_damaged(run, call, caplog):
    newest = elementsckpt.info(run).path
    (newest / "manifest.json").write_text("{}")
    for verb in ("tree", "stats"):
        assert call(verb, run)[1].startswith("#3  step 2,000")
    assert caplog.text.count(f"{newest} is damaged, so an older save is taken") == 1


def test_tree_shows_what_a_save_records(run, call):
    cp = Checkpoint(run, keep=None, fsync=False)
    cp.agent = Value(1)
    cp.save(metadata={"net": {"width": 128, "act": HOSTILE}}, pin="paper 2")
    _, out, _ = call("tree", run, "-l")
    assert re.search(r"metadata.net.width +128\n", out)
    assert re.search(r"pin +paper 2\n", out)
    assert re.search(rf"host +{os.uname().nodename}\n", out)
    assert "\x1b" not in out
    assert "width" not in call("tree", run)[1]


def test_pin_says_what_it_replaces(run, call):
    status, _, err = call("pin", f"{run}@best", "demo")
    assert (status, err) == (0, "")
    assert call("pin", f"{run}@best", "paper")[0] == 2
    status, _, err = call("pin", f"{run}@best", "thesis")
    assert (status, err) == (0, "It was pinned as demo.\n")
    assert call("unpin", f"{run}@best")[2] == ""
    assert call("unpin", f"{run}@best")[2] == "It had no pin, so nothing was changed.\n"


def test_report_overwrites_no_file_of_others(run, call, tmp_path):
    script = tmp_path / "train.py"
    script.write_text("x = 1")
    status, out, err = call("report", run, "-o", script)
    assert (status, out) == (2, "")
    assert "choose another name" in err
    assert script.read_text() == "x = 1"


def test_verify_finds_damage(run, call):
    assert call("verify", run)[0] == 0
    flip_block(elementsckpt.info(run).path, 0, key="agent")
    status, out, _ = call("verify", run)
    assert status == 1
    assert "✗ #4  step 3,000" in out
    assert "damaged: agent/w" in out
    assert "The newest good one is #3, of step 2,000, which load() takes." in out
    status, out, _ = call("verify", run, f"{run}@latest", "--json")
    assert status == 1
    first, second = objects(out)
    assert [x["is_good"] for x in first["saves"]] == [True, True, True, False]
    assert len(second["saves"]) == 1


def test_diff_finds_differences(run, call):
    status, out, _ = call("diff", f"{run}@latest~1", run)
    assert status == 1
    assert [line[0] for line in out.splitlines()[3:-2]] == ["~"] * 3
    assert "0 added, 0 removed, 3 changed, 0 same" in out
    status, out, _ = call("diff", run, run, "--json")
    assert status == 0
    assert objects(out)[0]["is_same"]


def test_stats_names_what_is_not_finite(run, call):
    assert "Not finite: agent/w." in call("stats", run)[1]
    assert "Not finite" not in call("stats", f"{run}@best")[1]


def test_a_diff_shows_forms_and_shortened_values(tmp_path, call):
    cp = Checkpoint(tmp_path, keep=None, fsync=False)
    values = [{"old": np.ones(3)}, {"new": np.ones((2, 3), "f4")}]
    long = [{"n": 2**127 + 1, "text": "x" * 300}, {"n": 2**127 + 2, "text": "y" * 300}]
    for one, other in zip(values, long, strict=True):
        cp.agent = Value(one | other)
        cp.save()
    _, out, _ = call("diff", f"{tmp_path}@#1", tmp_path)
    lines = out.splitlines()
    assert "-  agent/old   float64[3]" in lines
    assert "+  agent/new   float32[2,3]" in lines
    assert f"{2**127 + 1} → {2**127 + 2}" in out
    assert max(map(len, lines)) < 140
    (found,) = objects(call("diff", f"{tmp_path}@#1", tmp_path, "--json")[1])
    assert found["changed"][1]["value_a"] == "x" * 300


def test_a_pattern_for_the_end_of_names_is_told_how_to_begin(run, call):
    np.savez(run / "x.npz", **{"head/w": np.ones(3)})
    call("convert", run / "x.npz", run.parent / "other")
    status, _, err = call("tree", run.parent / "other", "-r", "w|v")
    assert status == 2
    assert "pass '.*(?:w|v)' for these" in err
    assert call("tree", run.parent / "other", "-r", ".*(?:w|v)")[0] == 0


def test_stats_fails_on_nan_if_told_so(run, call):
    status, out, _ = call("stats", run)
    assert status == 0
    assert "1 with NaN or infinities" in out
    assert call("stats", run, "--fail-on-nonfinite")[0] == 1
    assert call("stats", f"{run}@best", "--fail-on-nonfinite")[0] == 0
    found = objects(call("stats", run, "--json")[1])
    assert found == elementsckpt.stats(run).to_dict()


def test_du_has_a_bar_for_each_save(run, call):
    _, out, _ = call("du", run)
    assert out.count("█") >= 4
    (found,) = objects(call("du", run, "--json")[1])
    assert found == elementsckpt.usage(run).to_dict()


def test_cat_prints_a_leaf(run, call):
    _, out, _ = call("cat", run, "agent/w")
    assert out.startswith("agent/w  float64[1000]")
    (found,) = objects(call("cat", run, "agent/w", "--json")[1])
    assert found["value"][:5] == [-1, -1, -1, "nan", 4]
    assert len(found["value"]) == 1000
    assert call("cat", run, "step")[1].splitlines()[-1] == "3000"
    status, _, err = call("cat", run, "agent/v")
    assert status == 2
    assert "agent/w" in err
    assert call("cat", run, "step", "--npy")[0] == 2


def test_cat_writes_npy(run):
    script = [sys.executable, "-m", "elementsckpt", "cat", run, "agent/w", "--npy"]
    out = subprocess.run(script, env=environment(), capture_output=True)
    assert out.returncode == 0, out.stderr
    array = np.load(io.BytesIO(out.stdout))
    np.testing.assert_array_equal(array, elementsckpt.read(run)["agent"]["w"])


def test_prune_needs_rules_and_consent(run, call):
    before = len(elementsckpt.saves(run))
    for arguments in (["prune", run], ["prune", run, "-n"]):
        status, _, err = call(*arguments)
        assert status == 2
        assert "pass --latest N" in err
    status, _, err = call("prune", run, "--latest", "1")
    assert status == 2
    assert "pass --yes to remove, or -n" in err
    status, out, _ = call("prune", run, "--latest", "1", "-n")
    assert status == 0
    assert "Would remove 2 saves" in out
    assert "Would remove #2  step 1,000  return 9  20" in out
    assert len(elementsckpt.saves(run)) == before
    status, out, _ = call("prune", run, "--latest", "1", "--yes")
    assert status == 0
    assert [x.sequence for x in elementsckpt.saves(run)] == [1, 4]
    status, _, err = call("prune", run, "--best", "1", "--yes")
    assert status == 2
    assert "metric" in err


def test_prune_goes_by_what_the_run_records(run, call, tmp_path):
    for metric in ("retrun", "nothing"):
        words = ["prune", run, "--best", "1", "--metric", metric, "--yes"]
        status, _, err = call(*words)
        assert status == 2
        assert "Choose one of 'return'" in err
    words = ["prune", run, "--best", "1", "--metric", "return", "-n"]
    status, out, _ = call(*words)
    assert status == 0
    assert "2  1,000  best (max return: 9)" in out
    cp = Checkpoint(run, keep=Keep(None, 1, "loss", "min"), fsync=False)
    cp.step = elementsckpt.Counter(4000)
    cp.save(metrics={"loss": 1.0, "return": 1.0})
    words[-2] = "loss"
    assert "best (min loss: 1)" in call(*words)[1]
    words[-2] = "return"
    status, _, err = call(*words)
    assert status == 2
    assert "pass --mode max or --mode min" in err
    assert "best (min return: 1)" in call(*words, "--mode", "min")[1]
    for option in (["--metric", "return"], ["--mode", "min"]):
        status, _, err = call("prune", run, "--latest", "1", "--yes", *option)
        assert status == 2
        assert "for --best N, so nothing was removed" in err
    assert len(elementsckpt.saves(run)) == 5


def test_du_doctor_and_prune_tell_of_what_a_killed_process_left(run, call):
    left = run / ".20260101T000000F000000-000000000050"
    left.mkdir()
    (left / ".manifest.json").write_bytes(bytes(5000))
    assert "1 unfinished save, 5.00 kB" in call("du", run)[1]
    status, out, _ = call("doctor", run)
    assert status == 0
    assert "unfinished  1, 5.00 kB" in out
    assert (
        "1 unfinished save, 5.00 kB, would go"
        in call(*("prune", run, "--latest", "4", "-n"))[1]
    )
    status, out, _ = call("prune", run, "--latest", "4")  # It removes no save.
    assert status == 0
    assert "1 unfinished save, 5.00 kB, removed." in out
    assert not left.exists()


def test_verify_of_one_damaged_save_leads_to_the_others(run, call):
    flip_block(elementsckpt.info(run).path, 0, key="agent")
    for path in (f"{run}@3000", elementsckpt.info(run).path):
        status, out, _ = call("verify", path)
        assert status == 1
        assert f"It is damaged. See which are not: elementsckpt verify {run}" in out
        assert "Restore" not in out.splitlines()[-1]


def test_verify_names_a_folder_that_lost_its_manifest(run, call, caplog):
    lost = elementsckpt.info(run).path
    (lost / "manifest.json").unlink()
    status, out, _ = call("verify", run)
    assert status == 1
    assert f"✗ #?  step 3,000  {lost.name}" in out
    assert "is missing. Restore it from a copy" in out
    assert "The newest good one is #3" in out
    call("ls", run)
    call("prune", run, "--latest", "1", "--yes")
    assert caplog.text.count("is not a save: it has no manifest.json") == 1


@pytest.mark.parametrize("verb", ["ls", "du", "doctor", "report", "prune", "watch"])
def test_a_save_where_a_directory_is_asked_for(run, call, verb):
    more = ["--latest", "1", "-n"] if verb == "prune" else []
    save = elementsckpt.info(run).path
    for path in (save, f"{run}@best"):
        status, out, err = call(verb, path, *more)
        assert (status, out) == (2, "")
        assert f"is a save: pass the directory that it is in, {run}." in err
        assert "elementsckpt tree" in err
    status, out, err = call(verb, f"{run}@bset", *more)
    assert (status, out) == (2, "")
    assert "'bset' is not an address" in err


def test_rm_removes_one_save(run, call):
    status, out, _ = call("rm", f"{run}@best", "-n")
    assert "Would remove 1 save" in out
    assert call("rm", f"{run}@best")[0] == 2
    (found,) = objects(call("rm", f"{run}@best", "--yes", "--json")[1])
    assert len(found["removed"]) == 1
    assert [x.sequence for x in elementsckpt.saves(run)] == [1, 3, 4]
    status, _, err = call("rm", run, "--yes")
    assert status == 2
    assert "name the one to delete" in err


def test_doctor_leaves_no_trace(run, call):
    before = sorted(run.rglob("*"))
    status, out, _ = call("doctor", run)
    assert status == 0
    assert out.count("✓") == 8
    assert sorted(run.rglob("*")) == before
    found = objects(call("doctor", run, "--json")[1])
    assert {*found[0]} == {"check", "is_good", "found", "advice"}


def test_doctor_names_who_writes(run, call):
    cp = Checkpoint(run, keep=None, fsync=False)
    cp.agent = Value(1)
    cp.save()
    script = [sys.executable, "-m", "elementsckpt", "doctor", run]
    out = subprocess.run(script, env=environment(), capture_output=True, text=True)
    assert f"process {os.getpid()} on" in out.stdout
    assert out.returncode == 0


@pytest.mark.parametrize("verb", ["ls", "tree", "verify", "stats", "du", "doctor"])
def test_a_path_without_a_save_is_an_error_with_a_remedy(tmp_path, call, verb):
    status, out, err = call(verb, tmp_path / "none")
    assert (status, out) == (2, "")
    assert err.startswith("elementsckpt: ")
    assert "none" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls"],
        ["tree"],
        ["diff", "a"],
        ["nonsense"],
        [],
        ["tree", "{run}", "-r", "("],
        ["watch", "{run}", "--exec", ""],
        ["watch", "{run}", "--exec", "'"],
    ],
)
def test_bad_usage_is_2(run, arguments, capsys):
    try:
        status = main([x.format(run=run) for x in arguments])
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls", "{run}", "-l"],
        ["tree", "{run}"],
        ["diff", "{run}@latest~1", "{run}"],
        ["stats", "{run}"],
        ["verify", "{run}"],
        ["du", "{run}"],
    ],
)
def test_no_name_is_obeyed(run, call, arguments):
    _, out, _ = call(*(x.format(run=run) for x in arguments))
    assert "\x1b" not in out
    assert "\u202e" not in out


@pytest.mark.parametrize("arguments", [["--help"], ["ls", "--help"], ["--version"]])
def test_help_fits_on_a_screen(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 80


def test_watch_prints_a_line_for_each_save_and_runs_a_command(run, tmp_path):
    command = [sys.executable, "-m", "elementsckpt", "watch", str(run)]
    command += ["--exec", f"{sys.executable} -c 'import sys; print(sys.argv[1:])' --x"]
    watching = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, text=True
    )
    first = watching.stdout.readline()
    assert first.startswith("#4  step 3,000")
    assert str(elementsckpt.info(run).path) in watching.stdout.readline()
    cp = Checkpoint(run, keep=None, fsync=False)
    cp.agent = Value(1)
    cp.save()
    assert watching.stdout.readline().startswith("#5")
    watching.send_signal(2)
    watching.stdout.close()
    assert watching.wait() == 130


def test_convert_makes_a_run_of_a_file_or_of_saves(run, call, tmp_path):
    np.savez(tmp_path / "x.npz", **{"net/w": np.ones(3)})
    status, out, _ = call(
        *("convert", tmp_path / "x.npz", tmp_path / "a", "--rename", "^net/=model/")
    )
    assert status == 0
    path = elementsckpt.info(tmp_path / "a").path
    assert out == f"{path}  24 B\n"
    assert [x.full_name for x in elementsckpt.leaves(path)] == ["npz/model/w"]
    status, out, _ = call("convert", run, tmp_path / "b", "--all", "--json")
    assert status == 0
    saves = elementsckpt.saves(tmp_path / "b")
    assert objects(out) == [
        {"path": str(x.path), "size_bytes": x.size_bytes} for x in saves
    ]
    assert [x.step for x in saves] == [0, 1000, 2000, 3000]
    status, out, err = call("convert", run, tmp_path / "b")
    assert (status, out) == (2, "")
    assert "is not an empty folder" in err


def test_errors_name_options(run, call, tmp_path):
    status, _, err = call("export", run, tmp_path / "x.bin")
    assert status == 2
    assert "pass --to 'safetensors' or 'npz'" in err
    status, _, err = call("tree", run, "-r", "agnt/w")
    assert status == 2
    assert "-r 'agnt/w' matches no leaf" in err
    status, _, err = call("export", run, tmp_path / "x.npz", "--rename", ".*=x")
    assert status == 2
    assert "Choose some with -r, or rename them" in err
    assert "=" not in call("prune", run, "--best", "1")[2]


def test_a_leaf_may_be_given_as_tree_prints_it(tmp_path, call):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.agent = Value({"tab\tname": np.arange(3), "other": 1})
    cp.save()
    for name in ("agent/tab\tname", r"agent/tab\tname"):
        status, out, _ = call("cat", tmp_path, name)
        assert (status, out.splitlines()[-1]) == (0, "[0 1 2]")


def test_nothing_is_written_to_a_file_called_dash(run, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["export", run, "-", "--to", "npz"], ["report", run, "-o", "-"]):
        status, out, err = call(*words)
        assert (status, out) == (2, "")
        assert "pass the name of a file" in err
    assert [x.name for x in tmp_path.iterdir()] == ["run"]


def test_what_an_export_leaves_out_is_told_in_any_case(tmp_path, call):
    cp = Checkpoint(tmp_path / "run", fsync=False)
    cp.agent = Value({"text": "x" * 2000, "w": np.ones(3)})
    cp.save()
    _, out, err = call("export", tmp_path / "run", tmp_path / "x.npz", "--json")
    assert {*objects(out)[0]} == {"path", "size_bytes"}
    assert err == "Left out: agent/text.\n"
