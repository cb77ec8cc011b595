"""What the numbers were measured on and with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

PACKAGES = (
    *("elementsckpt", "numpy", "xxhash", "jax", "elements", "orbax-checkpoint"),
    *("safetensors", "torch", "flax"),
)


def describe(folder: Path) -> dict[str, Any]:
    """Return the machine, the file system of a folder, and the versions."""
    release = ".".join(platform.release().split(".")[:2])
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = {x.metadata["Name"]: x.version for x in importlib.metadata.distributions()}
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory": f"{memory_bytes / 2**30:.0f} GiB",
        "disk": file_system(folder),
        "system": f"{platform.system()} {release}",
        "versions": {
            "python": platform.python_version(),
            **{name: found[name] for name in PACKAGES if name in found},
        },
    }


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def file_system(folder: Path) -> str:
    """Return type, device and options of the file system that a folder is on."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    device = os.stat(folder).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == number:
            kind, source, _ = rest.split(maxsplit=2)
            return f"{kind} on {source}"
    return "unknown"
