"""The module table of docs/design.md, enforced: who may import whom, and what."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "elementsckpt"

# What each module may import from the package, besides errors. Lower modules first.
ALLOWED = {
    "errors": {"attributes"},
    "forks": set(),
    "notices": set(),
    "group": {"notices"},
    "attributes": set(),
    "arguments": {"attributes"},
    "hints": set(),
    "disk": {"arguments"},
    "parallel": set(),
    "manifest": set(),
    "classes": {"attributes", "manifest"},
    "references": {"attributes", "classes", "manifest"},
    "reductions": {"attributes", "classes"},
    "closures": {"attributes", "references"},
    "torch_tensors": {"attributes"},
    "torch_pickles": {"torch_tensors"},
    "torch_states": {"attributes", "torch_tensors"},
    "restricted": set(),
    "dtypes": set(),
    "scalars": {"dtypes"},
    "jax_arrays": {"attributes"},
    "generators": set(),
    "views": set(),
    "leaves": {
        *("torch_tensors", "jax_arrays", "scalars", "dtypes", "references"),
        "manifest",
    },
    "losses": {"attributes", "generators", "leaves", "reductions"},
    "pickles": {
        *("attributes", "closures", "losses", "reductions", "references"),
        "torch_pickles",
    },
    "containers": {
        *("attributes", "classes", "generators", "leaves", "scalars", "references"),
        "manifest",
    },
    "tree": {"attributes", "containers", "leaves", "scalars", "manifest"},
    "sharing": {
        *("tree", "leaves", "jax_arrays", "pickles", "reductions", "references"),
    },
    "view_leaves": {"tree", "leaves", "views", "dtypes", "manifest"},
    "groups": {
        *("sharing", "view_leaves", "tree", "leaves", "views", "jax_arrays", "scalars"),
        "manifest",
    },
    "specs": {
        *("attributes", "leaves", "torch_tensors", "jax_arrays", "scalars", "dtypes"),
        "manifest",
    },
    "overlay": {"attributes", "specs", "tree", "leaves", "manifest"},
    "selection": {"overlay", "arguments"},
    "wholes": {"overlay", "tree", "containers", "manifest"},
    "verbs": set(),
    "growth": {
        *("attributes", "overlay", "tree", "containers", "leaves", "scalars"),
        "manifest",
    },
    "callables": {"attributes"},
    "beside": {"attributes", "tree", "leaves"},
    "pytrees": {
        *("attributes", "classes", "tree", "callables", "containers", "leaves"),
        *("beside", "jax_arrays", "references", "scalars", "manifest"),
    },
    "unsaved": {"pytrees", "callables", "leaves", "attributes"},
    "plain": {
        *("attributes", "unsaved", "pytrees", "callables", "leaves", "jax_arrays"),
    },
    "skeletons": {"attributes", "pytrees", "pickles", "leaves"},
    "forms": {"overlay", "pytrees", "specs", "tree", "scalars", "manifest"},
    "value": {
        *("forms", "skeletons", "plain", "unsaved", "wholes", "overlay", "pytrees"),
        *("specs", "attributes", "tree", "leaves", "jax_arrays", "manifest"),
    },
    "compression": {"manifest", "arguments"},
    "files": {"attributes", "arguments"},
    "filetree": {"manifest", "parallel", "disk"},
    "fileview": {"drafts", "filetree", "manifest", "parallel", "disk"},
    "background": {"forks", "parallel"},
    "machine": set(),
    "staging": {"forks", "machine"},
    "headers": set(),
    "blocks": {"headers", "staging", "leaves", "dtypes", "manifest"},
    "pool": {"disk"},
    "reader": {"pool", "compression", "machine", "manifest", "parallel", "disk"},
    "elements_folder": {"restricted", "pickles", "machine", "disk"},
    "drafts": {"manifest", "notices", "forks", "group", "disk"},
    "metadata": {"attributes", "torch_tensors", "jax_arrays", "scalars"},
    "retention": {"metadata", "manifest", "notices", "arguments"},
    "folder": {
        *("retention", "drafts", "reader", "elements_folder", "metadata"),
        *("manifest", "scalars", "notices", "disk"),
    },
    "choice": {
        *("folder", "retention", "drafts", "elements_folder", "scalars", "manifest"),
        *("disk", "arguments", "hints"),
    },
    "reuse": {
        *("reader", "headers", "blocks", "compression", "manifest", "parallel"),
        "disk",
    },
    "segments": {"reuse", "headers", "blocks", "compression", "manifest", "disk"},
    "writer": {
        *("segments", "reuse", "headers", "blocks", "compression", "staging"),
        *("manifest", "filetree", "parallel", "disk"),
    },
    "collect": {
        *("writer", "reuse", "files", "groups", "sharing", "tree", "scalars"),
        *("manifest", "notices"),
    },
    "stored": {
        *("elements_folder", "reader", "skeletons", "wholes", "specs", "view_leaves"),
        *("tree", "leaves", "pickles", "references", "classes", "manifest", "verbs"),
        "arguments",
    },
    "filling": {"stored", "folder", "growth", "wholes", "overlay", "tree"},
    "source": {
        *("stored", "folder", "elements_folder", "tree", "references", "scalars"),
        *("fileview", "specs", "hints", "manifest", "arguments"),
    },
    "reports": set(),
    "still": {"manifest", "notices"},
    "history": {
        *("reuse", "folder", "compression", "still", "scalars", "manifest"),
    },
    "store": {
        *(
            "collect",
            "history",
            "writer",
            "reuse",
            "staging",
            "compression",
            "drafts",
            "folder",
        ),
        *("reports", "retention", "filetree", "manifest", "notices"),
    },
    "remedies": {
        *("overlay", "selection", "specs", "tree", "hints", "verbs", "manifest"),
        "arguments",
    },
    "restore": {
        *("source", "stored", "filling", "folder", "fileview", "drafts", "reports"),
        *("remedies", "overlay", "tree", "selection", "verbs", "growth", "manifest"),
        *("machine", "disk", "torch_states"),
    },
    "look": {
        *("restore", "reports", "stored", "choice", "folder", "elements_folder"),
        *("selection", "metadata", "scalars", "manifest", "verbs", "disk"),
        "arguments",
    },
    "randoms": {"attributes"},
    "components": {
        *("attributes", "value", "pytrees", "callables", "randoms", "jax_arrays"),
        *("leaves", "torch_tensors"),
    },
    "registry": {"components", "arguments"},
    "wrappers": {"forks", "attributes", "arguments"},
    "rng": {"attributes", "arguments", "generators"},
    "functions": {
        *("store", "restore", "reports", "stored", "choice", "files", "metadata"),
        *("selection", "value", "rng", "compression", "verbs", "disk"),
        "arguments",
    },
    "lineage": {"disk"},
    "schedule": {"forks", "arguments"},
    "sigactions": set(),
    "wakeup": {"forks"},
    "signals": {"sigactions", "wakeup", "arguments"},
    "timing": {"schedule", "signals"},
    "claim": {"lineage", "folder", "group", "forks", "disk"},
    "origin": {"lineage", "folder", "reports", "manifest"},
    "checkpoint": {
        *("functions", "registry", "look", "store", "restore", "reports", "stored"),
        *("choice", "folder", "background", "history", "staging", "compression"),
        *("schedule", "signals", "timing", "origin", "claim", "retention", "metadata"),
        *("selection", "value", "rng", "scalars", "verbs", "group"),
        *("files", "wrappers", "components", "manifest", "notices", "forks", "disk"),
        *("attributes", "arguments", "jax_arrays"),
    },
    "__init__": {
        *("checkpoint", "functions", "files", "look", "retention", "schedule"),
        *("value", "wrappers", "rng", "reports", "testing"),
    },
    "fingerprints": {
        *("blocks", "specs", "tree", "leaves", "pickles", "torch_tensors"),
        *("jax_arrays", "scalars"),
    },
    "runs": {
        *("checkpoint", "fingerprints", "rng", "files", "components", "disk"),
    },
    "testing": {"runs", "fingerprints", "rng", "disk", "arguments"},
}

DEPENDENCIES = {"numpy", "cloudpickle", "zstandard", "xxhash", "msgspec"}

# Reached through importlib, and only while the state holds their objects.
OPTIONAL = {"jax", "jaxlib", "torch", "optax", "flax", "equinox", "chex", "ml_dtypes"}

# What changes the disk, and the calls that open a file: disk.py has these to itself.
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


def test_the_table_names_every_module():
    assert set(MODULES) == set(ALLOWED)


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_what_the_table_allows(module):
    assert set(siblings(module)) <= ALLOWED[module] | {"errors"}


def test_no_cycles():
    for graph in ALLOWED, {module: set(siblings(module)) for module in MODULES}:
        graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_dependencies(module):
    names = imported_names(ast.walk(parse(module)))
    roots = {name.partition(".")[0] for name in names}
    assert roots <= DEPENDENCIES | sys.stdlib_module_names | {"elementsckpt"}


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
    code = (
        "import sys, elementsckpt; print(*{n.partition('.')[0] for n in sys.modules})"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not OPTIONAL & set(result.stdout.split())
