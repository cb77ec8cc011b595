"""Is a loaded environment the one that was saved? Three processes tell.

    python -m support.lives ROLE NAME FOLDER POINTS STEPS

One lives and is never saved; one is saved at some points of its life and lives on; one
has another life, and loads each of these saves. Each step of a life is a line: what the
step returned, and the states of all generators that can be reached.
"""

import hashlib
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


def prove(name, folder, points, steps):
    """Let the three lives be lived; raise AssertionError where they differ.

    Args:
      name: Name of the environment in the zoo.
      folder: A folder for the saves.
      points: After how many steps it is saved.
      steps: How many steps are compared after each load.
    """
    whole, saved, loaded = (run(role, name, folder, points, steps) for role in ROLES)
    assert len(whole) == points[-1] + steps
    assert first_difference(saved, whole) is None, "saving changed it"
    for i, point in enumerate(points):
        found = loaded[i * steps : (i + 1) * steps]
        at = first_difference(found, whole[point : point + steps])
        assert at is None, (
            f"saved after step {point}, it differs {at + 1} steps after the load:\n"
            f"{found[at]}\n{whole[point + at]}"
        )


def run(role, name, folder, points, steps):
    """Return the lines of one life."""
    arguments = [role, name, folder, ",".join(map(str, points)), steps]
    script = "from support import lives; lives.main()"
    result = boxes.python(script, *arguments, cwd=folder)
    assert result.returncode == 0, f"{role}: {result.stderr[-3000:]}"
    return [x for x in result.stdout.splitlines() if x.startswith("step ")]


def first_difference(found, expected):
    if len(found) != len(expected):
        return min(len(found), len(expected))
    pairs = enumerate(zip(found, expected, strict=True))
    return next((i for i, (one, other) in pairs if one != other), None)


def main():
    """Live one life."""
    warnings.simplefilter("ignore")
    role, name, folder, points, steps = sys.argv[1:]
    points, steps = list(map(int, points.split(","))), int(steps)
    env = zoo.make(name)
    saves = pathlib.Path(folder) / "saves"
    cp = elementsckpt.Checkpoint(saves, fsync=False)
    cp.env = elementsckpt.Environment(env)
    if role == "loaded":
        for i, point in enumerate(points):
            if i:  # The first one is loaded into an environment that was never reset.
                dirty(env, point)
            cp.load(saves / f"at_{point}")
            walk(env, steps)
    else:
        live(env, cp if role == "saved" else None, saves, points, steps)
    env.close()


def live(env, cp, saves, points, steps):
    start(env, 5)
    for at in range(points[-1] + steps):
        if at in points and cp is not None:
            cp.save(saves / f"at_{at}")
        walk(env, 1)


def start(env, seed):
    env.reset(seed=seed)
    for space in spaces(env):
        space.seed(seed + 1)


def dirty(env, point):
    """Let an environment live another life."""
    start(env, 70 + point)
    for _ in range(7 * point % 40):
        step(env)


def walk(env, steps):
    for _ in range(steps):
        print("step", *step(env), flush=True)


def step(env):
    """Take a step; return what it returned, and generators, as text."""
    result = env.step(env.action_space.sample())
    found = [digest(result), generators(env)]
    is_vector = isinstance(env, gymnasium.vector.VectorEnv)
    is_over = not is_vector and (result[2] or result[3])
    if is_over and not isinstance(env, gymnasium.wrappers.Autoreset):
        found.append(digest(env.reset()))
    return found


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
