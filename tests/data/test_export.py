"""Any dataset as a folder: the same images and labels under the same names, or nothing at all."""

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from atrous.cli import app
from atrous.data.doctor.check import check
from atrous.data.export import convert
from atrous.data.files.masks import MaskError
from atrous.data.opening import open_dataset
from atrous.errors import DatasetError
from atrous.label_sets import CITYSCAPES
from atrous.labels import IGNORE

IDS = np.array([[0, 7, 8, 11, 33, 6], [1, 2, 3, 29, 30, 26]], np.uint8)


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    """Cityscapes with an image in each of three splits."""
    for number, (split, masks) in enumerate((("train", "gtFine"), ("val", "gtFine"), ("train_extra", "gtCoarse"))):
        image = tmp_path / f"data/leftImg8bit/{split}/ulm/ulm_{number}_leftImg8bit.png"
        mask = tmp_path / f"data/{masks}/{split}/ulm/ulm_{number}_{masks}_labelIds.png"
        for file, values in ((image, np.full((2, 6, 3), number)), (mask, IDS)):
            file.parent.mkdir(parents=True)
            Image.fromarray(values.astype(np.uint8)).save(file)
    return tmp_path / "data"


def test_a_converted_dataset_is_the_same_dataset(streets: Path, tmp_path: Path) -> None:
    convert(f"cityscapes:{streets}", tmp_path / "new", ["train+train_extra", "val"])
    for split, name in (("train+train_extra", "train_train_extra"), ("val", "val")):
        before, after = open_dataset(f"cityscapes:{streets}", split), open_dataset(f"folder:{tmp_path / 'new'}", name)
        assert after.label_set == before.label_set == CITYSCAPES
        assert [sample.name for sample in after] == [s.name.replace("_leftImg8bit", "") for s in before]
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(old.image, new.image)
            np.testing.assert_array_equal(old.mask, new.mask)
    mask = Image.open(tmp_path / "new/masks/ulm_0.png")
    assert (mask.mode, mask.getpalette()[:3]) == ("P", [128, 64, 128])
    assert np.asarray(mask).tolist() == [[IGNORE, 0, 1, 2, 18, IGNORE], [IGNORE] * 5 + [13]]


def test_the_command_says_what_it_wrote_and_links_images(streets: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    result = CliRunner().invoke(app, ["data", "convert", f"cityscapes:{streets}", "--out", str(new), "--link"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"folder:{new} has train 1 pair, val 1 pair of 19 classes\n"
    assert (new / "images/ulm_1.png").samefile(streets / "leftImg8bit/val/ulm/ulm_1_leftImg8bit.png")
    assert not [finding for finding in check(f"folder:{new}").findings if finding.severity == "error"]
    again = CliRunner().invoke(app, ["data", "convert", f"cityscapes:{streets}", "--out", str(new)])
    assert (again.exit_code, again.stderr) == (2, f"atrous: {new} is there already; a copy needs a new folder\n")


def test_images_that_exif_turns_stay_so_and_their_masks_are_upright(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder()
    image, mask = np.zeros((48, 48, 3), np.uint8), np.zeros((48, 48), np.uint8)
    mask[:20, :30] = 1
    exif = Image.Exif()
    exif[0x0112] = 6
    (root / "images/b.png").unlink()
    Image.fromarray(image).save(root / "images/b.jpg", exif=exif)
    Image.fromarray(mask).save(root / "masks/b.png")
    with (root / "labels.toml").open("a") as file:
        file.write('orientation = "stored"\n')
    convert(f"folder:{root}", tmp_path / "new", ["train"])
    before, after = (open_dataset(f"folder:{place}", "train")[1] for place in (root, tmp_path / "new"))
    assert before.name == after.name == "b.jpg"
    np.testing.assert_array_equal(before.image, after.image)
    np.testing.assert_array_equal(after.mask, np.rot90(mask, -1))


def test_what_can_not_be_converted_leaves_nothing_behind(
    streets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, spec = tmp_path / "new", f"cityscapes:{streets}"
    with pytest.raises(DatasetError, match=r"has no split 'valid'"):
        convert(spec, new, ["train", "valid"])

    def no_link(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link", "a")

    monkeypatch.setattr(Path, "hardlink_to", no_link)
    with pytest.raises(DatasetError, match=r"can't be linked .*; leave --link out"):
        convert(spec, new, link=True)
    mask = streets / "gtFine/val/ulm/ulm_1_gtFine_labelIds.png"
    mask.write_bytes(b"")
    with pytest.raises(MaskError, match=r"ulm_1_gtFine_labelIds.png: not a readable image"):
        convert(spec, new)
    mask.unlink()
    with pytest.raises(DatasetError, match=r"1 of 2 images has no mask"):
        convert(spec, new)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_what_a_folder_can_not_hold_is_refused(tmp_path: Path) -> None:
    for folder in ("data/images", "data/hha", "segmentation"):
        (tmp_path / "nyud" / folder).mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"nyud-hha:.* has more than images with one mask each"):
        convert(f"nyud-hha:{tmp_path / 'nyud'}", tmp_path / "new")
