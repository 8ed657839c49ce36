"""The examples of docs/models.md that put a backbone under a head."""

import re
from pathlib import Path
from typing import Any

import pytest

from atrous.models.registry import BACKBONES

PAGE = Path(__file__).resolve().parents[3] / "docs" / "models.md"


@pytest.mark.parametrize("section", ["Your own backbone", "Transformers"])
def test_the_examples_run(section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for store in ("_entries", "_owners"):
        monkeypatch.setattr(BACKBONES, store, dict(getattr(BACKBONES, store)))
    text = PAGE.read_text(encoding="utf-8").split(f"## {section}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    names: dict[str, Any] = {}
    for block in ["import atrous", *blocks]:
        exec(compile(block, str(PAGE), "exec"), names)
