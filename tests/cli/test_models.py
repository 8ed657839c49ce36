"""models."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from atrous import bundle

Run = Callable[..., Result]


def test_models_lists_architectures_and_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr(bundle, "BUNDLE", tmp_path)
    assert "bundled models: none" in run("models").stdout
    (tmp_path / "small").mkdir()
    card = {
        "architecture": "deeplabv3plus",
        "backbone": "b",
        "label_set": {"names": ["x", "y"]},
        "metrics": {"data": "voc:val", "mean_iou": 0.5},
    }
    (tmp_path / "small/config.json").write_text(json.dumps(card))
    (tmp_path / "small/model.safetensors").write_bytes(bytes(2_000_000))
    said = run("models").stdout
    assert "deeplabv3plus" in said
    assert "folder_deeplabv3plus_lite0: DeepLabv3+ on EfficientNet-Lite0 for a folder of your own" in said
    assert "small: deeplabv3plus on b, 2.0 MB\n  classes: x, y\n  mean IoU on voc:val: 50.00 %" in said
