"""Torch modules, optimizers and schedulers as components, and devices of tensors."""

import contextlib
import logging

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, GlobalRNG, MismatchError
from elementsckpt.kinds import torch_tensors
from elementsckpt.testing import ResumeError, check_resume

from support.boxes import Box
from support.folders import forge, manifest_of
from support.forgery import component_of
from support.strategies import assert_same

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # More of them wait for each other, and busily.
nn, optim = torch.nn, torch.optim
schedules = optim.lr_scheduler

X = torch.linspace(-1, 1, 15).reshape(5, 3)


class Net(nn.Module):
    """Layers of common kinds, with tied weights and buffers that change."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.2)
        self.second = nn.Linear(4, 4)
        self.third = nn.Linear(4, 4)
        self.third.weight = self.second.weight
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("temporary", torch.zeros(2), persistent=False)

    def forward(self, x):
        self.calls += 1
        x = self.drop(self.norm(self.first(x)))
        return self.third(torch.tanh(self.second(x))) * self.frozen


def loss_of(model):
    return model(X).pow(2).mean()


def saved_without_pickle(components, directory):
    """Save, load without leave to unpickle, and tell whether nothing was pickled."""
    cp = Checkpoint(directory, fsync=False)
    for key, component in components.items():
        setattr(cp, key, component)
    report = cp.save()
    foreign = Checkpoint()
    for key, component in components.items():
        setattr(foreign, key, component)
    foreign.load(directory)
    return report.pickled == ()


# Modules and optimizers


OPTIMIZERS = {
    "sgd": lambda groups: optim.SGD(groups, 0.1, momentum=0.9, nesterov=True),
    "adam": lambda groups: optim.Adam(groups, 0.01, amsgrad=True),
    "adamw": lambda groups: optim.AdamW(groups, 0.01),
    "rmsprop": lambda groups: optim.RMSprop(groups, 0.01, momentum=0.5, centered=True),
    "adagrad": lambda groups: optim.Adagrad(groups, 0.01),
    "adadelta": lambda groups: optim.Adadelta(groups),
    "adamax": lambda groups: optim.Adamax(groups),
    "nadam": lambda groups: optim.NAdam(groups),
    "radam": lambda groups: optim.RAdam(groups),
    "asgd": lambda groups: optim.ASGD(groups),
    "rprop": lambda groups: optim.Rprop(groups),
}


def grouped(model):
    norm = list(model.norm.parameters())
    rest = [p for p in model.parameters() if all(p is not x for x in norm)]
    return [{"params": norm, "lr": 0.05, "weight_decay": 0.1}, {"params": rest}]


def step(parts):
    parts["optimizer"].zero_grad()
    loss_of(parts["model"]).backward()
    parts["optimizer"].step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_resumed_exactly(tmp_path, name):
    def make():
        model = Net()
        loss_of(model).backward()  # As if something had been tried before loading.
        optimizer = OPTIMIZERS[name](grouped(model))
        return {"model": model, "optimizer": optimizer, "rng": GlobalRNG()}

    check_resume(make, step)
    parts = make()
    step(parts)
    assert saved_without_pickle(parts, tmp_path)


def test_training_with_lbfgs_is_resumed_exactly(tmp_path):
    def make():
        model = nn.Linear(3, 2)
        return {"model": model, "optimizer": optim.LBFGS(model.parameters(), 0.1)}

    def step(parts):
        def closure():
            parts["optimizer"].zero_grad()
            loss = loss_of(parts["model"])
            loss.backward()
            return loss

        parts["optimizer"].step(closure)

    check_resume(make, step)
    parts = make()
    step(parts)
    assert saved_without_pickle(parts, tmp_path)


def test_loading_keeps_weights_tied_and_leaves_other_buffers_alone(tmp_path):
    model = Net()
    cp = Checkpoint(tmp_path, fsync=False)
    cp.model = model
    step({"model": model, "optimizer": optim.SGD(model.parameters(), 0.1)})
    cp.save()
    cp.model = again = Net()
    again.temporary += 1
    loss_of(again)
    cp.load()
    assert again.third.weight is again.second.weight
    assert again.temporary.tolist() == [1, 1]
    assert not again.frozen.requires_grad
    assert_same(dict(model.state_dict()), dict(again.state_dict()))


def missing(key):
    def make():
        model = Net()
        parts = {
            "model": model,
            "optimizer": optim.SGD(model.parameters(), 0.1, momentum=0.9),
            "rng": GlobalRNG(),
        }
        return {name: parts[name] for name in parts if name != key}, parts

    return make


def test_an_optimizer_that_is_not_registered_is_found():
    with pytest.raises(ResumeError, match=r"step 4 .*first model/first\.weight: float"):
        check_resume(missing("optimizer"), lambda made: step(made[1]))


def test_dropout_without_global_rng_is_found():
    with pytest.raises(ResumeError, match=r"step 4 .*generators of torch, which"):
        check_resume(missing("rng"), lambda made: step(made[1]))


# Partial loads, into optimizers that did not step yet


def trained(name, steps):
    """Return a model and an optimizer that trained for some steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    parts = {"model": model, "optimizer": OPTIMIZERS[name](model.parameters())}
    for _ in range(steps):
        step(parts)
    return parts


def parameters(parts):
    return {name: x.tolist() for name, x in parts["model"].state_dict().items()}


WAYS = {
    "regex": {"regex": ".*"},
    "rename": {"rename": {r"^_orig_mod\.": ""}},
    "cast": {"cast": True},
    "not strict": {"strict": False},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_fresh_optimizer_takes_its_state_in_parts(tmp_path, name, way):
    parts = trained(name, 3)
    cp = Checkpoint(tmp_path, fsync=False)
    cp.optimizer = parts["optimizer"]
    cp.model = parts["model"]
    if way == "rename":
        cp.model = nn.ModuleDict({"_orig_mod": parts["model"]})  # As torch.compile().
    cp.save()
    again = trained(name, 0)
    cp.model, cp.optimizer = again["model"], again["optimizer"]
    report = cp.load(**WAYS[way])
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())
    assert_same(parts["optimizer"].state_dict(), again["optimizer"].state_dict())
    step(parts)
    step(again)
    assert parameters(again) == parameters(parts)


def test_an_optimizer_with_some_of_its_state_takes_the_rest(tmp_path):
    parts = trained("adam", 3)
    cp = Checkpoint(tmp_path, fsync=False)
    cp.optimizer = parts["optimizer"]
    cp.save()
    again = trained("adam", 0)
    again["model"][2](torch.ones(1, 4)).sum().backward()
    again["optimizer"].step()
    assert list(again["optimizer"].state_dict()["state"]) == [2, 3]
    cp.optimizer = again["optimizer"]
    cp.load(regex=".*")
    state = again["optimizer"].state_dict()["state"]
    expected = parts["optimizer"].state_dict()["state"]
    assert_same(expected, {key: state[key] for key in sorted(state)})


def test_an_optimizer_of_other_parameters_is_refused_before_anything_changes(tmp_path):
    parts = trained("adam", 1)
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box, cp.optimizer = Box(1), parts["optimizer"]
    cp.save()
    model = nn.Linear(3, 4)
    cp.box, cp.optimizer = Box(0), optim.Adam(model.parameters())
    for options in ({"regex": ".*"}, {"cast": True}):
        with pytest.raises(MismatchError, match="params/2: only in the save"):
            cp.load(**options)
    assert cp.box.state == 0
    assert cp.optimizer.state_dict()["state"] == {}


def test_a_module_has_all_that_it_can_have(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box, cp.model = Box(1), nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    cp.save()
    cp.box, cp.model = Box(0), nn.Sequential(nn.Linear(3, 4))
    with pytest.raises(MismatchError, match=r"model/1\.weight: only in the save"):
        cp.load(regex=".*")
    assert cp.box.state == 0
    assert cp.load(strict=False).unexpected == ("model/1.weight", "model/1.bias")


def test_a_lazy_module_takes_its_parameters_in_parts(tmp_path):
    model = nn.LazyLinear(2)
    model(torch.ones(1, 3))
    cp = Checkpoint(tmp_path, fsync=False)
    cp.model = model
    cp.save()
    cp.model = again = nn.LazyLinear(2)
    cp.load(regex=".*")
    assert_same(dict(model.state_dict()), dict(again.state_dict()))


def test_more_of_what_a_module_adds_to_its_state_is_taken(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.model = Extra()
    cp.save()
    cp.model = again = Extra()
    again.history = {"returns": [], "name": "other"}
    cp.load(regex=".*")
    assert again.history == {"returns": [0.5, None], "name": "agent"}


# Schedulers and more


SCHEDULES = {
    "lambda": lambda opt: schedules.LambdaLR(opt, lambda epoch: 0.9**epoch),
    "multiplicative": lambda opt: schedules.MultiplicativeLR(opt, lambda epoch: 0.9),
    "step": lambda opt: schedules.StepLR(opt, 2),
    "multistep": lambda opt: schedules.MultiStepLR(opt, [2, 4]),
    "constant": lambda opt: schedules.ConstantLR(opt, total_iters=4),
    "linear": lambda opt: schedules.LinearLR(opt),
    "exponential": lambda opt: schedules.ExponentialLR(opt, 0.9),
    "polynomial": lambda opt: schedules.PolynomialLR(opt, 10),
    "cosine": lambda opt: schedules.CosineAnnealingLR(opt, 10),
    "restarts": lambda opt: schedules.CosineAnnealingWarmRestarts(opt, 2),
    "one cycle": lambda opt: schedules.OneCycleLR(opt, 0.1, total_steps=20),
    "cyclic": lambda opt: schedules.CyclicLR(opt, 0.01, 0.1, step_size_up=2),
    "plateau": lambda opt: schedules.ReduceLROnPlateau(opt, patience=1),
    "sequential": lambda opt: schedules.SequentialLR(
        opt, [schedules.LinearLR(opt), schedules.ExponentialLR(opt, 0.9)], [2]
    ),
    "chained": lambda opt: schedules.ChainedScheduler(
        [schedules.LinearLR(opt), schedules.ExponentialLR(opt, 0.9)]
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_training_with_a_schedule_is_resumed_exactly(tmp_path, name):
    def make():
        model = nn.Linear(3, 2)
        optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
        schedule = SCHEDULES[name](optimizer)
        return {"model": model, "optimizer": optimizer, "schedule": schedule}

    def train(parts):
        step(parts)
        if name == "plateau":
            parts["schedule"].step(1.0)
        else:
            parts["schedule"].step()

    check_resume(make, train)
    parts = make()
    train(parts)
    assert saved_without_pickle(parts, tmp_path)


MODULES = {
    "recurrent": lambda: nn.LSTM(3, 4, 2, dropout=0.1),
    "attention": lambda: nn.TransformerEncoderLayer(3, 1, 8),
    "running statistics": lambda: nn.InstanceNorm1d(3, track_running_stats=True),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)),
    "half": lambda: nn.Linear(3, 4, dtype=torch.bfloat16),
    "average": lambda: optim.swa_utils.AveragedModel(nn.Linear(3, 4)),
    "extra state": lambda: Extra(),
}


class Extra(nn.Linear):
    """A module that saves more than tensors."""

    def __init__(self):
        super().__init__(3, 4)
        self.history = {"returns": [0.5, None], "name": "agent"}

    def get_extra_state(self):
        return self.history

    def set_extra_state(self, state):
        self.history = state


@pytest.mark.parametrize("name", MODULES)
def test_modules_need_no_pickle_and_come_back_the_same(tmp_path, name):
    torch.manual_seed(0)
    model = MODULES[name]()
    assert saved_without_pickle({"model": model}, tmp_path)
    again = MODULES[name]()
    cp = Checkpoint()
    cp.model = again
    cp.load(tmp_path)
    assert_same(dict(model.state_dict()), dict(again.state_dict()))


def test_gradient_scaler_is_resumed_exactly(tmp_path):
    def make():
        model = nn.Linear(3, 2)
        optimizer = optim.SGD(model.parameters(), 0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        return {"model": model, "optimizer": optimizer, "scaler": scaler}

    def step(parts):
        parts["optimizer"].zero_grad()
        parts["scaler"].scale(loss_of(parts["model"])).backward()
        parts["scaler"].step(parts["optimizer"])
        parts["scaler"].update()

    check_resume(make, step)
    assert saved_without_pickle(make(), tmp_path)


def test_a_generator_of_torch_is_a_component_by_its_two_methods(tmp_path):
    def make():
        generator = torch.Generator()
        component = elementsckpt.Saveable(
            save=generator.get_state, load=generator.set_state
        )
        return {"rng": component, "box": Box(0.0)}, generator

    def step(made):
        parts, generator = made
        parts["box"].state = torch.rand((), generator=generator).item()

    check_resume(make, step)
    assert saved_without_pickle(make()[0], tmp_path)


def test_tensors_in_a_plain_component_are_resumed_exactly():
    def make():
        tensor = torch.arange(4.0)
        return {"box": Box({"half": tensor.to(torch.bfloat16), "t": tensor, "n": 0})}

    def step(parts):
        state = parts["box"].state
        state["half"] += 1
        state["t"] = state["t"].flip(0) * 2
        state["n"] += 1

    assert check_resume(make, step).leaves == 3

    class Rounding(Box):
        def load(self, data):
            super().load({**data, "half": data["half"] + 1})

    def rounding():
        return {"box": Rounding(make()["box"].state)}

    with pytest.raises(
        ResumeError, match=r"box/half: bfloat16\[4\], 4 of 4 .* up to 1"
    ):
        check_resume(rounding, step)


@pytest.mark.parametrize("mmap", [False, True])
def test_loaded_tensors_are_aligned_as_those_that_torch_makes(tmp_path, mmap):
    """Kernels for vectors round in other ways where memory is not."""
    state = [torch.arange(n, dtype=torch.float32) for n in (1, 2, 3, 7, 9, 100_000)]
    state += [torch.arange(5.0) for _ in range(3)]
    loaded = load(save(tmp_path, state), mmap=mmap)
    assert_same(state, loaded)
    assert {x.data_ptr() % 64 for x in [*state, *loaded]} == {0}


# Devices. The lazy backend of the CPU build is a device with memory of its own.


@pytest.fixture
def lazy():
    backend = pytest.importorskip("torch._lazy.ts_backend")
    with contextlib.suppress(RuntimeError):  # It may have been, before.
        backend.init()
    return torch.device("lazy:0")


def save(directory, state):
    cp = Checkpoint(directory, fsync=False)
    cp.box = Box(state)
    return cp.save().path


def load(path, state=None, **options):
    cp = Checkpoint()
    cp.box = Box(state)
    cp.load(path, **options)
    return cp.box.state


def groups(path):
    return component_of(manifest_of(path))["trees"][0]["leaves"]


def on_device(directory, device):
    """Return a save of a tensor and a parameter that claims another device."""
    state = {"t": torch.arange(3.0), "p": nn.Parameter(torch.ones(2, 2))}
    save = Checkpoint(directory, fsync=False)
    save.box = Box(state)
    path = save.save().path

    def change(content):
        for group in content["components"][0]["trees"][0]["leaves"]:
            group["value"] = [*(group.get("value") or []), f"device={device}"]

    forge(path, change)
    return path


def test_tensors_come_back_on_their_device(tmp_path, lazy):
    state = {
        "here": torch.arange(3.0),
        "there": torch.arange(3.0).to(lazy),
        "empty": torch.zeros((2, 0), device=lazy),
        "half": torch.ones(2, dtype=torch.bfloat16).to(lazy),
        "parameter": nn.Parameter(torch.ones(2, 2).to(lazy)),
        "frozen": nn.Parameter(torch.ones(2, 2).to(lazy), requires_grad=False),
        "wanted": torch.ones(3, device=lazy, requires_grad=True),
    }
    state["again"] = state["there"]
    loaded = load(save(tmp_path, state))
    assert {name: x.device.type for name, x in loaded.items()} == {
        name: "cpu" if name == "here" else "lazy" for name in state
    }
    assert {name: type(x) for name, x in loaded.items()} == {
        name: type(x) for name, x in state.items()
    }
    assert all(x.is_leaf for x in loaded.values())
    assert loaded["again"] is loaded["there"]
    host = {name: x.detach().cpu() for name, x in state.items()}
    assert_same(host, {name: x.detach().cpu() for name, x in loaded.items()})
    wants = {name: x.requires_grad for name, x in state.items()}
    assert {name: x.requires_grad for name, x in loaded.items()} == wants


def test_only_another_device_than_the_cpu_is_recorded(tmp_path, lazy):
    state = [torch.ones(2), nn.Parameter(torch.ones(2)), torch.ones(2, device=lazy)]
    values = [group.get("value") for group in groups(save(tmp_path, state))]
    assert values == [[], ["parameter", "requires_grad"], ["device=lazy:0"]]


def test_module_and_optimizer_on_a_device_go_on_there(tmp_path, lazy):
    def make():
        model = nn.Linear(3, 2).to(lazy)
        return {"model": model, "optimizer": optim.SGD(model.parameters(), 0.1, 0.9)}

    def step(parts):
        parts["optimizer"].zero_grad()
        parts["model"](X.to(lazy)).pow(2).mean().backward()
        parts["optimizer"].step()

    check_resume(make, step)
    parts = make()
    step(parts)
    assert saved_without_pickle(parts, tmp_path)
    state = parts["optimizer"].state_dict()["state"]
    assert state[0]["momentum_buffer"].device == lazy


@pytest.mark.parametrize(
    "device", ["cuda:7", "cuda", "xpu:0", "meta", "nonsense", "", "cuda:x"]
)
def test_tensors_of_a_device_that_is_not_here_come_to_the_cpu(tmp_path, caplog, device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("it is here")
    torch_tensors._device.cache_clear()
    path = on_device(tmp_path, device)
    with caplog.at_level(logging.INFO, "elementsckpt"):
        loaded = [load(path) for _ in range(2)][1]
    assert {x.device.type for x in loaded.values()} == {"cpu"}
    assert loaded["t"].tolist() == [0, 1, 2]
    assert loaded["p"].tolist() == [[1, 1], [1, 1]]
    assert type(loaded["p"]) is nn.Parameter
    assert loaded["p"].requires_grad
    (record,) = [x for x in caplog.records if "Loaded" not in x.getMessage()]
    assert record.levelno == logging.INFO
    assert device in record.getMessage()


def test_with_regex_tensors_go_where_the_current_ones_are(tmp_path, lazy):
    path = save(tmp_path, {"a": torch.ones(2), "b": torch.ones(2).to(lazy)})
    current = {"a": nn.Parameter(torch.zeros(2).to(lazy)), "b": torch.zeros(2)}
    loaded = load(path, current, regex=".*")
    assert {name: x.device.type for name, x in loaded.items()} == {
        "a": "lazy",
        "b": "cpu",
    }
    assert type(loaded["a"]) is nn.Parameter
    assert [x.tolist() for x in loaded.values()] == [[1, 1], [1, 1]]


def test_read_gives_numpy_arrays_whatever_the_device(tmp_path, lazy):
    path = save(tmp_path / "lazy", {"t": torch.arange(3.0).to(lazy)})
    assert_same({"t": np.arange(3, dtype="f4")}, elementsckpt.read(path)["box"])
    path = on_device(tmp_path / "cuda", "cuda:7")
    read = elementsckpt.read(path)["box"]["t"]
    assert isinstance(read, np.ndarray)
    assert read.tolist() == [0, 1, 2]


def test_the_default_device_of_the_program_changes_nothing(tmp_path, lazy):
    state = {"t": torch.arange(3.0), "empty": torch.zeros(0)}
    path = save(tmp_path, state)
    with lazy:
        loaded = load(path)
    assert {x.device.type for x in loaded.values()} == {"cpu"}
    assert_same(state, loaded)
