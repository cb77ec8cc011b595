"""Classes of NamedTuples and dataclasses: found, never imported for a foreign path."""

import dataclasses
import importlib
import sys
import textwrap
import types
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint

from support.boxes import Box, make_boxes
from support.strategies import Frozen, Pair, Point, assert_same, round_trip

COMMON = """
    import pathlib, sys
    import numpy as np
    from elementsckpt import Checkpoint

    class Box:
        def __init__(self, state=None):
            self.state = state
        def save(self):
            return self.state
        def load(self, data):
            self.state = data
"""

MODULE = """
    import dataclasses, pathlib
    from typing import Any, NamedTuple

    pathlib.Path(__file__).with_name("imported").touch()

    class Moments(NamedTuple):
        mean: Any
        var: Any

    @dataclasses.dataclass
    class State:
        params: Any
        step: int = 0

    class Outer:
        class Inner(NamedTuple):
            x: Any
"""

SAVE = """
    import classes_of_a_run as run
    state = {
        "opt": run.Moments(np.arange(3), {"deep": run.State(np.ones(2), 7)}),
        "list": [run.Outer.Inner(5), (run.Moments(1, 2),)],
    }
    cp = Checkpoint("save")
    cp.box = Box(state)
    cp.save()
    root = Checkpoint("root")
    root.box = Box(run.Moments(1, 2))
    root.save()
"""


@pytest.fixture
def run(forked):
    """Return a function that runs a script in a folder whose modules it can import."""

    def run(folder, script):
        done = forked(textwrap.dedent(COMMON) + textwrap.dedent(script), cwd=folder)
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture
def two_programs(tmp_path, run):
    """A folder with a module and a save of its classes, written by a process."""
    (tmp_path / "classes_of_a_run.py").write_text(textwrap.dedent(MODULE))
    run(tmp_path, SAVE)
    (tmp_path / "imported").unlink()
    return tmp_path


# Not imported for a foreign path


def test_foreign_class_that_is_not_imported_comes_back_by_field(run, two_programs):
    run(
        two_programs,
        """
        cp = Checkpoint()
        cp.box = Box()
        report = cp.load("save")
        opt, items = cp.box.state["opt"], cp.box.state["list"]
        assert type(opt) is dict and list(opt) == ["mean", "var"]
        assert opt["mean"].tolist() == [0, 1, 2]
        deep = opt["var"]["deep"]
        assert type(deep) is dict and list(deep) == ["params", "step"]
        assert deep["params"].tolist() == [1, 1] and deep["step"] == 7
        assert items == [{"x": 5}, ({"mean": 1, "var": 2},)]
        assert sorted(report.plain) == [
            "box/list/0", "box/list/1/0", "box/opt", "box/opt/var/deep"
        ]
        names = {name: path.replace(":", ".") for name, path in report.plain.items()}
        assert names["box/opt"] == "classes_of_a_run.Moments"
        assert names["box/opt/var/deep"] == "classes_of_a_run.State"
        assert names["box/list/0"] == "classes_of_a_run.Outer.Inner"
        assert "classes_of_a_run" not in sys.modules
        """,
    )
    assert not (two_programs / "imported").exists()


def test_foreign_root_of_a_class_that_is_not_imported_is_reported_by_its_key(
    run,
    two_programs,
):
    run(
        two_programs,
        """
        cp = Checkpoint()
        cp.box = Box()
        report = cp.load("root")
        assert cp.box.state == {"mean": 1, "var": 2}
        assert list(report.plain) == ["box"]
        """,
    )
    assert not (two_programs / "imported").exists()


def test_nothing_that_looks_at_a_foreign_save_imports_its_classes(run, two_programs):
    run(
        two_programs,
        """
        import elementsckpt
        found = elementsckpt.read("save")["box"]
        assert found["list"] == [{"x": 5}, ({"mean": 1, "var": 2},)]
        assert elementsckpt.info("save").components["box"].leaves == 6
        loaded = []
        report = elementsckpt.checkpoint.load("save", {"box": loaded.append})
        assert len(report.plain) == 4 and type(loaded[0]["opt"]) is dict
        cp = Checkpoint()
        cp.box = Box({"opt": {"mean": np.zeros(3, int)}})
        cp.load("save", regex="opt/mean")
        assert cp.box.state["opt"]["mean"].tolist() == [0, 1, 2]
        cp.load("save", dry_run=True)
        assert "classes_of_a_run" not in sys.modules
        """,
    )
    assert not (two_programs / "imported").exists()


def test_allowing_pickle_or_owning_the_directory_finds_the_classes(run, two_programs):
    run(
        two_programs,
        """
        cp = Checkpoint("save")
        cp.box = Box()
        report = cp.load()
        assert not report.plain
        import classes_of_a_run as run
        opt, items = cp.box.state["opt"], cp.box.state["list"]
        assert type(opt) is run.Moments and opt.mean.tolist() == [0, 1, 2]
        assert type(opt.var["deep"]) is run.State and opt.var["deep"].step == 7
        assert items == [run.Outer.Inner(5), (run.Moments(1, 2),)]
        assert type(items[0]) is run.Outer.Inner
        """,
    )


def test_foreign_class_that_is_imported_already_is_used(run, two_programs):
    run(
        two_programs,
        """
        import classes_of_a_run as run
        cp = Checkpoint()
        cp.box = Box()
        report = cp.load("save")
        assert report.plain == {}
        opt, items = cp.box.state["opt"], cp.box.state["list"]
        assert type(opt) is run.Moments and type(opt.var["deep"]) is run.State
        assert type(items[0]) is run.Outer.Inner
        """,
    )


def test_own_directory_whose_module_is_gone_still_loads_by_field(run, two_programs):
    (two_programs / "classes_of_a_run.py").unlink()
    run(
        two_programs,
        """
        cp = Checkpoint("save")
        cp.box = Box()
        report = cp.load()
        assert type(cp.box.state["opt"]) is dict
        assert cp.box.state["opt"]["mean"].tolist() == [0, 1, 2]
        assert len(report.plain) == 4
        """,
    )


def test_own_directory_whose_module_breaks_on_import_still_loads_by_field(
    run, two_programs
):
    (two_programs / "classes_of_a_run.py").write_text("raise ValueError('broken')\n")
    run(
        two_programs,
        """
        cp = Checkpoint("save")
        cp.box = Box()
        report = cp.load()
        assert type(cp.box.state["opt"]) is dict
        assert len(report.plain) == 4
        """,
    )


def test_a_class_that_is_gone_comes_back_as_a_dict_and_says_so(tmp_path, warnings):
    module = types.ModuleType("gone_module")
    sys.modules["gone_module"] = module
    try:
        exec(
            "from typing import NamedTuple\nclass P(NamedTuple):\n  x: int",
            vars(module),
        )
        make_boxes(tmp_path, agent={"p": [module.P(3)]}).save()
    finally:
        del sys.modules["gone_module"]
    cp = make_boxes(tmp_path, agent=None)
    report = cp.load()
    assert cp.agent.state == {"p": [{"x": 3}]}
    assert report.plain == {"agent/p/0": "gone_module:P"}
    assert "gone_module:P" in warnings.text
    assert "agent/p/0" in warnings.text


# Found through the component's current state

MOVED = """
    import dataclasses
    from typing import Any, NamedTuple

    class Moments(NamedTuple):
        mean: Any
        var: Any

    @dataclasses.dataclass
    class State:
        params: Any
        step: int = 0

    class Outer:
        class Inner(NamedTuple):
            x: Any
"""

CURRENT = """
        current = {
            "opt": Moments(0, {"deep": State(0)}),
            "list": [Outer.Inner(0), (Moments(0, 0),)],
        }
        cp = Checkpoint()
        cp.box = Box(current)
        report = cp.load("save")
        assert report.plain == {}, report.plain
        opt, items = cp.box.state["opt"], cp.box.state["list"]
        assert type(opt) is Moments and opt.mean.tolist() == [0, 1, 2]
        assert type(opt.var["deep"]) is State and opt.var["deep"].step == 7
        assert items == [Outer.Inner(5), (Moments(1, 2),)]
        assert type(items[0]) is Outer.Inner
        assert "classes_of_a_run" not in sys.modules
"""


def test_class_of_a_renamed_module_is_found_through_the_current_state(
    run, two_programs
):
    (two_programs / "renamed_module.py").write_text(textwrap.dedent(MOVED))
    script = "from renamed_module import Moments, Outer, State\n"
    run(two_programs, script + textwrap.dedent(CURRENT))
    assert not (two_programs / "imported").exists()


def test_class_that_moved_to_main_is_found_through_the_current_state(run, two_programs):
    run(two_programs, textwrap.dedent(MOVED) + textwrap.dedent(CURRENT))
    assert not (two_programs / "imported").exists()


def test_class_of_another_programs_main_is_found_through_the_current_state(
    run, tmp_path
):
    save = textwrap.dedent(MOVED) + textwrap.dedent(
        """
        cp = Checkpoint("save")
        cp.box = Box({"a": Moments(1, State(2, 3))})
        cp.save()
        """
    )
    load = textwrap.dedent(
        """
        cp = Checkpoint({directory})
        cp.box = Box({{"a": Moments(0, State(0, 0))}})
        report = cp.load("save")
        assert report.plain == {{}}
        assert cp.box.state == {{"a": Moments(1, State(2, 3))}}
        assert type(cp.box.state["a"]) is Moments
        """
    )
    run(tmp_path, save)
    (tmp_path / "elsewhere.py").write_text(textwrap.dedent(MOVED))
    imports = "from elsewhere import Moments, State\n"
    for directory in ("", "'save'"):
        run(tmp_path, textwrap.dedent(MOVED) + load.format(directory=directory))
        run(tmp_path, imports + load.format(directory=directory))


def test_class_of_main_that_is_nowhere_comes_back_by_field(run, tmp_path):
    save = textwrap.dedent(MOVED) + textwrap.dedent(
        """
        cp = Checkpoint("save")
        cp.box = Box({"a": Moments(1, State(2, 3))})
        cp.save()
        """
    )
    run(tmp_path, save)
    for directory in ("", "'save'"):
        run(
            tmp_path,
            f"""
            cp = Checkpoint({directory})
            cp.box = Box()
            report = cp.load("save")
            var = {{"params": 2, "step": 3}}
            assert cp.box.state == {{"a": {{"mean": 1, "var": var}}}}
            paths = [p.replace(":", ".") for p in report.plain.values()]
            assert sorted(paths) == ["__main__.Moments", "__main__.State"]
            assert sorted(report.plain) == ["box/a", "box/a/var"]
            """,
        )


# Checked to be what the manifest says

BEFORE = """
import dataclasses
from typing import Any, NamedTuple
class Moments(NamedTuple):
    mean: Any
    var: Any
@dataclasses.dataclass
class State:
    params: Any
    step: int = 0
"""

CHANGED = {
    "a field more": BEFORE.replace("var: Any", "var: Any\n    count: int = 0").replace(
        "step: int = 0", "step: int = 0\n    rng: Any = None"
    ),
    "a field less": BEFORE.replace("    var: Any\n", "").replace(
        "    step: int = 0\n", ""
    ),
    "a field renamed": BEFORE.replace("var:", "variance:").replace("step:", "steps:"),
    "another order": BEFORE.replace(
        "    mean: Any\n    var: Any", "    var: Any\n    mean: Any"
    ).replace(
        "    params: Any\n    step: int = 0", "    step: int\n    params: Any = 0"
    ),
    "the other kind": BEFORE.replace("Moments(NamedTuple)", "Old")
    .replace("class State:", "class Moments:\n    mean: Any\n    var: Any\n")
    .replace("    params: Any\n    step: int = 0\n", "")
    + "class State(NamedTuple):\n    params: Any\n    step: int = 0\n",
    "functions": "def Moments(*args):\n    raise AssertionError\nState = Moments\n",
    "plain classes": "class Moments:\n    pass\nclass State:\n    pass\n",
    "gone": "",
    "builtins": "Moments = tuple\nState = dict\n",
    "instances": BEFORE + "Moments = Moments(1, 2)\nState = State(1)\n",
}


# In the run's own directory it is certain what these would have been.
BRIDGED = {
    "a field more": ({"mean": 1, "var": 2, "count": 0}, {"step": 3, "rng": None}),
    "a field less": ({"mean": 1}, {}),
    "another order": ({"mean": 1, "var": 2}, {"step": 3}),
}
SAME = "since it was saved, and only allow_pickle=True loads it all the same"
# What the log says of the NamedTuple elsewhere, and of the rest everywhere.
REASONS = {
    "a field more": f"has gained 'count' {SAME}",
    "a field less": f"has lost 'var' {SAME}",
    "a field renamed": "has gained 'variance' and lost 'var' since it was saved, and "
    "has no default for 'variance'",
    "another order": f"has changed the order of its fields {SAME}",
    "gone": "was not found",
}


@pytest.fixture
def changing(tmp_path, monkeypatch):
    """Returns a function that saves objects of a module's classes, and changes it."""
    source = tmp_path / "class_that_changes.py"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def module(text):
        source.write_text(text)
        sys.modules.pop(source.stem, None)
        importlib.invalidate_caches()
        return importlib.import_module(source.stem)

    def change(before, after, make_state):
        cp = Checkpoint(tmp_path / "run", fsync=False)
        cp.box = Box(make_state(module(before)))
        cp.save()
        return module(after), tmp_path / "run"

    yield change
    sys.modules.pop(source.stem, None)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("change", CHANGED)
def test_class_that_changed_comes_back_by_field_unless_it_can_be_had(
    changing, caplog, change, own
):
    now, run = changing(
        BEFORE,
        CHANGED[change],
        lambda before: [before.Moments(1, 2), {"state": before.State(np.ones(2), 3)}],
    )
    reader = Checkpoint(run if own else None)
    reader.box = Box()
    report = reader.load(run)
    moments, rest = reader.box.state
    if own and change in BRIDGED:
        fields, more = BRIDGED[change]
        assert type(moments) is now.Moments
        assert moments._asdict() == fields
        assert type(rest["state"]) is now.State
        assert_same({"params": np.ones(2), **more}, vars(rest["state"]))
        assert report.plain == {}
        return
    assert_same({"mean": 1, "var": 2}, moments)
    assert_same({"params": np.ones(2), "step": 3}, rest["state"])
    assert set(report.plain) == {"box/0", "box/1/state"}
    why = REASONS.get(change, "is another kind of class now")
    assert f"box/0 comes back as a dict: class_that_changes:Moments {why}." in (
        caplog.text
    )


def test_a_class_that_changed_is_spoken_of_once(changing, caplog):
    after = CHANGED["a field more"]
    _, run = changing(
        BEFORE, after, lambda old: {"x": [old.Moments(n, n) for n in range(99)]}
    )
    cp = Checkpoint(run)
    cp.box = Box()
    cp.load()
    assert [x.count for x in cp.box.state["x"]] == [0] * 99
    (record,) = caplog.records
    assert record.getMessage() == (
        "class_that_changes:Moments has gained 'count' since box/x/0 was saved: where "
        "it is new, it has its default."
    )


FACTORY = """
import dataclasses
class Failing:
    def __init__(self):
        raise RuntimeError("no connection")
@dataclasses.dataclass(frozen=True)
class State:
    x: int
    # more
"""


def test_a_new_field_gets_what_its_factory_makes_each_time(changing):
    new = "cache: dict = dataclasses.field(default_factory=dict)"
    now, run = changing(
        FACTORY,
        FACTORY.replace("# more", new),
        lambda old: [old.State(1), old.State(2)],
    )
    cp = Checkpoint(run)
    cp.box = Box()
    cp.load()
    assert cp.box.state == [now.State(1, {}), now.State(2, {})]
    assert cp.box.state[0].cache is not cp.box.state[1].cache


def test_a_new_field_without_a_default_stays_unfilled(changing, caplog):
    new = "cache: dict = dataclasses.field(init=False)"
    _, run = changing(
        FACTORY, FACTORY.replace("# more", new), lambda old: [old.State(1)]
    )
    cp = Checkpoint(run)
    cp.box = Box()
    cp.load()
    assert cp.box.state == [{"x": 1}]
    assert "gained 'cache' since it was saved, and has no default for" in caplog.text


def test_a_field_that_may_have_a_new_name_is_no_other_field(changing, caplog):
    after = BEFORE.replace("    var: Any", "    variance: Any = None")
    _, run = changing(BEFORE, after, lambda old: [old.Moments(1, 2)])
    cp = Checkpoint(run)
    cp.box = Box()
    cp.load()
    assert cp.box.state == [{"mean": 1, "var": 2}]
    assert "and that may be one field with a new name" in caplog.text


def test_what_a_factory_raises_is_no_damage(changing):
    new = "link: Failing = dataclasses.field(default_factory=Failing)"
    _, run = changing(
        FACTORY, FACTORY.replace("# more", new), lambda old: [old.State(1)]
    )
    cp = Checkpoint(run)
    cp.box = Box("untouched")
    with pytest.raises(elementsckpt.ReadError, match=r"'link' of .*no connection"):
        cp.load()
    assert cp.box.state == "untouched"


class Holder:
    """Only pickle holds it."""

    def __init__(self, value):
        self.value = value


def test_a_named_tuple_in_a_pickle_gets_its_defaults(changing):
    def state(old):
        return [Holder(old.Moments(1, 2))]

    now, run = changing(BEFORE, CHANGED["a field more"], state)
    cp = Checkpoint(run)
    cp.box = Box()
    cp.load()
    assert cp.box.state[0].value == now.Moments(1, 2, 0)


@pytest.mark.parametrize("change", ["a field less", "a field renamed"])
def test_a_named_tuple_in_a_pickle_that_lost_a_field_is_refused(changing, change):
    _, run = changing(BEFORE, CHANGED[change], lambda old: [Holder(old.Moments(1, 2))])
    cp = Checkpoint(run)
    cp.box = Box("untouched")
    with pytest.raises(elementsckpt.PickleError, match="Moments has other fields now"):
        cp.load()
    assert cp.box.state == "untouched"


def test_a_class_with_another_name_is_found_by_an_alias(changing):
    now, run = changing(
        BEFORE,
        BEFORE.replace("Moments", "Stats") + "Moments = Stats\n",
        lambda old: [old.Moments(1, 2)],
    )
    cp = Checkpoint(run)
    cp.box = Box()
    assert cp.load().plain == {}
    assert type(cp.box.state[0]) is now.Stats


def test_a_changed_class_of_the_current_state_fills_in_defaults(tmp_path):
    def moments(**more):
        fields = {"mean": Any, "var": Any, **dict.fromkeys(more, Any)}
        cls = NamedTuple("Local", fields.items())
        cls.__new__.__defaults__ = tuple(more.values())
        cls._field_defaults = more
        return cls

    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box([moments()(1, 2)])
    cp.save()
    now = moments(count=7)
    cp.box.state = [now(0, 0)]
    cp.load()
    assert cp.box.state == [now(1, 2, 7)]
    assert type(cp.box.state[0]) is now


def test_class_of_the_current_state_with_other_fields_is_not_used():
    class Moments(NamedTuple):
        mean: Any
        var: Any

    saved = Moments(1, 2)

    class Moments(NamedTuple):
        mean: Any
        count: Any

    loaded = round_trip({"a": saved}, into={"a": Moments(3, 4)})
    assert_same({"a": {"mean": 1, "var": 2}}, loaded)


# Built without running their own code


@dataclasses.dataclass
class Counting:
    x: Any
    built = 0

    def __post_init__(self):
        type(self).built += 1


class Strict:
    def __init__(self, *args):
        raise AssertionError("__init__ ran")


@dataclasses.dataclass(init=False)
class Unbuildable(Strict):
    x: Any
    y: Any


class Checked(NamedTuple("Checked", [("low", Any), ("high", Any)])):
    __slots__ = ()

    def __new__(cls, low, high, *, sure=False):
        assert sure, "__new__ ran"
        return super().__new__(cls, low, high)


@dataclasses.dataclass(frozen=True)
class Sealed:
    x: Any
    twice: Any = dataclasses.field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "twice", 2 * self.x)


@dataclasses.dataclass
class Narrowing:
    x: Any
    scale: dataclasses.InitVar[int]

    def __post_init__(self, scale):
        self.x = self.x * scale

    def __setattr__(self, name, value):
        object.__setattr__(self, name, value + 1)


def test_dataclass_is_built_without_init():
    counting = Counting(np.ones(2))
    unbuildable = object.__new__(Unbuildable)
    unbuildable.x, unbuildable.y = np.ones(2), [1]
    sealed = Sealed(3)
    object.__setattr__(sealed, "twice", 7)
    state = [counting, unbuildable, sealed, Narrowing(2, 3)]
    built = Counting.built
    loaded = round_trip(state)
    assert Counting.built == built
    assert_same(state, loaded)
    assert loaded[2].twice == 7
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded[2].x = 1


def test_named_tuple_is_built_without_new():
    state = [Checked(1, np.ones(2), sure=True)]
    assert_same(state, round_trip(state))


# What an instance has beyond its fields, or lacks


def test_attributes_beside_the_fields_come_back():
    point = Point(1, 2)
    point.cache = {"a": np.ones(3)}
    frozen = Frozen(1)
    object.__setattr__(frozen, "memo", [1])
    loaded = round_trip([point, frozen], own=True)
    assert_same([point, frozen], loaded)
    assert_same(vars(point), vars(loaded[0]))
    assert_same(vars(frozen), vars(loaded[1]))


class Annotated(Pair):
    """A NamedTuple whose instances have attributes, too."""


def test_attributes_of_a_named_tuple_come_back():
    pair = Annotated(1, np.ones(2))
    pair.note = "text"
    loaded = round_trip({"a": pair}, own=True)["a"]
    assert type(loaded) is Annotated
    assert loaded.note == "text"
    assert_same(tuple(pair), tuple(loaded))


@dataclasses.dataclass
class Lazy:
    x: Any
    later: Any = dataclasses.field(init=False)


class Odd:
    """Has a slot that is none of the fields of what derives from it."""

    __slots__ = ("note",)


@dataclasses.dataclass
class Slots(Odd):
    x: Any


def test_slots_of_a_base_come_back():
    state = Slots(np.ones(2))
    state.note = {"a": np.arange(3)}
    loaded = round_trip([state])[0]
    assert_same(state, loaded)
    assert_same(state.note, loaded.note)


def test_attributes_whose_names_no_json_holds_come_back():
    point = Point(1, 2)
    vars(point)["\ud800"], vars(point)[5] = 3, 4
    assert_same(vars(point), vars(round_trip([point], own=True)[0]))
    del vars(point)[5]
    assert_same(vars(point), vars(round_trip([point])[0]))


def test_field_that_was_never_set_stays_unset():
    loaded = round_trip(Lazy(np.ones(2)))
    assert type(loaded) is Lazy
    assert_same(np.ones(2), loaded.x)
    assert not hasattr(loaded, "later")


@dataclasses.dataclass
class Output(OrderedDict):
    """A dataclass that is also a dict, as in the transformers package."""

    loss: Any = None

    def __post_init__(self):
        self["loss"] = self.loss


def test_dataclass_that_is_also_a_dict_keeps_both():
    output = Output(np.ones(2))
    output["more"] = 3
    loaded = round_trip({"out": output}, own=True)["out"]
    assert type(loaded) is Output
    assert_same(output.loss, loaded.loss)
    assert list(loaded) == ["loss", "more"]
    assert loaded["loss"] is loaded.loss


@dataclasses.dataclass
class Base:
    x: Any


@dataclasses.dataclass
class Derived(Base):
    y: Any = 0


class Plain(Base):
    """A class that inherits its fields and adds none."""


def test_derived_dataclasses_keep_their_class():
    state = [Derived(1, np.ones(2)), Plain(3), Base(Plain(Derived(1)))]
    assert_same(state, round_trip(state))


@dataclasses.dataclass
class Custom:
    """Says itself what is to be saved of it."""

    x: Any
    handle: Any = None

    def __getstate__(self):
        return {"x": self.x}

    def __setstate__(self, state):
        self.x, self.handle = state["x"], "opened anew"


def test_dataclass_that_says_how_to_be_saved_is_asked():
    loaded = round_trip({"a": Custom(3, handle=lambda: 0)}, own=True)["a"]
    assert loaded == Custom(3, "opened anew")


# Names of fields


class Renamed(NamedTuple("Renamed", [("count", Any), ("index", Any)])):
    """Its fields have the names of methods of tuples."""


def test_fields_named_like_methods_come_back():
    state = Renamed(np.ones(1), 2)
    assert_same(state, round_trip(state))


def test_classes_made_in_a_function_are_found_through_the_current_state():
    class Local(NamedTuple):
        x: Any

    @dataclasses.dataclass
    class Class:
        x: Any

    state = {"a": Local(np.ones(2)), "b": [Class(1)]}
    current = {"a": Local(0), "b": [Class(0)]}
    assert_same(state, round_trip(state, into=current))
    assert_same(state, round_trip(state, own=True, into=current))


def test_read_gives_named_tuples_by_field(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box([Pair(1, 2)])
    folder = cp.save().path
    found = elementsckpt.read(folder)
    assert_same({"box": [{"first": 1, "second": 2}]}, found)
