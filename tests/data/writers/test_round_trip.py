"""What is written in a tool's form reads back as the same masks: blobs, holes, single pixels, touching classes."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from atrous.data.export import convert
from atrous.data.opening import open_dataset
from atrous.data.sources.registry import find_source
from atrous.data.writers.base import Example
from atrous.data.writers.formats import FORMATS
from atrous.errors import DatasetError
from atrous.labels import LabelSet

LABELS = LabelSet(("background", "tree", "a leaf & more", "ß"))
SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))
MASKS = SIDES.flatmap(lambda sides: arrays(np.uint8, sides, elements=st.sampled_from([0, 1, 2, 3, 255])))


FIRST_PIXEL = np.ones((1, 1), np.uint8)


def nested() -> np.ndarray:
    """Rings of classes in one another, with a pixel in the middle, and parts that touch in corners."""
    mask = np.zeros((40, 50), np.uint8)
    for place, label in enumerate((1, 2, 0, 3, 1, 255, 2, 1)):
        mask[2 * place : 36 - 2 * place, 2 * place : 40 - 2 * place] = label
    mask[36:, 40:] = np.indices((4, 10)).sum(0) % 2
    mask[-1, -1] = 255
    return mask


def write(to: str, folder: Path, masks: list[np.ndarray], label_set: LabelSet = LABELS) -> None:
    folder.mkdir()
    examples = []
    for place, mask in enumerate(masks):
        split, name = ("train", "val")[place % 2], f"sub/image {place}"
        image = folder / FORMATS[to].place(split, name, ".png")
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).convert("RGB").save(image)
        examples.append(Example(split, name, image, mask))
    FORMATS[to].write(folder, iter(examples), label_set)


def read(to: str, folder: Path, label_set: LabelSet = LABELS) -> list[np.ndarray]:
    data = [open_dataset(f"{FORMATS[to].source}:{folder}", split) for split in ("train", "val")]
    assert data[0].label_set.names[: len(label_set)] == label_set.names
    train, val = ([sample.mask for sample in split] for split in data)
    return [mask for pair in zip(train, val, strict=True) for mask in pair]


@pytest.mark.parametrize("to", FORMATS)
def test_any_masks_are_the_same_again(to: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    @settings(deadline=None, max_examples=12)
    @given(st.lists(MASKS, min_size=4, max_size=4))
    @example([0 * FIRST_PIXEL, FIRST_PIXEL, 0 * FIRST_PIXEL, FIRST_PIXEL])
    @example([np.pad(FIRST_PIXEL, ((0, 2), (0, 5)))] * 4)
    @example([np.pad(FIRST_PIXEL, ((0, 0), (1, 1)), constant_values=255)] * 4)
    def there_and_back(masks: list[np.ndarray]) -> None:
        folder = tmp_path_factory.mktemp("out") / "data"
        write(to, folder, [nested(), *masks, np.zeros((3, 2), np.uint8)])
        for before, after in zip([nested(), *masks, np.zeros((3, 2), np.uint8)], read(to, folder), strict=True):
            np.testing.assert_array_equal(after, before)

    if FORMATS[to].source == "coco":
        pytest.importorskip("pycocotools", reason="needs atrous[coco]")
    there_and_back()


@pytest.mark.parametrize("to", [to for to in FORMATS if to != "voc"])
def test_without_a_background_each_class_is_drawn(to: str, tmp_path: Path) -> None:
    label_set, mask = LabelSet(("sky", "road")), np.array([[0, 1, 1], [0, 0, 255]], np.uint8)
    write(to, tmp_path / "out", [mask, mask], label_set)
    data = open_dataset(f"{FORMATS[to].source}:{tmp_path}/out", "train")
    assert data.label_set.names == ("background", "sky", "road")
    np.testing.assert_array_equal(data[0].mask, np.where(mask == 255, 255, mask + 1))


def test_a_class_that_would_be_read_as_ignored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="the class 'void' can't be written"):
        write("yolo", tmp_path / "out", [nested()], LabelSet(("background", "void")))


def make_folder(root: Path) -> Path:
    for name in ("images", "masks", "splits"):
        (root / name).mkdir(parents=True)
    for name in ("a", "b", "c"):
        Image.fromarray(nested()).convert("RGB").save(root / f"images/{name}.png")
        Image.fromarray(nested()).save(root / f"masks/{name}.png")
    (root / "labels.toml").write_text(f"names = {json.dumps(LABELS.names)}", encoding="utf-8")
    (root / "splits/train.txt").write_text("a\nb\n")
    (root / "splits/val.txt").write_text("b\nc\n")
    return root


@pytest.mark.parametrize("to", FORMATS)
def test_a_dataset_is_converted_and_named_by_what_reads_it(to: str, tmp_path: Path) -> None:
    root = make_folder(tmp_path / "mine")
    done = convert(f"folder:{root}", tmp_path / "out", to=to, link=True)
    assert done.splits == {"val": 1, "train": 2}  # an image in both is written once
    assert done.text().startswith(f"{FORMATS[to].source}:{tmp_path}/out has")
    source = find_source(f"auto:{tmp_path}/out")
    assert (source.kind, source.splits()) == (FORMATS[to].source, ["train", "val"])
    np.testing.assert_array_equal(open_dataset(f"auto:{tmp_path}/out", "val")[0].mask, nested())


def test_another_form_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="can't be written as 'darwin'; expected folder, coco, yolo"):
        convert(f"folder:{make_folder(tmp_path / 'mine')}", tmp_path / "out", to="darwin")
