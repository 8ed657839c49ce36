"""COCO: outlines and runs become masks, splits and subsets are found, other files say what is wrong."""

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atrous.data.doctor.check import check
from atrous.data.files.masks import MaskError
from atrous.data.files.rle import pack_runs, runs_of
from atrous.data.opening import open_dataset
from atrous.data.sources import coco
from atrous.errors import DatasetError
from atrous.label_sets import VOC
from atrous.labels import IGNORE

HEIGHT, WIDTH = 40, 60
NAMES = [coco.NAMES_OF_VOC_CLASSES.get(name, name) for name in VOC.names[:0:-1]]  # another order than VOC's
CATEGORIES = [{"id": 3 * place + 1, "name": name} for place, name in enumerate(["stop sign", *NAMES])]
ID = {category["name"]: category["id"] for category in CATEGORIES}


def box(left: int, top: int, right: int, bottom: int) -> list[int]:
    return [left, top, right, top, right, bottom, left, bottom]


def thing(image: int, name: str, *outlines: list[int], crowd: bool = False, **other: Any) -> dict[str, Any]:
    xs, ys = [x for o in outlines for x in o[::2]], [y for o in outlines for y in o[1::2]]
    area = (max(xs) - min(xs)) * (max(ys) - min(ys)) if outlines else 0
    shape = {"image_id": image, "category_id": ID[name], "segmentation": list(outlines), "area": area}
    return shape | {"iscrowd": int(crowd)} | other


def runs(*counts: int | str) -> dict[str, Any]:
    return {"size": [HEIGHT, WIDTH], "counts": counts[0] if isinstance(counts[0], str) else list(counts)}


def write(root: Path, split: str, *things: dict[str, Any], count: int = 1, categories: object = CATEGORIES) -> None:
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir(exist_ok=True)
    images = [
        {"id": 100 + number, "file_name": f"{split}_{number:012}.jpg", "height": HEIGHT, "width": WIDTH}
        for number in range(count)
    ]
    for image in images:
        Image.new("RGB", (WIDTH, HEIGHT), (image["id"] % 256, 50, 50)).save(root / split / image["file_name"])
    data = {"images": images, "annotations": list(things), "categories": categories}
    (root / f"annotations/instances_{split}.json").write_text(json.dumps(data))


def test_the_smaller_lies_over_the_larger_and_crowds_under_both(tmp_path: Path) -> None:
    small, large = box(10, 10, 20, 20), box(5, 5, 30, 30)
    crowd = runs(HEIGHT * 15, HEIGHT * 40, HEIGHT * 5)
    write(
        tmp_path,
        "val2017",
        thing(100, "cat", small),
        thing(100, "dog", large, box(40, 0, 42, 40)),
        thing(100, "person", crowd=True, area=HEIGHT * 40, segmentation=crowd),
    )
    data = open_dataset(f"coco:{tmp_path}", "val")
    assert (len(data), data.name, data.label_set.names[:3]) == (1, "coco:val", ("background", "stop sign", "tv"))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:, 15:55] = IGNORE
    expected[5:30, 5:30] = expected[0:40, 40:42] = data.label_set.names.index("dog")
    expected[10:20, 10:20] = data.label_set.names.index("cat")
    np.testing.assert_array_equal(data[0].mask, expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data))[0].mask, expected)  # as a worker process has it


def test_voc_classes_are_found_by_name_and_nothing_else_is_drawn(tmp_path: Path) -> None:
    sign, table = thing(100, "stop sign", box(0, 0, 5, 5)), thing(100, "dining table", box(0, 0, 60, 40))
    write(tmp_path, "train2017", sign, table, thing(101, "tv", box(0, 0, 31, 32)), count=4)
    whole = open_dataset(f"coco:{tmp_path}", "train2017")
    assert len(whole) == 4
    assert whole.label_set.names[whole[0].mask[0, 0]] == "stop sign"
    data = open_dataset(f"coco-voc:{tmp_path}", "train")  # the TV covers 992 pixels, and two images are empty
    assert (data.label_set, len(data)) == (VOC, 1)
    assert VOC.names[data[0].mask[0, 0]] == "diningtable"


def test_years_and_subsets_are_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train2014", "val2014", "val2017"):
        write(tmp_path, split, count=5)
    (tmp_path / "images").mkdir()
    (tmp_path / "train2014").rename(tmp_path / "images/train2014")
    monkeypatch.setattr(coco, "SUBSETS", {"train10k": ("train2014", 3), "val1500": ("val2014", 2)})
    layout = coco.Coco(tmp_path)
    assert layout.splits() == ["train", "train10k", "val", "val1500", "val2014"]
    names = {split: [pair.name for pair in layout.listed(split)] for split in layout.splits()}
    assert [len(listed) for listed in names.values()] == [5, 3, 5, 2, 5]
    assert names["val"][0].startswith("val2017")
    assert set(names["train10k"]) < set(names["train"])
    assert names["train10k"] == sorted(names["train10k"])
    assert names["train10k"] != names["train"][:3]
    assert len(open_dataset(f"coco:{tmp_path}", "train10k+val1500")) == 5


def test_the_doctor_draws_every_mask(tmp_path: Path) -> None:
    write(tmp_path, "train2017", thing(100, "cat", box(0, 0, 30, 40)))
    write(tmp_path, "val2017", thing(100, "cat", box(0, 0, 6, 40)))
    (tmp_path / "val2017").joinpath("val2017_000000000000.jpg").unlink()
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(tmp_path / "val2017/val2017_000000000000.jpg")
    checkup = check(f"coco:{tmp_path}")
    assert list(checkup.lists) == ["train", "val"]
    assert checkup.counts("train").pixels[checkup.form.label_set.names.index("cat")] == 1200
    assert [f.kind for f in checkup.findings if f.severity == "error"] == ["size-mismatch"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"segmentation": runs(5, 5)}, "annotation 7: its runs do not fill 60×40 pixels"),
        ({"segmentation": [[1, 2, 3]]}, "annotation 7: an outline of 3 numbers, x without y"),
        ({"category_id": 2}, "annotation .*: category_id 2 does not refer to any category"),
        ({"image_id": 1}, "annotation .*: image_id 1 does not refer to any image"),
    ],
)
def test_a_file_that_is_none_of_cocos_says_what_is_wrong(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    write(tmp_path, "val2017", thing(100, "cat", box(0, 0, 30, 40), id=7) | change)
    with pytest.raises(DatasetError, match=rf"instances_val2017.json: .*{says}.*; expected COCO's instances: images"):
        open_dataset(f"coco:{tmp_path}", "val")


@pytest.mark.parametrize("empty", [[], None, [[]], [[5, 5, 9, 9]]])
def test_an_object_without_an_outline_is_ignored_inside_its_box(tmp_path: Path, empty: object) -> None:
    known = thing(100, "cat", box(12, 12, 16, 16), id=1)
    write(
        tmp_path,
        "val2017",
        known,
        thing(100, "dog", id=8, bbox=[10, 10, 20, 5]) | {"segmentation": empty, "area": None},
    )
    mask = open_dataset(f"coco:{tmp_path}", "val")[0].mask
    assert (mask == IGNORE).sum() == 20 * 5 - 4 * 3
    assert np.unique(mask[10:15, 10:30]).tolist() == [mask[12, 12], IGNORE]
    (finding,) = [finding for finding in check(f"coco:{tmp_path}", ["val"]).findings if finding.kind == "box-only"]
    assert finding.severity == "warning"
    assert finding.found.startswith("1 annotation has a box and no outline")
    assert str(finding.items[0]).endswith("image val2017_000000000000: annotation 8")


def test_a_file_of_boxes_alone_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "val2017", *(thing(100, "dog", id=place, bbox=[10, 10, 20, 5]) for place in range(3)))
    findings = check(f"coco:{tmp_path}", ["val"]).findings
    assert {finding.kind: finding.severity for finding in findings}["binary-mask"] == "error"
    assert len(next(finding for finding in findings if finding.kind == "box-only").items) == 3


def rewrite(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = root / "annotations/instances_val2017.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def test_a_flat_outline_is_one_outline(tmp_path: Path) -> None:
    write(tmp_path, "val2017", thing(100, "cat", box(0, 0, 30, 40)) | {"segmentation": box(0, 0, 30, 40)})
    assert (open_dataset(f"coco:{tmp_path}", "val")[0].mask > 0).sum() == 1200


def test_two_images_of_one_stem_keep_their_masks(tmp_path: Path) -> None:
    write(tmp_path, "val2017", thing(100, "cat", box(0, 0, 30, 40)), count=2)
    rewrite(tmp_path, lambda data: data["images"][1].update(file_name="val2017_000000000000.png"))
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "val2017/val2017_000000000000.png")
    data = open_dataset(f"coco:{tmp_path}", "val")
    assert {data[place].name: int((data[place].mask > 0).sum()) for place in range(2)} == {
        "val2017_000000000000.jpg": 1200,
        "val2017_000000000000.png": 0,
    }


def test_two_entries_of_one_file_are_one_image(tmp_path: Path) -> None:
    write(tmp_path, "val2017", thing(100, "cat", box(0, 0, 30, 40)), thing(101, "dog", box(30, 0, 60, 40)), count=2)
    rewrite(tmp_path, lambda data: data["images"][1].update(file_name=data["images"][0]["file_name"]))
    (sample,) = [*open_dataset(f"coco:{tmp_path}", "val")]
    assert sample.mask.all()


def test_a_category_named_background_without_objects_is_the_background(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "Background"}, {"id": 1, "name": "cat"}]
    cat = thing(100, "cat", box(0, 0, 30, 40)) | {"category_id": 1}
    write(tmp_path, "val2017", cat, categories=categories)
    data = open_dataset(f"coco:{tmp_path}", "val")
    assert data.label_set.names == ("background", "cat")
    assert (data[0].mask == 1).sum() == 1200
    write(tmp_path, "val2017", cat | {"category_id": 0}, categories=categories)
    with pytest.raises(DatasetError, match=r"val2017.json: 1 annotations are of a category named background.*rename"):
        open_dataset(f"coco:{tmp_path}", "val")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["images"][0].update(height=None), "image 100 .*has height None and width 60, expected whole"),
        (lambda d: d["images"][0].update(width=0), "height 40 and width 0, expected whole"),
        (lambda d: d["images"][0].update(file_name=None), "image 100 has the file_name None"),
        (lambda d: d["images"].append(d["images"][0] | {"file_name": "b.jpg"}), "b.jpg have the same id 100"),
        (lambda d: d["images"].append(d["images"][0] | {"id": 7, "height": 3}), "is listed twice, with other sizes"),
        (lambda d: d["categories"].append({"id": 1, "name": "x"}), "2 categories have the id 1"),
        (lambda d: d["categories"].append({"id": 99, "name": "cat"}), "2 categories have the name 'cat'"),
        (lambda d: d["categories"].clear(), "there are no categories"),
        (
            lambda d: d["annotations"][0].update(segmentation=[[0, 0, 0.5, 0, 0.5, 0.9]]),
            "outlines lie between 0 and",
        ),
        (lambda d: d["annotations"][0].update(segmentation=[[0, 0, 1e300, 0, 5, 9]]), "not finite"),
        (
            lambda d: d["annotations"][0].update(segmentation=[["a"] * 6]),
            "annotation 7: its segmentation can't be read",
        ),
        (lambda d: d["annotations"][0].update(segmentation=[[1] * 6, 5]), "annotation 7: "),
        (lambda d: d["annotations"][0].update(segmentation="x"), "annotation 7: "),
        (lambda d: d["annotations"][0].update(segmentation={"size": [40, 60]}), "annotation 7: "),
        (lambda d: d["annotations"][0].update(segmentation={"counts": []}), "annotation 7: its runs do not fill"),
        (lambda d: d["annotations"][0].update(segmentation=[]), "annotation 7 has neither an outline nor a bbox"),
        (lambda d: d.update(images=5), "a value of another type"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, change: Callable[[dict[str, Any]], object], says: str) -> None:
    write(tmp_path, "val2017", thing(100, "cat", box(0, 0, 30, 40), id=7))
    rewrite(tmp_path, change)
    with pytest.raises(DatasetError, match=rf"instances_val2017.json: .*{says}.*; expected COCO's instances: images"):
        open_dataset(f"coco:{tmp_path}", "val")


@pytest.mark.parametrize("text", ["[]", "5", "{", "[" * 100_000])
def test_json_of_another_kind_is_an_error(tmp_path: Path, text: str) -> None:
    write(tmp_path, "val2017")
    (tmp_path / "annotations/instances_val2017.json").write_text(text)
    with pytest.raises(DatasetError, match=r"instances_val2017.json: .*; expected COCO's instances"):
        open_dataset(f"coco:{tmp_path}", "val")


def test_an_area_that_is_missing_is_measured(tmp_path: Path) -> None:
    small, large = thing(100, "cat", box(10, 10, 20, 20)), thing(100, "dog", box(5, 5, 30, 30))
    small.pop("area")
    write(tmp_path, "val2017", small, large | {"area": None})
    mask = open_dataset(f"coco:{tmp_path}", "val")[0].mask
    assert mask[15, 15] != mask[6, 6]


def test_other_places_splits_and_categories_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"is not a COCO dataset: expected annotations/instances_train2017.json"):
        open_dataset(f"coco:{tmp_path}", "train")
    write(tmp_path, "val2017")
    with pytest.raises(
        DatasetError, match=r"no split 'train10k' \(looked for .*instances_train2014.json\); available splits.*val"
    ):
        open_dataset(f"coco:{tmp_path}", "train10k")
    write(tmp_path, "train2017", categories=CATEGORIES[:5])
    with pytest.raises(DatasetError, match=r"other categories than the other files beside it"):
        open_dataset(f"coco:{tmp_path}", "val+train")
    with pytest.raises(DatasetError, match=r"not have all classes of VOC: no category '.*'; with coco: instead"):
        open_dataset(f"coco-voc:{tmp_path}", "train")


def test_a_category_without_a_string_for_its_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "val2017", categories=[{"id": 1, "name": 7}])
    with pytest.raises(DatasetError, match="the name of a category is 7, expected a string"):
        open_dataset(f"coco:{tmp_path}", "val")


def test_outlines_are_drawn_by_cocos_own_program(tmp_path: Path) -> None:
    mask_of = pytest.importorskip("pycocotools.mask", reason="needs atrous[coco]")
    outline = [1.1, 0.7, 45.9, 1.1, 56.4, 24.85, 33.3, 12.6, 10.4, 35.2]
    write(tmp_path, "val2017", thing(100, "cat", outline))
    mask = open_dataset(f"coco:{tmp_path}", "val")[0].mask
    (theirs,) = mask_of.frPyObjects([outline], HEIGHT, WIDTH)
    assert pack_runs(runs_of(mask > 0)) == theirs["counts"].decode()


def test_without_it_an_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "val2017", thing(100, "cat", box(0, 0, 5, 5)))
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(MaskError, match=r"not installed: pip install 'atrous\[coco\]'"):
        open_dataset(f"coco:{tmp_path}", "val")[0]


def test_the_rule_of_overlap_is_chosen(tmp_path: Path) -> None:
    small, large = thing(100, "cat", box(10, 10, 20, 20)), thing(100, "dog", box(5, 5, 30, 30))
    write(tmp_path, "val2017", small, large)
    by_area, last = (open_dataset(f"coco:{tmp_path}{option}", "val") for option in ("", "?overlap=last"))
    names = by_area.label_set.names
    assert (names[by_area[0].mask[15, 15]], names[last[0].mask[15, 15]]) == ("cat", "dog")


def test_files_and_folders_without_their_usual_names(tmp_path: Path) -> None:
    write(tmp_path, "val2017", thing(100, "cat", box(0, 0, 30, 40)))
    (tmp_path / "annotations/instances_val2017.json").rename(tmp_path / "instances_val2017.json")
    (tmp_path / "images").mkdir()
    (tmp_path / "val2017").rename(tmp_path / "images/val")
    assert open_dataset(f"coco:{tmp_path}", "val")[0].mask.any()


def test_stuff_one_file_and_roboflows_folders(tmp_path: Path) -> None:
    write(tmp_path, "train", thing(100, "cat", box(0, 0, 30, 40)), count=2)
    instances = tmp_path / "annotations/instances_train.json"
    assert len(open_dataset(f"coco:{instances}", "all")) == 2  # one file, of images in folders beside it
    instances.rename(instances.with_name("stuff_train.json"))
    assert open_dataset(f"coco-stuff:{tmp_path}", "train")[0].mask.any()
    with pytest.raises(DatasetError, match="is not a COCO dataset"):
        open_dataset(f"coco:{tmp_path}", "train")
    instances.with_name("stuff_train.json").rename(tmp_path / "train/_annotations.coco.json")
    (tmp_path / "train").rename(tmp_path / "valid")
    data = open_dataset(f"coco:{tmp_path}", "val")
    assert (len(data), data.label_set.names[data[0].mask[5, 5]]) == (2, "cat")
