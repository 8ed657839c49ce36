"""Attention to Scale: which scale the merged logits are taken from, on people of several sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import atrous
from atrous.grid import PIXELS, resample
from atrous.models.attention_to_scale import AttentionToScale
from atrous.viz import heat_map
from docs.figures import sheet

SCALES = (1.0, 0.75, 0.5)
STEPS = 40


def draw() -> Path:
    """Train the 1×1 classifier and the attention on arrangements of one person; show the weights on another one."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    source = sheet.bundled()
    model = atrous.create_model(
        "attention_to_scale",
        base="deeplab_largefov",
        base_options={"kernel": 1},
        backbone=source.backbone.name,
        num_classes=21,
        scales=SCALES,
        output_stride=16,
        pretrained=False,
    ).eval()
    model.backbone.load_state_dict(source.backbone.state_dict())
    model.backbone.requires_grad_(False)
    assert isinstance(model, AttentionToScale)
    groups = [
        {"params": [*model.base.get_submodule("fc1").parameters()], "lr": 2e-3},
        {"params": [*model.attention.parameters()], "lr": 3e-5},  # its input is large: more saturates the softmax
    ]
    optimizer = torch.optim.Adam(groups)
    for _ in range(STEPS):
        image, mask = sheet.crowd([person(random) for _ in range(6)])
        target = torch.from_numpy(mask.astype(np.int64))[None]
        outputs = model.outputs(sheet.as_input(model, image))
        loss = torch.stack([F.cross_entropy(output.at(mask.shape), target) for output in outputs]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    image, mask = sheet.crowd(sheet.CROWD)
    with torch.no_grad():
        output = model.main_output(sheet.as_input(model, image))
    assert output.attention is not None
    weights = resample(output.attention, output.grid, PIXELS, mask.shape)[0].numpy()
    labels = np.asarray(output.at(mask.shape).argmax(1)[0].numpy(), np.uint8)
    panels: list[sheet.Panel] = [(f"merged: IoU {sheet.agreement(labels, mask):.1f} %", sheet.painted(image, labels))]
    panels += [
        (f"weight of scale {scale:g}", heat_map(image, part)) for scale, part in zip(SCALES, weights, strict=True)
    ]
    return sheet.write("attention", [panels[:2], panels[2:]], width=9, height=7.4)


def person(random: np.random.Generator) -> tuple[int, int, int]:
    """A size and a place."""
    size = int(20 * 2 ** random.uniform(0, 4))
    return size, int(random.integers(-size // 3, 512 - size // 2)), int(random.integers(size // 2, 384 + size // 4))
