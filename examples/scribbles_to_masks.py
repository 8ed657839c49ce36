"""From a few strokes to a mask: a dense CRF spreads the classes that a person has drawn. Offline, a few seconds.

python examples/scribbles_to_masks.py --out scribbles.png

No network is involved: pixels under a stroke keep their class, and the others follow those that are near and alike.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import atrous
from atrous.inference.demo import find_demo_images
from atrous.viz import overlay

CLASSES = atrous.LabelSet(("background", "person"), ((0, 0, 0), (230, 80, 60)))
STROKES = {  # in parts of the image's width and height
    0: [
        [(0.02, 0.62), (0.05, 0.05), (0.4, 0.02)],
        [(0.95, 0.6), (0.95, 0.05), (0.75, 0.03)],
        [(0.28, 0.05), (0.28, 0.5), (0.05, 0.65), (0.02, 0.9)],
    ],
    1: [
        [(0.5, 0.1), (0.5, 0.45), (0.55, 0.95)],
        [(0.35, 0.2), (0.65, 0.2)],
        [(0.15, 0.95), (0.3, 0.75), (0.7, 0.75), (0.9, 0.95)],
    ],
}


def main() -> None:
    """Draw the strokes, spread them, and write strokes and mask side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("scribbles.png"))
    parser.add_argument("--width", type=int, default=512)
    arguments = parser.parse_args()

    photo = Image.open(find_demo_images()[0]).convert("RGB")
    photo = photo.resize((arguments.width, arguments.width * photo.height // photo.width))
    image = np.asarray(photo)
    fixed = strokes(image.shape[0], image.shape[1])

    crf = atrous.DenseCRF(
        [atrous.Gaussian(sxy=3, weight=3), atrous.Bilateral(sxy=image.shape[1] / 6, srgb=8, weight=10)], iterations=20
    )
    unary = np.zeros((len(CLASSES), *fixed.shape), np.float32)  # nothing is known of the other pixels
    labels = crf.labels(image, unary, fixed=fixed)

    drawn = overlay(image, fixed, CLASSES, alpha=1, legend=False, boundaries=False)
    drawn[fixed == 0] = (60, 120, 230)
    sheet = np.hstack([drawn, overlay(image, labels, CLASSES, legend=False)])
    Image.fromarray(sheet).save(arguments.out)
    print(f"{(fixed != 255).mean():.1%} of the pixels drawn, {(labels == 1).mean():.0%} are person: {arguments.out}")


def strokes(height: int, width: int) -> np.ndarray:
    """The strokes as a mask of 0 and 1, and 255 elsewhere."""
    mask = np.full((height, width), 255, np.uint8)
    for label, lines in STROKES.items():
        for line in lines:
            points = np.round(np.array(line) * (width - 1, height - 1)).astype(np.int32)
            cv2.polylines(mask, [points], False, label, max(2, width // 100))
    return mask


if __name__ == "__main__":
    main()
