"""Exported files give the model's own labels at every size, and say what they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import atrous
from atrous.errors import InputError
from atrous.export.metadata import metadata
from atrous.export.proof import ExportError
from atrous.models import SegmentationModel
from atrous.models.saving import describe

pytestmark = pytest.mark.slow
onnx = pytest.importorskip("onnx", reason="needs the extra 'export'")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
pytest.importorskip("onnxscript", reason="needs the extra 'export'")

CLASSES = ("sky", "road", "tree")
SHAPES = ((1, 257, 321), (1, 375, 500), (3, 97, 64), (1, 1, 1), (2, 33, 2))
PORTABLE = set(
    """Abs Add ArgMax AveragePool Cast Clip Concat Conv ConvTranspose Div Erf Exp Expand Gather GlobalAveragePool
    GridSample LRN LayerNormalization LeakyRelu MatMul Max MaxPool Min Mul Pad Pow Range ReduceMax ReduceMean
    ReduceSum Relu Reshape Resize Shape Sigmoid Slice Softmax Sqrt Squeeze Sub Tanh Transpose Unsqueeze Where""".split()
)
"""Standard operators that ONNX Runtime Web has, most of them on the GPU too."""


def make_model(backbone: str, name: str = "deeplabv3plus", **options) -> SegmentationModel:
    torch.manual_seed(0)
    model = atrous.create_model(name, backbone=backbone, label_set=CLASSES, **options).eval()
    with torch.no_grad():  # a new classifier's logits are nearly equal
        sample = torch.from_numpy(images(1, 65, 65, model.backbone.in_channels)).permute(0, 3, 1, 2)
        model.get_submodule("classifier").weight.mul_(2 / model(model.preprocess(sample)).std())
    return model


def images(count: int, height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    """Smooth waves with noise."""
    random = np.random.default_rng(height)
    y, x = np.mgrid[:height, :width] / 40.0
    waves = [np.sin(y * a + x * b + c) for a, b, c in random.normal(size=(count * channels, 3))]
    stack = np.stack(waves).reshape(count, channels, height, width).transpose(0, 2, 3, 1)
    return (127 + 90 * stack + random.normal(0, 8, stack.shape)).clip(0, 255).astype(np.uint8)


def reference(model: SegmentationModel, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities by eager torch."""
    with torch.inference_mode():
        logits = model(model.preprocess(torch.from_numpy(batch).permute(0, 3, 1, 2)))
    return logits.softmax(1).numpy()


def check_labels(labels: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> None:
    """Each label is that of the largest probability, as far as float32 can tell."""
    chosen = np.take_along_axis(probabilities, labels[:, None].astype(np.int64), 1)[:, 0]
    assert labels.dtype == np.uint8
    assert (probabilities.max(1) - chosen).max() < 1e-4


def run_onnx(file: Path, batch: NDArray[np.uint8]) -> list[NDArray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"]).run(None, {"image": batch})


@pytest.fixture(scope="module")
def same_padding() -> SegmentationModel:
    """A network that pads as TensorFlow does: by the size of each layer's input."""
    return make_model("tf_efficientnet_lite0")


@pytest.fixture(scope="module")
def file(same_padding: SegmentationModel, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("export") / "m.onnx"
    assert atrous.export_model(same_padding, out, probabilities=True).good
    return out


def test_onnx_gives_the_labels_of_eager_torch_at_every_size(same_padding: SegmentationModel, file: Path) -> None:
    for shape in SHAPES:
        labels, probabilities = run_onnx(file, batch := images(*shape))
        expected = reference(same_padding, batch)
        assert labels.shape == shape
        np.testing.assert_allclose(probabilities, expected, atol=1e-4)
        check_labels(labels, expected)


def test_openvino_gives_the_labels_of_eager_torch_at_every_size(same_padding: SegmentationModel, file: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="needs the extra 'export'")
    network = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in SHAPES:
        found = network(batch := images(*shape))
        expected = reference(same_padding, batch)
        np.testing.assert_allclose(found["probabilities"], expected, atol=1e-4)
        check_labels(found["labels"], found["probabilities"])


def test_a_file_says_what_it_is(same_padding: SegmentationModel, file: Path) -> None:
    graph = onnx.load(file)
    texts = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(texts["atrous"]) == json.loads(json.dumps(describe(same_padding, {})))
    assert json.loads(texts["class_names"]) == {"0": "sky", "1": "road", "2": "tree"}
    assert json.loads(texts["model_type"]) == "Segmentor"
    assert texts == metadata(same_padding)
    assert [entry.name for entry in graph.graph.input] == ["image"]
    assert [entry.name for entry in graph.graph.output] == ["labels", "probabilities"]


def test_a_file_has_portable_operators_and_no_batch_norm(file: Path) -> None:
    graph = onnx.load(file)
    assert {node.op_type for node in graph.graph.node} <= PORTABLE
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 18)]


def test_the_output_stride_is_that_of_the_file(tmp_path: Path) -> None:
    model = make_model("test_resnet", "deeplabv3")
    atrous.export_model(model, out := tmp_path / "m.onnx", output_stride=8)
    assert model.output_stride == 16
    model.output_stride = 8
    (labels,) = run_onnx(out, batch := images(1, 75, 90))
    check_labels(labels, reference(model, batch))


def test_openvino_and_torch_files(tmp_path: Path) -> None:
    model = make_model("test_resnet", "deeplabv3")
    assert atrous.export_model(model, tmp_path / "m.pt2", probabilities=True).good
    program = torch.export.load(tmp_path / "m.pt2").module()
    batch = images(1, 75, 90)
    labels, probabilities = program(torch.from_numpy(batch))
    expected = reference(model, batch)
    torch.testing.assert_close(probabilities, torch.from_numpy(expected), atol=1e-5, rtol=0)
    check_labels(labels.numpy(), expected)
    openvino = pytest.importorskip("openvino", reason="needs the extra 'export'")
    assert atrous.export_model(model, tmp_path / "m.xml").good
    network = openvino.Core().read_model(tmp_path / "m.xml")
    assert json.loads(network.get_rt_info("atrous").value)["architecture"] == "deeplabv3"
    found = openvino.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(batch)["labels"]
    check_labels(found, expected)


def test_int8_is_judged_on_images_it_was_not_calibrated_with(tmp_path: Path) -> None:
    model = make_model("test_resnet", "deeplabv3")
    batch = images(6, 65, 65)
    masks = reference(model, batch).argmax(1).astype(np.uint8)
    proof = atrous.export_model(
        model, tmp_path / "m.onnx", calibrate=atrous.wrap(list(zip(batch, masks, strict=True)), CLASSES)
    )
    assert {seen.calibrated for seen in proof.int8} == {seen.evaluated for seen in proof.int8} == {3}
    assert all(seen.float_mean_iou > 0.999 and seen.mean_iou > 0.5 for seen in proof.int8)
    assert proof.good == all(seen.lost <= 0.5 for seen in proof.int8)
    kinds = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert kinds.count("QuantizeLinear") > 5
    assert json.loads((tmp_path / "m.proof.json").read_text())["good"] == proof.good


def test_a_file_with_other_labels_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("test_resnet", "deeplabv3")
    monkeypatch.setattr("atrous.export.proof._truth", lambda *_: (np.full(1, 9, np.uint8), np.zeros(1, np.float32)))
    with pytest.raises(ExportError, match="does not label images as the model does"):
        atrous.export_model(model, tmp_path / "m.pt2")
    assert not list(tmp_path.iterdir())


def test_other_channels_than_three(tmp_path: Path) -> None:
    model = make_model("test_resnet", "deeplabv3", in_channels=5)
    atrous.export_model(model, out := tmp_path / "m.onnx")
    (labels,) = run_onnx(out, batch := images(1, 41, 50, 5))
    check_labels(labels, reference(model, batch))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("model.pb", {}, "ends in none of .onnx"),
        ("model.pb", {"format": "onnx"}, "name it model.onnx"),
        ("model.onnx", {"format": "tflite"}, "format is one of"),
        ("model.onnx", {"output_stride": 3}, "output_stride is one of"),
    ],
)
def test_what_can_not_be_exported_is_said(tmp_path: Path, name: str, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        atrous.export_model(make_model("test_resnet", "deeplabv3"), tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:You are using the legacy:DeprecationWarning")
def test_the_tracing_exporter_is_refused(tmp_path: Path) -> None:
    model = make_model("test_resnet", "deeplabv3")
    with pytest.raises(InputError, match="dynamo=True"):
        torch.onnx.export(model, (torch.zeros(1, 3, 33, 33),), tmp_path / "m.onnx", dynamo=False)


@pytest.mark.parametrize("free", [torch.export.Dim.DYNAMIC, None])
def test_torch_export_of_a_model_is_right_at_every_size(same_padding: SegmentationModel, free) -> None:
    """A user's own export, of preprocessed images."""
    sizes = [free or torch.export.Dim(name) for name in ("batch", "height", "width")]
    shapes = {"images": dict(zip((0, 2, 3), sizes, strict=True))}
    program = torch.export.export(same_padding, (torch.zeros(2, 3, 129, 161),), dynamic_shapes=shapes).module()
    for shape in ((1, 500, 375), (1, 640, 480), (2, 512, 512), (1, 257, 321), (1, 513, 513)):
        pixels = same_padding.preprocess(torch.from_numpy(images(*shape)).permute(0, 3, 1, 2))
        with torch.inference_mode():
            torch.testing.assert_close(program(pixels), same_padding(pixels), atol=1e-3, rtol=1e-4)


ARCHITECTURES = [
    ("fcn32s", "test_resnet", {}),
    ("fcn16s", "test_resnet", {}),
    ("fcn8s", "test_resnet", {}),
    ("fcn", "test_resnet", {"output_stride": 8}),
    ("deeplab_largefov", "vgg11", {}),
    ("deeplab_msc_largefov", "test_resnet", {}),
    ("deeplab_aspp", "test_resnet", {"scales": (1, 0.75, 0.5)}),
    ("attention_to_scale", "test_resnet", {}),
    ("deeplabv3", "test_convnext", {}),
    ("deeplabv3_cascade", "test_resnet", {}),
    ("deeplabv3plus", "mobilenetv2_050", {"output_stride": 8}),
    ("deeplabv3plus", "xception41", {}),
]


@pytest.mark.parametrize(("name", "backbone", "options"), ARCHITECTURES, ids=lambda value: str(value))
def test_every_architecture_exports(tmp_path: Path, name: str, backbone: str, options: dict) -> None:
    torch.manual_seed(0)
    model = atrous.create_model(name, backbone=backbone, label_set=CLASSES, **options).eval()
    atrous.export_model(model, out := tmp_path / "m.onnx", probabilities=True)
    assert {node.op_type for node in onnx.load(out).graph.node} <= PORTABLE
    for shape in ((1, 75, 94), (2, 61, 130)):
        labels, probabilities = run_onnx(out, batch := images(*shape))
        np.testing.assert_allclose(probabilities, expected := reference(model, batch), atol=1e-4)
        check_labels(labels, expected)
