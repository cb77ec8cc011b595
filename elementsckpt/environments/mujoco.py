"""MuJoCo's simulations: those of Gymnasium, Gymnasium-Robotics and dm_control.

What MuJoCo calls the integration state is not all that a next step depends on: tasks
read what the last one computed, such as `xpos`, before they step.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from . import mujoco_models
from .families import Part, Unfit
from .foreign_worlds import refuse

# Which bodies are awake, and what has been computed of this state; newer versions have
# more of them. MuJoCo aborts with sleeping bodies if these are wrong.
_COUNTS = (
    *("nbody_awake", "nparent_awake", "ntree_awake", "nv_awake"),
    *("flg_energypos", "flg_energyvel", "flg_rnepost", "flg_subtreevel"),
)
# Integers that are state. The others say what is where, which is computed again, or are
# pointers: from another process they would be wrong.
_INTEGERS = {
    "tree_asleep": "ntree",
    "tree_awake": "",
    "body_awake": "",
    "body_awake_ind": "nbody",
    "parent_awake_ind": "nbody",
    "dof_awake_ind": "nv",
}
_names: dict[type, list[str]] = {}


def save(live: Any) -> dict[str, Any]:
    """Return the integration state, all arrays, and counts."""
    return {
        "state": _state(live),
        "counts": {x: int(getattr(live, x)) for x in _COUNTS if hasattr(live, x)},
        "warnings": np.array([[x.lastinfo, x.number] for x in live.warning], np.int64),
        **{name: array.copy() for name, array in _arrays(live).items()},
    }


def check(live: Any, data: Any) -> None:
    """Refuse the state of another model.

    Raises:
      Unfit: it has another size.
    """
    state, own = data["state"], _state(live)
    if state.shape != own.shape or state.dtype != own.dtype:
        raise Unfit(
            f"the state of another MuJoCo model was saved, of {state.size} numbers; "
            f"here it has {own.size}"
        )
    data["warnings"].reshape(len(live.warning), 2)
    for name, array in _arrays(live).items():
        if name in _INTEGERS and name in data:
            _require_inside(live, name, data[name], array)
    for name, count in data["counts"].items():
        most = getattr(live.model, name.partition("_")[0].replace("parent", "body"), 1)
        if type(count) is not int or not 0 <= count <= most:
            raise ValueError(f"{name} is more than there are")


def _require_inside(live: Any, name: str, saved: Any, array: Any) -> None:
    """Refuse indices of what is not there, which MuJoCo would follow."""
    size = _INTEGERS[name]
    stop = getattr(live.model, size) if size else 2
    first = 0 if name.endswith("_ind") else -(2**31)
    if saved.dtype != array.dtype or not ((saved >= first) & (saved < stop)).all():
        raise ValueError(f"{name} of what is not there")


def load(live: Any, data: Any) -> None:
    """Set the state, have the contacts computed, and set what was computed of old."""
    mujoco: Any = sys.modules["mujoco"]
    what = int(mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_setState(live.model, live, data["state"], what)
    mujoco.mj_forward(live.model, live)
    for name, array in _arrays(live).items():
        saved = data.get(name)
        # Arrays of contacts and constraints are as long as there are some.
        if saved is not None and saved.shape == array.shape:
            array[...] = saved
    mujoco.mj_setState(live.model, live, data["state"], what)
    for name in _COUNTS:
        if hasattr(live, name) and name in data["counts"]:
            setattr(live, name, data["counts"][name])
    for warning, pair in zip(live.warning, data["warnings"].tolist(), strict=True):
        warning.lastinfo, warning.number = pair


def _state(live: Any) -> Any:
    mujoco: Any = sys.modules["mujoco"]
    what = int(mujoco.mjtState.mjSTATE_INTEGRATION)
    state = np.empty(mujoco.mj_stateSize(live.model, what))
    mujoco.mj_getState(live.model, live, state, what)
    return state


def _arrays(live: Any) -> dict[str, Any]:
    cls = type(live)
    if cls not in _names:
        public = [x for x in dir(live) if not x.startswith("_")]
        arrays = [x for x in public if isinstance(getattr(live, x), np.ndarray)]
        _names[cls] = [
            x for x in arrays if getattr(live, x).dtype.kind in "fb" or x in _INTEGERS
        ]
    found = {name: getattr(live, name) for name in _names[cls]}
    return {name: array for name, array in found.items() if array.size}


PARTS = {
    "mujoco:MjModel": Part(
        mujoco_models.save, mujoco_models.load, mujoco_models.check, rank=0
    ),
    "mujoco:MjData": Part(save, load, check, rank=1),
    "dm_control.composer.environment:Environment": refuse(
        "one of dm_control's composer, which compiles its models anew",
        remedy="Make a new one in load(), whose episode begins anew.",
        attributes=True,
    ),
    # What draws, and views of a model that are made with it.
    "gymnasium.envs.mujoco.mujoco_rendering:MujocoRenderer": None,
    "mujoco:Renderer": None,
    "mujoco:GLContext": None,
    "dm_control.mujoco.index:FieldIndexer": None,
}
