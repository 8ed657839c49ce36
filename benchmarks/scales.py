"""Attention to Scale beside merging at full size, by the number of scales: ``python -m benchmarks.scales``."""

from __future__ import annotations

import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atrous.inference.test_time import Inference
from atrous.models import SegmentationModel, create_model
from atrous.models.attention_to_scale import AttentionToScale
from benchmarks._compare import Comparison, write_comparisons
from benchmarks._processes import answer, peak_bytes, race, reset_peak, resident_bytes

SEED = 0
CLASSES = 21
SCALES = ((1.0,), (1.0, 0.5), (1.0, 0.75, 0.5))
SIZES = ((513, 513), (1025, 2049))
ROUNDS = 5
PEER = "logits of each scale and their weights at full size"


def network(scales: tuple[float, ...]) -> SegmentationModel:
    """Random weights, the same for both; one scale is the plain network."""
    torch.manual_seed(SEED)
    options = {"backbone": "tf_efficientnet_lite0", "num_classes": CLASSES, "pretrained": False}
    model = create_model("attention_to_scale", scales=scales, base="deeplab_largefov", **options)
    return model.eval().to(memory_format=torch.channels_last)


class AtFullSize(nn.Module):
    """The common form: everything is resized to the image's size and merged there."""

    def __init__(self, model: AttentionToScale) -> None:
        super().__init__()
        self.base, self.attention, self.scales = model.base, model.attention, model.scales

    def forward(self, images: Tensor) -> Tensor:
        """Labels ``(H, W)`` of an image."""
        size = (images.shape[-2], images.shape[-1])
        resized, read = [], []
        for scale in self.scales:
            sides = [int((side - 1) * scale + 1) for side in size]
            shown = F.interpolate(images, sides, mode="bilinear", align_corners=True)
            result = self.base.apply_head(self.base._features(shown.contiguous(memory_format=torch.channels_last)))
            resized.append(F.interpolate(result.logits, size, mode="bilinear", align_corners=True))
            read += result.embedding
        finest = read[0].shape[-2:]
        maps = torch.cat([F.interpolate(x, finest, mode="bilinear", align_corners=True) for x in read], 1)
        weights = F.interpolate(self.attention(maps), size, mode="bilinear", align_corners=True).softmax(1)
        merged = sum(weights[:, i : i + 1] * s for i, s in enumerate(resized))
        assert isinstance(merged, Tensor)
        return merged.argmax(1)[0]


def contend(name: str, number: int, height: int, width: int) -> None:
    """A contender: seconds from an image to its labels, and the bytes by which it raised the process's peak memory."""
    model = network(SCALES[number])
    image = torch.randint(
        0, 256, (1, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(SEED)
    )
    assert isinstance(model, AttentionToScale)
    full, inference = AtFullSize(model), Inference()

    def run() -> Tensor:
        return inference(model, image)[0] if name == "ours" else full(model.preprocess(image))

    def measured() -> tuple[float, float]:
        reset_peak()
        before = resident_bytes()
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin, peak_bytes() - before

    with torch.inference_mode():
        run()
        answer(measured)


def main() -> None:
    rows, notes = [], []
    for height, width in SIZES:
        for number, scales in enumerate(SCALES):
            places = (str(number), str(height), str(width))
            measured = race("scales", {name: (name, *places) for name in ("ours", "peer")}, ROUNDS)
            work = f"{height}×{width}, scales {', '.join(f'{scale:g}' for scale in scales)}"
            seconds = [[round_[0] for round_ in measured[name]] for name in ("ours", "peer")]
            rows.append(Comparison(work, PEER, *seconds, target=1.0))
            peaks = [max(round_[1] for round_ in measured[name]) / 1e6 for name in ("ours", "peer")]
            notes.append(
                f"{work}: {peaks[0]:.0f} MB at most beside the weights and the image, the peer {peaks[1]:.0f} MB."
            )
            print(notes[-1], flush=True)
    write_comparisons(
        "scales",
        "Attention to Scale",
        rows,
        seed=SEED,
        notes=[
            "From an image to its labels, float32: LargeFOV on EfficientNet-Lite0 at output stride 8, 21 classes, with "
            "the attention head; both have the same weights.",
            *notes,
        ],
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        contend(sys.argv[1], *map(int, sys.argv[2:]))
    else:
        main()
