"""A model so small that tests of file handling take no time."""

from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from atrous.grid import Grid
from atrous.labels import LabelSet
from atrous.models.base import Output


class DarkOrLight(nn.Module):
    """Class 1 where an image is light; fails for images 13 pixels wide."""

    label_set = LabelSet(("dark", "light"), ((0, 0, 0), (250, 200, 0)))
    name = "dark_or_light"
    output_stride = 1
    settings: ClassVar[dict[str, str]] = {}
    backbone = SimpleNamespace(in_channels=3)
    preprocessing = SimpleNamespace(dtype="uint8", ranges=())
    merges = ()

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def preprocess(self, images: Tensor) -> Tensor:
        return images.float() / 255

    def main_output(self, images: Tensor) -> Output:
        if images.shape[-1] == 13:
            raise RuntimeError("an unlucky width")
        light = images.mean(1, keepdim=True)
        return Output("main", torch.cat([1 - light, light], 1), Grid(1, 0))


def image(path: Path, value: int = 255, size: tuple[int, int] = (8, 6)) -> Path:
    """Write an image of one grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value,) * 3).save(path)
    return path


def tree(folder: Path) -> list[str]:
    """All files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
