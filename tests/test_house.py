"""The house: imports point down its floors, no modules import each other, and nothing imports the command line."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "atrous"
FLOORS = [  # from the ground up; an import points to the same room or to a lower floor
    {"errors", "files", "provenance", "registry", "bundle"},
    {"grid", "labels", "label_sets"},
    {"ops", "runtime"},
    {"models", "crf", "data", "viz"},
    {"inference", "compat"},
    {"training", "evaluation", "convert", "export"},
    {"opening"},
    {"serve", "bench", "environment"},
    {"cli"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
NEIGHBOURS = {  # on one floor: who may import whom
    "labels": set(),
    "label_sets": {"labels"},
    "data": {"viz"},
    "crf": set(),
    "ops": set(),
    "runtime": set(),
    "models": set(),
    "viz": set(),
    "training": {"evaluation"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(module: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "atrous":
            parts = node.module.split(".")
            rooms = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            for room in rooms:
                yield room, node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("atrous."):
                    yield alias.name.split(".")[1], node.lineno


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.relative_to(PACKAGE).as_posix())
def test_imports_point_down(module: Path) -> None:
    room = room_of(module)
    if room in ("__init__", "__main__"):
        return
    assert room in FLOOR_OF, f"{room} stands on no floor: add it to FLOORS, where DESIGN has it"
    up = [
        f"{module.relative_to(PACKAGE)}:{line} imports atrous.{other}"
        for other, line in imported_rooms(module)
        if other != room
        and (
            FLOOR_OF[other] > FLOOR_OF[room]
            or (FLOOR_OF[other] == FLOOR_OF[room] and other not in NEIGHBOURS.get(room, FLOORS[FLOOR_OF[room]]))
        )
    ]
    assert up == []


def dependencies(module: Path) -> set[str]:
    """The modules of the package that a module imports when it is imported, by dotted name."""
    found: set[str] = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("atrous"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_no_modules_import_each_other() -> None:
    names = {".".join(("atrous", *m.relative_to(PACKAGE).with_suffix("").parts)): m for m in MODULES}
    graph = {name: dependencies(module) & names.keys() for name, module in names.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", ["atrous.grid", "atrous.inference.batch", "atrous.inference.segmentation"])
def test_labelling_files_needs_no_torch(module: str) -> None:
    code = f"import {module}, sys; print([m for m in ('torch', 'timm', 'torchvision', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["atrous", "atrous.cli"])
def test_help_does_not_wait_for_torch(module: str) -> None:
    code = f"import {module}, sys; print([m for m in ('torch', 'numba', 'cv2', 'timm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
