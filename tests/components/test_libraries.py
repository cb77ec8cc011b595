"""Objects of other libraries, registered as they are."""

import warnings

import pytest

from elementsckpt import Checkpoint, ComponentError, Saveable


def imported(name):
    """Return a module, whatever it warns of, or skip the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


@pytest.mark.torch
def test_a_tensordict_is_saved_by_its_state_and_writes_no_files(tmp_path, monkeypatch):
    torch, tensordict = imported("torch"), imported("tensordict")
    monkeypatch.chdir(tmp_path)
    cp = Checkpoint(tmp_path / "ckpt")
    cp.batch = tensordict.TensorDict({"a": torch.ones(3)}, [3])
    cp.save()
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt"]
    cp.batch["a"].zero_()
    cp.load()
    assert cp.batch["a"].tolist() == [1, 1, 1]


@pytest.mark.torch
def test_a_replay_buffer_of_torchrl_is_saved_by_its_state(tmp_path):
    torch, data = imported("torch"), imported("torchrl.data")
    cp = Checkpoint(tmp_path)
    cp.replay = data.ReplayBuffer(storage=data.ListStorage(10))
    cp.replay.extend(list(torch.arange(4.0)))
    cp.save()
    cp.replay.empty()
    cp.load()
    assert [item.item() for item in cp.replay[:]] == [0, 1, 2, 3]


@pytest.mark.torch
def test_what_writes_files_in_stable_baselines_is_refused_with_a_remedy():
    sb3, gymnasium = imported("stable_baselines3"), imported("gymnasium")
    env = sb3.common.vec_env.DummyVecEnv([lambda: gymnasium.make("CartPole-v1")])
    normalized = sb3.common.vec_env.VecNormalize(env)
    model = sb3.DQN("MlpPolicy", env, device="cpu", buffer_size=10)
    cp = Checkpoint()
    for value in (normalized, model):
        with pytest.raises(ComponentError, match=r"path.*elementsckpt\.Files"):
            cp.model = value
    cp.policy = model.policy  # Which has a state, besides.


@pytest.mark.torch
def test_a_buffer_without_a_protocol_is_saved_by_its_attributes(tmp_path):
    imported("stable_baselines3")
    buffers = imported("stable_baselines3.common.buffers")
    spaces = imported("gymnasium").spaces
    buffer = buffers.ReplayBuffer(10, spaces.Box(0, 1, (3,)), spaces.Discrete(2))
    names = ["observations", "actions", "rewards", "dones", "pos", "full"]
    cp = Checkpoint(tmp_path)
    cp.buffer = Saveable(names, of=buffer)
    buffer.pos, buffer.rewards[:3] = 3, 1
    assert cp.save().pickled == ()
    buffer.pos, buffer.rewards[:] = 0, 0
    cp.load()
    assert (buffer.pos, buffer.rewards.sum()) == (3, 3)
