"""The module table of docs/design.md, enforced: who may import whom, and what."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "elementsckpt"

# What each module may import from the package. Lower modules come first.
ALLOWED = {
    "errors": set(),
    "disk": {"errors"},
    "manifest": {"errors"},
    "dtypes": {"errors"},
    "scalars": {"dtypes", "errors"},
    "pickles": {"dtypes", "errors"},
    "classes": {"manifest", "errors"},
    "leaves": {"pickles", "scalars", "dtypes", "manifest", "errors"},
    "tree": {"leaves", "classes", "scalars", "manifest", "errors"},
    "overlay": {"tree", "leaves", "dtypes", "manifest", "errors"},
    "segments": {"manifest", "disk", "errors"},
    "folder": {"manifest", "disk", "errors"},
    "legacy": {"pickles", "disk", "errors"},
    "components": {"tree", "errors"},
    "reports": {"manifest", "errors"},
    "restore": {
        *("overlay", "tree", "leaves", "segments", "folder", "legacy"),
        *("reports", "manifest", "errors"),
    },
    "checkpoint": {
        *("restore", "reports", "components", "legacy", "folder", "segments"),
        *("overlay", "tree", "leaves", "manifest", "disk", "errors"),
    },
    "__init__": {"checkpoint", "components", "reports", "errors"},
}

DEPENDENCIES = {"numpy", "cloudpickle", "zstandard", "xxhash", "msgspec"}

# Imported only while the state holds their objects.
OPTIONAL = {"jax", "jaxlib", "torch", "optax", "flax", "equinox", "chex", "ml_dtypes"}

# What changes the disk, and the calls that open a file: disk.py has these to itself.
OS_CALLS = {
    *("open", "write", "writev", "pwrite", "pwritev", "sendfile", "copy_file_range"),
    *("truncate", "ftruncate", "posix_fallocate", "fsync", "fdatasync", "sync"),
    *("rename", "renames", "replace", "link", "symlink", "unlink", "remove", "utime"),
    *("mkdir", "makedirs", "rmdir", "removedirs", "mkfifo", "chmod", "chown"),
}
PATH_CALLS = {
    *("write_text", "write_bytes", "touch", "mkdir", "rmdir", "unlink"),
    *("hardlink_to", "symlink_to"),
}
FILE_MODULES = {"shutil", "tempfile"}

MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))


def parse(module):
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def imported_names(nodes):
    """Full dotted name of everything the import statements among the nodes bind."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = ["elementsckpt"] * node.level + [node.module] * bool(node.module)
            yield from (".".join([*source, alias.name]) for alias in node.names)


def siblings(module):
    """Modules of the package that a module imports, inside functions too."""
    for name in imported_names(ast.walk(parse(module))):
        package, _, rest = name.partition(".")
        if package == "elementsckpt":
            sibling = rest.split(".")[0]
            yield sibling if sibling in MODULES else "__init__"


def at_import(node):
    """Nodes that run when the module is imported: all but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from at_import(child)


def test_the_table_names_every_module():
    assert set(MODULES) == set(ALLOWED)


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_what_the_table_allows(module):
    assert set(siblings(module)) <= ALLOWED.get(module, set())


def test_no_cycles():
    for graph in ALLOWED, {module: set(siblings(module)) for module in MODULES}:
        graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_dependencies_at_import(module):
    names = imported_names(at_import(parse(module)))
    roots = {name.partition(".")[0] for name in names}
    assert roots <= DEPENDENCIES | sys.stdlib_module_names | {"elementsckpt"}


@pytest.mark.parametrize("module", MODULES)
def test_only_leaf_modules_know_other_libraries_than_dependencies(module):
    names = imported_names(ast.walk(parse(module)))
    roots = {name.partition(".")[0] for name in names} - DEPENDENCIES
    assert roots <= OPTIONAL | sys.stdlib_module_names | {"elementsckpt"}


@pytest.mark.parametrize("module", sorted({*MODULES} - {"disk"}))
def test_only_disk_touches_files(module):
    tree = parse(module)
    found = FILE_MODULES & set(imported_names(ast.walk(tree)))
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="open")):
                found.add("open")
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in OS_CALLS:
                found.add(f"os.{name}")
            case ast.Attribute(value=value, attr=name) if name in PATH_CALLS:
                if ast.unparse(value) != "disk":
                    found.add(name)
    assert not found


def test_import_leaves_optional_libraries_alone():
    code = "import sys, elementsckpt; print(*{n.partition('.')[0] for n in sys.modules})"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not OPTIONAL & set(result.stdout.split())
