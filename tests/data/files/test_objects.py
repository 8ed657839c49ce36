"""Masks that number objects: 16 bits, palettes and colours; one class, or class × divisor + object."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.doctor.check import check
from atrous.data.files.masks import MaskError
from atrous.data.opening import open_dataset
from atrous.errors import DatasetError

NUMBERS = np.array([[0, 1, 2, 300], [0, 255, 65535, 7]], np.uint16)
CELLS = 'names = ["background", "cell"]\nencoding = "objects"\n'


def folder(root: Path, mask: np.ndarray, toml: str = "") -> str:
    for name in ("images", "masks"):
        (root / name).mkdir(exist_ok=True)
    Image.new("RGB", (4, 2)).save(root / "images/a.png")
    Image.fromarray(mask).save(root / "masks/a.png")
    if toml:
        (root / "labels.toml").write_text(toml)
    return f"folder:{root}"


def test_every_object_of_16_bits_is_of_the_one_class(tmp_path: Path) -> None:
    data = open_dataset(folder(tmp_path, NUMBERS, CELLS), "all")
    assert data[0].mask.tolist() == [[0, 1, 1, 1], [0, 1, 1, 1]]
    ignoring = open_dataset(folder(tmp_path, NUMBERS, f"{CELLS}ignore = [65535]"), "all")
    assert ignoring[0].mask.tolist() == [[0, 1, 1, 1], [0, 1, 255, 1]]
    assert [finding.kind for finding in check(f"folder:{tmp_path}", ["all"]).findings] == []


def test_a_divisor_tells_the_class_of_each_object(tmp_path: Path) -> None:
    names = 'names = ["ground", "car", "person"]\nencoding = "objects"\n'
    numbers = np.array([[0, 1, 2000, 2999], [1, 1003, 9, 9]], np.uint16)
    spec = folder(tmp_path, numbers, f"{names}ignore = [9]\ndivisor = 1000")
    assert open_dataset(spec, "all")[0].mask.tolist() == [[0, 1, 2, 2], [1, 1, 255, 255]]
    small = np.array([[0, 1, 2, 9]] * 2, np.uint8)
    assert open_dataset(folder(tmp_path, small), "all")[0].mask[0].tolist() == [0, 1, 2, 255]
    with pytest.raises(MaskError, match="the value 2999 by the divisor 10 is class 299, expected at most 255"):
        open_dataset(folder(tmp_path, numbers, f"{names}divisor = 10"), "all")[0]
    with pytest.raises(DatasetError, match="3 class names, where masks that number objects have two"):
        open_dataset(folder(tmp_path, numbers, names), "all")
    with pytest.raises(DatasetError, match='divisor is for encoding = "objects"'):
        open_dataset(folder(tmp_path, numbers, names.replace("objects", "index") + "divisor = 10"), "all")


def test_colours_and_palettes_number_objects_too(tmp_path: Path) -> None:
    colors = np.zeros((2, 4, 3), np.uint8)
    colors[0, 1:] = [[0, 0, 1], [255, 255, 255], [9, 80, 7]]
    data = open_dataset(folder(tmp_path, colors, CELLS), "all")
    assert data[0].mask.tolist() == [[0, 1, 1, 1], [0] * 4]
    assert check(f"folder:{tmp_path}", ["all"]).counts("all").pixels[1] == 3
    palette = Image.fromarray(NUMBERS.clip(0, 200).astype(np.uint8))
    palette.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0] * 80)
    palette.save(tmp_path / "masks/a.png")
    assert open_dataset(f"folder:{tmp_path}", "all")[0].mask.tolist() == [[0, 1, 1, 1], [0, 1, 1, 1]]
    with pytest.raises(MaskError, match="colours, of which a divisor gives no classes"):
        open_dataset(folder(tmp_path, colors, f"{CELLS}divisor = 2"), "all")[0]


def test_undeclared_masks_of_objects_are_told_why(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match=r'If they number objects, .*declare encoding = "objects" in labels\.toml'):
        open_dataset(folder(tmp_path, NUMBERS), "all")
    for place, objects in enumerate((3, 9, 5)):
        Image.fromarray(np.arange(8, dtype=np.uint8).reshape(2, 4) * 0 + 1).save(tmp_path / f"images/{place}.png")
        Image.fromarray(np.resize(np.arange(objects + 1, dtype=np.uint8), (4, 4))).save(tmp_path / f"masks/{place}.png")
    for name in ("images", "masks"):
        (tmp_path / name / "a.png").unlink()
    (finding,) = [found for found in check(f"folder:{tmp_path}", ["all"]).findings if found.kind == "numbered-objects"]
    assert "they make 10 classes, and probably they number objects" in finding.found
    assert 'encoding = "objects"' in finding.fix
