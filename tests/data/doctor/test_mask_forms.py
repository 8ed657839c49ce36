"""Masks that would be read wrongly without a word: one class, 255 as a class, and palettes in another order."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.doctor.check import check, quick_check
from atrous.data.doctor.repair import repair
from atrous.data.findings import Finding
from atrous.data.opening import open_dataset
from atrous.errors import DatasetError, InputError

from ..conftest import LABELS, MakeFolder, draw

Redraw = Callable[[np.ndarray], np.ndarray]


def redraw(root: Path, change: Redraw) -> None:
    """Replace the masks by grey ones."""
    for file in (root / "masks").iterdir():
        with Image.open(file) as mask:
            drawn = change(np.array(mask))
        Image.fromarray(drawn.astype(np.uint8)).save(file)


def found(root: Path, kind: str) -> Finding:
    (finding,) = [finding for finding in check(f"folder:{root}").findings if finding.kind == kind]
    return finding


@pytest.mark.parametrize("value", [1, 7, 255])
def test_one_name_is_refused_explained_and_repaired(make_folder: MakeFolder, tmp_path: Path, value: int) -> None:
    root = make_folder(names=("dog",))
    redraw(root, lambda mask: np.where(mask == 1, value, 0))
    with pytest.raises(InputError, match=r'name the background too: names = \["background", "dog"\]'):
        open_dataset(f"folder:{root}", "train")
    finding = found(root, "one-class")
    assert finding.severity == "error"
    assert 'names = ["background", "dog"]' in finding.fix
    assert ("values" in finding.fix) == (value != 1)
    repair(check(f"folder:{root}"), tmp_path / "copy")
    copy = check(f"folder:{tmp_path / 'copy'}")
    assert copy.healthy
    assert copy.form.label_set.names == ("background", "dog")
    (name,) = {Path(file).stem for file in (tmp_path / "copy/splits/val.txt").read_text().split()}
    number = "abcd".index(name)
    np.testing.assert_array_equal(open_dataset(f"folder:{tmp_path / 'copy'}", "val")[0].mask, draw(number)[1] == 1)


@pytest.mark.parametrize("middle", [127, 128])
@pytest.mark.parametrize("names", [None, ("a", "b", "c")])
def test_255_in_regions_is_asked_about_and_never_made_void(
    make_folder: MakeFolder, tmp_path: Path, middle: int, names: tuple[str, ...] | None
) -> None:
    root = make_folder(names=names)
    redraw(root, lambda mask: np.select([mask == 1, mask == 2], [255, middle], 0))
    finding = found(root, "binary-mask" if names else "unclear-255")
    assert f"values = [0, {middle}, 255]" in finding.fix
    if names:
        return
    assert "in regions, as a class is" in finding.found
    assert f"values = [0, {middle}]" in finding.fix
    with pytest.raises(DatasetError, match="255 may be a class"):
        repair(check(f"folder:{root}"), tmp_path / "copy")


def test_255_in_regions_beside_a_class_far_away_is_not_repaired(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(names=("background", "dog"))
    redraw(root, lambda mask: np.select([mask == 1, mask == 2], [255, 127], 0))
    assert "if it is a class, name it too: values = [0, 127, 255]" in found(root, "binary-mask").fix
    with pytest.raises(DatasetError, match="nothing of"):
        repair(check(f"folder:{root}"), tmp_path / "copy")


def test_large_regions_of_255_beside_class_numbers_are_a_warning(make_folder: MakeFolder) -> None:
    root = make_folder(names=None)
    redraw(root, lambda mask: np.select([mask == 0, mask == 1], [255, 1], 0))
    finding = found(root, "unclear-255")
    assert finding.severity == "warning"
    assert "values = [0, 1, 255]" in finding.fix
    assert open_dataset(f"folder:{root}", "train").label_set.names == ("class 0", "class 1")


def test_masks_of_1_bit_are_read_as_the_black_and_white_ones_beside_them(make_folder: MakeFolder) -> None:
    root = make_folder(names=None)
    redraw(root, lambda mask: np.where(mask == 1, 255, 0))
    Image.fromarray(draw(0)[1] == 1).save(root / "masks/a.png")
    assert "values = [0, 255]" in found(root, "binary-mask").fix
    (root / "labels.toml").write_text('names = ["ground", "path"]\nvalues = [0, 255]\n')
    assert check(f"folder:{root}").findings == ()
    np.testing.assert_array_equal(open_dataset(f"folder:{root}", "train")[0].mask, draw(0)[1] == 1)


def sort_palettes(root: Path, suffix: str) -> None:
    """Save masks as GIF does: the values of each file numbered anew, with the same colours; some lack a class."""
    for number, file in enumerate(sorted((root / "masks").iterdir())):
        mask = draw(number)[1]
        if number % 2:
            mask[mask == 1] = 0
        values, numbered = np.unique(mask, return_inverse=True)
        image = Image.fromarray(numbered.reshape(mask.shape).astype(np.uint8))
        image.putpalette(LABELS.palette()[values].tobytes())
        file.unlink()
        image.save(file.with_suffix(suffix), **({"optimize": False} if suffix == ".gif" else {}))


@pytest.mark.parametrize("suffix", [".gif", ".png"])
@pytest.mark.parametrize("colors", [True, False])
def test_palettes_in_another_order_are_read_by_their_colours(
    make_folder: MakeFolder, tmp_path: Path, suffix: str, colors: bool
) -> None:
    root = make_folder()
    if colors:
        with (root / "labels.toml").open("a") as file:
            file.write(f"colors = {[list(color) for color in LABELS.colors[:3]]}\n")
    sort_palettes(root, suffix)
    finding = found(root, "palette-order")
    assert finding.severity == "error"
    assert "the order of its colours is not that of the classes" in finding.items[0].detail
    assert [f.kind for f in quick_check(f"folder:{root}", ["train", "val"]) if f.severity == "error"] == [finding.kind]
    repair(check(f"folder:{root}"), tmp_path / "copy")
    copy = open_dataset(f"folder:{tmp_path / 'copy'}", "train+val")
    for number in range(4):
        expected = draw(number)[1]
        if number % 2:
            expected[expected == 1] = 0
        np.testing.assert_array_equal(copy[number].mask, expected)


def test_palettes_that_disagree_without_classes_ask_for_colours(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(names=None)
    sort_palettes(root, ".png")
    with pytest.raises(DatasetError, match='encoding = "rgb"'):
        open_dataset(f"folder:{root}", "train")
    assert "colors = [[0, 0, 0], [128, 0, 0], [0, 128, 0]]" in found(root, "palette-order").fix
    repair(check(f"folder:{root}"), tmp_path / "copy")
    np.testing.assert_array_equal(open_dataset(f"folder:{tmp_path / 'copy'}", "train")[0].mask, draw(0)[1])


@pytest.mark.parametrize("suffix", [".gif", ".png"])
def test_palettes_that_disagree_are_refused_by_whoever_opens_the_dataset(make_folder: MakeFolder, suffix: str) -> None:
    root = make_folder()
    sort_palettes(root, suffix)
    with pytest.raises(
        DatasetError, match=r"(?s)labels\.toml: .* same colours in another order in each file.*encoding"
    ):
        open_dataset(f"folder:{root}", "val")
    colors = [list(color) for color in LABELS.colors[:3]]
    (root / "labels.toml").write_text(f'names = ["a", "b", "c"]\ncolors = {colors}\nencoding = "rgb"\n')
    np.testing.assert_array_equal(open_dataset(f"folder:{root}", "train+val")[0].mask, draw(0)[1])


def test_palettes_of_any_colours_are_no_finding(make_folder: MakeFolder) -> None:
    root = make_folder()
    for number, file in enumerate(sorted((root / "masks").iterdir())):
        image = Image.fromarray(draw(number)[1])
        image.putpalette(np.random.default_rng(number).integers(0, 256, 768, np.uint8).tobytes())
        image.save(file)
    assert check(f"folder:{root}").findings == ()
    np.testing.assert_array_equal(open_dataset(f"folder:{root}", "train+val")[0].mask, draw(0)[1])


def test_lossy_masks_are_left_out_of_the_copy(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    with Image.open(root / "masks/a.png") as mask:
        Image.fromarray(np.array(mask)).save(root / "masks/a.tif", compression="jpeg")
    (root / "masks/a.png").unlink()
    assert "JPEG in TIFF" in str(found(root, "lossy-mask").items[0])
    (left_out,) = repair(check(f"folder:{root}"), tmp_path / "copy").left_out
    assert left_out.name.endswith("a.png")
