"""`atrous convert` from file to model folder."""

import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner, Result

from atrous.cli import app
from atrous.models import load

Write = Callable[..., Path]


def atrous(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def caffemodel(thin: None, write_caffemodel: Write) -> Path:
    """FCN-32s on AlexNet for three classes, the least of the nets."""
    shapes = {
        "conv1": (6, 3, 11),
        "conv2": (16, 3, 5),
        "conv3": (24, 16, 3),
        "conv4": (24, 12, 3),
        "conv5": (16, 12, 3),
    }
    shapes |= {"fc6": (256, 16, 6), "fc7": (256, 256, 1), "score_fr": (3, 256, 1)}
    random = np.random.default_rng(0)
    blobs = {name: (random.normal(0, 0.05, (o, i, k, k)), np.zeros(o)) for name, (o, i, k) in shapes.items()}
    return write_caffemodel(blobs, name="fcn-alexnet.caffemodel")


def test_a_converted_net_is_a_model_folder(caffemodel: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("road\n\nsky\ntree\n")
    done = atrous(
        "convert", "caffe", caffemodel, "--as", "fcn32s", "--classes", tmp_path / "names.txt", "--out", tmp_path / "m"
    )
    assert done.exit_code == 0, done.output
    assert "fcn32s on caffenet, " in done.stdout
    assert "3 classes: road, sky, tree" in done.stdout
    assert "note: left out" not in done.stdout
    model = load(tmp_path / "m")
    assert (model.label_set.names, model.card["converted_from"]) == (("road", "sky", "tree"), "fcn-alexnet.caffemodel")
    Image.new("RGB", (30, 20)).save(tmp_path / "image.png")
    predicted = atrous("predict", tmp_path / "image.png", "--model", tmp_path / "m", "--out", tmp_path / "masks")
    assert predicted.exit_code == 0, predicted.output


def test_an_older_model_is_replaced_only_where_that_is_said(caffemodel: Path, tmp_path: Path) -> None:
    command = ("convert", "caffe", caffemodel, "--as", "fcn32s", "--out", tmp_path / "m")
    assert atrous(*command).exit_code == 0
    older = (tmp_path / "m/model.safetensors").stat().st_mtime_ns
    again = atrous(*command)
    assert (again.exit_code, again.stdout) == (2, "")
    assert again.stderr == f"atrous: {tmp_path / 'm'} contains a model: name a new folder, or use --overwrite\n"
    assert (tmp_path / "m/model.safetensors").stat().st_mtime_ns == older
    assert atrous(*command, "--overwrite").exit_code == 0
    assert (tmp_path / "m/model.safetensors").stat().st_mtime_ns > older
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(b"mine")
    other = atrous(*command[:-1], tmp_path / "images", "--overwrite")
    assert (other.exit_code, (tmp_path / "images/a.jpg").read_bytes()) == (2, b"mine")


def test_classes_may_be_those_of_a_dataset(caffemodel: Path, tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "data" / kind / "a.png")
    (tmp_path / "data/labels.toml").write_text('names = ["a", "b", "c"]')
    spec = f"folder:{tmp_path / 'data'}"
    done = atrous("convert", "caffe", caffemodel, "--as", "fcn32s", "--data", spec, "--out", tmp_path / "m")
    assert done.exit_code == 0, done.output
    assert load(tmp_path / "m").label_set.names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--as", "fcn8s"], "does not contain fcn8s on caffenet: 4 missing: score_pool4.weight"),
        (["--as", "fcn9s"], "layout 'caffe' has fcn32s, fcn16s, fcn8s, deeplab_largefov, deeplab_aspp, not 'fcn9s'"),
        (["--as", "fcn32s", "--inputs", "nyud-rgbd"], "has 3 input channels, but 'nyud-rgbd' has 4"),
        (["--as", "fcn32s", "--rates", "six"], "--rates takes integers"),
        (["--as", "fcn32s", "--classes", "names.txt"], "2 class names were given, but"),
        (["--as", "fcn32s", "--classes", "names.txt", "--data", "voc:."], "--classes and --data both name the classes"),
        (["--as", "fcn32s", "--classes", "twice.txt"], "twice.txt: class names must differ"),
        (["--as", "fcn32s", "--classes", "no.txt"], "no.txt"),
        (["--as", "fcn32s", "--out", "names.txt/m"], "a file, where a folder is to be written in: 'names.txt'"),
        (["--as", "fcn32s", "--out", "."], "exists and is not a model folder"),
    ],
)
def test_what_can_not_be_is_said_in_one_line(
    caffemodel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("a\nb\n")
    Path("twice.txt").write_text("a\na\n")
    out = [] if "--out" in options else ["--out", "m"]
    done = atrous("convert", "caffe", caffemodel, *options, *out)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not Path("m").exists()
    assert Path("names.txt").is_file()


def test_a_missing_file_and_another_kind(tmp_path: Path) -> None:
    for kind in (["caffe"], ["pytorch", "--layout", "isht7"]):
        missing = atrous("convert", *kind, tmp_path / "no.file", "--as", "deeplab_aspp", "--out", tmp_path / "m")
        assert missing.exit_code == 2
        assert "no.file" in missing.stderr
    (tmp_path / "a.caffemodel").write_bytes(b"PK\3\4")
    other = atrous("convert", "caffe", tmp_path / "a.caffemodel", "--as", "fcn8s", "--out", tmp_path / "m")
    assert "use `atrous convert pytorch`" in other.stderr


def units(counts: tuple[int, ...], convs: int, backbone: str = "backbone") -> dict[str, Tensor]:
    """Tensors by which a ResNet of so many units in its blocks is told."""
    names = [f"layer{b}.{u}.conv{c + 1}" for b, n in enumerate(counts, 1) for u in range(n) for c in range(convs)]
    return {f"{backbone}.{name}.weight": torch.zeros(1) for name in ("conv1", *names)}


@pytest.mark.parametrize(
    ("layout", "tensors", "words", "other"),
    [
        (
            "torchvision",
            {"a.weight": torch.zeros(1)},
            "(resnet50, resnet101, resnet152): expected backbone.conv1",
            "18",
        ),
        (
            "torchvision",
            {"a.weight": torch.zeros(1)},
            "(or MobileNetV3-Large: backbone.0.0.weight), found a.weight",
            "34",
        ),
        ("smp", units((3, 4, 6, 3), 3), "(resnet18, resnet34, resnet50, resnet101, resnet152): expected encoder", "V3"),
        ("torchvision", units((2, 2, 2, 2), 2), "found 2 + 2 + 2 + 2 units of 2 convolutions", "resnet18"),
        ("vainf", units((3, 4, 6, 3), 2), "3 + 4 + 6 + 3 units of 3 convolutions (resnet50)", "resnet34"),
        (
            "jfzhang95",
            units((3, 4, 6, 3), 3),
            "expected 3 + 4 + 23 + 3 units of 3 convolutions (resnet101)",
            "resnet50",
        ),
    ],
)
def test_the_backbones_that_an_error_names_are_those_of_the_layout(
    tmp_path: Path, layout: str, tensors: dict[str, Tensor], words: str, other: str
) -> None:
    torch.save(tensors, tmp_path / "net.pth")
    architecture = "deeplabv3" if layout == "torchvision" else "deeplabv3plus"
    done = atrous(
        *("convert", "pytorch", tmp_path / "net.pth", "--as", architecture),
        *("--layout", layout, "--out", tmp_path / "m"),
    )
    assert done.exit_code == 2
    assert words in done.stderr
    assert other not in done.stderr.removeprefix(f"atrous: {tmp_path}")


class Net(torch.nn.Conv2d):
    """A module, which `torch.save` pickles whole."""


FIX = "torch.save(model.state_dict(), 'weights.pth')"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({0: torch.ones(1), 1: torch.ones(1)}, ["found 0: Tensor, 1: Tensor", "names are strings", FIX]),
        ({"state_dict": {0: torch.ones(1)}}, ["found 0: Tensor"]),
        ({"net": {"a": torch.ones(1)}, "epoch": 3}, ["contains no state dict", "found 'net': dict, 'epoch': int", FIX]),
        ({}, ["contains no state dict", "found nothing"]),
        (torch.ones(1), ["found a Tensor"]),
        (Net(1, 1, 1), ["contains other objects than tensors", ".Net", FIX]),
        (
            {"state_dict": {"a": torch.ones(1)}, "args": Fraction(1, 2)},
            ["contains other objects than tensors", "fractions", FIX],
        ),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_a_pytorch_file_holds_instead_is_said(
    tmp_path: Path, content: object, words: list[str], zipped: bool
) -> None:
    torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    said = refused(tmp_path / "net.pth")
    for word in words:
        assert word in said or (not zipped and word in (".Net", "fractions"))  # the older form does not tell


def refused(file: Path) -> str:
    """What `convert pytorch` says, which never advises to run what is in a file."""
    options = ("--as", "deeplabv3", "--layout", "torchvision", "--out", file.parent / "m")
    done = atrous("convert", "pytorch", file, *options)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert str(file) in done.stderr
    for advice in ("weights_only", "safe_globals", "trust"):
        assert advice not in done.stderr
    return done.stderr


def test_other_files_and_broken_ones_are_told_apart(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1000)}, whole := tmp_path / "whole.pth")
    save_file({"a": torch.ones(9)}, tensors := tmp_path / "a.safetensors")
    with ZipFile(archive := tmp_path / "archive.pth", "w") as out:
        out.writestr("image.txt", "")
    with ZipFile(script := tmp_path / "script.pth", "w") as out:  # as torch.jit.save, now deprecated, writes them
        for part in ("data.pkl", "constants.pkl", "version"):
            out.writestr(f"script/{part}", "3")
    contents = {
        "empty.pth": (b"", "is empty"),
        "text.pth": (b"hello world\n", "torch.save did not write it"),
        "page.pth": (b"<!DOCTYPE html>", "a web page"),
        "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\n", "`git lfs pull`"),
        "cut.pth": (whole.read_bytes()[:900], "truncated or damaged"),
        "cut.safetensors": (tensors.read_bytes()[:-9], "not a safetensors file, or truncated"),
        "other.pth": (tensors.read_bytes(), "is a safetensors file: rename it to end in .safetensors"),
        "other.safetensors": (whole.read_bytes(), "is a PyTorch file, not safetensors"),
        "plain.pkl": (pickle.dumps({"a": [1]}, protocol=2), "or a pickle that torch.save did not write"),
    }
    for name, (content, words) in contents.items():
        (tmp_path / name).write_bytes(content)
        assert words in refused(tmp_path / name)
    assert "a zip file with other contents: image.txt" in refused(archive)
    assert "a TorchScript archive" in refused(script)
    (tmp_path / "newer.pkl").write_bytes(pickle.dumps({"a": [1]}, protocol=4))
    assert "contains other objects than tensors" in refused(tmp_path / "newer.pkl")
    assert "No such file" in refused(tmp_path / "no.safetensors")
