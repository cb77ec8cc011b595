"""Trials with environments in worker processes, in a process that may fork.

Called with the name of a library, tries all and prints what came of each, as JSON.
"""

import contextlib
import copy
import json
import os
import signal
import sys
import threading
import traceback

import gymnasium
import numpy as np

import elementsckpt
from elementsckpt import Checkpoint, Environment, MismatchError, StateError

COUNT = 3


class Walk(gymnasium.Env):
    """A random walk in Python, whose faults can be set."""

    observation_space = gymnasium.spaces.Box(-1e9, 1e9, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        self.place = np.zeros(2)
        self.noise = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place[:] = self.np_random.normal(size=2)
        return self._see(), {"start": float(self.place[0])}

    def step(self, action):
        self.place += self.np_random.normal(size=2) + action
        # Drawn from the generator that all of the process share.
        self.place[0] += np.random.normal()
        return self._see(), float(self.place[0]), bool(self.place[1] > 3), False, {}

    def _see(self):
        return self.place.astype(np.float32)

    def open_file(self):
        self.noise = open(os.devnull)  # noqa: SIM115

    def close_file(self):
        self.noise.close()
        self.noise = None

    def change(self):
        self.__class__ = Other

    def put_in(self):
        self.step = self.twice

    def twice(self, action):
        Walk.step(self, action)
        return Walk.step(self, action)

    def where(self):
        return self.place.tolist()


class Other(Walk):
    """An environment of another class."""


class Gymnasium:
    """`AsyncVectorEnv` as the trials use it."""

    name = "AsyncVectorEnv"

    def __init__(self, count=COUNT, **options):
        self.envs = gymnasium.vector.AsyncVectorEnv(
            [Walk] * count, context="fork", **options
        )
        self.processes = self.envs.processes
        self.call = self.envs.call

    def reset(self, seed):
        self.envs.reset(seed=seed)

    def step(self, actions):
        found = self.envs.step(actions)
        return copy.deepcopy(found[:4])

    def call_one(self, number, name):
        pipe = self.envs.parent_pipes[number]
        pipe.send(("_call", (name, (), {})))
        return pipe.recv()[0]


class StableBaselines:
    """`SubprocVecEnv` as the trials use it."""

    name = "SubprocVecEnv"

    def __init__(self, count=COUNT):
        from stable_baselines3.common.vec_env import SubprocVecEnv

        self.envs = SubprocVecEnv([Walk] * count, start_method="fork")
        self.processes = self.envs.processes
        self.call = self.envs.env_method

    def reset(self, seed):
        self.envs.seed(seed)
        self.envs.reset()

    def step(self, actions):
        observations, rewards, dones, infos = self.envs.step(actions)
        ends = [info.get("terminal_observation") for info in infos]
        return observations, rewards, dones, repr((ends, self.envs.reset_infos))

    def call_one(self, number, name):
        return self.envs.env_method(name, indices=[number])[0]


LIBRARIES = {"gymnasium": Gymnasium, "stable_baselines3": StableBaselines}


@contextlib.contextmanager
def running(*envs):
    """Yield the environments, and end their workers."""
    try:
        yield envs[0] if len(envs) == 1 else envs
    finally:
        for item in envs:
            for process in item.processes:
                process.kill()


def play(envs, steps, seed):
    """Return what the steps return, and where the environments are then."""
    rng = np.random.default_rng(seed)
    found = [envs.step(rng.integers(0, 2, COUNT)) for _ in range(steps)]
    return repr((found, envs.call("where")))


def checkpoint(envs, folder="saves"):
    cp = Checkpoint(folder, fsync=False)
    cp.env = Environment(envs.envs)
    return cp


def error_of(kind, function, *arguments):
    try:
        function(*arguments)
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def lives_on(envs):
    """Check that the environments can still be used."""
    play(envs, 3, 0)
    assert all(process.is_alive() for process in envs.processes)


# Trials: each is given what makes vector environments.


def resumes(make, **options):
    """What is loaded goes on as what was saved, at each point, into any target."""
    for number, steps in enumerate((0, 1, 4, 7, 12)):
        folder = f"saves{number}"
        with running(make(**options), make(**options)) as (saved, here):
            saved.reset(steps)
            play(saved, steps, 1)
            checkpoint(saved, folder).save()
            expected = play(saved, 40, 2)
            here.reset(99)
            play(here, 12 - steps, 3)
            checkpoint(here, folder).load()
            assert play(here, 40, 2) == expected


def without_shared_memory_it_resumes(make):
    resumes(make, shared_memory=False)


def with_same_step_it_resumes(make):
    modes = getattr(gymnasium.vector, "AutoresetMode", None)
    if modes is not None:  # From Gymnasium 1.1 on.
        resumes(make, autoreset_mode=modes.SAME_STEP)


def a_step_that_was_put_in_stays(make):
    with running(make(), make()) as (saved, here):
        for envs, seed in ((saved, 0), (here, 9)):
            envs.call("put_in")
            envs.reset(seed)
        play(saved, 5, 1)
        checkpoint(saved).save()
        expected = play(saved, 20, 2)
        checkpoint(here).load()
        assert play(here, 20, 2) == expected
        assert here.call("where") == saved.call("where")


def what_workers_cannot_save_is_refused(make):
    with running(make()) as envs:
        envs.reset(0)
        for number in (0, 2):
            envs.call_one(number, "open_file")
        cp = checkpoint(envs)
        said = error_of(StateError, cp.save)
        path = f"unwrapped.noise is an open file ({os.devnull!r})"
        for number in (0, 2):
            assert f"worker {number}: {path}" in said, said
        assert "worker 1" not in said
        assert "parts={type: None}" in said, said
        assert not cp.saves()
        lives_on(envs)
        for number in (0, 2):
            envs.call_one(number, "close_file")
        cp.save()


def a_step_under_way_is_refused(make):
    with running(make()) as envs:
        envs.reset(0)
        cp = checkpoint(envs)
        cp.save()
        envs.envs.step_async(np.zeros(COUNT, int))
        said = error_of(StateError, cp.save)
        assert f"{envs.name} with a step under way" in said, said
        assert "Save before step_async() or after step_wait()." in said, said
        assert "a step is under way" in error_of(MismatchError, cp.load)
        envs.envs.step_wait()
        lives_on(envs)
        cp.load()


def closed_environments_are_refused(make):
    envs = make()
    envs.reset(0)
    cp = checkpoint(envs)
    cp.save()
    envs.envs.close()
    assert f"{envs.name} that is closed" in error_of(StateError, cp.save)
    assert "it is closed" in error_of(MismatchError, cp.load)


def a_dead_worker_is_named(make):
    for number in range(COUNT):
        with running(make()) as envs:
            envs.reset(0)
            cp = checkpoint(envs, f"saves{number}")
            cp.save()
            envs.processes[number].kill()
            envs.processes[number].join()
            said = error_of(StateError, cp.save)
            assert f"worker {number} has died" in said, said
            assert "Make the vector environment again" in said, said
            said = error_of(MismatchError, cp.load)
            assert f"worker {number} has died" in said, said
            assert len(cp.saves()) == 1


def a_worker_that_dies_meanwhile_is_named(make):
    """A worker is stopped, and killed while the program waits for its answer."""
    for verb in ("save", "load"):
        with running(make()) as envs:
            envs.reset(0)
            cp = checkpoint(envs, f"saves-{verb}")
            cp.save()
            os.kill(envs.processes[1].pid, signal.SIGSTOP)
            killer = threading.Timer(0.3, envs.processes[1].kill)
            killer.start()
            kind = StateError if verb == "save" else MismatchError
            said = error_of(kind, getattr(cp, verb))
            killer.join()
            assert "worker 1 has died" in said, said


def another_number_of_workers_is_refused(make):
    with running(make(), make(2)) as (saved, here):
        saved.reset(0)
        checkpoint(saved).save()
        here.reset(0)
        before = here.call("where")
        said = error_of(MismatchError, checkpoint(here).load)
        assert f"{saved.name}[{COUNT}]" in said, said
        assert f"{saved.name}[2]" in said, said
        assert repr(here.call("where")) == repr(before)


def nothing_changes_if_one_worker_does_not_fit(make):
    with running(make(), make()) as (saved, here):
        saved.reset(0)
        checkpoint(saved).save()
        here.reset(1)
        here.call_one(1, "change")
        before = here.call("where")
        said = error_of(MismatchError, checkpoint(here).load)
        assert "worker 1: the environment: a" in said, said
        assert "worker 0" not in said, said
        assert repr(here.call("where")) == repr(before)
        lives_on(here)


def an_interrupt_leaves_no_answer_behind(make):
    """A signal amid a save or a load is raised, and the pipes are in order."""

    def interrupt(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    with running(make()) as envs:
        envs.reset(0)
        cp = checkpoint(envs)
        cp.save()
        for delay in np.linspace(0.0005, 0.02, 40):
            for verb in (cp.save, cp.load):
                with contextlib.suppress(KeyboardInterrupt):
                    try:
                        signal.setitimer(signal.ITIMER_REAL, delay)
                        verb()
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                assert len(envs.call("where")) == COUNT
        cp.load()
        lives_on(envs)


def parts_reach_the_workers(make):
    with running(make()) as envs:
        envs.reset(0)
        envs.call("open_file")
        cp = Checkpoint("saves", fsync=False)
        kind = type(sys.stdin)
        cp.env = Environment(envs.envs, parts={kind: None})
        cp.save()
        cp.env = Environment(envs.envs, parts={kind: (lambda live: 1, lambda *_: None)})
        cp.save()
        cp.load()
        lives_on(envs)


def leaves_have_names(make):
    with running(make()) as envs:
        envs.reset(0)
        saved = checkpoint(envs).save()
        names = {leaf.full_name for leaf in elementsckpt.leaves(saved.path)}
        for number in range(COUNT):
            assert any(f"workers/{number}/" in x and "place" in x for x in names), names


BOTH = [
    resumes,
    what_workers_cannot_save_is_refused,
    a_step_under_way_is_refused,
    closed_environments_are_refused,
    a_dead_worker_is_named,
    a_worker_that_dies_meanwhile_is_named,
    another_number_of_workers_is_refused,
    nothing_changes_if_one_worker_does_not_fit,
    an_interrupt_leaves_no_answer_behind,
    parts_reach_the_workers,
    leaves_have_names,
]
TRIALS = {
    "gymnasium": [
        *(*BOTH, without_shared_memory_it_resumes, with_same_step_it_resumes),
        a_step_that_was_put_in_stays,
    ],
    "stable_baselines3": BOTH,
}


def main(library):
    found = {}
    for trial in TRIALS[library]:
        folder = trial.__name__
        os.mkdir(folder)
        os.chdir(folder)
        try:
            trial(LIBRARIES[library])
            found[folder] = ""
        except BaseException:
            found[folder] = traceback.format_exc()
        os.chdir("..")
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
