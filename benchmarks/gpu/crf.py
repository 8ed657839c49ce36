"""The dense CRF with both kernels, set-up included, on an image with the bundled model's logits."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import torch
from PIL import Image
from torch import Tensor

import atrous
from atrous.crf import Bilateral, DenseCRF, Gaussian, unary_from_logits
from atrous.inference.demo import find_demo_images
from benchmarks.gpu._measure import CLASSES, Measured, Rows, Sizes, attempt, measured


def rows(device: torch.device, sizes: Sizes) -> Rows:
    """The distribution, compared with plain PyTorch on the CPU, and labels."""
    refine = DenseCRF([Gaussian(sxy=3, weight=3), Bilateral(sxy=80, srgb=13, weight=10)], iterations=10)
    height, width = sizes.crf
    name = f"dense CRF, {width}×{height}, {CLASSES} classes, 10 iterations"
    yield attempt(name, partial(distribution, name, refine, device, height, width))
    yield attempt(f"{name}: labels", partial(labels, f"{name}: labels", refine, device, height, width))


def distribution(name: str, refine: DenseCRF, device: torch.device, height: int, width: int) -> Measured:
    """The distribution over classes."""
    there = copy.deepcopy(refine).to(device)
    image, unary = image_and_unary(height, width)
    expected = refine.track(image, unary).q  # in plain PyTorch, on the CPU
    image, unary = image.to(device), unary.to(device)
    q = there(image, unary).cpu()
    off, same = float((q - expected).abs().max()), float((q.argmax(0) == expected.argmax(0)).float().mean())
    remarks = f"largest difference from plain PyTorch on the CPU {off:.0e}, {100 * same:.3f} % of labels the same"
    return replace(measured(name, partial(there, image, unary), device), remarks=remarks)


def labels(name: str, refine: DenseCRF, device: torch.device, height: int, width: int) -> Measured:
    """The labels alone."""
    there = copy.deepcopy(refine).to(device)
    image, unary = (tensor.to(device) for tensor in image_and_unary(height, width))
    return measured(name, partial(there.labels, image, unary), device)


def image_and_unary(height: int, width: int) -> tuple[Tensor, Tensor]:
    """An image of an installed package, uint8 ``(H, W, 3)``, and its unary energies ``(C, H, W)``."""
    with Image.open(find_demo_images()[0]) as opened:
        pixels = torch.frombuffer(bytearray(opened.convert("RGB").resize((width, height)).tobytes()), dtype=torch.uint8)
    image = pixels.view(height, width, 3)
    model = atrous.load("deeplabv3plus_lite0_voc")
    with torch.inference_mode():
        logits = model(model.preprocess(image.permute(2, 0, 1)[None]))[0]
    return image, unary_from_logits(logits.clone())
