"""What a runtime's behaviour depends on (processor, versions, the file), and the folder for what is kept."""

from __future__ import annotations

import os
import platform
import sys
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def cache_folder() -> Path:
    """The user's folder for what can be made again: ``$ATROUS_CACHE``, or ``atrous`` where the system keeps caches."""
    if own := os.environ.get("ATROUS_CACHE"):
        return Path(own)
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "atrous" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "atrous"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atrous"


def processor() -> str:
    """The processor's model and instruction sets, and how many cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_model_and_flags()}; {cores} cores"


def _model_and_flags() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.processor()} {platform.machine()}"
    facts = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    return "; ".join(facts[key].strip() for key in ("model name", "CPU part", "flags", "Features") if key in facts)


def versions(*packages: str) -> dict[str, str]:
    """The versions of some packages; empty for those that are not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def file_hash(file: Path) -> str:
    """The SHA-256 of a file, and of the weights beside the ``.xml`` of OpenVINO, in hexadecimal digits."""
    digest = sha256()
    for part in (file, file.with_suffix(".bin")) if file.suffix.lower() == ".xml" else (file,):
        if part.is_file():
            with part.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def key_of(*facts: object) -> str:
    """A short name for some facts, the same whenever they are."""
    return sha256(repr(facts).encode()).hexdigest()[:24]
