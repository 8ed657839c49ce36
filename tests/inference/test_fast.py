"""The fast way through a network computes what the network does, or leaves it to the network."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import atrous
from atrous.data.files.images import DecodedImage
from atrous.grid import Grid, resample
from atrous.inference.demo import find_demo_images
from atrous.inference.fast import FastNetwork
from atrous.inference.large import Large
from atrous.inference.predictor import Predictor, kept_predictor
from atrous.inference.prepare import Precision
from atrous.inference.program import Join, Program
from atrous.inference.tiles import Tiling
from atrous.models import SegmentationModel, create_model
from atrous.ops.maps import copy_into, enlarge_into, interpolation

PRECISIONS: tuple[Precision, ...] = ("auto", "float32")
IMAGE = np.random.default_rng(0).integers(0, 256, (75, 101, 3), dtype=np.uint8)


def randomised(model: SegmentationModel) -> SegmentationModel:
    """Batch norms with statistics that matter."""
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low, high in (
                (layer.running_mean, -0.1, 0.1),
                (layer.running_var, 0.5, 2),
                (layer.bias, 0, 0.2),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return model.eval()


def build(name: str = "deeplabv3plus", backbone: str = "test_efficientnet", **options: Any) -> SegmentationModel:
    torch.manual_seed(0)
    return randomised(create_model(name, backbone=backbone, num_classes=5, **options))


def segmented(predictor: Predictor, image: np.ndarray) -> Any:
    return predictor.segment(DecodedImage(np.ascontiguousarray(image)), keep_probabilities=True)


def programs(predictor: Predictor) -> list[Program]:
    fast = predictor.network._fast
    assert fast is not None
    return [program for program in fast._programs.values() if program is not None]


@pytest.mark.parametrize(
    ("name", "backbone", "options"),
    [
        ("deeplabv3plus", "test_efficientnet", {"channels": 64, "separable": True, "refine": True}),
        ("deeplabv3plus", "test_resnet", {"channels": 32, "output_stride": 8}),
        ("deeplabv3", "test_vit", {"channels": 32}),
        ("deeplabv3_cascade", "test_resnet", {}),
        ("attention_to_scale", "test_resnet", {}),
    ],
)
def test_it_computes_what_the_network_does(name: str, backbone: str, options: dict[str, Any]) -> None:
    model = build(name, backbone, **options)
    fast, plain = Predictor(model), Predictor(model, precision="float32")
    for image in (IMAGE, IMAGE[:64, :64], IMAGE[:1, :1]):
        found, expected = (segmented(p, image) for p in (fast, plain))
        assert found.class_probabilities is not None
        assert expected.class_probabilities is not None
        assert found.class_probabilities.grid == expected.class_probabilities.grid
        np.testing.assert_allclose(found.class_probabilities.values, expected.class_probabilities.values, atol=1e-3)
        assert (found.labels == expected.labels).mean() > 0.99
    batch = np.stack([IMAGE, IMAGE[::-1]])
    np.testing.assert_array_equal(fast.labels(batch)[0], segmented(fast, IMAGE).labels)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet"])
def test_convolutional_networks_have_programs(backbone: str) -> None:
    predictor = Predictor(build(backbone=backbone, channels=32, separable=True))
    segmented(predictor, IMAGE)
    (program,) = programs(predictor)
    assert any(isinstance(operation, Join) for operation in program.operations)
    names = [getattr(operation, "function", nn.Identity).__name__ for operation in program.operations]
    assert not {"batch_norm", "matmul", "relu", "relu_"} & set(names)  # all of it is fused


def test_tiles_that_share_one_image_mean_have_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    model, run, shapes = build(channels=32, rates=[1]), Program.__call__, []

    def watched(self: Program, image: Tensor) -> dict[str, Any]:
        shapes.append(tuple(image.shape))
        return run(self, image)

    monkeypatch.setattr(Program, "__call__", watched)
    image, tiles = np.tile(IMAGE, (2, 2, 1)), Large(Tiling(97, 32))
    fast, plain = (Predictor(model, precision=p).segment(DecodedImage(image), large=tiles) for p in PRECISIONS)
    assert "tiles" in fast.notes[-1]
    assert shapes.count((1, 3, 97, 97)) > 1
    assert (fast.labels == plain.labels).mean() > 0.99


class LooksAtPixels(nn.Module):
    """A backbone whose layers depend on the image's values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, 4, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.conv(-x if x.mean() > 0 else x)]


def test_a_forward_that_looks_at_pixels_stays_with_the_network() -> None:
    grids = [Grid(4, 0)]

    class Looking(atrous.Backbone):
        def __init__(self) -> None:
            super().__init__("looking", in_channels=3, channels=[32], grids=grids)
            self.net = LooksAtPixels()

        def forward(self, x: Tensor) -> list[Tensor]:
            return self.net(x)  # type: ignore[no-any-return]

    model = create_model("deeplabv3", backbone=Looking(), num_classes=3, channels=16).eval()
    predictor = Predictor(model)
    expected = segmented(Predictor(model, precision="float32"), IMAGE).labels
    np.testing.assert_array_equal(segmented(predictor, IMAGE).labels, expected)
    assert not programs(predictor)


def test_hooks_see_the_layers() -> None:
    model, seen = build(channels=16), []
    model.backbone.register_forward_hook(lambda *_: seen.append(1))
    atrous.predict(model, IMAGE)
    assert seen == [1]


def test_a_changed_model_is_prepared_again() -> None:
    model = build(channels=16)
    first = kept_predictor(model)
    assert kept_predictor(model) is first
    before = atrous.predict(model, IMAGE, keep_probabilities=True).class_probabilities
    with torch.no_grad():
        model.classifier.bias.add_(torch.arange(5.0))
    after = atrous.predict(model, IMAGE, keep_probabilities=True).class_probabilities
    assert before is not None
    assert after is not None
    assert not np.allclose(before.values, after.values, atol=0.1)
    model.output_stride = 8
    assert kept_predictor(model).network.model.output_stride == 8
    model.backbone.net.conv_stem.weight = nn.Parameter(torch.zeros_like(model.backbone.net.conv_stem.weight))
    assert kept_predictor(model).network.model.backbone.net.conv_stem.weight.abs().max() == 0


def test_weights_are_not_touched_and_are_freed_with_the_model() -> None:
    model = build(channels=16)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    atrous.predict(model, IMAGE)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    gone = weakref.ref(model)
    weight = weakref.ref(kept_predictor(model).network.model)
    del model, state
    gc.collect()
    assert gone() is None
    assert weight() is None


def test_several_threads_share_predictors_at_several_strides_and_sizes() -> None:
    model = build(channels=16)
    images = [IMAGE, IMAGE[:65, :65], IMAGE[:40, :90], IMAGE[5:, 3:]]
    jobs = [(stride, image) for stride in (8, 16, 32) for image in images]
    expected = [atrous.predict(build(channels=16), image, output_stride=stride).labels for stride, image in jobs]
    predictors = {stride: Predictor(model, output_stride=stride) for stride in (8, 16, 32)}
    ways = (
        lambda stride, image: segmented(predictors[stride], image).labels,
        lambda stride, image: atrous.predict(model, image, output_stride=stride).labels,
    )
    with ThreadPoolExecutor(6) as pool:
        for _ in range(2):
            for way in ways:
                found = list(pool.map(lambda job, way=way: way(*job), jobs))
                for one, labels in zip(found, expected, strict=True):
                    np.testing.assert_array_equal(one, labels)
    assert model.output_stride == 16


def test_maps_are_joined_and_enlarged_as_by_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    small, beside = (torch.randn(2, c, *size, generator=generator) for c, size in ((6, (4, 5)), (3, (13, 18))))
    small, beside = (x.contiguous(memory_format=torch.channels_last) for x in (small, beside))
    source, target = Grid(4, 1.5), Grid(1, 0)
    taps = [
        interpolation(torch.from_numpy(atrous.grid._kept_taps(source, target, size, length, False)))
        for size, length in ((13, 4), (18, 5))
    ]
    assert taps[0] is not None
    assert taps[1] is not None
    out = torch.empty(2, 9, 13, 18).contiguous(memory_format=torch.channels_last)
    enlarge_into(small, taps[0], taps[1], out, 0)
    copy_into(beside, out, 6)
    torch.testing.assert_close(out, torch.cat([resample(small, source, target, (13, 18)), beside], 1))
    assert interpolation(torch.full((4, 4), 0.25)) is None


def test_a_network_that_differs_from_its_program_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(channels=16)
    monkeypatch.setattr(Program, "__call__", lambda self, image: vars(model.main_output(image + 1)))
    assert FastNetwork(model).main_output(torch.zeros(1, 3, 65, 65)) is None


def test_the_bundled_model_gives_the_reference_labels_on_photos() -> None:
    model = atrous.load("deeplabv3plus_lite0_voc")
    for photo in find_demo_images():
        found, expected = (atrous.predict(model, photo, precision=p).labels for p in ("auto", "float32"))
        assert (found == expected).mean() >= 0.995
