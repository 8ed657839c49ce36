"""Atrous: semantic segmentation with FCN, DeepLab and its dense CRF, Attention to Scale, and DeepLabv3+.

Build, load, use and export a model::

    model = atrous.create_model("deeplabv3plus", backbone="resnet101", num_classes=21)
    model = atrous.load("deeplabv3plus_lite0_voc")
    result = atrous.predict(model, "photo.jpg")
    atrous.export_model(model, "model.onnx")

Train and evaluate: :func:`load_recipe`, :func:`train`, :func:`open_dataset`, :func:`evaluate`. Use the parts alone:
:func:`set_output_stride`, :func:`convolutionalize`, :class:`ASPP`, :class:`DeepLabV3PlusDecoder`, :class:`DenseCRF`,
:class:`Grid` and :func:`resample`. Add your own: :func:`register_model`, :func:`register_backbone`,
:func:`register_dataset`, :func:`register_loss`.

Submodules: ``atrous.models``, ``atrous.crf``, ``atrous.data``, ``atrous.losses``, ``atrous.training``,
``atrous.evaluation``, ``atrous.inference``, ``atrous.viz``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atrous import crf, data, evaluation, inference, models, training, viz  # noqa: F401 - reachable, not exported
    from atrous.crf import Bilateral, DenseCRF, Gaussian
    from atrous.data import Sample, open_dataset, register_dataset, wrap
    from atrous.errors import AtrousError
    from atrous.evaluation.evaluate import evaluate
    from atrous.export.model import export_model
    from atrous.grid import Grid, resample
    from atrous.inference.predict import predict
    from atrous.inference.segmentation import Segmentation
    from atrous.inference.test_time import Inference
    from atrous.labels import LabelSet
    from atrous.models import create_model, register_backbone, register_model
    from atrous.models.aspp import ASPP
    from atrous.models.backbones import Backbone
    from atrous.models.decoder import DeepLabV3PlusDecoder
    from atrous.models.surgery.convolutionalize import convolutionalize
    from atrous.models.surgery.output_stride import set_output_stride
    from atrous.opening import load
    from atrous.training import load_recipe, losses, train  # noqa: F401
    from atrous.training.losses import register_loss

_HOMES = {  # public name → the module that defines it, imported when the name is first used
    "ASPP": "atrous.models.aspp",
    "AtrousError": "atrous.errors",
    "Backbone": "atrous.models.backbones",
    "Bilateral": "atrous.crf",
    "DeepLabV3PlusDecoder": "atrous.models.decoder",
    "DenseCRF": "atrous.crf",
    "Gaussian": "atrous.crf",
    "Grid": "atrous.grid",
    "Inference": "atrous.inference.test_time",
    "LabelSet": "atrous.labels",
    "Sample": "atrous.data",
    "Segmentation": "atrous.inference.segmentation",
    "convolutionalize": "atrous.models.surgery.convolutionalize",
    "create_model": "atrous.models",
    "evaluate": "atrous.evaluation.evaluate",
    "export_model": "atrous.export.model",
    "load": "atrous.opening",
    "load_recipe": "atrous.training",
    "open_dataset": "atrous.data",
    "predict": "atrous.inference.predict",
    "register_backbone": "atrous.models",
    "register_dataset": "atrous.data",
    "register_loss": "atrous.training.losses",
    "register_model": "atrous.models",
    "resample": "atrous.grid",
    "set_output_stride": "atrous.models.surgery.output_stride",
    "train": "atrous.training",
    "wrap": "atrous.data",
}
_SUBMODULES = {
    name: f"atrous.{name}"
    for name in ("crf", "data", "errors", "evaluation", "grid", "inference", "labels", "models", "training", "viz")
} | {"losses": "atrous.training.losses"}

__all__ = [
    "ASPP",
    "AtrousError",
    "Backbone",
    "Bilateral",
    "DeepLabV3PlusDecoder",
    "DenseCRF",
    "Gaussian",
    "Grid",
    "Inference",
    "LabelSet",
    "Sample",
    "Segmentation",
    "convolutionalize",
    "create_model",
    "evaluate",
    "export_model",
    "load",
    "load_recipe",
    "open_dataset",
    "predict",
    "register_backbone",
    "register_dataset",
    "register_loss",
    "register_model",
    "resample",
    "set_output_stride",
    "train",
    "wrap",
]


def __getattr__(name: str) -> Any:
    """Public names are imported on first use, so that ``import atrous`` and ``atrous --help`` do not wait for torch."""
    if name == "__version__":
        from importlib.metadata import version

        return version("atrous")
    if name in _SUBMODULES:
        return importlib.import_module(_SUBMODULES[name])
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'atrous' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES, "__version__"})
