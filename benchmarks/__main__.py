"""List the benchmarks, or write their pages again from their JSON files: ``python -m benchmarks [--pages]``."""

from __future__ import annotations

import argparse
import pkgutil

import benchmarks
from benchmarks._compare import FOLDER
from studies.results import read


def names() -> list[str]:
    """The names of all benchmarks."""
    modules = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name for name in modules if not name.startswith("_"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", action="store_true", help="write all pages again from their JSON files")
    if not parser.parse_args().pages:
        print("\n".join(f"python -m benchmarks.{name}" for name in names()))
        return
    for file in sorted(FOLDER.glob("*.json")):
        read(file).write(file.with_suffix(""))


if __name__ == "__main__":
    main()
