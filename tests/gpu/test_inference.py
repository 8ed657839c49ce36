"""From images to labels and scores on a GPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from typer.testing import CliRunner

import atrous
from atrous.cli import app
from atrous.crf import Bilateral, DenseCRF, Gaussian
from atrous.data.opening import open_dataset
from atrous.grid import Grid
from atrous.inference.demo import find_demo_images
from atrous.models import SegmentationModel, create_model
from atrous.ops.labelmap.op import logits_to_labels

pytestmark = pytest.mark.gpu

CRF = DenseCRF([Gaussian(sxy=3, weight=3), Bilateral(sxy=40, srgb=13, weight=5)], iterations=5)


@pytest.fixture(scope="module")
def bundled() -> SegmentationModel:
    return atrous.load("deeplabv3plus_lite0_voc")


def agreement(labels: np.ndarray, expected: np.ndarray) -> float:
    assert labels.dtype == expected.dtype == np.uint8
    assert len(np.unique(expected)) > 1
    return float((labels == expected).mean())


@pytest.mark.parametrize(
    "how",
    [{}, {"scales": (0.75, 1.0), "flip": True}, {"scales": (0.75, 1.0), "merge": "max"}, {"crf": CRF}],
    ids=["one look", "scales and mirror images", "max", "crf"],
)
def test_an_image_gets_the_cpus_labels(
    how: dict[str, object], bundled: SegmentationModel, device: torch.device, exact: None
) -> None:
    with Image.open(find_demo_images()[0]) as image:
        pixels = np.array(image.convert("RGB").resize((205, 241)))
    expected = atrous.predict(bundled, pixels, device="cpu", **how)
    found = atrous.predict(bundled, pixels, device=device, **how)
    assert agreement(found.labels, expected.labels) >= 0.999


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_rounding_changes_few_labels(precision: str, bundled: SegmentationModel, device: torch.device) -> None:
    """With what is quickest on the hardware: TF32 convolutions, or autocast."""
    image = find_demo_images()[0]
    expected = atrous.predict(bundled, image, device="cpu")
    found = atrous.predict(bundled, image, device=device, precision=precision, keep_probabilities=True)
    assert agreement(found.labels, expected.labels) >= (0.995 if precision == "float32" else 0.98)
    assert found.class_probabilities is not None
    assert found.class_probabilities.values.sum(0) == pytest.approx(1, abs=0.02)


def test_a_crf_stays_where_it_was(bundled: SegmentationModel, device: torch.device) -> None:
    """It is the caller's, who may use it elsewhere, or train it."""
    atrous.predict(bundled, np.full((40, 50, 3), 90, np.uint8), device=device, crf=CRF)
    assert all(weight.device.type == "cpu" and not weight.is_inference() for weight in CRF.parameters())


def test_attention_is_the_cpus(device: torch.device, exact: None) -> None:
    model = create_model("attention_to_scale", backbone="test_resnet", num_classes=3, scales=(1, 0.5))
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    expected, found = (atrous.predict(model, pixels, device=where).attention for where in ("cpu", device))
    assert expected is not None
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_scores_become_the_cpus_labels(memory_format: torch.memory_format, device: torch.device) -> None:
    coarse = torch.randn(2, 19, 8, 12, generator=torch.Generator().manual_seed(0))
    scores = F.interpolate(coarse, (33, 49), mode="bicubic")
    expected = logits_to_labels(scores, Grid(4, 1.5), (131, 195))
    found = logits_to_labels(scores.to(device).contiguous(memory_format=memory_format), Grid(4, 1.5), (131, 195))
    assert found.device.type == device.type
    assert (found.cpu() == expected).float().mean() >= 0.9999


@pytest.fixture
def model_folder(squares: Path, tmp_path: Path) -> Path:
    """An untrained model of the squares' classes."""
    labels = open_dataset(f"folder:{squares}", "val").label_set
    return create_model("deeplabv3plus", backbone="test_resnet", label_set=labels, channels=16).save(tmp_path / "model")


def test_evaluation_counts_as_on_the_cpu(model_folder: Path, squares: Path, device: torch.device, exact: None) -> None:
    model, data = atrous.load(str(model_folder)), open_dataset(f"folder:{squares}", "val")
    expected, found = (atrous.evaluate(model, data, device=where, trimap=(3,)) for where in ("cpu", device))
    assert found.device == str(device)
    for one, other in ((expected.confusion, found.confusion), (expected.trimap[3], found.trimap[3])):
        assert np.abs(one.matrix - other.matrix).sum() <= 0.002 * one.matrix.sum()


def test_the_commands_take_the_device(model_folder: Path, squares: Path, tmp_path: Path, device: torch.device) -> None:
    common = ["--model", str(model_folder), "--device", device.type]
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["predict", str(squares / "images"), "--out", str(out), "--crf", *common])
    assert result.exit_code == 0, result.output
    assert len(list(out.glob("*.overlay.jpg"))) == 10
    result = CliRunner().invoke(app, ["sweep", "--data", f"folder:{squares}", "--output-stride", "8,16", *common])
    assert result.exit_code == 0, result.output
    assert "mean IoU" in result.output
