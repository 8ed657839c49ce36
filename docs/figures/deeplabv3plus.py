"""DeepLabv3+: what the decoder can draw, and one checkpoint at three output strides."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from atrous.models.base import HeadResult
from atrous.models.deeplabv3 import DeepLabV3Plus
from docs.figures import sheet
from docs.figures.fitting import fit, labels_of

STEPS = 60


def draw() -> Path:
    """Fit a classifier on ASPP, and a decoder beside the same ASPP, to one image; run the latter at other strides."""
    image, truth = sheet.crowd(sheet.CROWD)
    model = sheet.bundled()
    assert isinstance(model, DeepLabV3Plus)
    images = sheet.as_input(model, image)
    with torch.no_grad():
        features = model.backbone(images)
        encoded = model.aspp(features[-1])
    levels = [features[level] for level in model.levels]
    grids = [model.backbone.grids[level] for level in model.levels]
    coarse = model.backbone.grids[-1]
    plain = nn.Conv2d(model.aspp.out_channels, model.num_classes, 1)

    def without() -> HeadResult:
        return HeadResult(plain(encoded), coarse, [encoded], coarse)

    def decoded() -> HeadResult:
        x = model.decoder(encoded, coarse, levels, grids)
        return HeadResult(model.classifier(x), grids[-1], [x], grids[-1])

    masks = {
        "ASPP alone": fit(plain.parameters(), without, truth, 5 * STEPS, 0.01),
        "with the decoder": fit(
            [*model.decoder.parameters(), *model.classifier.parameters()], decoded, truth, STEPS, 1e-3
        ),
    }
    for stride in (32, 8):
        model.output_stride = stride
        with torch.no_grad():
            result = model.apply_head(model.backbone(images))
        masks[f"the same at output stride {stride}"] = labels_of(result, truth.shape)
    panels: list[sheet.Panel] = [
        (f"{title}: IoU {sheet.agreement(mask, truth):.1f} %", sheet.painted(image, mask))
        for title, mask in masks.items()
    ]
    return sheet.write("deeplabv3plus", [panels[:2], panels[2:]], width=9, height=7.4)
