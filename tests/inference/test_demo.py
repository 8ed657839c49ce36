"""The demo: photos that are there without a download, and what it makes of them."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from atrous.data.files.images import ImageError
from atrous.grid import Grid
from atrous.inference import demo
from atrous.inference.demo import find_demo_photos, run_demo
from atrous.labels import LabelSet


class Brightness(nn.Module):
    labels = LabelSet(("background", "bright"))
    name = "brightness"
    output_stride = 8
    backbone = SimpleNamespace(in_channels=3)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def preprocess(self, photos: Tensor) -> Tensor:
        return photos.float() / 255

    def scores(self, images: Tensor) -> tuple[Tensor, Grid]:
        light = images[..., ::8, ::8].mean(1, keepdim=True)
        return torch.cat([1 - light, light], 1), Grid(8, 0)


def test_the_portrait_of_matplotlib_is_found() -> None:
    photos = find_demo_photos()
    assert photos[0].name == "grace_hopper.jpg"
    assert all(photo.is_file() for photo in photos)


def test_mask_overlay_and_sheet_of_every_photo_are_written(tmp_path: Path) -> None:
    pictures = run_demo(Brightness(), tmp_path / "demo")  # type: ignore[arg-type]
    assert [picture.photo for picture in pictures] == find_demo_photos()
    for picture in pictures:
        with Image.open(picture.photo) as photo, Image.open(picture.mask) as mask:
            assert photo.size == mask.size
            width = photo.width
        with Image.open(picture.overlay) as overlay, Image.open(picture.sheet) as sheet:
            assert overlay.width == width
            assert sheet.width > 3 * width
        assert sum(picture.fractions.values()) == pytest.approx(1)
        assert picture.seconds > 0


def test_a_machine_without_photos_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PHOTOS", {"no_such_package": ("x.jpg",), "numpy": ("no.jpg",)})
    with pytest.raises(ImageError, match="reinstall matplotlib"):
        run_demo(Brightness(), tmp_path)  # type: ignore[arg-type]
