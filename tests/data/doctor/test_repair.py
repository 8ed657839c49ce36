"""The mended copy: what is certain is put right, the rest is left out and named, the original stays as it is."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.doctor.check import check
from atrous.data.doctor.repair import RepairedCopy, repair
from atrous.data.files.images import read_image
from atrous.data.opening import open_dataset
from atrous.errors import DatasetError
from atrous.label_sets import CAMVID, VOC
from atrous.labels import LabelSet, encode_mask
from studies.mask_doctor import spoil

from ..conftest import LABELS, ImageAndMask, MakeFolder, draw


def fix(root: Path, copy: Path, *splits: str) -> RepairedCopy:
    return repair(check(f"folder:{root}", splits), copy)


def fingerprint(root: Path) -> dict[str, str]:
    files = sorted(file for file in root.rglob("*") if file.is_file())
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def masks(root: Path, split: str) -> dict[str, np.ndarray]:
    data = open_dataset(f"folder:{root}", split)
    return {Path(data[index].name).stem: data[index].mask for index in range(len(data))}


def test_a_folder_spoilt_in_every_way_becomes_healthy(twenty: Mapping[str, ImageAndMask], tmp_path: Path) -> None:
    root, copy = tmp_path / "spoilt", tmp_path / "copies/mended"
    ways = spoil(twenty, LABELS, root)
    before = fingerprint(root)
    steps: list[tuple[int, int]] = []
    mended = repair(check(f"folder:{root}"), copy, lambda done, total: steps.append((done, total)))
    assert fingerprint(root) == before
    assert check(f"folder:{copy}").healthy
    kept = {ways[way] for way in ("binary", "rgb", "stored", "upright", "half", "good")}
    assert (set(masks(copy, "train")), set(masks(copy, "val"))) == (kept, {"again", ways["both"], ways["other"]})
    for name, mask in masks(copy, "train").items():
        if name != ways["binary"]:
            np.testing.assert_array_equal(mask, twenty[name][1])
    assert read_image(copy / f"images/{ways['half']}.png").shape == twenty[ways["half"]][0].shape
    left_out = {Path(item.name).stem for item in mended.left_out}
    spoilt = {ways[way] for way in "missing shared size far strange jpeg jpg outside void image mask".split()}
    assert left_out == spoilt | {"not-there"}
    files = {step: {Path(file).stem for file in done} for step, done in mended.done.items()}
    assert files == {
        "mask: colours written as class numbers": {ways["rgb"]},
        "mask: turned as its image is": {ways["stored"], ways["half"]},
        "image: turned upright": {ways["stored"], ways["half"], ways["upright"]},
        "taken out of train, being in val": {ways["twin"], ways["both"]},
    }
    assert mended.splits == {"train": 7, "val": 3}
    assert steps[-1] == (9, 9)
    said = mended.text()
    assert "train 7 pairs, val 3 pairs" in said
    assert "left out: 13 pairs" in said


def test_images_that_need_nothing_are_the_same_files(make_folder: MakeFolder, tmp_path: Path) -> None:
    root, copy = make_folder(), tmp_path / "copy"
    mended = fix(root, copy)
    assert (mended.done, mended.left_out) == ({}, ())
    for name in "abcd":
        assert (copy / f"images/{name}.png").read_bytes() == (root / f"images/{name}.png").read_bytes()
    assert check(f"folder:{copy}").findings == ()
    assert masks(copy, "val").keys() == {"d"}


@pytest.mark.parametrize("names", [None, ("ground", "path")])
@pytest.mark.parametrize("foreground", [128, 255])
def test_masks_of_two_values_become_two_classes(
    make_folder: MakeFolder, tmp_path: Path, names: tuple[str, ...] | None, foreground: int
) -> None:
    root = make_folder(names=names)
    for file in (root / "masks").iterdir():
        Image.fromarray(np.where(draw(0)[1] % 255 > 0, foreground, 0).astype(np.uint8)).save(file)
    fix(root, tmp_path / "copy")
    checkup = check(f"folder:{tmp_path / 'copy'}")
    assert checkup.findings == ()
    assert checkup.form.label_set.names == (names or ("background", "foreground"))
    np.testing.assert_array_equal(masks(tmp_path / "copy", "val")["d"], draw(0)[1] % 255 > 0)


def test_a_mask_of_two_values_among_proper_ones_becomes_classes(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(names=("ground", "path"))
    for file in (root / "masks").iterdir():
        Image.fromarray((draw(0)[1] % 255 > 0).astype(np.uint8)).save(file)
    Image.fromarray(np.where(draw(0)[1] % 255 > 0, 128, 0).astype(np.uint8)).save(root / "masks/b.png")
    mended = fix(root, tmp_path / "copy")
    assert mended.done == {"mask: 128 written as 1": [str(root / "masks/b.png")]}
    np.testing.assert_array_equal(masks(tmp_path / "copy", "train")["b"], draw(0)[1] % 255 > 0)


def test_values_as_greys_of_a_coloured_image_become_classes(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    for name, mode in (("a", "RGB"), ("b", "RGBA"), ("c", "LA")):
        Image.fromarray(draw(0)[1]).convert(mode).save(root / f"masks/{name}.png")
    fix(root, tmp_path / "copy")
    for mask in masks(tmp_path / "copy", "train").values():
        np.testing.assert_array_equal(mask, draw(0)[1])


def test_transparent_and_black_and_white_masks_are_not_guessed(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    rgba = Image.fromarray(draw(0)[1]).convert("RGBA")
    rgba.putpixel((0, 0), (0, 0, 0, 0))
    rgba.save(root / "masks/a.png")
    Image.fromarray(np.where(draw(0)[1] == 1, 255, 0).astype(np.uint8)).convert("RGB").save(root / "masks/b.png")
    mended = fix(root, tmp_path / "copy")
    assert [Path(item.name).stem for item in mended.left_out] == ["a", "b"]


def test_a_split_that_loses_every_image_is_not_listed(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    (root / "masks/d.png").unlink()
    assert fix(root, tmp_path / "copy").splits == {"train": 3}
    assert check(f"folder:{tmp_path / 'copy'}").healthy


def test_a_copy_of_nothing_is_refused(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    for mask in (root / "masks").iterdir():
        mask.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"nothing of folder:.* can be repaired"):
        fix(root, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_classes_that_nobody_can_know_must_be_said_first(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    (root / "labels.toml").write_text("names = 3")
    with pytest.raises(DatasetError, match=r"labels\.toml: names is 3.*correct that first"):
        fix(root, tmp_path / "copy")


@pytest.mark.parametrize("place", ["mine", "mine/copy", ".", "full", "file"])
def test_a_copy_never_touches_what_is_there(make_folder: MakeFolder, tmp_path: Path, place: str) -> None:
    root = make_folder()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a.txt").touch()
    (tmp_path / "file").touch()
    before = fingerprint(tmp_path)
    with pytest.raises(DatasetError, match=r"needs a (new folder|folder of its own)"):
        fix(root, tmp_path / place)
    assert fingerprint(tmp_path) == before


def test_a_failing_copy_leaves_nothing(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    checkup = check(f"folder:{root}")
    (root / "images/b.png").unlink()
    with pytest.raises(ValueError, match=r"b\.png"):
        repair(checkup, tmp_path / "copies/mine")
    assert list((tmp_path / "copies").iterdir()) == []


def test_joined_splits_become_one(make_folder: MakeFolder, tmp_path: Path) -> None:
    mended = fix(make_folder(), tmp_path / "copy", "train+val")
    assert mended.splits == {"train_val": 4}
    assert len(masks(tmp_path / "copy", "train_val")) == 4


def publish(root: Path, folders: tuple[str, str, str], label_set: LabelSet, names: Mapping[str, str]) -> None:
    """Write an image and a mask for each split, and a list that names one more."""
    images, annotations, lists = folders
    for split, name in names.items():
        image, mask = draw(len(split))
        for folder in (images, annotations, lists):
            (root / folder.format(split)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / images.format(split) / f"{name}.jpg")
        (root / annotations.format(split) / f"{name}.png").write_bytes(encode_mask(mask, label_set))
        with (root / lists / f"{split}.txt").open("a") as file:
            file.write(f"{name}\nabsent\n")


def test_voc_and_camvid_become_folders(tmp_path: Path) -> None:
    voc, camvid = tmp_path / "voc", tmp_path / "camvid"
    places = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
    publish(voc, places, VOC, {"train": "x", "val": "y"})
    publish(camvid, ("{}", "{}annot", "."), CAMVID, {"train": "x", "val": "x"})
    for spec, labels, names in ((f"voc:{voc}", VOC, ["x", "y"]), (f"camvid:{camvid}", CAMVID, ["x", "val/x"])):
        copy = tmp_path / f"copy of {labels.names[0]}"
        mended = repair(check(spec), copy)
        assert {Path(item.name).stem for item in mended.left_out} == {"absent"}
        assert check(f"folder:{copy}").healthy
        assert [(copy / f"splits/{split}.txt").read_text().strip() for split in ("train", "val")] == names
        assert open_dataset(f"folder:{copy}", "val").label_set == labels


@pytest.mark.parametrize("names", [LABELS.names[:3], None])
@pytest.mark.parametrize("addition", ["_L", "_mask", "-gt", ".label"])
def test_masks_with_an_addition_to_their_names_are_taken(
    make_folder: MakeFolder, tmp_path: Path, addition: str, names: tuple[str, ...] | None
) -> None:
    root = make_folder(names=names)
    for mask in list((root / "masks").iterdir()):
        mask.rename(mask.with_name(f"{mask.stem}{addition}.png"))
    result = repair(check(f"folder:{root}"), tmp_path / "copy")
    assert [len(files) for step, files in result.done.items() if "with an addition" in step] == [4]
    assert result.left_out == ()
    copy = open_dataset(f"folder:{tmp_path / 'copy'}", "train")
    np.testing.assert_array_equal(copy[1].mask, draw(1)[1])


@pytest.mark.parametrize(("factor", "shift"), [(2, 0), (2, 1), (3, 0), (4, 3)])
def test_smaller_masks_are_enlarged_on_request(
    make_folder: MakeFolder, tmp_path: Path, factor: int, shift: int
) -> None:
    root = make_folder()
    image, mask = draw(0, (48 + shift, 64 + shift))
    Image.fromarray(image).save(root / "images/a.png")
    (root / "masks/a.png").write_bytes(encode_mask(mask[::factor, ::factor], LABELS))
    assert len(fix(root, tmp_path / "copy").left_out) == 1
    result = repair(check(f"folder:{root}"), tmp_path / "larger", enlarge_masks=True)
    assert result.left_out == ()
    enlarged = open_dataset(f"folder:{tmp_path / 'larger'}", "train")[0].mask
    assert enlarged.shape == mask.shape
    assert (enlarged == mask).mean() > 0.85  # a small mask, of which edges are a large part
    assert set(np.unique(enlarged)) <= {*np.unique(mask)}


def test_masks_of_another_shape_are_not_enlarged(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    (root / "masks/a.png").write_bytes(encode_mask(draw(0, (30, 31))[1], LABELS))
    assert len(repair(check(f"folder:{root}"), tmp_path / "copy", enlarge_masks=True).left_out) == 1
