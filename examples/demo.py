"""The life of a run: train, be killed, resume, be evaluated, help another, be seen.

    make demo

Each step checks what it says, and the first that fails ends the demo with an error.
"""

import os
import pathlib
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator

import numpy as np

import elementsckpt

CARTPOLE = pathlib.Path(__file__).resolve().with_name("cartpole.py")


def main() -> None:
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="elementsckpt-") as folder:
        os.chdir(folder)
        cartpole, acrobot = pathlib.Path("cartpole"), pathlib.Path("acrobot")
        step = train_and_kill(cartpole)
        look(cartpole / "ckpt")
        score = resume(cartpole, step)
        evaluate(cartpole, score)
        transfer(cartpole / "ckpt", acrobot)
        prove()
        page = show(cartpole / "ckpt")
    seconds = time.monotonic() - begin
    print(f"\nEverything was as it should be, in {seconds:.0f} seconds.")
    print(f"The page about the saves: {page}")


def train_and_kill(logdir: pathlib.Path) -> int:
    title("1. Train, and kill it")
    say("A DQN learns CartPole and saves every 1000 steps.")
    process = start("--logdir", logdir)
    try:
        for line in shown(process):
            if line.startswith("Step   5000"):
                time.sleep(random.uniform(0, 0.5))  # Any moment will do.
                break
    finally:
        process.kill()
    for _ in shown(process):  # What it printed before it died.
        pass
    check(process.returncode == -signal.SIGKILL, "it ended by itself")
    step = elementsckpt.info(logdir / "ckpt").step
    check(step is not None and step >= 5000, f"its last save is of step {step}")
    say(f"kill -9, in the midst of training. The last save it made is of step {step}.")
    return step


def look(directory: pathlib.Path) -> None:
    title("2. Look at what is left")
    saves = [save.path.name for save in elementsckpt.Checkpoint(directory).saves()]
    check(len(saves) >= 3, f"there are only {len(saves)} saves")
    unfinished = False
    for path in sorted(directory.iterdir()):
        if path.name == "latest":
            print(f"  | latest: {path.read_text()}")
        elif path.name in saves:
            print(f"  | {path.name}/")
        else:
            print(f"  | {path.name} (unfinished)")
            unfinished = True
        if path.name == saves[-1]:
            for file in sorted(path.iterdir()):
                print(f"  |     {file.name:30} {file.stat().st_size / 1e3:7.1f} kB")
    say("Each folder is a complete save, readable with any safetensors library.")
    if unfinished:
        say("What the run was just writing when it died is no save, and harms none.")


def resume(logdir: pathlib.Path, step: int) -> float:
    title("3. Resume")
    say("The same command again. (From here on, not every line is shown.)")
    lines = list(shown(start("--logdir", logdir), every=4))
    check(lines[0].startswith(f"Resumed at step {step},"), "it resumed elsewhere")
    score = number(r"Solved: greedy return (\d+\.\d)", lines[-1])
    check(score >= 400, "the return is less than 400")
    say(
        f"It went on at step {step} with its network, optimizer, replay buffer and "
        f"random numbers, the pole where it was, and reached a mean return of {score}."
    )
    return score


def evaluate(logdir: pathlib.Path, score: float) -> None:
    title("4. Evaluate")
    say("A Checkpoint() without a directory loads the agent, and nothing else.")
    lines = list(shown(start("--logdir", logdir, "--eval-only")))
    again = number(r"greedy return (\d+\.\d)", lines[-1])
    check(again == score, f"the return was {score} before")
    say("The same agent to the bit, so the same return.")


def transfer(directory: pathlib.Path, logdir: pathlib.Path) -> None:
    title("5. Transfer")
    say("Another task, Acrobot, borrows the hidden layers. A regex selects them.")
    task = ["--task", "Acrobot-v1", "--steps", "2000"]
    source = ["--from-checkpoint", directory]
    regex = ["--from-checkpoint-regex", "params/hidden.*"]
    for _ in shown(start("--logdir", logdir, *task, *source, *regex)):
        pass
    first = elementsckpt.Checkpoint(logdir / "ckpt").saves()[0]
    check(first.step == 0, "the first save of Acrobot is gone")
    lent = elementsckpt.read(directory, keys=["agent"])["agent"]["params"]
    borrowed = elementsckpt.read(first.path, keys=["agent"])["agent"]["params"]
    print("  | layer    CartPole Acrobot")
    for layer in ("input", "hidden0", "hidden1", "output"):
        ours, theirs = lent[layer], borrowed[layer]
        same = [np.array_equal(ours[name], theirs[name]) for name in ours]
        wanted = layer.startswith("hidden")
        check(all(same) if wanted else not any(same), f"{layer} is not as it should be")
        shapes = f"{ours['kernel'].shape!s:8} {theirs['kernel'].shape!s:8}"
        print(f"  | {layer:8} {shapes} {'the same bits' if wanted else 'left alone'}")
    say(
        "Input and output layers differ in shape between the tasks, and stayed as they "
        "were initialized. Training goes on from there."
    )


def prove() -> None:
    title("6. Prove it")
    say("One run without a stop and one with, compared leaf by leaf.")
    lines = list(shown(start("--check-resume"), every=4))
    count = number(r"All (\d+) leaves are identical", lines[-1])
    check(count > 0, "nothing was compared")
    say("A stopped and resumed run is the run that was never stopped, bit for bit.")


def show(directory: pathlib.Path) -> pathlib.Path:
    title("7. Look at all of it")
    run("ls", str(directory), "-l")
    two = f"{directory}@latest~1", f"{directory}@latest"
    run("diff", *two, "-r", "agent/params")
    folder = tempfile.mkdtemp(prefix="elementsckpt-report-")  # Stays.
    page = pathlib.Path(folder, "report.html")
    run("report", str(directory), "-o", str(page), "--verify")
    check("1 damaged" not in page.read_text("utf-8"), "a save is damaged")
    say("A page without a server: metrics, bytes, what changed, where it comes from.")
    return page


def run(*arguments: str) -> None:
    """Run a command line, and show what it prints."""
    print("  $", shlex.join(["elementsckpt", *arguments]), flush=True)
    command = [sys.executable, "-m", "elementsckpt", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    for line in done.stdout.splitlines():
        print(f"  | {line}", flush=True)
    check(done.returncode <= 1, f"it ended with exit status {done.returncode}")


def start(*flags: object) -> "subprocess.Popen[str]":
    words = [str(flag) for flag in flags]
    line = shlex.join(["python", CARTPOLE.name, *words])
    print("  $", line.replace(" --from", " \\\n      --from"), flush=True)
    command = [sys.executable, "-u", str(CARTPOLE), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def shown(process: "subprocess.Popen[str]", *, every: int = 1) -> Iterator[str]:
    """Yield the lines that a run prints; show them, but of its steps every n-th."""
    steps = 0
    assert process.stdout
    for line in filter(None, map(str.rstrip, process.stdout)):
        steps += line.startswith("Step ")
        if not line.startswith("Step ") or steps % every == 0:
            print(f"  | {line}", flush=True)
        yield line
    process.stdout.close()
    check(process.wait() <= 0, f"it ended with exit status {process.returncode}")


def number(pattern: str, line: str) -> float:
    match = re.search(pattern, line)
    check(match is not None, f"the last line is {line!r}")
    return float(match[1])


def check(true: bool, problem: str) -> None:
    if not true:
        sys.exit(f"\nThe demo failed: {problem}.")


def title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def say(text: str) -> None:
    print(textwrap.fill(text, width=80), flush=True)


if __name__ == "__main__":
    main()
