"""Masks in unusual modes are read, or the message says what they are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskError, MaskFile, read_mask
from atrous.labels import LabelSet

LABELS = LabelSet(("a", "b", "c"), ((0, 0, 0), (255, 0, 0), (0, 255, 0)))
MASK = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
COLORS = np.array(LABELS.colors, np.uint8)[MASK]


def read(tmp_path: Path, image: Image.Image, form: MaskForm, **options: object) -> np.ndarray:
    image.save(tmp_path / "mask.png", **options)
    return read_mask(MaskFile(tmp_path / "mask.png"), form)


def test_transparent_colours_and_palettes_are_read(tmp_path: Path) -> None:
    alpha = (MASK > 0).astype(np.uint8)[..., None] * 255
    image = Image.fromarray(np.dstack([COLORS, alpha]))
    np.testing.assert_array_equal(read(tmp_path, image, MaskForm(LABELS, "rgb")), MASK)
    palette = Image.fromarray(MASK)
    palette.putpalette(np.array(LABELS.colors, np.uint8).tobytes())
    np.testing.assert_array_equal(read(tmp_path, palette, MaskForm(LABELS), transparency=0), MASK)


def test_sixteen_bits_of_classes_and_of_black_and_white_are_read(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, Image.fromarray(MASK.astype(np.uint16)), MaskForm(LABELS)), MASK)
    white = Image.fromarray((MASK > 0).astype(np.uint16) * 65535)
    two = MaskForm(LabelSet(("ground", "road")), values=(0, 255))
    np.testing.assert_array_equal(read(tmp_path, white, two), MASK > 0)


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (MASK.astype(np.uint16) * 1000 + 7, "number objects, as Cityscapes' instanceIds do .*labelIds"),
        (MASK[..., None].repeat(3, 2), "mode RGB, .*its colours are greys: `atrous data check SPEC --fix NEW_FOLDER`"),
        (COLORS, 'if its colours are the classes, declare encoding = "rgb"'),
    ],
)
def test_others_say_what_they_are(tmp_path: Path, pixels: np.ndarray, says: str) -> None:
    with pytest.raises(MaskError, match=says):
        read(tmp_path, Image.fromarray(pixels), MaskForm(LABELS))
