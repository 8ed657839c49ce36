"""Cityscapes and ADE20K: small files in exactly the official layouts, and what is wrong with others."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.doctor.check import check, quick_check
from atrous.data.files.masks import MaskError
from atrous.data.opening import open_dataset
from atrous.data.sources.cityscapes import LABEL_IDS
from atrous.errors import DatasetError
from atrous.label_sets import ADE20K, CITYSCAPES
from atrous.labels import IGNORE

IDS = np.array([[0, 7, 8, 11, 33, 6], [1, 2, 3, 29, 30, 255]], np.uint8)


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def kinds(findings: object) -> set[str]:
    return {finding.kind for finding in findings if finding.severity == "error"}  # type: ignore[attr-defined]


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    for split, city, masks in (
        ("train", "aachen", "gtFine"),
        ("train", "ulm", "gtFine"),
        ("val", "munster", "gtFine"),
        ("train_extra", "erfurt", "gtCoarse"),
    ):
        name = f"{city}_000000_000019"
        red = np.full((2, 6, 3), len(city) + 90, np.uint8)
        save(tmp_path / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png", red)
        save(tmp_path / f"{masks}/{split}/{city}/{name}_{masks}_labelIds.png", IDS)
    save(tmp_path / "leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png", red)
    return tmp_path


def test_cityscapes_ids_become_train_ids_and_the_others_255(cityscapes: Path) -> None:
    data = open_dataset(f"cityscapes:{cityscapes}", "train")
    assert (len(data), data.label_set, data.label_set.colors[18]) == (2, CITYSCAPES, (119, 11, 32))
    sample = data[1]
    assert sample.name == "ulm_000000_000019_leftImg8bit.png"
    assert sample.mask.tolist() == [[IGNORE, 0, 1, 2, 18, IGNORE], [IGNORE] * 6]


def test_a_value_that_is_no_id_of_cityscapes_is_found(cityscapes: Path) -> None:
    mask = cityscapes / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png"
    save(mask, np.where(IDS == 8, 77, IDS).astype(np.uint8))
    with pytest.raises(MaskError, match=r"ulm_.*: value\(s\) 77 belong to no class; expected 0–33 or 255\."):
        open_dataset(f"cityscapes:{cityscapes}", "train")[1]
    (finding,) = [f for f in check(f"cityscapes:{cityscapes}").findings if f.kind == "outside-classes"]
    assert (finding.severity, str(*finding.items)) == ("error", f"{mask}: value 77 in 1 pixels")


def test_cityscapes_extra_images_have_coarse_masks(cityscapes: Path) -> None:
    assert len(open_dataset(f"cityscapes:{cityscapes}", "train+train_extra")) == 3


def test_cityscapes_takes_train_ids_where_there_is_nothing_else(cityscapes: Path) -> None:
    for mask in cityscapes.glob("gtFine/*/*/*"):
        save(mask.with_name(mask.name.replace("labelIds", "labelTrainIds")), np.array([[0, 18, 255] * 2] * 2, np.uint8))
        mask.unlink()
    assert open_dataset(f"cityscapes:{cityscapes}", "val")[0].mask[0].tolist() == [0, 18, IGNORE] * 2


def test_cityscapes_draws_polygons_where_there_are_no_pngs(cityscapes: Path) -> None:
    square = [[0, 0], [2, 0], [2, 1], [0, 1]]
    objects = [
        {"label": "road", "polygon": [[0, 0], [5, 0], [5, 1], [0, 1]]},
        {"label": "cargroup", "polygon": square},
        {"label": "license plate", "polygon": square},
        {"label": "building", "polygon": square, "deleted": 1},
        {"label": "polegroup", "polygon": [[5, 0], [5, 1], [5, 1]]},
    ]
    for mask in [*cityscapes.glob("gtFine/*/*/*"), *cityscapes.glob("gtCoarse/*/*/*")]:
        polygons = mask.with_name(mask.name.replace("labelIds.png", "polygons.json"))
        polygons.write_text(json.dumps({"imgHeight": 2, "imgWidth": 6, "objects": objects}))
        mask.unlink()
    for split in ("train", "train_extra"):
        mask = open_dataset(f"cityscapes:{cityscapes}", split)[0].mask
        assert mask.tolist() == [[13, 13, 13, 0, 0, IGNORE]] * 2
    assert not kinds(check(f"cityscapes:{cityscapes}").findings) - {"shared-image"}


def test_cityscapes_test_images_have_no_labels(cityscapes: Path) -> None:
    with pytest.raises(DatasetError, match=r"no labels of .* images; evaluate on val, or predict them: atrous pre"):
        open_dataset(f"cityscapes:{cityscapes}", "test")
    checkup = check(f"cityscapes:{cityscapes}")
    assert list(checkup.lists) == ["train", "val"]
    assert checkup.others() == ["train_extra"]
    assert not kinds(checkup.findings) - {"shared-image"}


def test_cityscapes_without_masks_or_of_another_split_says_which(cityscapes: Path) -> None:
    (cityscapes / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of 2 images has no mask: .*ulm_000000_000019_gtFine_labelIds.png"):
        open_dataset(f"cityscapes:{cityscapes}", "train")
    with pytest.raises(DatasetError, match=r"has no split 'trian' \(did you mean 'train'\?\); available .*: train, "):
        open_dataset(f"cityscapes:{cityscapes}", "trian")
    (finding,) = [f for f in quick_check(f"cityscapes:{cityscapes}", ["valid"]) if f.kind == "no-split"]
    assert finding.fix == f"correct the name, or add {cityscapes / 'leftImg8bit/valid'}"


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    root = tmp_path / "ADEChallengeData2016"
    for split, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        save(root / f"images/{split}/{name}.jpg", np.full((2, 3, 3), len(split), np.uint8))
        save(root / f"annotations/{split}/{name}.png", np.array([[0, 1, 150], [13, 21, 22]], np.uint8))
    return root


@pytest.mark.parametrize("split", ["val", "validation"])
def test_ade20k_takes_one_from_its_labels_and_zero_is_255(ade: Path, split: str) -> None:
    data = open_dataset(f"ade20k:{ade.parent}", split)
    assert (data.label_set, len(data), data[0].name) == (ADE20K, 1, "ADE_val_00000001.jpg")
    assert data[0].mask.tolist() == [[IGNORE, 0, 149], [12, 20, 21]]
    assert [ADE20K.names[label] for label in (0, 12, 20, 149)] == ["wall", "person", "car", "flag"]


def test_the_values_of_ade20k_are_told_as_a_range(ade: Path) -> None:
    save(ade / "annotations/validation/ADE_val_00000001.png", np.full((2, 3), 151, np.uint8))
    with pytest.raises(MaskError, match=r"value\(s\) 151 belong to no class; expected 0–150 or 255\."):
        open_dataset(f"ade20k:{ade}", "val")[0]


def test_the_doctor_looks_at_both_splits_of_ade20k(ade: Path) -> None:
    (ade / "images/training/ADE_train_00000001.jpg").rename(ade / "images/training/other.jpg")
    checkup = check(f"ade20k:{ade}")
    assert list(checkup.lists) == ["train", "val"]
    assert kinds(checkup.findings) == {"missing-mask"}
    assert [f.files for f in checkup.findings if f.kind == "extra-mask"] == [
        (str(ade / "annotations/training/ADE_train_00000001.png"),)
    ]


@pytest.mark.parametrize("kind", ["cityscapes", "ade20k"])
def test_another_place_says_what_was_expected(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DatasetError, match=rf"{tmp_path} is not an? (Cityscapes|ADE20K) dataset.*: expected"):
        open_dataset(f"{kind}:{tmp_path}", "train")


def test_cityscapes_table_is_complete() -> None:
    assert len(LABEL_IDS) == len(CITYSCAPES) == 19


@pytest.mark.shared
def test_ade20k_names_are_the_first_published_ones(shared: Path) -> None:
    lines = (shared / "lists/ade20k/objectInfo150.txt").read_text().splitlines()[1:]
    assert tuple(line.split("\t")[4].split(",")[0].strip() for line in lines) == ADE20K.names


@pytest.mark.shared
def test_published_samples_are_read_in_their_layout(shared: Path, tmp_path: Path) -> None:
    for folder, suffix in (("images", ".jpg"), ("annotations", ".png")):
        (tmp_path / folder / "validation").mkdir(parents=True)
        for file in (shared / f"reference/samples/ade20k/{folder}").glob(f"*{suffix}"):
            (tmp_path / folder / "validation" / file.name).write_bytes(file.read_bytes())
    data = open_dataset(f"ade20k:{tmp_path}", "val")
    shown = [{ADE20K.names[label] for label in np.unique(sample.mask) if label != IGNORE} for sample in data]
    assert len(shown) == 3
    assert all({"wall", "building", "sky"} <= names for names in shown)
    assert {"tree", "road", "grass", "plant"} < shown[0]
