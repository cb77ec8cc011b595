"""Saves that somebody forged, and a process that looks at them.

The manifests are signed as the format asks for, so what they say is all that is wrong.
"""

import json
import subprocess
import sys

import numpy as np

from elementsckpt import Checkpoint

from support.boxes import Box, environment

# Looks at saves whose paths it reads, each in all ways, in a process that may take ten
# seconds and as much memory as 100 times the size of the save; uses what is in them.
LOOK = """
import importlib, json, logging, os, pathlib, resource, sys, tempfile
logging.disable(logging.CRITICAL)
import numpy as np
import elementsckpt
from elementsckpt import Checkpoint, CheckpointError
from elementsckpt.system import threads

class Box:
    def save(self):
        return {"w": np.zeros(3), "x": {"y": 1}}

    def load(self, data):
        use(data)

def use(data):
    stack, left = [data], 100_000
    while stack and left:
        item, left = stack.pop(), left - 1
        if isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, (list, tuple)):
            stack += item
        elif isinstance(item, np.random.Generator):
            item.integers(9, size=1000, dtype=np.uint32)
        elif isinstance(item, np.random.RandomState):
            item.bytes(1000)
        elif isinstance(item, np.ndarray) and item.size < 1000:
            item.tolist()
        elif isinstance(item, np.generic):
            repr(item)

def make(directory=None):
    cp = Checkpoint(directory)
    cp.agent = Box()
    return cp

WAYS = {
    "info": elementsckpt.info,
    "saves": lambda path: repr(make(path.parent).saves()),
    "best": lambda path: make(path.parent).best(),
    "read": lambda path: use(elementsckpt.read(path)),
    "read all": lambda path: use(elementsckpt.read(path, mmap=False)),
    "read some": lambda path: use(elementsckpt.read(path, regex=".*")),
    "read none": lambda path: use(elementsckpt.read(path, regex="(no|name/){9}")),
    "load": lambda path: make().load(path),
    "load some": lambda path: make().load(path, regex=".*", strict=False),
    "dry run": lambda path: make().load(path, regex="x.*", dry_run=True),
}

def set_limits(path):
    size = sum(file.stat().st_size for file in path.iterdir())
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    limit = used + 100 * size + (192 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))

def look(path):
    found = {}
    for name, way in WAYS.items():
        try:
            way(path)
            found[name] = "loaded"
        except CheckpointError as error:
            found[name] = f"{type(error).__name__}: {error}"[:1000]
    return found

# What is imported when it is needed is imported here, once and not in each child. A
# process that forks has no other threads.
start, threads.start = threads.start, lambda *_, daemon: False
with tempfile.TemporaryDirectory() as folder:
    look(make(folder).save().path)
threads.start = start

for line in sys.stdin:
    path, *modules = json.loads(line)
    process = os.fork()
    if not process:
        for name in modules:
            importlib.import_module(name)
        set_limits(pathlib.Path(path))
        print(json.dumps(look(pathlib.Path(path))), flush=True)
        break
    _, status = os.waitpid(process, 0)
    if status:
        print(json.dumps({"died": status}), flush=True)
"""


class Looker:
    """A process that looks at saves; a context manager."""

    def __init__(self):
        self._child = subprocess.Popen(
            [sys.executable, "-c", LOOK],
            env=environment(),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._child.stdin.close()
        self._child.wait()
        self._child.stdout.close()

    def look(self, save, *modules):
        """Look at a save in all ways; returns what came of each.

        Args:
          save: The save.
          modules: Names of modules to be imported before.
        """
        self._child.stdin.write(json.dumps([str(save), *modules]) + "\n")
        self._child.stdin.flush()
        found = json.loads(self._child.stdout.readline())
        assert "died" not in found, found
        return found


def saved(tmp_path, state=None, kind=Box, **options):
    cp = Checkpoint(**options)
    cp.agent = kind({"w": np.arange(3.0)} if state is None else state)
    return cp.save(tmp_path / "saves" / "one").path


def set_tree(content, tree):
    component = content["components"][0]
    component.update(trees=[tree], blocks=[], segments=[], size_bytes=0)


def component_of(content):
    return content["components"][0]


def set_in(*path):
    """Return a function that sets what the path but its last step leads to."""
    *outer, last, value = path

    def change(content):
        for step in outer:
            content = content[step]
        content[last] = value

    return change


# Trees that forged manifests have in the place of theirs.


class Tree:
    """A tree of a manifest that is put together by hand."""

    def __init__(self):
        self.nodes = []
        self.values = []

    def leaf(self, code):
        self.values.append(code)
        return len(self.values) - 1

    def node(self, kind, children=(), keys=(), **fields):
        node = {"kind": kind, "children": [*children], "keys": [*keys], **fields}
        self.nodes.append(node)
        return -len(self.nodes)

    def dict(self, items):
        """Add dicts and, as leaves, what is in them."""
        children = [self.item(item) for item in items.values()]
        return self.node("dict", children, items)

    def item(self, value):
        if value == ():
            return self.node("tuple")
        is_dict = type(value) is dict and "$int" not in value
        return self.dict(value) if is_dict else self.leaf(value)

    def done(self):
        leaves = {"kind": "python", "value": self.values, "names": []}
        leaves["names"] = [str(number) for number in range(len(self.values))]
        return {"root": -len(self.nodes), "nodes": self.nodes, "leaves": [leaves]}


def chain(kind, count, **fields):
    """Return a tree of containers, each of which holds the one before."""
    tree = Tree()
    last = tree.leaf(1)
    keys = ["x"] if kind not in ("list", "deque") else []
    for _ in range(count):
        last = tree.node(kind, [last], keys, **fields)
    return tree.done()


def attributes(names, kind="ordered", children=1):
    """Return a tree of a container that has attributes with these names."""
    tree = Tree()
    one = tree.leaf(1)
    tree.node(kind, [one] * children, attributes=[*names])
    return tree.done()


def chain_of_attributes(count, kind):
    """Return a tree of containers, each of which is an attribute of the next."""
    tree = Tree()
    last = tree.leaf(1)
    for _ in range(count):
        last = tree.node(kind, [last], attributes=["x"])
    return tree.done()


def doubled_attributes(count):
    """Return a tree of containers, each two attributes of the next."""
    tree = Tree()
    last = tree.leaf(1)
    for _ in range(count):
        last = tree.node("ordered", [last, last], attributes=["a", "b"])
    return tree.done()


def doubled(kind, count, outer, **fields):
    """Return a tree of containers, each of which holds the one before twice."""
    tree = Tree()
    last = tree.leaf(1)
    for _ in range(count):
        last = tree.node(kind, [last, last], [] if kind == "list" else ["a", "b"])
    tree.node(outer, [last], [] if outer == "list" else ["x"], **fields)
    return tree.done()


def names_at_each_level():
    tree = Tree()
    one = last = tree.leaf(1)
    for _ in range(20_000):
        last = tree.node("list", [one, last])
    return tree.done()


def many_below_a_long_name():
    tree = Tree()
    one = tree.leaf(1)
    last = tree.node("list", [one] * 100_000)
    for _ in range(100):
        last = tree.node("dict", [last], ["long" * 1000])
    return tree.done()


def many_lost_classes(keys=("a",)):
    tree = Tree()
    one = tree.leaf(1)
    lost = [
        tree.node("namedtuple", [one], keys, name=f"nowhere:Class{n}")
        for n in range(20_000)
    ]
    tree.node("list", lost)
    return tree.done()


def keyed(keys, kind="dict"):
    tree = Tree()
    one = tree.leaf(1)
    tree.node(kind, [one] * len(keys), keys)
    return tree.done()


def scalar(code):
    tree = Tree()
    tree.node("list", [tree.leaf(code)])
    return tree.done()


PCG = {
    "bit_generator": "PCG64",
    "state": {"state": 5, "inc": 7},
    "has_uint32": 0,
    "uinteger": 0,
}
SEED = {
    "entropy": 1,
    "spawn_key": (),
    "pool_size": 4,
    "n_children_spawned": 0,
}


def generator(state=PCG, seed=SEED, **changes):
    tree = Tree()
    children = [tree.dict({**state, **changes})]
    tree.node("generator", [*children, tree.dict(seed)])
    return tree.done()
