"""What this package runs on: versions, extras, processor, devices, and the runtimes that were tried here."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import sys
from pathlib import Path
from typing import Any

from atrous.provenance import provenance
from atrous.runtime.machine import cache_folder

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"extra == ['\"]([\w-]+)['\"]")
_FOR_USERS = ("coco", "export", "geo", "hf", "mat", "ray", "serve")


def environment() -> dict[str, Any]:
    """What a report of a fault should say, as JSON values; paths below the user's folder begin with ``~``."""
    import torch

    facts = provenance()
    return {
        "atrous": facts["versions"]["atrous"] + (f" ({facts['commit']})" if facts["commit"] else ""),
        "installed in": _anonymous(Path(__file__).resolve().parent),
        "python": f"{facts['python']} ({platform.python_implementation()}), {_anonymous(Path(sys.prefix))}",
        "system": platform.platform(),
        "hardware": facts["hardware"],
        "torch threads": torch.get_num_threads(),
        "devices": _devices(),
        "packages": {name: _version(name) for name in _required(None)},
        "extras": {
            extra: {name: _version(name) for name in packages} for extra in _FOR_USERS if (packages := _required(extra))
        },
        "runtimes tried here": _tried(),
        "cache": _anonymous(cache_folder()),
    }


def _required(extra: str | None) -> list[str]:
    """The packages that this one requires, always or for an extra, without further extras of its own."""
    found = []
    for line in importlib.metadata.requires("atrous") or []:
        name, condition = _NAME.match(line), _EXTRA.search(line)
        if name and name.group() != "atrous" and (condition.group(1) if condition else None) == extra:
            found.append(name.group())
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
    import torch

    devices = ["cpu"]
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        devices.append(f"cuda:{number}: {card.name}, {card.total_memory / 2**30:.0f} GB, CUDA {torch.version.cuda}")
    return devices + (["mps"] if torch.backends.mps.is_available() else [])


def _tried() -> list[str]:
    """A line for each verdict on a runtime, of any exported model."""
    lines = set()
    for file in sorted((cache_folder() / "verdicts").glob("*.json")):
        try:
            for runtime, verdict in json.loads(file.read_text(encoding="utf-8")).items():
                lines.add(f"{runtime}: {'proven' if verdict['passed'] else 'not used'}, {verdict['reason']}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # as good as not there: it is tried again
    return sorted(lines)


def _anonymous(path: Path) -> str:
    """A path that does not name its user."""
    try:
        return str(Path("~") / path.relative_to(Path.home()))
    except (RuntimeError, ValueError):
        return str(path)
