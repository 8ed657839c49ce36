"""The floors inside data: an import only points down, from the doctor to sources, and from these to files."""

import ast
from pathlib import Path

import pytest

ROOM = Path(__file__).resolve().parents[2] / "src" / "atrous" / "data"
FLOORS = [
    {"files"},
    {"extras", "finding_kinds", "finding_rules", "findings", "alike"},
    {"dataset"},
    {"wrap"},
    {"sources", "class_tables"},
    {"channel_stats", "windows", "stats", "augment", "balance", "loading", "contact_sheet", "writers", "folder_writer"},
    {"doctor"},
    {"opening", "export", "splitting", "tiling"},
]
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}


@pytest.mark.parametrize("module", sorted(ROOM.rglob("*.py")), ids=lambda module: str(module.relative_to(ROOM)))
def test_imports_inside_data_point_down(module: Path) -> None:
    place = module.relative_to(ROOM).parts[0].removesuffix(".py")
    if place == "__init__":
        return
    nodes = [node for node in ast.walk(ast.parse(module.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    imported = {node.module.split(".")[2] for node in nodes if (node.module or "").startswith("atrous.data.")}
    assert not [other for other in imported if FLOOR_OF[other] > FLOOR_OF[place]]
