"""Tiles: they cover an image evenly, their weights add up to 1, and their labels are those of the whole image."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from atrous.crf.dense_crf import DenseCRF
from atrous.crf.pairwise import Gaussian
from atrous.errors import InputError
from atrous.grid import Grid
from atrous.inference.memory import bytes_per_pixel, model_context
from atrous.inference.prepare import prepared
from atrous.inference.test_time import Inference
from atrous.inference.tiles import Tiling, label_strips, tile_weight
from atrous.models.base import SegmentationModel
from atrous.models.create import create_model


@given(
    tile=st.integers(65, 700),
    share=st.floats(0, 0.5),
    length=st.integers(1, 3000),
    stride=st.sampled_from([1, 2, 4, 8, 16, 32]),
    place=st.floats(0, 1),
    context=st.integers(0, 300),
)
@settings(deadline=None)
def test_tiles_cover_a_side_and_their_weights_add_up_to_one(
    tile: int, share: float, length: int, stride: int, place: float, context: int
) -> None:
    tiling = Tiling(tile, int(tile * share))
    spans = tiling.spans(length)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(stop - start <= tile and start % 32 == 0 for start, stop in spans)
    assert all(before[1] > after[0] for before, after in pairwise(spans))
    grid = Grid(stride, place * (stride - 1))
    total = np.zeros(length // stride + 40)
    for number, (start, stop) in enumerate(spans):
        count = (stop - start - 1) // stride + 1
        total[start // stride : start // stride + count] += tile_weight(spans, number, grid, count, context)
    np.testing.assert_allclose(total[: (length - 1) // stride + 1], 1, atol=1e-5)


def tiled(
    model: SegmentationModel, image: NDArray[np.uint8], inference: Inference, tiling: Tiling, start: int = 0
) -> NDArray[np.uint8]:
    """The labels of an image from ``start`` on, checked to come in order and without gaps."""
    strips, row = [], start
    with prepared(model) as (network, device):
        for top, labels in label_strips(
            network,
            lambda rows, columns: np.ascontiguousarray(image[slice(*rows), slice(*columns)]),
            (image.shape[0], image.shape[1]),
            inference,
            tiling,
            device=device,
            start=start,
        ):
            assert top == row
            row += len(labels)
            strips.append(labels)
    assert row == len(image)
    return np.concatenate(strips)


def whole(model: SegmentationModel, image: NDArray[np.uint8], inference: Inference) -> NDArray[np.uint8]:
    with prepared(model) as (network, _):
        return inference(network, torch.from_numpy(image).permute(2, 0, 1)[None])[0].numpy()


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    """Blocks of noise, so that labels change everywhere."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (36, 46, 3), np.uint8).repeat(12, 0).repeat(12, 1)
    return np.ascontiguousarray(blocks[:421, :537])


def make_model(name: str, **options: object) -> SegmentationModel:
    """A random model whose classifiers, which may begin with zeros, are random too."""
    torch.manual_seed(1)
    model = create_model(name, backbone="test_resnet", num_classes=4, pretrained=False, **options)
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fcn8s", {}),
        ("deeplabv3plus", {"image_pooling": False, "rates": [1, 2], "channels": 16, "low_level_channels": 8}),
    ],
)
def test_labels_are_those_of_the_whole_image(name: str, options: dict[str, object], image: NDArray[np.uint8]) -> None:
    model = make_model(name, **options)
    inference, tiling = Inference(), Tiling(321, 160)
    expected = whole(model, image, inference)
    assert len(np.unique(expected)) > 1
    found = tiled(model, image, inference, tiling)
    assert (found != expected).mean() < 5e-4
    for start in (200, 300):  # a run that continues gives what the first one would have given
        np.testing.assert_array_equal(tiled(model, image, inference, tiling, start), found[start:])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fcn8s", {}),
        ("deeplab_largefov", {}),
        ("deeplabv3plus", {"image_pooling": False, "rates": [1, 2], "channels": 16, "low_level_channels": 8}),
    ],
)
def test_an_overlap_of_twice_the_context_gives_the_labels_of_the_whole_image(
    name: str, options: dict[str, object], image: NDArray[np.uint8]
) -> None:
    model = make_model(name, **options)
    context = model_context(model).pixels
    tiling = Tiling(4 * context + 65, 2 * context).fitted(context)
    assert tiling.is_exact
    strip = np.tile(image[:97], (1, 3, 1))
    assert len(tiling.spans(strip.shape[1])) > 2
    expected = whole(model, strip, Inference())
    assert len(np.unique(expected)) > 1
    for batch in (1, 3):
        found = tiled(model, strip, Inference(), replace(tiling, batch=batch))
        assert (found != expected).mean() < 1e-5  # rounding alone


def test_tiles_overlap_by_what_the_network_sees_up_to_a_tenth() -> None:
    assert Tiling(1025).fitted(40).shared == 80
    assert Tiling(1025).fitted(400).shared == 102
    assert not Tiling(1025).fitted(400).is_exact
    assert Tiling(1025, 200).fitted(400).shared == 200


def test_nothing_beyond_the_context_changes_the_logits() -> None:
    model = make_model("deeplab_largefov")
    context = model_context(model)
    assert not context.whole
    side = 2 * ((context.pixels + 31) // 32 * 32) + 97
    with prepared(model) as (network, _):
        images = torch.randn(2, 3, side, side)
        at = side // 2 // 8
        near = slice(at * 8 - context.pixels, at * 8 + context.pixels + 1)
        images[1, :, near, near] = images[0, :, near, near]
        logits = network.main_output(images).logits
    torch.testing.assert_close(logits[0, :, at, at], logits[1, :, at, at], rtol=0, atol=1e-5)
    assert not torch.allclose(logits[0, :, 0, 0], logits[1, :, 0, 0], atol=1e-3)
    assert model_context(make_model("deeplabv3")).whole  # its image pooling


def test_views_and_crf_work_on_tiles(image: NDArray[np.uint8]) -> None:
    model = make_model("fcn32s")
    for inference in (
        Inference(scales=(0.75, 1.0), flip=True),
        Inference(crf=DenseCRF([Gaussian(sxy=3, weight=3)], iterations=2)),
    ):
        expected = whole(model, image, inference)
        assert (tiled(model, image, inference, Tiling(321, 160)) != expected).mean() < 0.02


def test_what_can_not_be_cut_is_refused() -> None:
    with pytest.raises(InputError, match="at least 65 pixels wide, not 64"):
        Tiling(64, 0)
    with pytest.raises(InputError, match="tiles of 513 pixels overlap by 0 to 256, not 300"):
        Tiling(513, 300)
    with pytest.raises(InputError, match="at least 1 tile, not 0"):
        Tiling(batch=0)


def test_memory_of_a_pixel_grows_with_the_network() -> None:
    small, large = (
        bytes_per_pixel(create_model("fcn32s", backbone=name, num_classes=4, pretrained=False))
        for name in ("test_resnet", "resnet18")
    )
    assert 10 < small < large < 10_000
