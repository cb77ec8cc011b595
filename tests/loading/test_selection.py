"""Loading what was saved under other keys and names, by patterns for each component."""

import jax.numpy as jnp
import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, Counter, MismatchError, MissingKeyError, Value
from elementsckpt.loading import patterns, verbs
from elementsckpt.loading.request import Request

from support.boxes import Box, Stream, make


def registered(directory=None, **states):
    """Return a checkpoint of boxes."""
    cp = Checkpoint(directory)
    for key, state in states.items():
        setattr(cp, key, Box(state))
    return cp


# Other keys


def test_what_was_saved_under_another_key_is_loaded(tmp_path):
    registered(tmp_path, params={"w": np.ones(2)}, step=7).save()
    cp = registered(agent=None)
    report = cp.load(tmp_path, keys={"agent": "params"})
    assert cp.agent.state["w"].tolist() == [1, 1]
    assert report.loaded == ("agent/w",)


def test_two_components_may_load_the_same_one_and_share_nothing(tmp_path):
    registered(tmp_path, params={"w": np.ones(2)}).save()
    cp = registered(online=None, target=None)
    cp.load(tmp_path, keys={"online": "params", "target": "params"})
    cp.online.state["w"][:] = 5
    assert cp.target.state["w"].tolist() == [1, 1]


def test_keys_can_be_swapped(tmp_path):
    cp = registered(tmp_path, online=1, target=2)
    cp.save()
    cp.load(keys={"online": "target", "target": "online"})
    assert (cp.online.state, cp.target.state) == (2, 1)


def test_other_keys_may_be_any_text(tmp_path):
    elementsckpt.checkpoint.save(tmp_path / "save", {"a/b c": lambda: 5})
    cp = registered(agent=None)
    cp.load(tmp_path / "save", keys={"agent": "a/b c"})
    assert cp.agent.state == 5


def test_the_newest_save_that_has_the_other_key_is_loaded(tmp_path):
    cp = registered(tmp_path, params=1, agent=2)
    cp.save()
    cp.save(keys=["agent"])
    other = registered(tmp_path, agent=None)
    other.load(keys={"agent": "params"})
    assert other.agent.state == 1


def test_a_shard_stream_and_files_are_loaded_under_other_keys_too(tmp_path):
    def write(folder):
        (folder / "a").write_text("5")

    def read(folder):
        got.append((folder / "a").read_text())

    got, cp = [], Checkpoint(tmp_path)
    cp.old, cp.older = Stream([1, 2]), elementsckpt.Files(save=write, load=read)
    cp.save()
    other = Checkpoint(tmp_path)
    other.new, other.newer = Stream(), elementsckpt.Files(load=read)
    other.load(keys={"new": "old", "newer": "older"})
    assert (other.new.state, got) == ([1, 2], ["5"])


def test_leaves_are_selected_and_reported_by_our_keys(tmp_path):
    registered(tmp_path, params={"w": np.ones(2), "b": np.ones(3)}).save()
    cp = registered(agent={"w": np.zeros(2), "b": np.zeros(2)})
    with pytest.raises(MismatchError, match="agent/b: saved"):
        cp.load(tmp_path, keys={"agent": "params"}, regex=".*")
    report = cp.load(tmp_path, keys={"agent": "params"}, regex="agent/w")
    assert report.loaded == ("agent/w",)
    assert cp.agent.state["w"].tolist() == [1, 1]


def test_a_value_is_loaded_from_another_key(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.params = Value({"w": jnp.ones(2)})
    cp.save()
    other = Checkpoint()
    other.agent = Value({"w": jnp.zeros(2)})
    other.load(tmp_path, keys={"agent": "params"})
    assert other.agent.value["w"].tolist() == [1, 1]


def test_what_elements_wrote_is_loaded_from_another_key(tmp_path):
    import elements

    theirs = elements.Checkpoint(elements.Path(str(tmp_path)), write=True)
    theirs.params = Box({"w": np.ones(2)})
    theirs.save()
    cp = registered(agent=None)
    cp.load(tmp_path, keys={"agent": "params"})
    assert cp.agent.state["w"].tolist() == [1, 1]


@pytest.mark.parametrize("keys", [{"agent": "params"}, {"agnet": "agent"}])
def test_keys_that_either_side_lacks_are_an_error_and_nothing_is_loaded(tmp_path, keys):
    cp = registered(tmp_path, agent=1)
    cp.save()
    with pytest.raises(MissingKeyError, match=r"params|agnet"):
        cp.load(keys=keys)
    assert cp.agent.loads == 0


# Full names


def test_a_pattern_that_no_name_has_is_for_names_with_their_keys(tmp_path):
    state = {"params/w": np.ones(2), "opt/w": np.ones(2)}
    registered(tmp_path, agent=state, critic=state).save()
    cp = registered(
        tmp_path,
        agent={"params/w": np.zeros(2), "opt/w": np.zeros(2)},
        critic={"params/w": np.zeros(2), "opt/w": np.zeros(2)},
    )
    assert cp.load(regex="agent/params/.*").loaded == ("agent/params/w",)
    assert cp.critic.loads == 0
    assert cp.load(regex="(agent|critic)/opt").loaded == ("agent/opt/w", "critic/opt/w")
    read = elementsckpt.read(tmp_path, regex="critic/params")
    assert list(read) == ["critic"]
    assert list(read["critic"]) == ["params/w"]


def test_a_component_is_not_selected_by_what_is_meant_for_leaves(tmp_path):
    saved = {"agent": {"params/w": np.ones(2)}, "params": {"w": np.ones(2)}}
    registered(tmp_path, **saved).save()
    cp = registered(
        tmp_path, agent={"params/w": np.zeros(2)}, params={"w": np.zeros(2)}
    )
    assert cp.load(regex="params/.*").loaded == ("agent/params/w",)
    assert cp.params.loads == 0
    assert list(elementsckpt.read(tmp_path, regex="params/.*")) == ["agent"]
    # Of this component alone it finds nothing else.
    assert cp.load(keys=["params"], regex="params/.*").loaded == ("params/w",)


def test_a_component_that_is_one_leaf_is_selected_by_its_key(tmp_path):
    registered(tmp_path, agent={"w": np.ones(2)}, step=7).save()
    cp = registered(tmp_path, agent={"w": np.zeros(2)}, step=0)
    assert cp.load(regex="step").loaded == ("step",)
    assert (cp.agent.loads, cp.step.state) == (0, 7)


def test_what_only_the_current_state_has_is_missing_by_its_full_name(tmp_path):
    registered(tmp_path, agent={"w": 1}).save()
    cp = registered(tmp_path, agent={"w": 0, "new": 0})
    with pytest.raises(MismatchError, match="agent/new: not in the save"):
        cp.load(regex="agent/")
    assert cp.load(regex="agent/", strict=False).missing == ("agent/new",)


# Rename


def test_a_name_that_no_leaf_has_is_renamed_with_its_key(tmp_path):
    registered(tmp_path, agent={"old": 1}, critic={"old": 2}).save()
    cp = registered(tmp_path, agent={"new": 0}, critic={"old": 0})
    report = cp.load(rename={"^agent/old": "agent/new"})
    assert report.renamed == {"agent/old": "agent/new"}
    assert (cp.agent.state, cp.critic.state) == ({"new": 1}, {"old": 2})


def test_a_name_that_a_leaf_has_is_renamed_without_its_key(tmp_path):
    saved = {"agent": {"params/w": 1}, "params": {"w": 2}}
    registered(tmp_path, **saved).save()
    cp = registered(tmp_path, agent={"weights/w": 0}, params={"w": 0})
    assert cp.load(rename={"^params": "weights"}).renamed == {
        "agent/params/w": "agent/weights/w"
    }
    assert cp.params.state == {"w": 2}


def test_what_is_renamed_twice_is_looked_for_as_it_is_then(tmp_path):
    registered(tmp_path, agent={"a": 1}).save()
    cp = registered(tmp_path, agent={"c": 0})
    cp.load(rename={"^a$": "b", "^b$": "c"})
    assert cp.agent.state == {"c": 1}


def test_model_and_optimizer_load_at_once_though_one_has_other_names(tmp_path):
    moments = {"state": {0: np.ones(2)}}
    saved = {"model": {"_orig_mod.w": np.ones(2)}, "opt": moments}
    registered(tmp_path, **saved, step=7).save()
    # The optimizer makes its state when it steps first, so its names do not fit.
    cp = registered(tmp_path, model={"w": np.zeros(2)}, opt={"state": {}}, step=0)
    report = cp.load(rename={"model": {r"^_orig_mod\.": ""}})
    assert report.renamed == {"model/_orig_mod.w": "model/w"}
    assert cp.model.state["w"].tolist() == [1, 1]
    assert cp.opt.state["state"][0].tolist() == [1, 1]
    assert cp.step.state == 7


def test_each_component_has_renames_of_its_own(tmp_path):
    registered(tmp_path, a={"old": 1}, b={"old": 2}).save()
    cp = registered(tmp_path, a={"x": 0}, b={"y": 0})
    cp.load(rename={"a": {"old": "x"}, "b": {"old": "y"}})
    assert (cp.a.state, cp.b.state) == ({"x": 1}, {"y": 2})


def test_what_a_rename_does_not_name_may_be_a_stream(tmp_path):
    cp = registered(tmp_path, agent={"old": 1})
    cp.replay = Stream([1, 2])
    cp.save()
    cp.agent.state, cp.replay.state = {"new": 0}, []
    cp.load(rename={"agent": {"old": "new"}})
    assert (cp.agent.state, cp.replay.state) == ({"new": 1}, [1, 2])
    with pytest.raises(MismatchError, match="'replay'"):
        cp.load(rename={"old": "new"})


def test_options_for_types_and_names_leave_streams_as_they_are(tmp_path):
    cp = registered(tmp_path, agent={"w": np.ones(2)})
    cp.replay = Stream([1, 2])
    cp.save()
    cp.agent.state, cp.replay.state = {"w": np.zeros(2, "f4"), "new": 1}, []
    cp.load(strict=False, cast=True)
    assert (cp.agent.state["w"].tolist(), cp.replay.state) == ([1, 1], [1, 2])


# A pattern for each component


def test_a_component_without_a_pattern_is_left_alone(tmp_path):
    saved = {"agent": {"a": 1, "b": 1}, "opt": {"a": 1}, "step": 7}
    registered(tmp_path, **saved).save()
    cp = registered(tmp_path, agent={"a": 0, "b": 0}, opt={"a": 0}, step=0)
    report = cp.load(regex={"agent": "a", "step": ""})
    assert report.loaded == ("agent/a", "step")
    assert (cp.agent.state, cp.opt.loads) == ({"a": 1, "b": 0}, 0)


def test_a_component_without_a_pattern_need_not_be_in_the_save(tmp_path):
    registered(tmp_path, agent={"a": 1}).save()
    cp = registered(agent={"a": 0}, opt=0)
    cp.load(tmp_path, regex={"agent": ".*"})
    assert (cp.agent.state, cp.opt.loads) == ({"a": 1}, 0)


def test_a_pattern_of_one_component_must_find_something(tmp_path):
    saved = {"agent": {"a": 1}, "opt": {"a": 1}}
    registered(tmp_path, **saved).save()
    cp = registered(tmp_path, agent={"a": 0}, opt={"a": 0})
    with pytest.raises(MismatchError, match="regex='b' matches no leaf of 'opt'"):
        cp.load(regex={"agent": "a", "opt": "b"})
    with pytest.raises(MismatchError, match="regex='b' matches no leaf of 'opt'"):
        elementsckpt.read(tmp_path, regex={"agent": "a", "opt": "b"})
    assert (cp.agent.loads, cp.opt.loads) == (0, 0)


def test_patterns_and_renames_of_components_go_together(tmp_path):
    registered(tmp_path, agent={"a": 1, "b": 1}, opt={"a": 1}).save()
    cp = registered(tmp_path, agent={"x": 0, "b": 0}, opt={"a": 0})
    cp.load(regex={"agent": "a"}, rename={"agent": {"a": "x"}})
    assert (cp.agent.state, cp.opt.loads) == ({"x": 1, "b": 0}, 0)
    with pytest.raises(MissingKeyError, match="rename names 'opt'"):
        cp.load(regex={"agent": "a"}, rename={"opt": {"a": "x"}})


def test_parts_of_components_are_read(tmp_path):
    registered(tmp_path, agent={"a": 1, "b": 1}, opt={"a": 1}, step=7).save()
    found = elementsckpt.read(tmp_path, regex={"agent": "a", "opt": ".*"})
    assert found == {"agent": {"a": 1}, "opt": {"a": 1}}


@pytest.mark.parametrize("argument", ["regex", "rename"])
def test_names_are_read_only_where_they_count(tmp_path, monkeypatch, argument):
    # A pattern for one component costs nothing in others, such as a large replay.
    cp = registered(tmp_path, agent={"a": 1}, replay={"a": 1})
    cp.save()
    read = []
    names = elementsckpt.loading.component.SavedComponent.names
    monkeypatch.setattr(
        elementsckpt.loading.component.SavedComponent,
        "names",
        lambda self: read.append(self.key) or names(self),
    )
    cp.load(**{argument: {"agent": {"regex": "a", "rename": {"a": "a"}}[argument]}})
    assert {*read} == {"agent"}


# load_or_save


def test_a_run_resumes_with_other_names_and_types(tmp_path):
    cp = make(tmp_path, {"old": np.ones(2)})
    cp.step = Counter(7)
    assert not cp.load_or_save(rename={"old": "new"}, cast=True)
    resumed = make(tmp_path, {"new": np.zeros(2, "f4")})
    resumed.step = Counter()
    assert resumed.load_or_save(rename={"agent": {"old": "new"}}, cast=True)
    assert resumed.agent.state["new"].dtype == np.float32
    assert resumed.agent.state["new"].tolist() == [1, 1]
    assert resumed.step == 7


def test_a_run_resumes_with_what_both_sides_have(tmp_path):
    make(tmp_path, {"a": 1, "old": 1}).load_or_save()
    resumed = make(tmp_path, {"a": 0, "new": 0})
    assert resumed.load_or_save(strict=False)
    assert resumed.agent.state == {"a": 1, "new": 0}


@pytest.mark.parametrize(
    "options", [{}, {"cast": True}, {"strict": False}, {"rename": {"x": "y"}}]
)
def test_a_run_that_resumes_with_options_is_compared_with_what_it_was(
    tmp_path, caplog, options
):
    cp = make(tmp_path, {"a": 1}, metadata={"lr": 0.1})
    cp.critic = Box(1)
    cp.save()
    resumed = make(tmp_path, {"a": 1}, metadata={"lr": 0.2})
    resumed.load_or_save(**options)
    assert "lr was 0.1 and is 0.2" in caplog.text
    assert "a run with 'critic', which is not registered" in caplog.text


@pytest.mark.parametrize("rename", [["old", "new"], {"(": ""}])
def test_options_are_checked_before_the_first_save_too(tmp_path, rename):
    cp = make(tmp_path, 1)
    with pytest.raises(MismatchError):
        cp.load_or_save(rename=rename)
    assert not cp.exists()


# load_pytree


def test_a_pytree_is_loaded_from_a_component(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.state, cp.agent = Value({"w": jnp.ones(2)}), Box({"w": np.full(2, 5.0)})
    cp.save()
    found = elementsckpt.load_pytree(tmp_path, {"w": jnp.zeros(2)}, key="state")
    assert found["w"].tolist() == [1, 1]
    found = elementsckpt.load_pytree(tmp_path, {"w": np.zeros(2)}, key="agent")
    assert found["w"].tolist() == [5, 5]


def test_a_part_of_a_pytree_is_loaded_by_other_names(tmp_path):
    elementsckpt.save_pytree(tmp_path / "save", {"enc": {"w": np.ones(2)}, "head": 1})
    template = {"torso": {"w": np.zeros(2)}, "head": np.zeros(3)}
    found = elementsckpt.load_pytree(
        tmp_path / "save", template, regex="enc/", rename={"^enc/": "torso/"}
    )
    assert found["torso"]["w"].tolist() == [1, 1]
    assert found["head"] is template["head"]
    assert template["torso"]["w"].tolist() == [0, 0]


# What a request is, for all that load


def test_a_pattern_is_tried_on_all_names_of_the_load_before_any_full_name():
    request = Request(verb=verbs.READ, regex="params", rename={"^params": "x"})
    chosen = patterns.selections(request, {"params": ["w"], "agent": ["params/w", "n"]})
    assert [key for key in chosen if chosen[key].matches("w")] == []
    assert chosen["agent"].matches("params/w")
    assert chosen["params"].renamed("w") == "w"
    alone = patterns.selections(request, {"params": ["w"]})["params"]
    assert alone.matches("w")
