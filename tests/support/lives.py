"""Is a loaded environment the one that was saved? Three processes tell.

One lives and is never saved; one is saved at some points of its life and lives on; one
has another life, and loads each of these saves. Each step of a life is a line: what the
step returned, and the states of all generators that can be reached.
"""

import hashlib
import json
import pathlib
import sys
import warnings

import gymnasium
import numpy as np

import elementsckpt

from support import boxes, zoo

ROLES = ("whole", "saved", "loaded")
# When a process began, and how long an episode took, are never the same.
CLOCKS = ("t", "_t")


def prove(names, folder, points, long=()):
    """Let the three lives of environments be lived.

    Args:
      names: Their names in the zoo.
      folder: A folder for the saves.
      points: After how many steps they are saved.
      long: Points after which hundreds of steps are compared, and not a few.

    Returns:
      What is wrong, by name; an empty text if nothing is.
    """
    plan = [[point, 250 if point in long else 12] for point in points]
    whole, saved, loaded = (run(role, names, folder, plan) for role in ROLES)
    return {
        name: compare(whole[name], saved[name], loaded[name], plan) for name in names
    }


def compare(whole, saved, loaded, plan):
    """Return what is wrong with three lives of one environment."""
    at = first_difference(saved, whole)
    if at is not None:
        return f"saving changed it, which shows at step {at}"
    for point, steps in plan:
        found, loaded = loaded[:steps], loaded[steps:]
        expected = whole[point : point + steps]
        at = first_difference(found, expected)
        if at is not None:
            more = f"{found[at : at + 1]} instead of {expected[at : at + 1]}"
            return f"saved after step {point}, it differs {at + 1} steps later: {more}"
    return ""


def run(role, names, folder, plan):
    """Return the lines of one process, by the name of the environment."""
    script = "from support import lives; lives.main()"
    result = boxes.python(script, role, folder, json.dumps([names, plan]), cwd=folder)
    assert result.returncode == 0, f"{role}: {result.stderr[-3000:]}"
    found = {name: [] for name in names}
    for line in result.stdout.splitlines():
        if line.startswith("step:"):
            _, name, text = line.split(":", 2)
            found[name].append(text)
    return found


def first_difference(found, expected):
    if len(found) != len(expected):
        return min(len(found), len(expected))
    pairs = enumerate(zip(found, expected, strict=True))
    return next((i for i, (one, other) in pairs if one != other), None)


def main():
    """Live a life of each environment."""
    warnings.simplefilter("ignore")
    role, folder, task = sys.argv[1:]
    names, plan = json.loads(task)
    for i, name in enumerate(names):
        env = zoo.make(name)
        saves = pathlib.Path(folder, str(i))
        cp = elementsckpt.Checkpoint(saves, fsync=False)
        cp.env = elementsckpt.Environment(env)
        for line in live(env, cp, saves, role, plan):
            print(f"step:{name}:{line}", flush=True)
        env.close()


def live(env, cp, saves, role, plan):
    """Yield the steps of one life."""
    if role == "loaded":
        for i, (point, steps) in enumerate(plan):
            if i:  # The first one is loaded into an environment that was never reset.
                dirty(env, point)
            cp.load(saves / f"at_{point}")
            for _ in range(steps):
                yield step(env)
        return
    start(env, 5)
    points = {point for point, _ in plan}
    for at in range(max(point + steps for point, steps in plan)):
        if at in points and role == "saved":
            cp.save(saves / f"at_{at}")
        yield step(env)


def start(env, seed):
    env.reset(seed=seed)
    for space in spaces(env):
        space.seed(seed + 1)


def dirty(env, point):
    """Let an environment live another life."""
    start(env, 70 + point)
    for _ in range(7 * point % 40):
        step(env)


def step(env):
    """Take a step; return what it returned, and generators, as text."""
    result = env.step(env.action_space.sample())
    found = [digest(result), generators(env)]
    is_vector = isinstance(env, gymnasium.vector.VectorEnv)
    is_over = not is_vector and (result[2] or result[3])
    if is_over and not isinstance(env, gymnasium.wrappers.Autoreset):
        found.append(digest(env.reset()))
    return " ".join(found)


def digest(value):
    return hashlib.sha1(repr(plain(value)).encode()).hexdigest()[:12]


def plain(value):
    """Return a value as text that says all of it."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items() if k not in CLOCKS}
    if isinstance(value, (list, tuple)):
        return [plain(x) for x in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(plain, value))
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [plain(x) for x in value.ravel()]
    if isinstance(value, np.ndarray):
        return [value.dtype.str, value.shape, hashlib.sha1(value.tobytes()).hexdigest()]
    return repr(value)


def generators(env):
    """Return a digest of the generators of an environment and its spaces."""
    found = []
    for owner in [*chain(env), *spaces(env)]:
        for name in ("_np_random", "rng", "legacy"):
            bits = getattr(vars(owner).get(name), "bit_generator", None)
            found.append(None if bits is None else bits.state)
    return digest(found)


def chain(env):
    """Return an environment, and those that it wraps."""
    found = []
    while env is not None:
        found.append(env)
        env = vars(env).get("env")
    return found


def spaces(env):
    """Return the spaces of an environment and of those that it wraps."""
    found = [y for x in chain(env) for y in vars(x).values()]
    return [x for x in found if isinstance(x, gymnasium.Space)]
