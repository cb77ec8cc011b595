"""What the caller says about a save: any configuration, and numbers."""

import argparse
import dataclasses
import enum
import math
import pathlib
import types

import elements
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import elementsckpt


def saved(tmp_path_factory, **about):
    path = tmp_path_factory.mktemp("about") / "save"
    cp = elementsckpt.Checkpoint(path.parent)
    cp.step = elementsckpt.Counter(3)
    cp.save(**about)
    return elementsckpt.info(path.parent)


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Optimizer:
    lr: float = 1e-3
    betas: tuple = (0.9, 0.999)


class ConfigDict:
    """What only has the methods of a mapping, as ml_collections.ConfigDict."""

    def __init__(self, **entries):
        self._entries = entries

    def keys(self):
        return self._entries.keys()

    def __getitem__(self, key):
        return self._entries[key]


CONFIGS = {
    "dict": ({"env": {"name": "CartPole"}}, {"env": {"name": "CartPole"}}),
    "elements": (elements.Config(lr=0.1, env={"n": 3}), {"lr": 0.1, "env": {"n": 3}}),
    "dataclass": (Optimizer(), {"lr": 1e-3, "betas": [0.9, 0.999]}),
    "argparse": (argparse.Namespace(seed=1), {"seed": 1}),
    "namespace": (types.SimpleNamespace(seed=1), {"seed": 1}),
    "like a mapping": (ConfigDict(seed=ConfigDict(a=1)), {"seed": {"a": 1}}),
    "path": ({"dir": pathlib.Path("/data")}, {"dir": "/data"}),
    "enum": ({"color": Color.RED, "level": Level.HIGH}, {"color": "red", "level": 3}),
    "numpy": ({"a": np.float32(0.5), "b": np.int64(3)}, {"a": 0.5, "b": 3}),
    "0-d": ({"a": np.array(0.5), "b": jnp.float32(2)}, {"a": 0.5, "b": 2.0}),
    "bfloat16": ({"a": jnp.bfloat16(0.5)}, {"a": 0.5}),
    "sequences": ({"a": (1, [2, range(2)])}, {"a": [1, [2, [0, 1]]]}),
    "keys": ({1: "a", None: "b", "$c": 2}, {1: "a", None: "b", "$c": 2}),
    "dtypes": (
        {"a": np.dtype("f4"), "b": jnp.bfloat16, "c": np.int8, "d": jnp.dtype("u2")},
        {"a": "float32", "b": "bfloat16", "c": "int8", "d": "uint16"},
    ),
    "none": ({"a": None, "b": True}, {"a": None, "b": True}),
    "text": ("a note", "a note"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_comes_back_as_plain_containers(tmp_path_factory, name):
    config, expected = CONFIGS[name]
    found = saved(tmp_path_factory, metadata=config).metadata
    assert found == expected
    assert all(
        type(x) in (bool, int, float, str, list, dict) for x in _values(found) if x
    )


def _values(tree):
    if isinstance(tree, dict):
        return [x for item in tree.values() for x in _values(item)] + [tree]
    return [x for item in tree for x in _values(item)] if type(tree) is list else [tree]


def test_omegaconf(tmp_path_factory):
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create(
        {"lr": 0.1, "twice": "${lr}", "layers": [64, {"size": 32}]}
    )
    found = saved(tmp_path_factory, metadata=config).metadata
    assert found == {"lr": 0.1, "twice": 0.1, "layers": [64, {"size": 32}]}


def test_omegaconf_with_missing_values_says_what_to_pass(tmp_path_factory):
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create({"lr": "???", "size": "${nowhere}"})
    with pytest.raises(elementsckpt.MetadataError, match=r"OmegaConf\.to_container"):
        saved(tmp_path_factory, metadata=config)
    found = saved(
        tmp_path_factory, metadata=omegaconf.OmegaConf.to_container(config)
    ).metadata
    assert found == {"lr": "???", "size": "${nowhere}"}


@pytest.mark.parametrize("parse", [True, False])
def test_flags_of_absl_say_what_to_pass(tmp_path_factory, parse):
    flags = pytest.importorskip("absl.flags")
    values = flags.FlagValues()
    # Names of what metadata are asked for.
    flags.DEFINE_string("dtype", "float32", "", flag_values=values)
    flags.DEFINE_integer("shape", 3, "", flag_values=values)
    if parse:
        values(["program"])
    with pytest.raises(elementsckpt.MetadataError, match=r"flag_values_dict\(\)"):
        saved(tmp_path_factory, metadata=values)
    found = saved(tmp_path_factory, metadata=values.flag_values_dict()).metadata
    assert found == {"dtype": "float32", "shape": 3}


class Struct(msgspec.Struct):
    lr: float = 0.1


class Model:
    def model_dump(self):
        return {"lr": 0.1}


class Config:
    def to_dict(self):
        return {"lr": 0.1}


@pytest.mark.parametrize(
    ("config", "call"),
    [
        (Struct(), r"msgspec\.to_builtins"),
        (Model(), r"model_dump\(\)"),
        (Config(), r"to_dict\(\)"),
    ],
)
def test_what_can_make_a_dict_of_itself_says_how(tmp_path_factory, config, call):
    with pytest.raises(elementsckpt.MetadataError, match=call):
        saved(tmp_path_factory, metadata={"config": config})


@pytest.mark.torch
def test_names_of_torch_are_metadata(tmp_path_factory):
    torch = pytest.importorskip("torch")
    config = {"device": torch.device("cuda", 0), "dtype": torch.bfloat16}
    found = saved(tmp_path_factory, metadata=config).metadata
    assert found == {"device": "cuda:0", "dtype": "bfloat16"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=50, deadline=None)
@given(config=JSON)
def test_json_comes_back_exactly(tmp_path_factory, config):
    found = saved(tmp_path_factory, metadata=config).metadata
    assert repr(found) == repr({} if config is None else config)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"env": {"make": lambda: 1}}, r"metadata\['env'\]\['make'\] is of type func"),
        ({"layers": [1, {2, 3}]}, r"metadata\['layers'\]\[1\] is of type set"),
        ({"w": np.zeros(3)}, r"metadata\['w'\] is of type ndarray"),
        ({"w": b"bytes"}, r"metadata\['w'\] is of type bytes"),
        ({(1, 2): 3}, r"key \(1, 2\) of metadata is a sequence"),
        ({"cls": Optimizer}, r"metadata\['cls'\] is of type type"),
        ({"cls": dict}, r"metadata\['cls'\] is of type type"),
        ({"c": 1j}, r"metadata\['c'\] is of type complex"),
    ],
)
def test_what_is_no_configuration_is_named_and_nothing_written(tmp_path, value, where):
    cp = elementsckpt.Checkpoint(tmp_path / "ckpt")
    cp.step = elementsckpt.Counter()
    with pytest.raises(elementsckpt.MetadataError, match=where):
        cp.save(metadata=value)
    with pytest.raises(ValueError, match=where):
        elementsckpt.Checkpoint(tmp_path, metadata=value)
    assert not (tmp_path / "ckpt").exists()


def test_metadata_that_cannot_be_read_is_refused(tmp_path):
    class Missing(ConfigDict):
        def __getitem__(self, key):
            raise LookupError("mandatory value missing: env.name")

    with pytest.raises(elementsckpt.MetadataError, match=r"LookupError: .*env\.name"):
        elementsckpt.Checkpoint(tmp_path, metadata=Missing(a=1))


def test_metadata_that_holds_itself_is_refused(tmp_path):
    config = {}
    config["self"] = config
    with pytest.raises(elementsckpt.MetadataError, match="holds itself"):
        elementsckpt.Checkpoint(tmp_path, metadata=config)


def test_the_configuration_of_a_checkpoint_is_in_each_save(tmp_path):
    config = {"lr": 0.1}
    cp = elementsckpt.Checkpoint(tmp_path, keep=None, metadata=config)
    cp.step = elementsckpt.Counter()
    config["lr"] = "changed later"
    cp.save()
    cp.save(metadata={"epoch": 2})
    cp.save(metadata={"lr": 0.2})
    found = [info.metadata for info in cp.saves()]
    assert found == [{"lr": 0.1}, {"lr": 0.1, "epoch": 2}, {"lr": 0.2}]
    with pytest.raises(elementsckpt.MetadataError, match=r"a dict and .* a str"):
        cp.save(metadata="a note")


def test_a_configuration_may_be_no_mapping(tmp_path):
    cp = elementsckpt.Checkpoint(tmp_path, metadata=["a", "b"])
    cp.step = elementsckpt.Counter()
    assert elementsckpt.info(cp.save().path).metadata == ["a", "b"]


def test_metrics_are_numbers_of_any_library(tmp_path_factory):
    metrics = {
        "int": 3,
        "float": 0.5,
        "bool": True,
        "float32": np.float32(0.25),
        "int64": np.int64(7),
        "0-d": np.array(1.5),
        "jax": jnp.float32(2.5),
        "bfloat16": jnp.bfloat16(1.5),
        "long": 1 << 70,
    }
    found = saved(tmp_path_factory, metrics=metrics).metrics
    assert found == {
        "int": 3,
        "float": 0.5,
        "bool": 1,
        "float32": 0.25,
        "int64": 7,
        "0-d": 1.5,
        "jax": 2.5,
        "bfloat16": 1.5,
        "long": 1 << 70,
    }
    assert {type(value) for value in found.values()} == {int, float}


@pytest.mark.torch
@pytest.mark.torch
def test_metrics_of_torch(tmp_path_factory):
    torch = pytest.importorskip("torch")
    loss = torch.tensor(0.5, requires_grad=True)
    metrics = {"loss": loss, "b": torch.tensor(1.5, dtype=torch.bfloat16)}
    assert saved(tmp_path_factory, metrics=metrics).metrics == {"loss": 0.5, "b": 1.5}


@settings(max_examples=50, deadline=None)
@given(value=st.floats())
def test_a_metric_need_not_be_finite(tmp_path_factory, value):
    found = saved(tmp_path_factory, metrics={"return": value}).metrics["return"]
    assert found == value or (math.isnan(found) and math.isnan(value))


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"return": "high"}, r"metrics\['return'\] is of type str"),
        ({"return": None}, r"metrics\['return'\] is of type NoneType"),
        ({"return": [1.0]}, r"metrics\['return'\] is of type list"),
        ({"return": np.ones(1)}, r"ndarray and shape \(1,\)"),
        ({"return": 1j}, r"of type complex"),
        ({3: 1.0}, "metrics has the name 3 of type int: .* names that are text"),
        (213.0, r"of type float: pass numbers by name"),
    ],
)
def test_what_is_no_metric_is_named_and_nothing_written(tmp_path, metrics, message):
    cp = elementsckpt.Checkpoint(tmp_path / "ckpt")
    cp.step = elementsckpt.Counter()
    with pytest.raises(elementsckpt.MetadataError, match=message):
        cp.save(metrics=metrics)
    assert not (tmp_path / "ckpt").exists()


def test_metrics_are_fetched_explicitly_from_devices(tmp_path_factory):
    import jax

    value = jnp.float32(3) + 1
    with jax.transfer_guard("disallow"):
        assert saved(tmp_path_factory, metrics={"x": value}).metrics == {"x": 4.0}
