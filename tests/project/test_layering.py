"""The floors of docs/design.md, enforced: packages import downwards only."""

import ast
import functools
import graphlib
import importlib
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "elementsckpt"

# Packages, and modules beside them. What is on a floor imports lower floors and itself.
FLOORS = [
    {"testing", "cli"},
    {"checkpoint", "page"},
    {"engine"},
    {"functions", "inspection", "run"},
    {"saving", "loading"},
    {"environments"},
    {"directory", "components"},
    {"state", "foreign"},
    {"storage", "kinds"},
    {"format", "system"},
    {"reports"},
    {"errors"},
    {"user"},
]
LEVELS = {name: level for level, names in enumerate(reversed(FLOORS)) for name in names}

DEPENDENCIES = {"numpy", "cloudpickle", "zstandard", "xxhash", "msgspec"}

# Reached through importlib, and only while the state holds their objects.
OPTIONAL = {"jax", "jaxlib", "torch", "optax", "flax", "equinox", "chex", "ml_dtypes"}

# What changes the disk, and the calls that open a file: disk.py has these to itself,
# except opening to read, whose flags test_faults checks.
READERS = {"elementsckpt.storage.descriptors", "elementsckpt.storage.files"}
OS_CALLS = {
    *("open", "write", "writev", "pwrite", "pwritev", "sendfile", "copy_file_range"),
    *("truncate", "ftruncate", "posix_fallocate", "fsync", "fdatasync", "sync"),
    *("rename", "renames", "replace", "link", "symlink", "unlink", "remove", "utime"),
    *("mkdir", "makedirs", "rmdir", "removedirs", "mkfifo", "chmod", "chown"),
    *("fchmod", "lchmod"),
}
PATH_CALLS = {
    *("write_text", "write_bytes", "touch", "mkdir", "rmdir", "unlink"),
    *("hardlink_to", "symlink_to"),
}
FILE_MODULES = {"shutil", "tempfile"}

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(
        ".__init__"
    ): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# The face, and the door to the command line.
DOORS = {"elementsckpt", "elementsckpt.__main__"}
MODULES = sorted(FILES.keys() - DOORS)
PACKAGES = [name for name in MODULES if FILES[name].name == "__init__.py"]


@functools.cache
def parse(module):
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def imported_names(module, nodes):
    """Full dotted name of everything the import statements among the nodes bind."""
    package = (
        module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    )
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            levels = package.split(".")
            above = levels[: len(levels) + 1 - node.level] if node.level else []
            source = [*above, *([node.module] if node.module else [])]
            yield from (".".join([*source, alias.name]) for alias in node.names)


@functools.cache
def siblings(module):
    """Modules of elementsckpt that a module imports, inside functions too."""
    names = imported_names(module, ast.walk(parse(module)))
    return [
        name if name in FILES else name.rpartition(".")[0]
        for name in names
        if name.partition(".")[0] == "elementsckpt"
    ]


def home(module):
    """The package that a module is in, or the module itself if it is beside them."""
    return module.split(".")[1]


def test_the_floors_name_every_package():
    assert {home(module) for module in MODULES} == set(LEVELS)
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_the_design_draws_these_floors():
    text = (ROOT / "docs" / "design.md").read_text("utf-8")
    picture = text.partition("\n    testing ")[1:]
    rows = "".join(picture).partition("\n\n")[0].split("\n    ")[1:]
    names = [re.findall(r"([a-z]+)(?:\.py)?  ", row) for row in rows]
    assert [{*found} for found in names] == FLOORS


@pytest.mark.parametrize("module", MODULES)
def test_imports_lead_down(module):
    for name in siblings(module):
        if name == "elementsckpt":  # The face, for what is of no use to itself.
            assert home(module) in ("cli", "page")
            continue
        above, below = home(module), home(name)
        assert below == above or LEVELS[below] < LEVELS[above], name


def test_no_cycles():
    # The face imports nothing before it is asked for a name.
    graph = {module: {*siblings(module)} - {module, *DOORS} for module in MODULES}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_its_duty_and_what_it_hands_on(package):
    used = {
        name.split(".")[2]
        for module in MODULES
        for name in siblings(module)
        if name.startswith(f"{package}.") and home(module) != home(package)
    }
    found = importlib.import_module(package)
    assert len(found.__doc__.splitlines()) >= 3
    if package != "elementsckpt.testing":  # Which is for users.
        assert set(found.__all__) == used


def test_what_is_above_asks_the_kind_of_a_leaf_and_not_its_library():
    names = {"jax_arrays", "jax_kinds", "torch_kinds", "torch_tensors"}
    libraries = {f"elementsckpt.kinds.{name}" for name in names}
    found = {x for x in MODULES if home(x) != "kinds" and libraries & {*siblings(x)}}
    assert {x.partition(".")[2] for x in found} == {
        "components.component",  # Modules are registered as they are,
        "components.protocols",  # and typed keys.
        "components.torch_states",
        "engine",  # JAX looks for NaN in what is loaded, unless told not to.
        "components.value",  # What callbacks of JAX make of keys,
        "state.plain",
        "state.specs",  # and what keys were before they had a type.
        "directory.metadata",  # Numbers, types and devices, as text.
    }


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_dependencies(module):
    names = imported_names(module, ast.walk(parse(module)))
    roots = {name.partition(".")[0] for name in names}
    assert roots <= DEPENDENCIES | sys.stdlib_module_names | {"elementsckpt"}


@pytest.mark.parametrize("module", sorted({*MODULES} - {"elementsckpt.storage.disk"}))
def test_only_disk_touches_files(module):
    tree = parse(module)
    found = FILE_MODULES & set(imported_names(module, ast.walk(tree)))
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="open")):
                found.add("open")
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in OS_CALLS:
                found.add(f"os.{name}")
            case ast.Attribute(value=value, attr=name) if name in PATH_CALLS:
                if ast.unparse(value) != "disk":
                    found.add(name)
    assert found <= ({"os.open"} if module in READERS else set())


# What asks the file system, by paths; other calls of `os.path` only work on text.
OS_QUESTIONS = {
    *("stat", "lstat", "listdir", "scandir", "walk", "access", "readlink", "statvfs"),
    *("path.exists", "path.lexists", "path.isfile", "path.isdir", "path.islink"),
    *("path.realpath", "path.ismount", "path.getsize", "path.getmtime"),
}
PATH_QUESTIONS = {
    *("exists", "is_file", "is_dir", "is_symlink", "stat", "lstat", "readlink"),
    *("iterdir", "glob", "rglob", "resolve", "samefile", "read_text", "read_bytes"),
}
# What is not a save: the system's own files, the program's repository, and a path that
# holds a `$`, which may be the name of a folder.
ELSEWHERE = {"system.memory", "run.schedule", "run.provenance", "user.arguments"}
ABOVE_STORAGE = [
    name
    for name in MODULES
    if home(name) != "storage" and name.removeprefix("elementsckpt.") not in ELSEWHERE
]


def asked(node):
    """What of `os` an attribute is."""
    return ast.unparse(node).removeprefix("os.")


@pytest.mark.parametrize("module", ABOVE_STORAGE)
def test_only_storage_asks_the_file_system(module):
    tree = parse(module)
    found = {"fcntl", "shutil", "glob"} & set(imported_names(module, ast.walk(tree)))
    for node in ast.walk(tree):
        match node:
            case ast.Attribute() if (
                ast.unparse(node).removeprefix("os.") in OS_QUESTIONS
            ):
                found.add(ast.unparse(node))
            case ast.Call(func=ast.Attribute(attr=name)) if name in PATH_QUESTIONS:
                found.add(ast.unparse(node))
    assert not found


def test_import_leaves_optional_libraries_alone():
    code = (
        "import sys, elementsckpt; print(*{n.partition('.')[0] for n in sys.modules})"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not OPTIONAL & set(result.stdout.split())
