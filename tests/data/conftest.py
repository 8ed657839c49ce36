"""Small images whose edges are where their masks say, and folder datasets made of them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.labels import LabelSet, encode_mask

LABELS = LabelSet(("ground", "path", "plant", "never"))
ImageAndMask = tuple[np.ndarray, np.ndarray]
MakeFolder = Callable[..., Path]


def draw(seed: int, size: tuple[int, int] = (48, 64)) -> ImageAndMask:
    """A path and a plant on the ground, in one corner, so that turning the mask shows."""
    random = np.random.default_rng(seed)
    height, width = size
    mask = np.zeros(size, np.uint8)
    mask[height // 8 : height // 2, width // 16 : width // 2] = 1
    mask[height // 4 : height // 3 + seed % 5, width // 8 : width // 4] = 2
    mask[-2:] = 255
    image = np.array([(60, 60, 60), (200, 180, 120), (30, 160, 40), (60, 60, 60)], np.uint8)[mask % 255]
    return image + random.integers(0, 20, (height, width, 1), np.uint8), mask


@pytest.fixture
def twenty() -> Mapping[str, ImageAndMask]:
    return {f"p{number:02}": draw(number) for number in range(20)}


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Writes ``count`` good images, ``a``, ``b``, … as a folder dataset."""

    def make(count: int = 4, names: tuple[str, ...] | None = LABELS.names[:3], name: str = "mine") -> Path:
        root = tmp_path / name
        for folder in ("images", "masks", "splits"):
            (root / folder).mkdir(parents=True)
        letters = "abcdefghijklmnop"[:count]
        for number, letter in enumerate(letters):
            image, mask = draw(number)
            Image.fromarray(image).save(root / f"images/{letter}.png")
            (root / f"masks/{letter}.png").write_bytes(encode_mask(mask, LABELS))
        (root / "splits/train.txt").write_text("\n".join(letters[:-1]))
        (root / "splits/val.txt").write_text(letters[-1])
        if names:
            (root / "labels.toml").write_text(f"names = {list(names)}\n".replace("'", '"'))
        return root

    return make
