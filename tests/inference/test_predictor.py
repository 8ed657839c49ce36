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
from atrous.inference.predict import predict
from atrous.inference.predictor import kept_predictor
from atrous.labels import LabelSet
from atrous.models.base import Output


class ByChannel(nn.Module):
    """Takes each pixel for the class of its strongest channel; it looks at every ``output_stride``-th pixel."""

    label_set = LabelSet(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    name = "by_channel"
    backbone = SimpleNamespace(in_channels=3)
    preprocessing = SimpleNamespace(dtype="uint8", ranges=())
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


def test_bytes_files_and_tensors_give_the_same_labels(model: ByChannel, tmp_path: Path) -> None:
    Image.fromarray(HALVES).save(tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    tensor = torch.from_numpy(HALVES).permute(2, 0, 1)
    with (tmp_path / "x.png").open("rb") as file:
        for source in (data, memoryview(data), io.BytesIO(data), file, tensor, tensor.contiguous()):
            result = predict(model, source)
            np.testing.assert_array_equal(result.labels, EXPECTED)
            np.testing.assert_array_equal(result.image, HALVES)


@pytest.mark.parametrize(("together", "batches"), [(False, []), (True, [2, 1, 1])])
def test_a_list_of_images_is_labelled_in_batches_of_one_size_where_they_pay(
    model: ByChannel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: bool, batches: list[int]
) -> None:
    made = kept_predictor(model)
    made.batches_pay = together
    labels, run = made.labels, []
    monkeypatch.setattr(made, "labels", lambda images: run.append(len(images)) or labels(images))
    monkeypatch.setattr("atrous.inference.predictor.kept_predictor", lambda *_, **__: made)
    Image.fromarray(HALVES).save(tmp_path / "x.png")
    wide = np.repeat(HALVES, 2, axis=1)
    found = predict(model, [tmp_path / "x.png", HALVES, wide, torch.from_numpy(HALVES).permute(2, 0, 1)])
    assert run == batches
    for result, columns in zip(found, (1, 1, 2, 1), strict=True):
        np.testing.assert_array_equal(result.labels, np.repeat(EXPECTED, columns, axis=1))
    assert predict(model, []) == []
    for result in predict(model, (HALVES, wide), keep_probabilities=True, flip=True):
        assert result.probabilities().shape[0] == 3


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
        (HALVES / 255, r"not float64 .* of 0 to 0.784; stretch it: \(255 \* x\).round\(\).astype\(np.uint8\)"),
        (HALVES.astype(int), r"not int64 .* of 0 to 200; convert it: x.round\(\).astype\(np.uint8\)"),
        (HALVES - 100.0, r"of -100 to 100; undo its normalisation, or call model\(x\)"),
        (HALVES.transpose(2, 0, 1), r"put the channels last: array.transpose\(1, 2, 0\)"),
        (HALVES[None], r"a batch is a list: predict\(model, list\(batch\)\)"),
        (torch.rand(3, 4, 4), r"tensor uint8 \(3, H, W\) .* not float32 .*stretch it: .*to\(torch.uint8\)"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), r"put the channels first: x.permute\(2, 0, 1\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), r"a batch is a list: predict\(model, list\(batch\)\)"),
        (io.StringIO("text"), "opened as text; open it in binary mode"),
        (io.BytesIO(), r"nothing left to read, expected an image; rewind it: file.seek\(0\)"),
        (b"text", "image: .*expected an image"),
        (7, "an image is a path, bytes, an open file, .* not a int"),
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
    assert set(model.seen) == {(False, True, 2, torch.float32)}
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
    assert predict(model, HALVES).class_probabilities is None
    found = predict(model, HALVES, output_stride=2, keep_probabilities=True).class_probabilities
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


def test_a_mask_is_saved_to_a_buffer(model: ByChannel) -> None:
    buffer = io.BytesIO()
    predict(model, HALVES).save(buffer)
    with Image.open(buffer) as mask:
        np.testing.assert_array_equal(np.array(mask), EXPECTED)


def test_probabilities_are_interpolated_to_the_size_of_the_image(model: ByChannel) -> None:
    result = predict(model, HALVES, output_stride=2, keep_probabilities=True)
    assert result.probabilities().shape == (3, 3, 5)
    full = result.probabilities(full_size=True)
    assert (full.shape, full.dtype) == ((3, 6, 10), np.float32)
    np.testing.assert_allclose(full.sum(0), 1, atol=2e-3)
    np.testing.assert_array_equal(full[:, ::2, ::2], result.probabilities())
    with pytest.raises(InputError, match="keep_probabilities=True"):
        predict(model, HALVES).probabilities()


def test_a_segmentation_is_one_line_of_text_and_an_image_in_a_notebook(model: ByChannel) -> None:
    assert repr(predict(model, HALVES)) == "Segmentation(6×10: blue 60%, red 40%)"
    large = predict(model, np.repeat(np.repeat(HALVES, 200, 0), 300, 1))
    with Image.open(io.BytesIO(large._repr_png_())) as shown:
        assert shown.format == "PNG"
        assert shown.width == 1024
        assert 410 < shown.height < 700


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
    assert found.class_probabilities is not None
    assert expected.class_probabilities is not None
    assert np.allclose(found.class_probabilities.values, expected.class_probabilities.values, atol=0.05)


def test_a_network_of_several_precisions_is_refused() -> None:
    model = atrous.create_model("deeplabv3plus", backbone="test_resnet", num_classes=3, pretrained=False)
    model.backbone.half()
    with pytest.raises(InputError, match=r"torch.float16 and torch.float32.*model.float\(\)"):
        predict(model, HALVES)
    with pytest.raises(InputError, match=r"expected torch.float32 for precision 'bfloat16'"):
        predict(model.half(), HALVES, precision="bfloat16")
