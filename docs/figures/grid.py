"""Where features sit: the positions of three networks' last maps, and where half-pixel resizing assumes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

import atrous
from atrous.grid import Grid
from docs.figures import sheet

BACKBONES = {"resnet18": "ResNet", "convnext_atto": "ConvNeXt", "vit_tiny_patch16_224": "ViT"}
SIDE, STRIDE = 129, 16


def draw() -> Path:
    """One panel a backbone."""
    return sheet.write("grid", [[positions(name) for name in BACKBONES]], width=9, height=3.3)


def positions(name: str) -> sheet.Panel:
    """Positions at output stride 16 over a part of the portrait."""
    image = sheet.grey(sheet.zoomed(sheet.portrait(), 150, 190, SIDE))
    model = atrous.create_model(
        "deeplab_largefov", backbone=name, num_classes=21, output_stride=STRIDE, pretrained=False
    )
    grid = model.backbone.grids[-1]
    count = int((SIDE - 1 - grid.offset) // grid.stride) + 1
    assumed = Grid.spread(count, SIDE)

    def content(axes: Axes) -> None:
        axes.imshow(image)
        for where, mark, size in ((grid, "o", 4.5), (assumed, "x", 4.5)):
            places = np.arange(count) * where.stride + where.offset
            x, y = np.meshgrid(places, places)
            axes.plot(x.ravel(), y.ravel(), mark, color=sheet.INK if mark == "o" else "#1f4e9c", markersize=size)
        axes.set(xlim=(-0.5, SIDE - 0.5), ylim=(SIDE - 0.5, -0.5))

    return f"{BACKBONES[name]}: pixel {grid.stride:g} i + {grid.offset:g}", content
