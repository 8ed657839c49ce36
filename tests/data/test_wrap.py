"""Datasets of other libraries: pairs and rows of images and masks of any common type, or clear errors."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from atrous.data import Sample, check_dataset, dataset_extras, dataset_name, wrap
from atrous.errors import InputError
from atrous.labels import LabelSet

LABELS = LabelSet(("ground", "path", "plant"))
RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 256, (4, 6, 3), np.uint8)
MASK = RANDOM.integers(0, 3, (4, 6), np.uint8)
CHW = np.ascontiguousarray(IMAGE.transpose(2, 0, 1))


def one(image: object, mask: object, **options: object) -> Sample:
    return wrap([(image, mask)], LABELS, **options)[0]


@pytest.mark.parametrize(
    "image",
    [
        IMAGE,
        Image.fromarray(IMAGE),
        CHW,
        torch.from_numpy(IMAGE),
        torch.from_numpy(CHW),
        CHW.astype(np.float32) / 255,
        torch.from_numpy(CHW) / 255,
        IMAGE.tolist(),
    ],
    ids=["HWC", "PIL", "CHW", "tensor HWC", "tensor CHW", "float CHW", "float tensor", "list"],
)
def test_images_of_every_common_type_are_the_same(image: object) -> None:
    if isinstance(image, list):
        image = np.array(image, np.uint8)
    np.testing.assert_array_equal(one(image, MASK).image, IMAGE)


@pytest.mark.parametrize(
    "mask",
    [
        MASK,
        Image.fromarray(MASK),
        torch.from_numpy(MASK),
        torch.from_numpy(MASK).long()[None],
        MASK[..., None],
        MASK.tolist(),
    ],
    ids=["array", "PIL", "tensor", "1HW", "HW1", "list"],
)
def test_masks_of_every_common_type_are_the_same(mask: object) -> None:
    sample = one(IMAGE, mask)
    np.testing.assert_array_equal(sample.mask, MASK)
    assert sample.mask.dtype == np.uint8


def test_grey_images_become_rgb_and_four_channels_stay() -> None:
    for grey in (IMAGE[..., 0], IMAGE[..., :1], CHW[:1], Image.fromarray(IMAGE[..., 0])):
        np.testing.assert_array_equal(one(grey, MASK).image, IMAGE[..., :1].repeat(3, axis=2))
    assert one(np.dstack([IMAGE, MASK]), MASK).image.shape == (4, 6, 4)


def test_a_tensor_that_could_be_either_has_its_channels_first() -> None:
    square = torch.arange(27, dtype=torch.uint8).reshape(3, 3, 3)
    mask = np.zeros((3, 3), np.uint8)
    np.testing.assert_array_equal(one(square, mask).image, square.numpy().transpose(1, 2, 0))
    np.testing.assert_array_equal(one(square.numpy(), mask).image, square.numpy())


def test_a_torch_dataset_and_rows_with_columns_are_wrapped_by_one_call() -> None:
    pairs = TensorDataset(torch.from_numpy(CHW)[None].repeat(5, 1, 1, 1), torch.from_numpy(MASK)[None].repeat(5, 1, 1))
    data = wrap(pairs, ["ground", "path", "plant"])
    assert (len(data), dataset_name(data), data.label_set, dataset_extras(data).channels) == (
        5,
        "TensorDataset",
        LABELS,
        3,
    )
    assert data[4].name == "TensorDataset[4]"
    assert len(list(data)) == 5
    rows = [{"pixel_values": Image.fromarray(IMAGE), "annotation": Image.fromarray(MASK)}]
    data = wrap(rows, LABELS, image="pixel_values", mask="annotation", name="rows")
    np.testing.assert_array_equal(data[0].mask, MASK)
    with pytest.raises(InputError, match=r"rows\[0\] has no 'image', but columns pixel_values, annotation"):
        wrap(rows, LABELS, image="image", mask="annotation", name="rows")[0]


def test_values_are_shifted_and_ignored_as_asked() -> None:
    mask = np.array([[0, 1, 2, 3, 255]] * 4)
    labels = one(IMAGE[:, :5], mask, ignore=(0,), offset=1).mask
    assert labels[0].tolist() == [255, 0, 1, 2, 255]


@pytest.mark.parametrize(
    ("image", "mask", "says"),
    [
        (IMAGE.astype(np.float32), MASK, r"image has values from .* to 2\d\d; expected 0 to 1 .*normalise"),
        (torch.randn(3, 4, 6), MASK, "leave normalisation out"),
        (np.full((4, 6, 3), np.nan, np.float32), MASK, "values from nan to nan"),
        (IMAGE.astype(np.int64), MASK, "image is int64; expected uint8"),
        (IMAGE[None], MASK, r"shape \(1, 4, 6, 3\); expected \(H, W\), \(H, W, C\)"),
        (IMAGE[:0], MASK, "shape"),
        ("a.jpg", MASK, "image is a str; expected a PIL image"),
        (IMAGE, MASK.astype(np.float32), "mask is float32; expected integers"),
        (IMAGE, IMAGE, r"mask has the shape \(4, 6, 3\).*mapped to classes"),
        (IMAGE, MASK + 1, "values outside the classes: 3; expected 0 to 2, or 255 to ignore"),
        (IMAGE, MASK.astype(np.int64) - 1, "outside the classes: -1"),
        (IMAGE, MASK[:2], r"image \(4, 6\) and mask \(2, 6\) differ in size"),
    ],
)
def test_what_can_not_be_used_says_what_was_expected(image: object, mask: object, says: str) -> None:
    with pytest.raises(InputError, match=rf"list\[0\].*{says}"):
        one(image, mask)


def test_a_stream_is_refused() -> None:
    with pytest.raises(InputError, match="generator has no length or can't be indexed"):
        wrap((pair for pair in [(IMAGE, MASK)]), LABELS)


def test_the_doctor_names_wrapped_samples_that_can_not_be_used() -> None:
    checkup = check_dataset(wrap([(IMAGE, MASK), (IMAGE, MASK + 1), (IMAGE[::-1], MASK[:1])], LABELS, name="mine"))
    (finding,) = [finding for finding in checkup.findings if finding.severity == "error"]
    assert finding.kind == "unreadable-sample"
    assert finding.files == ("mine[1]", "mine[2]")
    assert "outside the classes: 3" in finding.items[0].detail
