"""Images that several benchmarks work on."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np

from atrous.inference.demo import find_demo_images
from atrous.label_sets import VOC
from atrous.labels import encode_mask

SEED = 0


def image_and_mask(room: Path) -> tuple[Path, Path]:
    """An image of VOC's size and JPEG quality, from matplotlib's sample image, and a mask with some areas."""
    image = cv2.resize(cv2.imread(str(find_demo_images()[0])), (500, 375))
    blobs = cv2.resize(np.random.default_rng(SEED).normal(size=(6, 8)), (500, 375), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(room / "image.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 82])
    (room / "mask.png").write_bytes(encode_mask((blobs > 0.8).astype(np.uint8) * 15, VOC))
    return room / "image.jpg", room / "mask.png"


def make_images(room: Path, count: int) -> None:
    """A folder dataset of images of VOC's size."""
    room.mkdir(parents=True, exist_ok=True)
    image, mask = image_and_mask(room)
    for name, source in (("images", image), ("masks", mask)):
        (room / name).mkdir()
        for number in range(count):
            shutil.copy(source, room / name / f"{number}{source.suffix}")
    (room / "labels.toml").write_text(f"names = {[f'class {i}' for i in range(21)]}".replace("'", '"'))
    (room / "splits").mkdir()
    (room / "splits/train.txt").write_text("\n".join(map(str, range(count))))
