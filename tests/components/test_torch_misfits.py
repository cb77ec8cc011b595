"""A torch module or optimizer that does not fit is refused before anything changes."""

import pytest

from elementsckpt import Checkpoint, MismatchError, Saveable, checkpoint

torch = pytest.importorskip("torch")
nn, optim = torch.nn, torch.optim


def network(hidden=4, outputs=2):
    return nn.Sequential(
        nn.Linear(3, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, outputs)
    )


def trained(model, make=optim.Adam):
    optimizer = make(model.parameters(), 0.01)
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    return optimizer


def values(model):
    return {tuple(x.float().flatten().tolist()) for x in model.state_dict().values()}


def bits(model):
    return {name: value.clone().tolist() for name, value in model.state_dict().items()}


def saved(tmp_path, **components):
    cp = Checkpoint(tmp_path, fsync=False)
    for key, value in components.items():
        setattr(cp, key, value)
    return cp.save().path


def refused(path, **components):
    """Load components that do not all fit; returns the message and what was loaded."""
    cp, loaded = Checkpoint(), []
    cp.first = Saveable(list, loaded.append)  # Which comes before the others.
    for key, value in components.items():
        setattr(cp, key, value)
    with pytest.raises(MismatchError) as caught:
        cp.load(path)
    assert loaded == []
    return str(caught.value), cp.load(path, dry_run=True)


def test_a_module_whose_shapes_do_not_fit_stays_as_it_is(tmp_path):
    path = saved(tmp_path, first=Saveable(list, print), model=network(outputs=2))
    other = network(outputs=5)
    before = bits(other)
    message, report = refused(path, model=other)
    assert "differ in 2 leaves:" in message
    assert "\n  model/2.weight: saved float32[2,4], expected float32[5,4]\n" in message
    assert "\n  model/2.bias: saved float32[2], expected float32[5]\n" in message
    assert "Nothing was loaded." in message
    assert bits(other) == before
    assert report.mismatched == ("model/2.weight", "model/2.bias")


def test_a_module_with_other_names_stays_as_it_is(tmp_path):
    path = saved(tmp_path, first=Saveable(list, print), model=network())
    other = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2), nn.PReLU())
    before = bits(other)
    message, report = refused(path, model=other)
    assert "\n  model/3.weight: not in the save\n" in message
    assert "\n  model/1.running_mean: only in the save\n" in message
    assert "\n  model/1.weight: saved float32[4], expected float32[4,4]\n" in message
    assert bits(other) == before
    assert report.missing == ("model/3.weight",)


def test_no_other_component_is_loaded_when_an_optimizer_does_not_fit(tmp_path):
    model = network()
    optimizer = trained(model)
    parts = {"first": Saveable(list, print), "optimizer": optimizer}
    path = saved(tmp_path, **parts)
    fewer = optim.Adam(list(network().parameters())[:2])
    message, _ = refused(path, optimizer=fewer)
    assert "optimizer/param_groups: saved 6 parameters, expected 2\n" in message
    # Which torch would load, and fail at the next step.
    message, _ = refused(path, optimizer=optim.Adam(network(hidden=7).parameters()))
    text = "optimizer/state/0/exp_avg: saved float32[4,3], expected float32[7,3]\n"
    assert text in message


def test_functions_are_asked_too(tmp_path):
    model, other = network(), network(hidden=5)
    before = bits(other)
    checkpoint.save(tmp_path / "save", {"model": model.state_dict}, fsync=False)
    with pytest.raises(MismatchError, match=r"model/0\.weight: saved float32"):
        checkpoint.load(tmp_path / "save", {"model": other.load_state_dict})
    assert bits(other) == before


class Resizing(nn.Module):
    """Takes a buffer of any shape."""

    def __init__(self, count):
        super().__init__()
        self.register_buffer("rows", torch.ones(count))

    def _load_from_state_dict(self, state, prefix, *args):
        self.rows = torch.empty_like(state[prefix + "rows"])
        super()._load_from_state_dict(state, prefix, *args)


class Renaming(nn.Linear):
    """Takes what had another name."""

    def __init__(self):
        super().__init__(2, 2)
        self._register_load_state_dict_pre_hook(self.rename)

    def rename(self, state, prefix, *_):
        state[prefix + "weight"] = state.pop(prefix + "old", self.weight)


class Old(nn.Linear):
    def __init__(self):
        super().__init__(2, 2)
        self.old = self.weight
        del self.weight


class Number(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(shape))


class Extra(nn.Module):
    """Has a state besides its parameters, of any shape."""

    def __init__(self, count):
        super().__init__()
        self.rows = torch.full((count,), float(count))

    def get_extra_state(self):
        return self.rows

    def set_extra_state(self, state):
        self.rows = state


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Extra(3), Extra(5)),
        (Resizing(3), Resizing(5)),
        (nn.Sequential(Old()), nn.Sequential(Renaming())),
        (nn.Linear(3, 4), nn.LazyLinear(4)),
        (Number((1,)), Number(())),
        (nn.Linear(3, 4, dtype=torch.float64), nn.Linear(3, 4)),
    ],
    ids=["extra", "resizing", "renaming", "lazy", "number", "dtype"],
)
def test_what_torch_loads_all_the_same_is_not_refused(tmp_path, before, after):
    path = saved(tmp_path, model=before)
    cp = Checkpoint()
    cp.model = after
    cp.load(path)
    assert values(after) == values(before)


def sgd(parameters, rate):
    return optim.SGD(parameters, rate, momentum=0.9)


def lbfgs(parameters, rate):
    class Once(optim.LBFGS):
        def step(self):
            return super().step(lambda: sum(p.sum() for p in self._params))

    Once.__module__ = "torch.optim.lbfgs"
    Once.__name__ = "LBFGS"
    return Once(parameters, rate)


NAMES = "Adam AdamW NAdam RAdam Adamax Adagrad Adadelta Adafactor ASGD RMSprop Rprop"
MAKERS = [getattr(optim, name) for name in NAMES.split() if hasattr(optim, name)]


@pytest.mark.parametrize("make", [*MAKERS, sgd, lbfgs], ids=lambda x: x.__name__)
def test_each_optimizer_of_torch_fits_itself(tmp_path, make):
    model, other = network(), network()
    path = saved(tmp_path, optimizer=trained(model, make))
    cp = Checkpoint()
    cp.optimizer = make(other.parameters(), 0.01)
    cp.load(path)
    assert len(cp.optimizer.state_dict()["state"]) > 0


def lazy(steps=0):
    model = nn.LazyLinear(3)
    optimizer = optim.Adam(model.parameters())
    for _ in range(steps):
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
    return model, optimizer


def test_a_lazy_module_and_its_optimizer_go_on(tmp_path):
    model, optimizer = lazy(steps=2)
    path = saved(tmp_path, model=model, optimizer=optimizer)
    cp = Checkpoint()
    cp.model, cp.optimizer = others = lazy()
    cp.load(path)
    assert bits(others[0]) == bits(model)
    moments = others[1].state_dict()["state"][0]["exp_avg"]
    assert torch.equal(moments, optimizer.state_dict()["state"][0]["exp_avg"])


def test_a_lazy_module_that_knew_no_shape_yet_does_not_fit_one_that_does(tmp_path):
    path = saved(tmp_path, model=lazy()[0])
    cp = Checkpoint()
    cp.model, _ = lazy(steps=1)
    message = r"model/weight: saved before its shape was known, expected \[3,4\]"
    with pytest.raises(MismatchError, match=message):
        cp.load(path, allow_pickle=True)


def test_a_module_with_a_hook_decides_itself_what_it_lacks(tmp_path):
    path = saved(tmp_path, model=nn.Linear(2, 3, bias=False))
    model = nn.Linear(2, 3)
    model.register_load_state_dict_post_hook(lambda _, keys: keys.missing_keys.clear())
    cp = Checkpoint()
    cp.model = model
    cp.load(path)


@pytest.mark.parametrize(
    ("state", "make", "problem"),
    [
        (lambda: network().state_dict(), lambda: trained(network()), "param_groups"),
        (lambda: {"param_groups": 3, "state": 1}, lambda: trained(network()), "param"),
        (lambda: {0: torch.ones(1)}, lambda: nn.Linear(1, 1), "0: only in the save"),
        (lambda: {"weight": [1], "bias": 2}, lambda: nn.Linear(1, 1), "saved list"),
    ],
)
def test_what_is_no_state_of_it_is_refused_by_name(tmp_path, state, make, problem):
    parts = {"first": Saveable(list, print), "part": Saveable(state, print)}
    message, report = refused(saved(tmp_path, **parts), part=make())
    assert f"\n  part/{problem}" in message or problem in message
    assert not set(report.mismatched) & set(report.loaded)


def test_a_subclass_of_an_optimizer_is_compared_like_it(tmp_path):
    class Own(optim.Adam):
        pass

    parts = {"first": Saveable(list, print), "part": trained(network(4), Own)}
    message, _ = refused(saved(tmp_path, **parts), part=trained(network(5), Own))
    assert "part/state/0/exp_avg: saved float32[4,3], expected float32[5,3]" in message
