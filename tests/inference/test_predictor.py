"""Predicting one image: sources, what the model is left like, and what a Segmentation can do."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import atrous
from atrous.data.files.images import ImageError
from atrous.errors import InputError
from atrous.files import write_atomically
from atrous.grid import Grid
from atrous.inference.predictor import predict
from atrous.labels import LabelSet
from atrous.models.base import Output


class ByChannel(nn.Module):
    """Takes each pixel for the class of its strongest channel; it looks at every ``output_stride``-th pixel."""

    label_set = LabelSet(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    name = "by_channel"
    backbone = SimpleNamespace(in_channels=3)
    seen: ClassVar[list[tuple[bool, bool, int, torch.dtype]]] = []

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.output_stride = 1
        self.settings = {"output_stride": 1}
        self.seen.clear()  # of the class: a copy of the model may run

    def preprocess(self, images: Tensor) -> Tensor:
        return images.float() / 255

    def main_output(self, images: Tensor) -> Output:
        product = torch.ones(2, 2) @ torch.ones(2, 2)
        self.seen.append((self.training, torch.is_inference_mode_enabled(), self.output_stride, product.dtype))
        stride = self.output_stride
        return Output("main", images[..., ::stride, ::stride] * 10 * self.weight, Grid(stride, 0))


HALVES = np.zeros((6, 10, 3), np.uint8)
HALVES[:, :4, 0] = 200
HALVES[:, 4:, 2] = 200
EXPECTED = np.repeat(np.array([[0] * 4 + [2] * 6], np.uint8), 6, axis=0)


@pytest.fixture
def model() -> ByChannel:
    return ByChannel()


def test_path_array_and_pillow_image_give_the_same_labels(model: ByChannel, tmp_path: Path) -> None:
    Image.fromarray(HALVES).save(tmp_path / "x.png")
    for source in (tmp_path / "x.png", str(tmp_path / "x.png"), HALVES, Image.fromarray(HALVES)):
        result = predict(model, source)
        assert result.labels.dtype == np.uint8
        np.testing.assert_array_equal(result.labels, EXPECTED)
        np.testing.assert_array_equal(result.image, HALVES)
        assert result.label_set is model.label_set


def test_an_image_with_orientation_is_labelled_upright(model: ByChannel) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(HALVES).save(buffer, "PNG", exif=exif)
    np.testing.assert_array_equal(predict(model, Image.open(buffer)).labels, np.rot90(EXPECTED, -1))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (HALVES.astype(np.float32), r"uint8 \(H, W, 3\).*float32"),
        (HALVES[..., 0], r"not uint8 \(6, 10\); PIL.Image.fromarray"),
        (HALVES[:0], r"not uint8 \(0, 10, 3\)"),
        (torch.zeros(3, 4, 4), "not a Tensor"),
    ],
)
def test_other_arrays_are_refused_with_what_was_expected(model: ByChannel, image: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        predict(model, image)  # type: ignore[arg-type]


def test_a_broken_file_is_an_image_error(model: ByChannel, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        predict(model, tmp_path / "missing.jpg")


@pytest.mark.parametrize("training", [True, False])
def test_the_model_runs_in_eval_and_inference_mode_and_is_left_as_it_was(model: ByChannel, training: bool) -> None:
    model.train(training)
    predict(model, HALVES, output_stride=2)
    assert model.seen == [(False, True, 2, torch.float32)]
    assert model.training is training
    assert model.output_stride == 1


def test_the_model_is_left_as_it_was_after_an_error(model: ByChannel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(images: Tensor) -> tuple[Tensor, Grid]:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(model, "main_output", fail)
    model.train()
    with pytest.raises(RuntimeError, match="out of luck"):
        predict(model, HALVES, output_stride=4)
    assert model.training
    assert model.output_stride == 1


def test_bfloat16_runs_under_autocast(model: ByChannel) -> None:
    predict(model, HALVES, precision="bfloat16")
    assert model.seen[0][-1] == torch.bfloat16


def test_probabilities_are_kept_on_the_grid_of_the_network(model: ByChannel) -> None:
    assert predict(model, HALVES).probabilities is None
    found = predict(model, HALVES, output_stride=2, keep_probabilities=True).probabilities
    assert found is not None
    assert found.grid == Grid(2, 0)
    assert found.values.dtype == np.float16
    assert found.values.shape == (3, 3, 5)
    np.testing.assert_allclose(found.values.sum(0), 1, atol=2e-3)


def test_fractions_add_up_and_come_largest_first(model: ByChannel) -> None:
    assert list(predict(model, HALVES).fractions().items()) == [("blue", 0.6), ("red", 0.4)]


def test_a_saved_mask_is_a_palette_png_with_the_labels(model: ByChannel, tmp_path: Path) -> None:
    predict(model, HALVES).save(tmp_path / "new" / "mask.png")
    with Image.open(tmp_path / "new" / "mask.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.array(mask), EXPECTED)
        np.testing.assert_array_equal(np.array(mask.convert("RGB"))[0, 9], [0, 0, 255])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mask.png"]


def test_a_mask_is_not_saved_as_jpeg(model: ByChannel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"name it mask\.png"):
        predict(model, HALVES).save(tmp_path / "mask.jpg")


def test_the_overlay_has_the_size_of_the_image_without_its_legend(model: ByChannel) -> None:
    result = predict(model, HALVES)
    assert result.overlay(legend=False).shape == HALVES.shape
    assert result.overlay().shape[0] > HALVES.shape[0]


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x.png"
    target.write_bytes(b"old")

    def full(self: Path, other: Path) -> Path:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_array_with_the_channels_first_is_refused() -> None:
    network = atrous.create_model("fcn32s", backbone="mobilenetv2_035", num_classes=2)
    with pytest.raises(ValueError, match=r"expected an RGB image as uint8 \(H, W, 3\) .* not uint8 \(3, 6, 10\)"):
        predict(network, HALVES.transpose(2, 0, 1))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_network_of_other_channels_takes_arrays_of_them(channels: int) -> None:
    model = atrous.create_model("deeplabv3plus", backbone="test_resnet", num_classes=3, in_channels=channels)
    result = predict(model, np.zeros((20, 30, channels), np.uint8))
    assert result.labels.shape == (20, 30)
    assert result.overlay(legend=False).shape == (20, 30, 3)
    with pytest.raises(ValueError, match=rf"expected an image as uint8 \(H, W, {channels}\)"):
        predict(model, np.zeros((20, 30), np.uint8))


def test_an_unknown_precision_is_refused(model: ByChannel) -> None:
    with pytest.raises(ValueError, match="precision is one of auto, float32, bfloat16, not 'float16'"):
        predict(model, HALVES, precision="float16")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("options", [{}, {"flip": True}, {"crf": True}, {"keep_probabilities": True}])
def test_an_output_that_is_not_finite_is_an_error(value: float, options: dict[str, bool]) -> None:
    model = atrous.create_model("deeplabv3plus", backbone="test_resnet", num_classes=3, pretrained=False)
    with torch.no_grad():
        list(model.parameters())[-1][1] = value
    with pytest.raises(InputError, match="logits are not finite"):
        predict(model, HALVES, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["deeplabv3plus", "attention_to_scale"])
def test_a_network_of_another_precision_predicts(dtype: torch.dtype, architecture: str) -> None:
    model = atrous.create_model(architecture, backbone="test_resnet", num_classes=3, pretrained=False)
    expected = predict(model, HALVES, keep_probabilities=True)
    found = predict(model.to(dtype), HALVES, keep_probabilities=True)
    assert next(model.parameters()).dtype == dtype
    assert found.probabilities is not None
    assert expected.probabilities is not None
    assert np.allclose(found.probabilities.values, expected.probabilities.values, atol=0.05)


def test_a_network_of_several_precisions_is_refused() -> None:
    model = atrous.create_model("deeplabv3plus", backbone="test_resnet", num_classes=3, pretrained=False)
    model.backbone.half()
    with pytest.raises(InputError, match=r"torch.float16 and torch.float32.*model.float\(\)"):
        predict(model, HALVES)
    with pytest.raises(InputError, match=r"expected torch.float32 for precision 'bfloat16'"):
        predict(model.half(), HALVES, precision="bfloat16")
