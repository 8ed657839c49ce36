"""From an image in memory to its labels, beside segmentation-models-pytorch: ``python -m benchmarks.inference``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks._compare import Comparison, write_comparisons
from benchmarks._processes import answer, race

SEED, CLASSES, ROUNDS, RATES = 0, 21, 3, (12, 24, 36)


@dataclass(frozen=True)
class Case:
    """A DeepLabv3+ of smp's form.

    Args:
        backbone: timm's name.
        encoder: smp's name of the same network.
        size: of the image.
        target: how many times as fast ours should be.
        output_stride: of both networks.
    """

    backbone: str
    encoder: str
    size: tuple[int, int]
    target: float
    output_stride: int = 16


MOBILE, LITE = ("mobilenetv2_100", "tu-mobilenetv2_100"), ("tf_efficientnet_lite0", "timm-tf_efficientnet_lite0")
CASES = (
    Case(*MOBILE, (512, 512), 2.5),
    Case(*LITE, (512, 512), 2.5),
    Case("resnet101", "resnet101", (512, 512), 2),
    Case(*LITE, (512, 512), 3, output_stride=8),
    Case(*MOBILE, (1024, 2048), 3),
    Case(*LITE, (1024, 2048), 3),
)
Label = Callable[[np.ndarray], np.ndarray]


def ours(case: Case) -> Label:
    """A predictor of ours."""
    import atrous
    from atrous.inference.predictor import Predictor

    model = atrous.create_model(
        "deeplabv3plus",
        backbone=case.backbone,
        num_classes=CLASSES,
        output_stride=case.output_stride,
        separable=True,
        refine=True,
        decoder_convs=1,
        rates=RATES,
    )
    predictor = Predictor(model)
    return lambda image: predictor.labels(image[None])[0]


def peer(case: Case) -> Label:
    """segmentation-models-pytorch, called as its documentation says."""
    import segmentation_models_pytorch as smp
    import torch

    model = smp.DeepLabV3Plus(
        case.encoder,
        encoder_weights=None,
        classes=CLASSES,
        encoder_output_stride=case.output_stride,
        decoder_atrous_rates=RATES,
    ).eval()
    mean, std = (np.array(values) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def label(image: np.ndarray) -> np.ndarray:
        x = ((image / 255.0 - mean) / std).transpose(2, 0, 1).astype("float32")  # what its preprocessing function does
        with torch.inference_mode():
            logits = model(torch.from_numpy(x)[None])
            return logits.argmax(1)[0].numpy().astype(np.uint8)

    return label


def measure(make: Callable[[Case], Label]) -> None:
    """A contender: the seconds of each case, whenever it is asked."""
    import torch

    torch.manual_seed(SEED)
    work = [(make(case), np.random.default_rng(SEED).integers(0, 256, (*case.size, 3), np.uint8)) for case in CASES]
    for label, image in work:
        label(image)

    def seconds() -> list[float]:
        times = []
        for label, image in work:
            begin = time.perf_counter()
            label(image)
            times.append(time.perf_counter() - begin)
        return times

    answer(seconds)


def main() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # or waiting threads spin where others need the processors
    found = race("inference", {"ours": ["ours"], "peer": ["peer"]}, ROUNDS)
    comparisons = [
        Comparison(
            f"{case.backbone}, {case.size[0]}×{case.size[1]}, output stride {case.output_stride}",
            "segmentation-models-pytorch",
            *([times[number] for times in found[name]] for name in ("ours", "peer")),
            target=case.target,
        )
        for number, case in enumerate(CASES)
    ]
    notes = [
        "DeepLabv3+ in the peer's form, float32, random weights: a uint8 image in memory becomes labels of its size. "
        "Ours is `Predictor.labels`, in the default precision; the peer is called as its documentation says: "
        "`eval()`, its preprocessing, `model(x)`, `argmax`.",
        "Each library runs in a process of its own, in turns; ours keeps freed memory (glibc), which a peer in the "
        "same process would profit from.",
        f"Medians of {ROUNDS} rounds on a machine that other programs used too: ratios count.",
    ]
    write_comparisons(
        "inference", "Inference", comparisons, seed=SEED, peers=("timm", "segmentation-models-pytorch"), notes=notes
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure({"ours": ours, "peer": peer}[sys.argv[1]])
    else:
        main()
