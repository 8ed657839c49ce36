"""Caffe's classifiers as weights to start from: the backbone's features are those of the literal net."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from atrous.cli import app
from atrous.convert.caffe_classifier import convert_classifier
from atrous.convert.tensors import ConversionError
from atrous.models import create_model

Write = Callable[..., Path]
MEAN_BGR = torch.tensor([104.00699, 116.66877, 122.67892])[:, None, None]


def conv(outputs: int, *inputs: int) -> list[np.ndarray]:
    random = np.random.default_rng(outputs + sum(inputs))
    weight = random.normal(0, np.sqrt(2 / np.prod(inputs)), (outputs, *inputs))
    return [weight.astype(np.float32), random.normal(0, 0.1, outputs).astype(np.float32)]


def vgg11() -> dict[str, list[np.ndarray]]:
    """A sixteenth of its channels, as in `thin`; fc6 as published, fully connected."""
    widths = {"1_1": (4, 3), "2_1": (8, 4), "3_1": (16, 8), "3_2": (16, 16), "4_1": (32, 16), "4_2": (32, 32)}
    widths |= {"5_1": (32, 32), "5_2": (32, 32)}
    blobs = {f"conv{name}": conv(o, i, 3, 3) for name, (o, i) in widths.items()}
    return blobs | {"fc6": conv(256, 32 * 49), "fc7": conv(256, 256), "fc8": conv(62, 256)}


@pytest.mark.parametrize("form", ["new", "old"])
def test_a_backbone_that_starts_from_it_gives_its_features(
    thin: None, write_caffemodel: Write, tmp_path: Path, form: str
) -> None:
    blobs = vgg11()
    file, out = write_caffemodel(blobs, form), tmp_path / "vgg11.safetensors"
    done = CliRunner().invoke(app, ["convert", "classifier", str(file), "--as", "vgg11", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert f"model.pretrained={out}" in done.stdout
    again = CliRunner().invoke(app, ["convert", "classifier", str(file), "--as", "vgg11", "--out", str(out)])
    assert again.exit_code != 0
    assert "exists already: name a new file" in again.output
    model = create_model("fcn32s", backbone="vgg11", num_classes=2, pretrained=out).eval()
    image = torch.randint(0, 256, (1, 3, 40, 30), dtype=torch.uint8)
    weight, bias = map(torch.from_numpy, blobs["conv1_1"])
    with torch.no_grad():
        ours = model.backbone.net.conv1_1(model.preprocess(image))[..., 100:138, 100:128]  # where no padding reaches
        theirs = F.conv2d(image.flip(1).float() - MEAN_BGR, weight, bias)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
    for name in ("conv2_1", "conv5_2", "fc6", "fc7"):
        ours = model.backbone.net.get_submodule(name).weight
        assert torch.equal(ours.flatten(1), torch.from_numpy(blobs[name][0]).flatten(1))


def test_caffenet_reads_what_caffe_reads(thin: None, write_caffemodel: Write, tmp_path: Path) -> None:
    shapes = {"conv1": (6, 3, 11, 11), "conv2": (16, 3, 5, 5), "conv3": (24, 16, 3, 3), "conv4": (24, 12, 3, 3)}
    shapes |= {"conv5": (16, 12, 3, 3), "fc6": (256, 16, 6, 6), "fc7": (256, 256, 1, 1), "fc8": (62, 256, 1, 1)}
    blobs = {name: conv(*shape) for name, shape in shapes.items()}
    convert_classifier(write_caffemodel(blobs), "caffenet", out := tmp_path / "caffenet.safetensors")
    net = create_model("fcn32s", backbone="caffenet", num_classes=2, pretrained=out).backbone.net
    torch.testing.assert_close(net.conv1.weight, torch.from_numpy(blobs["conv1"][0]).flip(1))
    torch.testing.assert_close(net.conv1.bias, torch.from_numpy(blobs["conv1"][1]))
    assert torch.equal(net.fc6.weight, torch.from_numpy(blobs["fc6"][0]))


def test_what_does_not_fit_is_named(thin: None, write_caffemodel: Write, tmp_path: Path) -> None:
    file = write_caffemodel(vgg11())
    with pytest.raises(
        ConversionError, match=r"does not contain the classifier vgg13: 4 missing: conv1_2\.weight 4×4×3×3"
    ):
        convert_classifier(file, "vgg13", tmp_path / "out.safetensors")
    with pytest.raises(
        ValueError, match="unknown classifier 'resnet50'; available are caffenet, vgg11, vgg13, vgg16, vgg19"
    ):
        convert_classifier(file, "resnet50", tmp_path / "out.safetensors")
    with pytest.raises(ValueError, match=r"name the file out\.safetensors, not .*out\.pth"):
        convert_classifier(file, "vgg11", tmp_path / "out.pth")
    assert not list(tmp_path.glob("out.*"))
