"""Splits are drawn so that each class is in all of them, and what belongs together stays together."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.alike import nearly_the_same
from atrous.data.doctor.inspect import look_at_arrays
from atrous.data.opening import open_dataset
from atrous.data.splitting import draw_splits
from atrous.errors import DatasetError, InputError


def scene(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """30 images of 10 scenes; class 1 in every scene, class 2 in scenes 0 to 4, class 3 in scenes 0 and 1."""
    for name in ("images", "masks"):
        (tmp_path / "mine" / name).mkdir(parents=True)
    (tmp_path / "mine/labels.toml").write_text('names = ["ground", "a", "b", "c"]')
    for number in range(30):
        mask = np.zeros((48, 64), np.uint8)
        for label, most in ((1, 10), (2, 5), (3, 2)):
            mask[label * 8 : label * 8 + 4] = label * (number // 3 < most)
        Image.fromarray(scene(number)).save(tmp_path / f"mine/images/scene{number // 3}_{number % 3}.png")
        Image.fromarray(mask).save(tmp_path / f"mine/masks/scene{number // 3}_{number % 3}.png")
    return tmp_path / "mine"


def test_rare_classes_are_in_every_split_in_their_share(folder: Path) -> None:
    drawn = draw_splits(f"folder:{folder}", val=0.2, test=0.3)
    sizes = {split: len(names) for split, names in drawn.lists.items()}
    assert sum(sizes.values()) == 30
    assert all(abs(sizes[split] - expected) <= 1 for split, expected in (("train", 15), ("val", 6), ("test", 9)))
    for shares in drawn.shares.values():
        assert shares[1] == 1
        assert 0.3 <= shares[2] <= 0.7
        assert 0 < shares[3] <= 0.4


def test_groups_stay_together(folder: Path) -> None:
    drawn = draw_splits(f"folder:{folder}", val=0.3, group=r"(scene\d+)_")
    scenes = [{name.partition("_")[0] for name in names} for names in drawn.lists.values()]
    assert not scenes[0] & scenes[1]
    assert (drawn.groups, {len(names) for names in drawn.lists.values()}) == (10, {21, 9})
    assert all(shares[3] > 0 for shares in drawn.shares.values())


def test_images_that_are_nearly_the_same_stay_together(folder: Path) -> None:
    for number in range(6):
        image = Image.open(folder / f"images/scene{number}_0.png")
        image.resize((70, 50)).save(folder / f"images/copy{number}.jpg", quality=60)
        Image.open(folder / f"masks/scene{number}_0.png").resize((70, 50), 0).save(folder / f"masks/copy{number}.png")
    drawn = draw_splits(f"folder:{folder}", val=0.4)
    assert drawn.alike == 12
    split_of = {name: split for split, names in drawn.lists.items() for name in names}
    assert all(split_of[f"copy{number}"] == split_of[f"scene{number}_0"] for number in range(6))


def test_folds_are_lists_that_the_dataset_reads(folder: Path) -> None:
    drawn = draw_splits(f"folder:{folder}", folds=3)
    drawn.write(folder / "splits")
    seen = [open_dataset(f"folder:{folder}", f"fold{fold}-val") for fold in range(3)]
    assert [len(data) for data in seen] == [10, 10, 10]
    assert len(open_dataset(f"folder:{folder}", "fold0-train")) == 20
    assert sorted(name for fold in range(3) for name in drawn.lists[f"fold{fold}-val"]) == sorted(
        file.stem for file in (folder / "images").iterdir()
    )
    with pytest.raises(DatasetError, match="splits is there already"):
        drawn.write(folder / "splits")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"val": 0.7, "test": 0.3}, "leave some images for train"),
        ({"folds": 1}, "1 folds; expected 2 or more"),
        ({"group": "("}, "is not a regular expression"),
        ({"group": "shot"}, "finds nothing in the name"),
        ({"group": "sc", "val": 0.5}, "1 group of images, too few for 2 splits"),
    ],
)
def test_what_cannot_be_drawn_is_named(folder: Path, options: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        draw_splits(f"folder:{folder}", **options)


def test_flat_and_other_images_are_not_the_same() -> None:
    mask = np.zeros((48, 64), np.uint8)
    images = [
        scene(1),
        scene(2),
        np.full((48, 64, 3), 7, np.uint8),
        np.full((48, 64, 3), 7, np.uint8),
        scene(1) // 2 + 100,
    ]
    thumbnails = [look_at_arrays(image, mask).image.thumbnail for image in images]  # type: ignore[union-attr]
    assert list(nearly_the_same(thumbnails)) == []
    assert list(nearly_the_same([thumbnails[0], thumbnails[1], thumbnails[0]])) == [(0, 2)]
