"""DeepLab: where the taps of its atrous convolutions fall, what one output looks at, and the dense CRF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import nn

import atrous
from atrous.inference.predict import predict
from atrous.models.deeplabv3 import DeepLabV3
from atrous.viz import heat_map
from docs.figures import sheet

CENTRE = 256
"""Row and column of the output that is looked at, in pixels; near the middle of the chin."""
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "4×4, rate 4": ("deeplab_largefov", {"kernel": 4, "rate": 4}),
    "7×7, rate 4": ("deeplab_largefov", {"kernel": 7, "rate": 4}),
    "LargeFOV, rate 12": ("deeplab_largefov", {"kernel": 3, "rate": 12}),
    "ASPP-L, rates 6 to 24": ("deeplab_aspp", {"rates": (6, 12, 18, 24)}),
}
COLOURS = ("#d2232a", "#1f77b4", "#2ca02c", "#9467bd")


def draw() -> Path:
    """Taps of four heads; gradients of one logit at three output strides; labels without and with a CRF."""
    return sheet.write("deeplab", [[taps(name) for name in HEADS], [*gradients(), *refined()]], width=11)


def taps(name: str) -> sheet.Panel:
    """The taps of a head's atrous convolutions at one output position, and the square that holds them."""
    architecture, options = HEADS[name]
    model = atrous.create_model(architecture, backbone="resnet50", num_classes=21, pretrained=False, **options)
    layers = [layer for key, layer in model.named_modules() if key.startswith("fc1") and isinstance(layer, nn.Conv2d)]
    stride = model.output_stride
    image = sheet.grey(sheet.portrait())

    def content(axes: Axes) -> None:
        axes.imshow(image)
        for layer, colour in zip(layers, COLOURS, strict=False):
            kernel, rate = layer.kernel_size[0], layer.dilation[0]
            offsets = (np.arange(kernel) - (kernel - 1) / 2) * rate * stride + CENTRE
            x, y = np.meshgrid(offsets, offsets)
            axes.plot(x.ravel(), y.ravel(), "o", color=colour, markersize=4)
        axes.set(xlim=(0, 511), ylim=(511, 0))

    reach = max(((layer.kernel_size[0] - 1) * layer.dilation[0] + 1) * stride for layer in layers)
    return f"{name}: {reach} px", content


def gradients() -> list[sheet.Panel]:
    """What one logit of the bundled model depends on: the size of its gradient around each pixel, at two output
    strides; ASPP's pooling branch, which looks at everything, is held still.
    """
    image = sheet.portrait()
    panels: list[sheet.Panel] = []
    for stride in (32, 8):
        model = sheet.bundled()
        assert isinstance(model, DeepLabV3)
        model.output_stride = stride
        x = sheet.as_input(model, image).requires_grad_()
        model.aspp.image_mean = model.backbone(x)[-1].mean((2, 3), keepdim=True).detach()
        logits, grid = model.coarse_logits(x)
        assert isinstance(grid, atrous.Grid)
        place = round((CENTRE - grid.offset) / grid.stride)
        (slope,) = torch.autograd.grad(logits[0, sheet.PERSON, place, place], x)
        size = np.sqrt(cv2.GaussianBlur(slope[0].abs().sum(0).numpy(), (0, 0), 6))
        panels.append((f"gradient at stride {stride}", heat_map(image, (size / size.max()).astype(np.float32))))
    return panels


def refined() -> list[sheet.Panel]:
    """Labels at output stride 32 without and with a dense CRF."""
    image = sheet.portrait()
    truth = sheet.outline(image)
    model = sheet.bundled()
    model.output_stride = 32
    panels: list[sheet.Panel] = []
    for crf, title in ((False, "labels at stride 32"), (True, "with the dense CRF")):
        mask = predict(model, image, crf=crf).labels
        panels.append((f"{title}: IoU {sheet.agreement(mask, truth):.1f} %", sheet.painted(image, mask)))
    return panels
