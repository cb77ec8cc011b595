"""MuJoCo: simulations go on to the bit; models are state, and cost nothing as such."""

import contextlib
import pathlib

import numpy as np
import pytest

from elementsckpt import (
    Checkpoint,
    DamagedError,
    Environment,
    MismatchError,
    StateError,
    leaves,
)

from support.snapshots import refusal, saved, steps

mujoco = pytest.importorskip("mujoco")
gymnasium = pytest.importorskip("gymnasium")
pytestmark = pytest.mark.environments

BOXES = "".join(
    f"<body pos='{0.02 * i} 0 {0.3 + 0.21 * i}'><freejoint/>"
    f"<geom type='box' size='.1 .1 .1'/></body>"
    for i in range(6)
)
FLOOR = "<geom name='floor' type='plane' size='3 3 .1'/>"
STACK = f"<worldbody>{FLOOR}{BOXES}</worldbody>"
SLEEPING = f"<option><flag sleep='enable'/></option>{STACK}"
ELLIPTIC = "integrator='implicitfast' noslip_iterations='3' cone='elliptic'"
MODELS = {
    "a stack": STACK,
    "no slip": f"<option {ELLIPTIC}/>{STACK}",
    "a weld to a mocap body": f"""
        <size nuserdata='5'/>
        <worldbody>{FLOOR}
          <body name='m' mocap='true'>
            <geom size='.05' contype='0' conaffinity='0'/>
          </body>
          <body name='b' pos='0 0 .5'><freejoint/><geom size='.1'/></body>
        </worldbody>
        <equality><weld body1='m' body2='b'/></equality>""",
    "muscles": """
        <option integrator='RK4'/>
        <worldbody>
          <body pos='0 0 1'>
            <joint name='j' type='hinge' axis='0 1 0' frictionloss='.1' damping='.1'/>
            <geom type='capsule' size='.05' fromto='0 0 0 .5 0 0'/>
            <site name='s' pos='.3 0 0'/>
          </body>
          <site name='o' pos='0 0 2'/>
        </worldbody>
        <tendon><spatial name='t'><site site='o'/><site site='s'/></spatial></tendon>
        <actuator>
          <muscle tendon='t'/>
          <general joint='j' dyntype='filter' dynprm='.1'/>
        </actuator>""",
}
with contextlib.suppress(ValueError):  # Older versions let no bodies sleep.
    mujoco.MjModel.from_xml_string(f"<mujoco>{SLEEPING}</mujoco>")
    MODELS["sleeping bodies"] = SLEEPING


class Bodies(gymnasium.Env):
    """Simulates a model, and returns all that it computes."""

    def __init__(self, xml):
        self.model = mujoco.MjModel.from_xml_string(f"<mujoco>{xml}</mujoco>")
        self.data = mujoco.MjData(self.model)
        self.action_space = gymnasium.spaces.Box(0, 1, (self.model.nu + 1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        return self.data.qpos.copy(), {}

    def step(self, action):
        data = self.data
        before = data.xpos.copy()  # As tasks do, to tell how far something moved.
        data.ctrl[:] = action[:-1]
        if self.model.nmocap:
            data.mocap_pos[:] = action[-1] / 10
            data.userdata[:] += action[-1]
        mujoco.mj_step(self.model, data)
        seen = [data.qpos, data.qvel, data.qacc, data.act, data.cfrc_ext]
        seen += [data.qfrc_constraint, data.xpos - before]
        return np.concatenate([x.ravel() for x in seen]), data.time, False, False, {}


def live(make, count, seed=1):
    env = make()
    env.reset(seed=seed)
    env.action_space.seed(seed)
    steps(env, count)
    return env


@pytest.mark.parametrize("count", [1, 5, 60, 400, 1500])
@pytest.mark.parametrize("name", MODELS)
def test_a_simulation_goes_on_to_the_bit(name, count):
    def make():
        return Bodies(MODELS[name])

    env, other = live(make, count), live(make, 37, seed=2)
    Environment(other).load(saved(env))
    assert steps(other, 100) == steps(env, 100)


def test_bodies_sleep_in_one_of_these_tests():
    if "sleeping bodies" not in MODELS:
        pytest.skip("this version of MuJoCo lets no bodies sleep")
    env = live(lambda: Bodies(SLEEPING), 1500)
    assert (env.data.tree_asleep >= 0).all()


@pytest.mark.parametrize("name", ["Ant-v5", "Humanoid-v5"])
def test_rewards_that_read_what_the_last_step_computed_are_the_same(name):
    """Ant's has the positions of before the step, Humanoid's the centre of mass."""
    env, other = (live(lambda: gymnasium.make(name), n, n) for n in (40, 7))
    Environment(other).load(saved(env))
    assert steps(other, 50) == steps(env, 50)


# Models


def ant(*changes, folder=None):
    """Return an Ant, of an XML that is changed."""
    assets = pathlib.Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    text = (assets / "ant.xml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    if folder is None:
        return gymnasium.make("Ant-v5")
    (folder / "ant.xml").write_text(text)
    return gymnasium.make("Ant-v5", xml_file=str(folder / "ant.xml"))


def model_of(state):
    return state["unwrapped/model"]


def test_a_model_that_nobody_changed_is_one_block_that_is_written_once(tmp_path):
    env = ant()
    cp = Checkpoint(tmp_path, fsync=False)
    cp.env = Environment(env)
    env.reset(seed=1)
    cp.save()
    steps(env, 1)
    report = cp.save()
    (model,) = (x for x in leaves(report.path) if "/model/" in x.name)
    assert model.size_bytes == 64 << 10 < env.unwrapped.model.tex_data.nbytes
    assert report.bytes_reused == model.stored_bytes


def test_what_the_program_changes_is_saved_by_name():
    env = ant()
    component = Environment(env)
    model = env.unwrapped.model
    model.body_mass[3] *= 2
    model.opt.timestep = 0.004
    model.tex_data[:5] = 7
    changed = model_of(component.save())["changed"]
    assert sorted(changed) == ["body_mass", "opt.timestep", "tex_data"]
    model.tex_data[:5] = 9
    assert set(changed["tex_data"][:5].ravel()) == {7}


def test_a_load_brings_back_a_model_that_was_changed_since():
    env, other = ant(), ant()
    component, into = Environment(env), Environment(other)
    before = component.save()
    for changed in (env, other):
        changed.unwrapped.model.geom_friction[:] = 0.1
        changed.unwrapped.model.opt.gravity[2] = -1
    into.load(before)
    assert other.unwrapped.model.opt.gravity[2] == -9.81
    fresh = ant().unwrapped.model
    assert np.array_equal(other.unwrapped.model.geom_friction, fresh.geom_friction)


def test_a_model_that_was_changed_before_it_was_seen_is_loaded_and_told_of(caplog):
    env, other = ant(), ant()
    env.reset(seed=1)
    env.unwrapped.model.geom_friction[:] = 0.3
    state = saved(env)
    Environment(other).load(state)
    assert (other.unwrapped.model.geom_friction == 0.3).all()
    (record,) = caplog.records
    assert record.getMessage() == (
        "A MuJoCo model is loaded as it was saved, and it differs from the one that is "
        "here in geom_friction, which the program had not changed since "
        "Environment(env) saw the model: its XML is another one, or the program "
        "changes it before that."
    )


def test_what_tasks_place_at_each_reset_is_not_told_of(caplog):
    env, other = ant(), ant()
    for n, changed in enumerate((env, other)):
        changed.unwrapped.model.body_pos[1] = n
        changed.unwrapped.model.geom_rgba[:] = n
    state = saved(env)
    Environment(other).load(state)
    assert (other.unwrapped.model.body_pos[1] == 0).all()
    assert not caplog.records


OTHERS = {
    "masses": (
        [('density="5.0"', 'density="6.0"')],
        "another MuJoCo model was saved, which differs from the one here in "
        "actuator_acc0, body_invweight0, body_subtreemass and 2 more",
    ),
    "names": (
        [('name="torso"', 'name="torse"')],
        "another MuJoCo model was saved, which differs from the one here in names_map",
    ),
    "textures": (
        [('rgb1="0.8 0.6 0.4"', 'rgb1="0.8 0.6 0.5"')],
        "another MuJoCo model was saved, which differs from the one here in tex_data",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_xml_is_refused_before_anything_changes(tmp_path, name):
    changes, what = OTHERS[name]
    try:
        other = ant(*changes, folder=tmp_path)
    except AssertionError:
        pytest.skip("this version of Gymnasium has another Ant")
    other.reset(seed=2)
    before = saved(other)
    env = ant()
    env.reset(seed=1)
    message = refusal(MismatchError, Environment(other).load, saved(env))
    chain = "TimeLimit<OrderEnforcing<PassiveEnvChecker<AntEnv>>>"
    assert message == (
        f"Cannot load the environment: unwrapped.model: {what}. Saved was {chain}, and "
        f"here is {chain}. Make it by the code that made the saved one; nothing has "
        f"changed."
    )
    after = saved(other)
    data = "unwrapped/data"
    assert all(
        np.array_equal(after[data][x], before[data][x]) for x in ["qpos", "xpos"]
    )


def test_another_number_of_bodies_is_said_in_numbers():
    env, other = Bodies(STACK), Bodies(MODELS["muscles"])
    message = refusal(MismatchError, Environment(other).load, saved(env))
    assert "unwrapped.model: another MuJoCo model was saved, with n" in message
    assert "; here it has n" in message
    assert "unwrapped.data: the state of another MuJoCo model was saved, of" in message


FORGED = {
    "an index of no body": lambda data: data["body_awake_ind"].__setitem__(0, 1000),
    "more bodies than there are": lambda data: data["counts"].update(nbody_awake=99),
    "an attribute that is none": lambda data: data["counts"].update(__class__=7),
    "warnings of another version": lambda data: data.update(warnings=np.zeros(3)),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_data_is_refused_before_anything_changes(name):
    env, other = live(lambda: Bodies(STACK), 20), live(lambda: Bodies(STACK), 5)
    state = saved(env)
    if "body_awake_ind" not in state["unwrapped/data"]:
        pytest.skip("this version of MuJoCo lets no bodies sleep")
    FORGED[name](state["unwrapped/data"])
    before = other.data.qpos.copy()
    message = refusal(DamagedError, Environment(other).load, state)
    assert "is not a valid save" in message
    assert np.array_equal(other.data.qpos, before)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"geom_bodyid": np.full(7, 1000, np.int32)}, MismatchError),
        ({"geom_condim": np.full(7, 1000, np.int32)}, DamagedError),
        ({"geom_matid": np.full(7, 1000, np.int32)}, DamagedError),
        ({"opt.iterations": np.array(2**40)}, DamagedError),
        ({"geom_size": np.zeros((3, 3))}, MismatchError),
    ],
)
def test_forged_models_are_refused_before_anything_changes(changed, error):
    env, other = Bodies(STACK), Bodies(STACK)
    state = saved(env)
    state["unwrapped/model"]["changed"].update(changed)
    refusal(error, Environment(other).load, state)
    assert other.model.geom_bodyid.max() < 10


def test_names_that_a_model_lacks_are_left_out():
    env, other = Bodies(STACK), Bodies(STACK)
    state = saved(env)
    state["unwrapped/model"]["changed"]["__class__.__name__"] = np.array(7)
    Environment(other).load(state)
    assert type(other.model).__name__ == "MjModel"


def test_what_draws_is_left_alone():
    class Drawn(Bodies):
        def __init__(self):
            super().__init__(STACK)
            from gymnasium.envs.mujoco import mujoco_rendering

            self.renderer = mujoco_rendering.MujocoRenderer(self.model, self.data)

    env, other = Drawn(), Drawn()
    kept = other.renderer
    Environment(other).load(saved(env))
    assert other.renderer is kept


def test_environments_of_the_composer_are_refused(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    manipulation = pytest.importorskip("dm_control.manipulation")
    try:
        env = manipulation.load("reach_site_features", seed=1)
    except AttributeError:
        pytest.skip("this dm_control is not of this MuJoCo")
    assert refusal(StateError, Environment(env).save) == (
        "Cannot save the environment: the environment is one of dm_control's composer, "
        "which compiles its models anew. Make a new one in load(), whose episode "
        "begins anew."
    )


def test_leaves_are_called_after_the_arrays():
    names = saved(ant())["unwrapped/data"].keys()
    assert {"qpos", "qvel", "cfrc_ext", "xpos", "state"} <= names
