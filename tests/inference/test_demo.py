"""The demo: images that are there without a download, and what it makes of them."""

from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from atrous.data.files.images import ImageError
from atrous.grid import Grid
from atrous.inference import demo
from atrous.inference.demo import find_demo_images, run_demo
from atrous.labels import LabelSet
from atrous.models.base import Output


class Brightness(nn.Module):
    label_set = LabelSet(("background", "bright"))
    name = "brightness"
    output_stride = 8
    settings: ClassVar[dict[str, int]] = {}
    backbone = SimpleNamespace(in_channels=3)
    preprocessing = SimpleNamespace(dtype="uint8", ranges=())

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def preprocess(self, images: Tensor) -> Tensor:
        return images.float() / 255

    def main_output(self, images: Tensor) -> Output:
        light = images[..., ::8, ::8].mean(1, keepdim=True)
        return Output("main", torch.cat([1 - light, light], 1), Grid(8, 0))


def test_the_portrait_of_matplotlib_is_found() -> None:
    images = find_demo_images()
    assert images[0].name == "grace_hopper.jpg"
    assert all(image.is_file() for image in images)


def test_mask_overlay_and_sheet_of_every_image_are_written(tmp_path: Path) -> None:
    images = run_demo(Brightness(), tmp_path / "demo")  # type: ignore[arg-type]
    assert [image.image for image in images] == find_demo_images()
    for image in images:
        with Image.open(image.image) as opened, Image.open(image.mask) as mask:
            assert opened.size == mask.size
            width = opened.width
        with Image.open(image.overlay) as overlay, Image.open(image.sheet) as sheet:
            assert overlay.width == width
            assert sheet.width > 3 * width
        assert sum(image.fractions.values()) == pytest.approx(1)
        assert image.seconds > 0


def test_a_machine_without_images_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "IMAGES", {"no_such_package": ("x.jpg",), "numpy": ("no.jpg",)})
    with pytest.raises(ImageError, match="reinstall matplotlib"):
        run_demo(Brightness(), tmp_path)  # type: ignore[arg-type]
