"""FCN's skips: three heads on one backbone, fitted to the same labels."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

import atrous
from atrous.models.base import SegmentationModel
from docs.figures import sheet
from docs.figures.fitting import fit

STEPS = 250


def draw() -> Path:
    """Fit FCN-32s, 16s and 8s to one image, each from the one before, and show what each can draw."""
    image, truth = sheet.crowd(sheet.CROWD)
    source = sheet.bundled()
    panels: list[sheet.Panel] = [("labels to be learned", sheet.painted(image, truth))]
    before: SegmentationModel | None = None
    for name in ("fcn32s", "fcn16s", "fcn8s"):
        model = atrous.create_model(name, backbone=source.backbone.name, num_classes=21, pretrained=False).eval()
        model.backbone.load_state_dict(source.backbone.state_dict())
        if before is not None:
            model.start_from(before)
        with torch.no_grad():
            features = model.backbone(sheet.as_input(model, image))
        scorers = [parameter for key, parameter in model.named_parameters() if key.startswith("score_")]
        mask = fit(scorers, partial(model.apply_head, features), truth, STEPS, 0.01)
        panels.append((f"FCN-{name[3:]}: IoU {sheet.agreement(mask, truth):.1f} %", sheet.painted(image, mask)))
        before = model
    return sheet.write("fcn", [panels[:2], panels[2:]], width=9, height=7.4)
