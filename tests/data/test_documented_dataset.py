"""The dataset of one's own in docs/data.md runs as it is written."""

import re
from pathlib import Path

import pytest

from atrous.data import check, check_dataset
from atrous.data.sources import registry
from atrous.registry import Registry

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"


def test_the_documented_dataset_is_healthy_and_can_be_registered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "OPENERS", Registry("dataset", "atrous.datasets"))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        if "torchvision" not in block:  # that one downloads
            exec(block, names)
    assert "healthy: no findings" in capsys.readouterr().out
    assert check_dataset(names["Stripes"]()).healthy
    assert check("stripes:anywhere", ["train"]).healthy
