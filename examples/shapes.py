"""Twenty images of discs and squares with their masks, for the examples: a folder as `atrous train` reads it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

NAMES = ("ground", "disc", "square")


def make_folder(root: Path, count: int = 20, side: int = 160) -> Path:
    """Write ``images``, ``masks`` and ``labels.toml``; the same every time."""
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        mask = np.zeros((side, side), np.uint8)
        for label in (1, 2, 1, 2):
            x, y = (int(place) for place in random.integers(10, side - 10, 2))
            radius = int(random.integers(8, 26))
            if label == 1:
                cv2.circle(mask, (x, y), radius, label, -1)
            else:
                cv2.rectangle(mask, (x - radius, y - radius), (x + radius, y + radius), label, -1)
        colours = np.array([(116, 125, 98), *random.integers(0, 255, (2, 3))], np.float64)
        texture = cv2.GaussianBlur(random.normal(0, 60, (side, side, 3)), (0, 0), 2)
        image = (colours[mask] + texture + random.normal(0, 8, mask.shape)[..., None]).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(root / "images" / f"{number:02}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number:02}.png")
    (root / "labels.toml").write_text(f"names = {list(NAMES)}\n", encoding="utf-8")
    return root
