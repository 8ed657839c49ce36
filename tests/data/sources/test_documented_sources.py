"""The generated table of docs/sources.md has every source of annotation tools, and says which tests hold it to what."""

import re
from pathlib import Path

from atrous.data.sources.registry import BUILT_IN, DRAWN
from tests.data.sources.test_annotated import WRITERS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "sources.md"
TOOLS = DRAWN | BUILT_IN.keys() | {"panoptic"}


def table() -> dict[str, list[str]]:
    """The cells of each source's row."""
    text = PAGE.read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split(" |")] for line in text.splitlines() if line.startswith("| `")
    ]
    return {kind: row for row in rows for kind in re.findall(r"`([\w-]+)`", row[0])}


def test_every_source_has_a_row_of_seven_cells() -> None:
    assert table().keys() == TOOLS
    assert {len(row) for row in table().values()} == {7}


def test_those_that_no_file_of_others_was_tried_on_say_so() -> None:
    """The others are in test_tool_files.py, on files that programs wrote."""
    rows = table()
    untried = {kind for kind, row in rows.items() if row[-1] == "–"}
    assert untried == {"labelstudio", "supervisely", "hasty", "via", "geojson", "webdataset", "coco-voc"}
    assert {kind for kind in untried if rows[kind][4] == rows[kind][5] == "–"} == {"coco-voc"}
    assert {"supervisely", "hasty", "via"} <= {kind for kind, _ in WRITERS.values()}
