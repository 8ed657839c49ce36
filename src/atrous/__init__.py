"""Atrous: FCN, DeepLab, Attention to Scale and DeepLabv3+ as one toolkit for semantic segmentation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atrous.crf import DenseCRF
    from atrous.data.opening import open_dataset
    from atrous.evaluation.evaluate import evaluate
    from atrous.inference.predictor import Segmentation, predict
    from atrous.labels import LabelSet
    from atrous.models.create import create_model
    from atrous.models.loading import load
    from atrous.models.surgery.output_stride import set_output_stride

__all__ = [
    "DenseCRF",
    "LabelSet",
    "Segmentation",
    "create_model",
    "evaluate",
    "load",
    "open_dataset",
    "predict",
    "set_output_stride",
]

_HOMES = {
    "DenseCRF": "atrous.crf",
    "LabelSet": "atrous.labels",
    "Segmentation": "atrous.inference.predictor",
    "create_model": "atrous.models",
    "evaluate": "atrous.evaluation.evaluate",
    "load": "atrous.models",
    "open_dataset": "atrous.data.opening",
    "predict": "atrous.inference.predictor",
    "set_output_stride": "atrous.models.surgery.output_stride",
}


def __getattr__(name: str) -> Any:
    """Public names are loaded when first asked for, so that ``atrous --help`` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'atrous' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
