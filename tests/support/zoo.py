"""Environments that are proved, by name: each process makes them anew.

Those in `FAST` need Gymnasium alone; the others simulators, which `make environments`
installs.
"""

import collections
import functools
import importlib
import random
import types

import gymnasium
import numpy as np
import pytest
from gymnasium import wrappers

FAST, SIMULATED = {}, {}
NEEDS = {}  # Modules to be imported, by name.


def add(name, make, *needs, table=SIMULATED):
    table[name] = make
    NEEDS[name] = needs


def make(name):
    """Make an environment."""
    for module in NEEDS[name]:
        importlib.import_module(module)
    return {**FAST, **SIMULATED}[name]()


def require(name):
    """Skip the test if a module is not installed that the environment needs."""
    for module in NEEDS[name]:
        pytest.importorskip(module)


def add_made(id_, *needs, name=None, table=SIMULATED, wrap=(), **options):
    def make():
        for module in needs:
            found = importlib.import_module(module)
            if module in ("ale_py", "gymnasium_robotics"):
                gymnasium.register_envs(found)
        env = gymnasium.make(id_, **options)
        for wrapper in wrap:
            env = wrapper(env)
        return env

    add(name or id_, make, *needs, table=table)


# Classic control and toy text


CLASSIC = ["CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"]
TOY = ["FrozenLake-v1", "Blackjack-v1"]
for id_ in [*CLASSIC, "Acrobot-v1", *TOY]:
    add_made(id_, table=FAST)
for id_ in ["Taxi", "CliffWalking"]:  # Their versions changed with Gymnasium 1.1.
    newest = max(x for x in gymnasium.registry if x.startswith(f"{id_}-v"))
    add_made(newest, name=id_, table=FAST)


# Wrappers


def double(observation):
    return observation * 2


add_made(
    "CartPole-v1",
    name="CartPole in nine wrappers",
    table=FAST,
    wrap=[
        functools.partial(wrappers.TimeLimit, max_episode_steps=33),
        wrappers.RecordEpisodeStatistics,
        wrappers.TimeAwareObservation,
        wrappers.NormalizeObservation,
        wrappers.NormalizeReward,
        lambda env: wrappers.TransformReward(env, lambda reward: np.tanh(reward)),
        lambda env: wrappers.StickyAction(env, 0.3),
        lambda env: wrappers.DelayObservation(env, 2),
        lambda env: wrappers.FrameStackObservation(env, 4),
    ],
)
add_made(
    "Pendulum-v1",
    name="Pendulum in seven wrappers",
    table=FAST,
    wrap=[
        wrappers.ClipAction,
        wrappers.RecordEpisodeStatistics,
        wrappers.NormalizeObservation,
        wrappers.NormalizeReward,
        lambda env: wrappers.TransformObservation(
            env, lambda x: x * 2, env.observation_space
        ),
        lambda env: wrappers.FrameStackObservation(env, 3),
        wrappers.Autoreset,
    ],
)
add_made(
    "CartPole-v1",
    "pygame",
    "moviepy",
    name="CartPole on video",
    render_mode="rgb_array",
    wrap=[
        lambda env: wrappers.RecordVideo(
            env, "videos", episode_trigger=lambda n: n == 0, disable_logger=True
        )
    ],
)


# Classes of one's own


class Shared:
    def __init__(self, rng):
        self.rng, self.count = rng, 0


class Slots:
    __slots__ = ("__weakref__", "last", "name")

    def __init__(self):
        self.last, self.name = collections.deque(maxlen=5), "slots"


class Own(gymnasium.Env):
    """Has what such classes have: views, closures, cycles, generators, slots."""

    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,))
        self.action_space = gymnasium.spaces.Discrete(3)
        self.state = np.zeros(6)
        self.position = self.state[:3]
        self.reward = lambda state: float(np.tanh(state.sum()))
        self.clip = functools.partial(np.clip, a_min=-5, a_max=5)
        self.bound = self.noise
        self.legacy = np.random.RandomState(3)
        self.python = random.Random(4)
        self.tasks = {"seen": set(), "counts": collections.defaultdict(int)}
        self.slots = Slots()
        count = 0

        def counter():
            nonlocal count
            count += 1
            return count

        self.counter = counter

    def noise(self):
        return self.np_random.normal(size=3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state[:] = self.np_random.normal(size=6)
        self.shared = Shared(self.np_random.spawn(1)[0])
        self.others = [self.shared, {"again": self.shared}]
        self.path = []
        self.path.append(self.path)
        self.age = 0
        return self.position.astype(np.float32), {"n": self.counter()}

    def step(self, action):
        self.age += 1
        self.shared.count += int(action)
        self.position += self.bound() + self.shared.rng.normal() * (int(action) - 1)
        self.position[:] = self.clip(self.position)
        self.tasks["seen"].add(int(action))
        self.tasks["counts"][int(action)] += 1
        self.slots.last.append((self.age, self.position.copy()))
        info = {
            "n": self.counter(),
            "count": self.others[1]["again"].count,
            "draws": [self.legacy.rand(), self.python.random()],
            "tasks": [sorted(self.tasks["seen"]), dict(self.tasks["counts"])],
            "last": [x[1] for x in self.slots.last],
        }
        over = self.age > 40
        seen = self.position.astype(np.float32)
        return seen, self.reward(self.state), over, False, info


class Legacy(gymnasium.Env):
    """Draws from the global generators, as old environments do."""

    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(-9, 9, (2,), np.float64)
        self.action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed)
        return np.array([random.random(), np.random.rand()]), {}

    def step(self, action):
        seen = np.array([random.random(), np.random.rand()])
        return seen, float(seen[0]), bool(seen[1] > 0.95), False, {}


add("own class", Own, table=FAST)


# MuJoCo


for id_ in ["InvertedPendulum-v5", "InvertedDoublePendulum-v5", "Reacher-v5"]:
    add_made(id_, "mujoco")
for id_ in ["Swimmer-v5", "Hopper-v5", "Walker2d-v5", "HalfCheetah-v5", "Pusher-v5"]:
    add_made(id_, "mujoco")
for id_ in ["Ant-v5", "Humanoid-v5", "HumanoidStandup-v5"]:
    add_made(id_, "mujoco")
ROBOTICS = ["FetchPickAndPlace-v4", "HandReach-v3", "PointMaze_UMaze-v3"]
for id_ in [*ROBOTICS, "AdroitHandDoor-v1", "AntMaze_UMaze-v5"]:
    add_made(id_, "mujoco", "gymnasium_robotics")


class Ordered(gymnasium.Wrapper):
    """Orders the tasks in the info, which come in the order of the hashes of texts."""

    def reset(self, **arguments):
        seen, info = self.env.reset(**arguments)
        return seen, self.ordered(info)

    def step(self, action):
        *result, info = self.env.step(action)
        return *result, self.ordered(info)

    def ordered(self, info):
        tasks = {k: sorted(v) for k, v in info.items() if isinstance(v, (list, set))}
        return {**info, **tasks}


add_made("FrankaKitchen-v1", "mujoco", "gymnasium_robotics", wrap=[Ordered])


def add_randomized():
    def make():
        from gymnasium.envs.mujoco.ant_v5 import AntEnv

        class Randomized(AntEnv):
            """Has other masses, friction, gravity and colours in each episode."""

            def reset_model(self):
                draw = self.np_random.uniform
                self.model.body_mass[:] *= draw(0.9, 1.1)
                self.model.geom_friction[:, 0] = draw(0.5, 1.5)
                self.model.opt.gravity[2] = draw(-11, -9)
                self.model.opt.timestep = draw(0.009, 0.011)
                self.model.tex_data[:9] = self.np_random.integers(255, size=9)
                return super().reset_model()

        return wrappers.TimeLimit(Randomized(), 29)

    add("Ant, randomized", make, "mujoco")


add_randomized()


class Control(gymnasium.Env):
    """A face of Gymnasium for environments of dm_control."""

    def __init__(self, env):
        self.env = env
        spec = env.action_spec()
        low, high = np.maximum(spec.minimum, -1), np.minimum(spec.maximum, 1)
        self.action_space = gymnasium.spaces.Box(low, high, spec.shape, np.float64)

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.env.task.random.set_state(np.random.RandomState(seed).get_state())
        return self.env.reset().observation, {}

    def step(self, action):
        step = self.env.step(action)
        return step.observation, step.reward, step.last(), False, {}


def add_control(domain, task):
    def make():
        from dm_control import suite

        options = {"random": 1, "time_limit": 1.5}
        return Control(suite.load(domain, task, task_kwargs=options))

    add(f"dm_control {domain} {task}", make, "dm_control.suite", "mujoco")


for domain, task in [("cartpole", "swingup"), ("humanoid", "walk")]:
    add_control(domain, task)
for domain, task in [("quadruped", "fetch"), ("finger", "turn_hard")]:
    add_control(domain, task)
for domain, task in [("swimmer", "swimmer6"), ("manipulator", "bring_ball")]:
    add_control(domain, task)
for domain, task in [("cheetah", "run"), ("walker", "run")]:
    add_control(domain, task)


# Atari


add_made("ALE/Pong-v5", "ale_py")
add_made("ALE/Breakout-v5", "ale_py", name="ALE/Breakout-v5, ram", obs_type="ram")
add_made(
    "ALE/MontezumaRevenge-v5",
    "ale_py",
    name="ALE/MontezumaRevenge-v5, grayscale",
    obs_type="grayscale",
)
add_made(
    "ALE/Seaquest-v5",
    "ale_py",
    name="ALE/Seaquest-v5, frames skipped at random",
    frameskip=(2, 5),
)
add_made(
    "ALE/SpaceInvaders-v5",
    "ale_py",
    "cv2",
    name="ALE/SpaceInvaders-v5, preprocessed",
    frameskip=1,
    wrap=[
        lambda env: wrappers.AtariPreprocessing(env, terminal_on_life_loss=True),
        lambda env: wrappers.FrameStackObservation(env, 4),
        wrappers.RecordEpisodeStatistics,
    ],
)
add_made(
    "ALE/Pong-v5",
    "ale_py",
    name="ALE/Pong-v5, continuous",
    continuous=True,
    repeat_action_probability=0,
)


# Grids, and environments of many agents


for id_ in [
    "DoorKey-8x8",
    "Dynamic-Obstacles-8x8",
    "KeyCorridorS3R3",
    "MultiRoom-N4-S5",
]:
    add_made(f"MiniGrid-{id_}-v0", "minigrid")
for id_ in ["GoToLocal", "BossLevel"]:
    add_made(f"BabyAI-{id_}-v0", "minigrid")


class Parallel(gymnasium.Env):
    """A face of Gymnasium for PettingZoo's parallel environments."""

    def __init__(self, env):
        self.env = env
        spaces = {x: env.action_space(x) for x in env.possible_agents}
        self.action_space = gymnasium.spaces.Dict(spaces)

    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=seed)

    def step(self, action):
        given = {agent: action[agent] for agent in self.env.agents}
        seen, rewards, _, _, infos = self.env.step(given)
        return seen, rewards, not self.env.agents, False, infos


class Turns(gymnasium.Env):
    """A face for PettingZoo's environments in which agents take turns."""

    def __init__(self, env):
        self.env = env
        self.action_space = env.action_space(env.possible_agents[0])

    def reset(self, *, seed=None, options=None):
        self.env.reset(seed=seed)
        if seed is not None:
            for i, agent in enumerate(self.env.possible_agents):
                self.env.action_space(agent).seed(seed + i)
        return None, {}

    def step(self, action):
        seen, reward, end, cut, info = self.env.last()
        agent = self.env.agent_selection
        mask = seen["action_mask"] if isinstance(seen, dict) else None
        action = self.env.action_space(agent).sample(mask)
        self.env.step(None if end or cut else action)
        return [agent, seen], reward, not self.env.agents, False, info


def newest(package, name):
    """Return the newest version of an environment of PettingZoo or MPE2."""
    found = importlib.import_module(package)
    for version in range(20, 0, -1):
        try:
            return importlib.import_module(f"{package}.{name}_v{version}")
        except ImportError:
            pass
    raise ImportError(f"{found} has no {name}")


def add_turns(package, name, *needs):
    def make():
        return Turns(newest(package, name).env())

    add(name, make, package, *needs)


def add_parallel(package, name, *needs, wrap=Parallel):
    def make():
        return wrap(newest(package, name).parallel_env())

    add(name, make, package, *needs)


add_turns("pettingzoo.classic", "tictactoe", "pygame")
add_turns("pettingzoo.classic", "connect_four", "pygame")
add_turns("pettingzoo.classic", "chess", "pygame", "chess")
add_parallel("pettingzoo.butterfly", "knights_archers_zombies", "pygame")
add_parallel("pettingzoo.sisl", "pursuit", "pygame", "scipy")
add_parallel("mpe2", "simple_spread", "pygame")


# Played again


def record(env):
    import elementsckpt

    return elementsckpt.Recorded(env)


def add_recorded(id_, name=None, **options):
    add_made(
        id_,
        "Box2D",
        name=name or f"{id_}, recorded",
        wrap=[
            record,
            wrappers.RecordEpisodeStatistics,
            lambda env: wrappers.FrameStackObservation(env, 2),
        ],
        **options,
    )


add_made("CartPole-v1", name="CartPole, recorded", table=FAST, wrap=[record])
add_recorded("LunarLander-v3")
add_recorded("LunarLander-v3", "LunarLander-v3 in the wind, recorded", enable_wind=True)


def add_pistonball():
    def make():
        env = newest("pettingzoo.butterfly", "pistonball").parallel_env()
        return record(Parallel(env))

    add("pistonball, recorded", make, "pettingzoo.butterfly", "pymunk", "pygame")


add_pistonball()


# Many at once


def limited(id_):
    if id_.startswith("ALE"):
        gymnasium.register_envs(importlib.import_module("ale_py"))
    return wrappers.TimeLimit(gymnasium.make(id_), 37)


def add_vector(name, kind, make_one, *needs, table=SIMULATED, mode=None, **options):
    def make():
        vector = gymnasium.vector
        if mode is not None:
            options["autoreset_mode"] = vector.AutoresetMode[mode]
        envs = getattr(vector, kind)([make_one] * 3, **options)
        return wrappers.vector.RecordEpisodeStatistics(envs)

    add(name, make, *needs, table=table)


cart, ant = (
    functools.partial(limited, "CartPole-v1"),
    functools.partial(limited, "Ant-v5"),
)
pong = functools.partial(limited, "ALE/Pong-v5")
for kind in ["SyncVectorEnv", "AsyncVectorEnv"]:
    for mode in ["NEXT_STEP", "SAME_STEP"]:
        add_vector(f"{kind}, {mode}", kind, cart, mode=mode, table=FAST)
add_vector("AsyncVectorEnv, unshared", "AsyncVectorEnv", cart, shared_memory=False)
add_vector("AsyncVectorEnv of Legacy", "AsyncVectorEnv", Legacy, table=FAST)
add_vector("SyncVectorEnv of Ant", "SyncVectorEnv", ant, "mujoco")
add_vector("AsyncVectorEnv of Ant", "AsyncVectorEnv", ant, "mujoco")
add_vector("AsyncVectorEnv, spawned", "AsyncVectorEnv", ant, "mujoco", context="spawn")
add_vector("AsyncVectorEnv of Pong", "AsyncVectorEnv", pong, "ale_py")
add_vector(
    "AsyncVectorEnv of LunarLander, recorded",
    "AsyncVectorEnv",
    lambda: record(limited("LunarLander-v3")),
    "Box2D",
)


class FromStableBaselines(gymnasium.Env):
    """A face of Gymnasium for vector environments of Stable-Baselines3."""

    def __init__(self, env):
        self.env = env
        spaces, count = gymnasium.spaces, env.num_envs
        one = env.action_space
        if isinstance(one, spaces.Discrete):
            self.action_space = spaces.MultiDiscrete([one.n] * count)
        else:
            self.action_space = spaces.Box(
                np.stack([one.low] * count), np.stack([one.high] * count)
            )

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.env.seed(seed)
        return self.env.reset(), {}

    def step(self, action):
        seen, rewards, done, infos = self.env.step(action)
        return seen, rewards, False, False, {"done": done, "infos": infos}

    def close(self):
        self.env.close()


def add_stable_baselines(name, kind, make_one, *needs, wrap=()):
    def make():
        module = importlib.import_module("stable_baselines3.common.vec_env")
        envs = getattr(module, kind)([make_one] * 3)
        for wrapper, options in wrap:
            envs = getattr(module, wrapper)(envs, **options)
        return FromStableBaselines(envs)

    add(name, make, "stable_baselines3", *needs)


add_stable_baselines(
    "DummyVecEnv", "DummyVecEnv", cart, wrap=[("VecNormalize", {}), ("VecMonitor", {})]
)
add_stable_baselines(
    "SubprocVecEnv",
    "SubprocVecEnv",
    cart,
    wrap=[("VecNormalize", {}), ("VecFrameStack", {"n_stack": 4})],
)
add_stable_baselines(
    "SubprocVecEnv of Ant", "SubprocVecEnv", ant, "mujoco", wrap=[("VecNormalize", {})]
)

ALL = types.MappingProxyType({**FAST, **SIMULATED})
