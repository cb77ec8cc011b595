"""What a user of the package sees before calling anything: names, version, typing."""

import importlib.metadata
import importlib.resources
import subprocess
import sys
import types

import elementsckpt

EXPORTS = {
    "Checkpoint",
    "Counter",
    "Every",
    "Keep",
    "Files",
    "GlobalRNG",
    "Saveable",
    "checkpoint",
    "info",
    "read",
    "exists",
    "save_pytree",
    "load_pytree",
    "Value",
    "SaveInfo",
    "SaveReport",
    "LoadReport",
    "ComponentInfo",
    "Lineage",
    "CheckpointError",
    "ComponentError",
    "DamagedError",
    "MetadataError",
    "MismatchError",
    "MissingKeyError",
    "PickleError",
    "ReadError",
    "SaveExistsError",
    "SaveNotFoundError",
    "StateError",
    "VersionError",
    "WriteError",
}


def test_exports():
    # Submodules become attributes of a package when they are imported.
    public = {
        name
        for name, value in vars(elementsckpt).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public | {"checkpoint"} == EXPORTS


def test_exported_classes_are_the_package_s_own():
    for name in EXPORTS:
        value = getattr(elementsckpt, name)
        if isinstance(value, type):
            assert value.__module__.partition(".")[0] == "elementsckpt"
            assert value.__name__ == name


def test_functional_forms():
    assert isinstance(elementsckpt.checkpoint, types.ModuleType)
    for name in ("save", "load", "exists"):
        assert callable(getattr(elementsckpt.checkpoint, name))


def test_version_is_that_of_the_installed_distribution():
    assert elementsckpt.__version__ == importlib.metadata.version("elementsckpt")


def test_type_hints_are_shipped():
    assert importlib.resources.files(elementsckpt).joinpath("py.typed").is_file()


def test_import_warns_of_nothing():
    command = [sys.executable, "-W", "error", "-c", "import elementsckpt"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
