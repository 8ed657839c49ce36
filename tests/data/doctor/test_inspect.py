"""Facts about a pair: the headers tell what the pixels tell."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.doctor.inspect import ImageFacts, MaskFacts, glance, look
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskFile

from ..conftest import LABELS, draw


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8, 9])
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp", "mpo"])
def test_headers_tell_size_and_orientation(tmp_path: Path, orientation: int, kind: str) -> None:
    image, mask = draw(0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(tmp_path / f"a.{kind}", exif=exif)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    glanced, looked = (
        see.image
        for see in (
            glance(tmp_path / f"a.{kind}", MaskFile(tmp_path / "mask.png")),
            look(tmp_path / f"a.{kind}", MaskFile(tmp_path / "mask.png"), MaskForm(LABELS)),
        )
    )
    assert isinstance(glanced, ImageFacts)
    assert isinstance(looked, ImageFacts)
    assert (glanced.size, glanced.orientation) == (looked.size, looked.orientation)
    assert looked.orientation == (orientation if orientation < 9 else 1)
    assert looked.size == ((64, 48) if 5 <= orientation <= 8 else (48, 64))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16", "CMYK"])
def test_headers_tell_the_mode_of_a_mask(tmp_path: Path, mode: str) -> None:
    image, mask = draw(0)
    Image.fromarray(image).save(tmp_path / "a.jpg")
    labels_image = Image.fromarray(mask)
    (Image.fromarray(mask.astype(np.uint16)) if mode == "I;16" else labels_image.convert(mode)).save(tmp_path / "a.tif")
    glanced, looked = (
        see.mask
        for see in (
            glance(tmp_path / "a.jpg", MaskFile(tmp_path / "a.tif")),
            look(tmp_path / "a.jpg", MaskFile(tmp_path / "a.tif"), MaskForm(LABELS)),
        )
    )
    assert isinstance(glanced, MaskFacts)
    assert isinstance(looked, MaskFacts)
    assert (glanced.size, glanced.mode, glanced.lossy) == (looked.size, looked.mode, looked.lossy)
    assert looked.coloured == (mode in ("RGB", "RGBA", "LA", "CMYK"))
    assert (looked.colors is None) != looked.coloured


def test_headers_say_why_a_file_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "mask.png").write_bytes(b"<html>")
    seen = glance(tmp_path / "a.jpg", MaskFile(tmp_path / "mask.png"))
    assert isinstance(seen.image, str)
    assert isinstance(seen.mask, str)
    assert seen.image.startswith("an empty file")
    assert seen.mask.startswith("not a readable image")
