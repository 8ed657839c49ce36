"""The examples of docs/extending.md, run from top to bottom as a reader would."""

import re
from pathlib import Path

import pytest

from atrous.data.sources.registry import OPENERS
from atrous.models.registry import ARCHITECTURES, BACKBONES
from atrous.training.losses import LOSSES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page registers is gone after it."""
    for registry in (ARCHITECTURES, BACKBONES, LOSSES, OPENERS):
        for store in ("_entries", "_owners"):
            monkeypatch.setattr(registry, store, dict(getattr(registry, store)))


@pytest.mark.slow
def test_every_door_opens_as_the_page_describes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registries: None
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 8
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert (tmp_path / "my-model" / "model.safetensors").is_file()
    assert (tmp_path / "runs" / "dark" / "best").is_dir()
