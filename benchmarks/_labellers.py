"""What labels an image in memory, ours and other libraries' as people call them: the contenders of ``inference``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from atrous.opening import RuntimeChoice

CLASSES, RATES = 21, (12, 24, 36)
MEAN, STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
Label = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Case:
    """A network and a size of image.

    Args:
        backbone: timm's name.
        size: of the image.
        target: how many times as fast ours should be.
        output_stride: of both networks.
        peer: the other library.
    """

    backbone: str
    size: tuple[int, int]
    target: float | None
    output_stride: int = 16
    peer: str = "smp"

    @property
    def network(self) -> dict[str, Any]:
        """Our network of the peer's form, as options of ``atrous.create_model``."""
        options = {"backbone": self.backbone, "num_classes": CLASSES, "output_stride": self.output_stride}
        if self.peer == "torchvision":
            return options | {"name": "deeplabv3", "rates": RATES, "refine": True}
        if self.peer == "transformers":
            return options | {"name": "deeplabv3", "rates": ()}
        form = {"separable": True, "refine": True, "decoder_convs": 1, "rates": RATES}
        return options | form | {"name": "deeplabv3plus"}

    def __str__(self) -> str:
        return f"{self.backbone}, {self.size[0]}×{self.size[1]}, output stride {self.output_stride}"


def ours(case: Case) -> Label:
    """A predictor of ours, in torch."""
    import atrous
    from atrous.inference.predictor import Predictor

    predictor = Predictor(atrous.create_model(**case.network))
    return lambda image: predictor.labels(image[None])[0]


def onnxruntime(case: Case) -> Label:
    """Ours with the extra ``export``, as ``--runtime onnxruntime``."""
    return _in_runtime(case, "onnxruntime")


def openvino(case: Case) -> Label:
    """Ours with the extra ``export``, as ``--runtime openvino``."""
    return _in_runtime(case, "openvino")


def _in_runtime(case: Case, runtime: RuntimeChoice) -> Label:
    import torch

    import atrous
    from atrous.inference.predict import predictor_of
    from atrous.opening import open_model
    from atrous.runtime.examples import example_batches
    from atrous.runtime.proof import AGREEMENT, equal_shares

    torch.manual_seed(0)
    model = atrous.create_model(**case.network).eval()
    with tempfile.TemporaryDirectory() as room:
        predictor = predictor_of(open_model(model.save(Path(room, "model")), runtime))
    batches = example_batches(3)[:1]
    right = [predictor_of(model, precision="float32").labels(batch) for batch in batches]
    assert min(equal_shares([predictor.labels(batch) for batch in batches], right)) >= AGREEMENT, f"{runtime}: {case}"
    return lambda image: predictor.labels(image[None])[0]


def smp(case: Case) -> Label:
    """segmentation-models-pytorch, called as its documentation says: its preprocessing, ``model(x)``, ``argmax``."""
    import segmentation_models_pytorch

    model = segmentation_models_pytorch.DeepLabV3Plus(
        case.backbone if case.backbone.startswith("resnet") else f"tu-{case.backbone}",
        encoder_weights=None,
        classes=CLASSES,
        encoder_output_stride=case.output_stride,
        decoder_atrous_rates=RATES,
    ).eval()
    return _labelled(lambda x: model(x))


def smp_keeping(case: Case) -> Label:
    """The same in a process that keeps freed memory, as ours does."""
    from atrous.inference.fast import keep_freed_memory

    keep_freed_memory()
    return smp(case)


def torchvision(case: Case) -> Label:
    """torchvision's DeepLabv3, as its documentation calls it."""
    from torchvision.models import segmentation

    make = getattr(segmentation, f"deeplabv3_{case.backbone}")
    model = make(weights=None, weights_backbone=None, num_classes=CLASSES).eval()
    return _labelled(lambda x: model(x)["out"])


def transformers(case: Case) -> Label:
    """transformers' DeepLabv3 on MobileNetV2: image processor, model, post-processing."""
    import torch
    from transformers import MobileNetV2Config, MobileNetV2ForSemanticSegmentation, MobileNetV2ImageProcessor

    config = MobileNetV2Config(num_labels=CLASSES, output_stride=case.output_stride)
    model = MobileNetV2ForSemanticSegmentation(config).eval()
    processor = MobileNetV2ImageProcessor(do_resize=False, do_center_crop=False)

    def label(image: np.ndarray) -> np.ndarray:
        inputs = processor(images=image, return_tensors="pt")
        with torch.inference_mode():
            outputs = model(**inputs)
        (found,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[image.shape[:2]])
        return found.numpy().astype(np.uint8)

    return label


CONTENDERS: dict[str, Callable[[Case], Label]] = {
    "ours": ours,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "smp": smp,
    "smp_keeping": smp_keeping,
    "torchvision": torchvision,
    "transformers": transformers,
}


def preprocessed(image: np.ndarray) -> np.ndarray:
    """What smp's preprocessing function does, as float32 ``(1, 3, H, W)``."""
    return ((image / 255.0 - MEAN) / STD).transpose(2, 0, 1).astype("float32")[None]


def _labelled(logits_of: Callable[[Any], Any]) -> Label:
    import torch

    def label(image: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(preprocessed(image))
        with torch.inference_mode():
            return logits_of(x).argmax(1)[0].numpy().astype(np.uint8)

    return label
