"""The table of sources in docs/data.md has every source of annotation tools, and says what each was checked against."""

import re
from pathlib import Path

from atrous.data.sources.registry import BUILT_IN, DRAWN
from tests.data.sources.test_annotated import WRITERS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "data.md"
TOOLS = (DRAWN | BUILT_IN.keys() | {"panoptic"}) - {"coco-voc"}


def table() -> dict[str, list[str]]:
    """The cells of each source's row."""
    text = PAGE.read_text(encoding="utf-8").partition("## Exports of annotation tools")[2].partition("\n- Classes")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split(" |")] for line in text.splitlines() if line.startswith("| `")
    ]
    return {kind: row for row in rows for kind in re.findall(r"`([\w-]+)`", row[0])}


def test_every_source_has_a_row_of_six_cells() -> None:
    assert table().keys() == TOOLS
    assert {len(row) for row in table().values()} == {6}


def test_those_that_read_small_files_alone_say_so() -> None:
    """The others are in test_tool_files.py, on files that programs wrote."""
    only = {kind for kind, row in table().items() if row[-1] == "small files only"}
    assert only == {"supervisely", "hasty", "via"}
    assert only <= {kind for kind, _ in WRITERS.values()}
