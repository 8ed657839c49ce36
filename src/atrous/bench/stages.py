"""Where the time of an image goes, from the bytes of its file to those of its mask."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from atrous.bench.machine import times
from atrous.crf.settings import stored_crf
from atrous.crf.unary import unary_from_logits
from atrous.data.files.images import decode_image
from atrous.grid import PIXELS, resample
from atrous.inference.prepare import Precision, prepared
from atrous.labels import encode_mask
from atrous.models.base import SegmentationModel
from atrous.ops.labelmap.op import logits_to_labels


@dataclass(frozen=True)
class Split:
    """What one image takes.

    Args:
        seconds: by stage, the median of some trials: decode, preprocess, network, upsample (logits to labels), encode,
            and, beside these, crf, which runs only if asked for.
        multiply_adds: of the network.
        bytes: that its layers read and write at least: inputs, weights and outputs of each.
        layers: how many there are.
    """

    seconds: dict[str, float]
    multiply_adds: int
    bytes: int
    layers: int


def measure_split(model: SegmentationModel, pixels: NDArray[np.uint8], precision: Precision, trials: int) -> Split:
    """Measure each stage of predicting an image.

    Args:
        model: on the device to measure.
        pixels: uint8 RGB ``(H, W, 3)``.
        precision: of the network.
        trials: how often each stage runs.
    """
    size = (pixels.shape[0], pixels.shape[1])
    file = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()
    with prepared(model, precision=precision) as (network, device):
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device)
        shown = network.preprocess(image).contiguous(memory_format=torch.channels_last)
        output = network.main_output(shown)
        logits = output.logits.float()
        mask = logits_to_labels(logits, output.grid, size)[0].cpu().numpy()
        unary = unary_from_logits(resample(logits, output.grid, PIXELS, size)[0].cpu())
        crf = stored_crf(model.card)
        stages: dict[str, Callable[[], object]] = {
            "decode": partial(decode_image, file),
            "preprocess": partial(network.preprocess, image),
            "network": partial(network.main_output, shown),
            "upsample": partial(logits_to_labels, logits, output.grid, size),
            "encode": partial(encode_mask, mask, model.label_set),
            "crf": partial(crf.labels, torch.from_numpy(pixels), unary),
        }
        # The CRF takes seconds, and one trial of it tells enough.
        seconds = {
            name: statistics.median(times(stage, device, 1 if name == "crf" else trials))
            for name, stage in stages.items()
        }
    return Split(seconds, *count_work(model, shown.float()))


def count_work(model: SegmentationModel, images: Tensor) -> tuple[int, int, int]:
    """Multiply-adds, bytes moved at least, and layers of a network's run, in float32."""
    moved: list[int] = []

    def count(layer: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        tensors = [*inputs, output, *layer.parameters(recurse=False)]
        moved.append(sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor)))

    with prepared(model) as (network, _):
        layers = [layer for layer in network.model.modules() if not list(layer.children())]
        for layer in layers:  # of a copy, which nobody else runs
            layer.register_forward_hook(count)
        with FlopCounterMode(display=False) as counter:
            network.main_output(images)
    return counter.get_total_flops() // 2, sum(moved), len(moved)
