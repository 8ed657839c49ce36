"""TensorFlow's checkpoints: a writer of them, the authors' networks literally, and the models that become of them."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from typer.testing import CliRunner, Result

from atrous.cli import app
from atrous.convert.formats.tensorbundle import CheckpointFileError, read_tensor_bundle
from atrous.convert.tensorflow import convert_tensorflow
from atrous.convert.tensors import ConversionError
from atrous.models import load

from .conftest import field, varint

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9}


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Keys share their beginnings with those before, but for every sixteenth."""
    out, starts, before = b"", [], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % 16:
            shared = next((n for n, pair in enumerate(zip(key, before, strict=False)) if len(set(pair)) > 1), 0)
        else:
            starts.append(len(out))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return out + b"".join(n.to_bytes(4, "little") for n in (*starts, len(starts)))


def write_bundle(prefix: Path, variables: Mapping[str, np.ndarray]) -> Path:
    entries, data = [(b"", field(1, 1) + field(3, field(1, 1)))], bytearray()
    for name in sorted(variables):
        array = variables[name]
        shape = b"".join(field(2, field(1, side)) for side in array.shape)
        place = field(4, len(data)) + field(5, array.nbytes)
        entries.append((name.encode(), field(1, DTYPES[array.dtype.name]) + field(2, shape) + place))
        data += array.tobytes()
    table, index = b"", []
    for first in range(0, len(entries), 40):
        content = block(entries[first : first + 40])
        index.append((entries[first : first + 40][-1][0], varint(len(table)) + varint(len(content))))
        table += content + b"\0" + bytes(4)
    handles = b""
    for content in (block([]), block(index)):
        handles += varint(len(table)) + varint(len(content))
        table += content + b"\0" + bytes(4)
    footer = handles.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")
    prefix.with_name(f"{prefix.name}.index").write_bytes(table + footer)
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    return prefix


class Slim:
    """Layers as TensorFlow-slim has them; each makes its variables when it is first called. Sides are 32k + 1."""

    def __init__(self) -> None:
        self.variables: dict[str, np.ndarray] = {}
        self.random = np.random.default_rng(0)
        self.eps = 1e-3

    def variable(self, name: str, *shape: int, low: float | None = None) -> Tensor:
        scale = (2 / np.prod(shape[:3])) ** 0.5 if len(shape) == 4 else 0.1
        value = self.random.normal(0, scale, shape) if low is None else self.random.uniform(low, 2 * low, shape)
        self.variables[name] = value.astype("f4")
        return torch.from_numpy(self.variables[name])

    def norm(self, x: Tensor, scope: str, relu: bool) -> Tensor:
        gamma, variance = (
            self.variable(f"{scope}/BatchNorm/{n}", x.shape[1], low=0.6) for n in ("gamma", "moving_variance")
        )
        beta, mean = (self.variable(f"{scope}/BatchNorm/{n}", x.shape[1]) for n in ("beta", "moving_mean"))
        x = F.batch_norm(x, mean, variance, gamma, beta, eps=self.eps)
        return x.relu() if relu else x

    def conv(
        self, x: Tensor, scope: str, depth: int, kernel: int, stride: int = 1, rate: int = 1, relu: bool = True
    ) -> Tensor:
        weight = self.variable(f"{scope}/weights", kernel, kernel, x.shape[1], depth).permute(3, 2, 0, 1)
        return self.norm(F.conv2d(x, weight, None, stride, kernel // 2 * rate, rate), scope, relu)

    def depthwise(self, x: Tensor, scope: str, stride: int = 1, rate: int = 1, relu: bool = True) -> Tensor:
        weight = self.variable(f"{scope}/depthwise_weights", 3, 3, x.shape[1], 1).permute(2, 3, 0, 1)
        return self.norm(F.conv2d(x, weight, None, stride, rate, rate, x.shape[1]), scope, relu)

    def separable(self, x: Tensor, scope: str, depth: int, stride: int = 1, rate: int = 1, relu: bool = True) -> Tensor:
        x = self.depthwise(x, f"{scope}_depthwise", stride, rate, relu)
        return self.conv(x, f"{scope}_pointwise", depth, 1, relu=relu)


def xception(net: Slim, x: Tensor, variant: int) -> tuple[Tensor, Tensor]:
    scope, low = f"xception_{variant}", x

    def module(x: Tensor, where: str, depths: tuple[int, ...], shortcut: str, stride: int = 1, rate: int = 1) -> Tensor:
        nonlocal low
        where, residual, inside = f"{scope}/{where}/xception_module", x, shortcut == "none"
        for i, depth in enumerate(depths, 1):
            residual = residual if inside else residual.relu()
            residual = net.separable(
                residual, f"{where}/separable_conv{i}", depth, stride if i == 3 else 1, rate, inside
            )
            if i == 2 and where == f"{scope}/entry_flow/block{3 if variant == 71 else 2}/unit_1/xception_module":
                low = residual
        if shortcut == "conv":
            return residual + net.conv(x, f"{where}/shortcut", depths[-1], 1, stride, relu=False)
        return residual + x if shortcut == "sum" else residual

    x = net.conv(x, f"{scope}/entry_flow/conv1_1", 32, 3, 2)
    x = net.conv(x, f"{scope}/entry_flow/conv1_2", 64, 3)
    entry = [(128, 2), (256, 1), (256, 2), (728, 1), (728, 2)] if variant == 71 else [(128, 2), (256, 2), (728, 2)]
    for i, (depth, stride) in enumerate(entry, 1):
        x = module(x, f"entry_flow/block{i}/unit_1", (depth,) * 3, "conv", stride)
    for i in range(8 if variant == 41 else 16):
        x = module(x, f"middle_flow/block1/unit_{i + 1}", (728,) * 3, "sum")
    x = module(x, "exit_flow/block1/unit_1", (728, 1024, 1024), "conv")
    return module(x, "exit_flow/block2/unit_1", (1536, 1536, 2048), "none", rate=2), low


def resnet50(net: Slim, x: Tensor) -> tuple[Tensor, Tensor]:
    scope, low, net.eps = "resnet_v1_50", x, 1e-5
    for i, (depth, stride) in enumerate([(64, 2), (64, 1), (128, 1)], 1):
        x = net.conv(x, f"{scope}/conv1_{i}", depth, 3, stride)
    x = F.max_pool2d(x, 3, 2, 1)
    for number, units in enumerate((3, 4, 6, 3), 1):
        for i in range(1, units + 1):
            where, depth = f"{scope}/block{number}/unit_{i}/bottleneck_v1", 64 * 2 ** (number - 1)
            stride = 2 if number < 3 and i == units else 1
            rate = 2 * (1, 2, 4)[i - 1] if number == 4 else 1
            shortcut = x[..., ::stride, ::stride]
            if i == 1:
                shortcut = net.conv(x, f"{where}/shortcut", 4 * depth, 1, stride, relu=False)
            residual = net.conv(net.conv(x, f"{where}/conv1", depth, 1), f"{where}/conv2", depth, 3, stride, rate)
            residual = net.conv(residual, f"{where}/conv3", 4 * depth, 1, relu=False)
            low = residual if (number, i) == (1, 2) else low
            x = (shortcut + residual).relu()
    return x, low


def mobilenetv2(net: Slim, x: Tensor) -> tuple[Tensor, Tensor]:
    x = net.conv(x, "MobilenetV2/Conv", 32, 3, 2, relu=False).clamp(0, 6)
    stages = [(16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 1), (320, 1, 1)]
    blocks = [(d, s if i == 0 else 1, 2 if d == 320 or (d == 160 and i) else 1) for d, n, s in stages for i in range(n)]
    for i, (depth, stride, rate) in enumerate(blocks):
        where, y = f"MobilenetV2/expanded_conv{f'_{i}' if i else ''}", x
        if i:
            y = net.conv(y, f"{where}/expand", 6 * x.shape[1], 1, relu=False).clamp(0, 6)
        y = net.depthwise(y, f"{where}/depthwise", stride, rate, relu=False).clamp(0, 6)
        y = net.conv(y, f"{where}/project", depth, 1, relu=False)
        x = x + y if stride == 1 and x.shape[1] == depth else y
    return x, x


def deeplab(net: Slim, features: tuple[Tensor, Tensor], aspp: bool, separable: bool, decoder: bool) -> Tensor:
    (x, low), net.eps = features, 1e-5
    pooled = net.conv(x.mean((2, 3), keepdim=True), "image_pooling", 256, 1).expand(-1, -1, *x.shape[2:])
    branches = [pooled, net.conv(x, "aspp0", 256, 1)]
    for i, rate in enumerate((1, 2, 3) if aspp else (), 1):
        branch = net.separable(x, f"aspp{i}", 256, rate=rate) if separable else net.conv(x, f"aspp{i}", 256, 3, 1, rate)
        branches.append(branch)
    x = net.conv(torch.cat(branches, 1), "concat_projection", 256, 1)
    if decoder:
        low = net.conv(low, "decoder/feature_projection0", 48, 1)
        x = torch.cat([F.interpolate(x, low.shape[2:], mode="bilinear", align_corners=True), low], 1)
        for i in range(2):
            if separable:
                x = net.separable(x, f"decoder/decoder_conv{i}", 256)
            else:
                x = net.conv(x, f"decoder/decoder_conv0/decoder_conv0_{i + 1}", 256, 3)
    weight = net.variable("logits/semantic/weights", 1, 1, 256, 5).permute(3, 2, 0, 1)
    return F.conv2d(x, weight, net.variable("logits/semantic/biases", 5))


NETWORKS: dict[str, tuple[Callable[[Slim, Tensor], tuple[Tensor, Tensor]], str, dict[str, bool]]] = {
    "xception41": (
        lambda n, x: xception(n, x, 41),
        "deeplabv3plus",
        {"aspp": True, "separable": True, "decoder": True},
    ),
    "xception65": (lambda n, x: xception(n, x, 65), "deeplabv3", {"aspp": True, "separable": False, "decoder": False}),
    "xception71": (
        lambda n, x: xception(n, x, 71),
        "deeplabv3plus",
        {"aspp": True, "separable": True, "decoder": True},
    ),
    "resnet50_beta": (resnet50, "deeplabv3plus", {"aspp": True, "separable": False, "decoder": True}),
    "mobilenetv2_100": (mobilenetv2, "deeplabv3", {"aspp": False, "separable": False, "decoder": False}),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in ("xception65", "xception71") else n for n in NETWORKS]
)
def test_the_authors_networks_give_the_same_scores(name: str, tmp_path: Path) -> None:
    backbone, architecture, head = NETWORKS[name]
    net, x = Slim(), torch.rand(1, 3, 97, 65) * 2 - 1
    expected = deeplab(net, backbone(net, x), **head)
    needless = {"logits/semantic/weights/Momentum": np.zeros((1, 1, 256, 5), "f4"), "global_step": np.array(30000)}
    prefix = write_bundle(tmp_path / "model.ckpt-30000", net.variables | needless)
    model = convert_tensorflow(prefix, architecture, rates=(1, 2, 3) if head["aspp"] else None)
    assert (model.backbone.name, model.card) == (
        name,
        {"converted_from": "model.ckpt-30000", "left_out": sorted(needless)},
    )
    with torch.no_grad():
        scores, _ = model.coarse_logits(x)
    assert (scores - expected).abs().max() / expected.abs().max() < 1e-4


def atrous(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_averages_are_preferred_and_the_command_keeps_a_model(tmp_path: Path) -> None:
    net = Slim()
    deeplab(net, mobilenetv2(net, torch.zeros(1, 3, 33, 33)), aspp=False, separable=False, decoder=False)
    average = np.full((1, 1, 256, 5), 0.25, "f4")
    net.variables["logits/semantic/weights/ExponentialMovingAverage"] = average
    prefix = write_bundle(tmp_path / "model.ckpt", net.variables)
    done = atrous("convert", "tensorflow", f"{prefix}.index", "--as", "deeplabv3", "--out", tmp_path / "m")
    assert done.exit_code == 0, done.output
    assert "deeplabv3 on mobilenetv2_100" in done.stdout
    model = load(tmp_path / "m")
    assert model.get_submodule("classifier").weight.unique().tolist() == [0.25]
    assert model.preprocessing.mean == (0.5, 0.5, 0.5)
    again = atrous("convert", "tensorflow", prefix, "--as", "deeplabv3plus", "--out", tmp_path / "p")
    assert (again.exit_code, again.stderr.count("\n")) == (2, 1)
    assert "which reads other features" in again.stderr


@pytest.mark.parametrize(
    ("variables", "architecture", "words"),
    [
        (["fcn/weights"], "deeplabv3", "no known backbone .*, but fcn"),
        (["resnet_v1_101/conv1/weights"], "deeplabv3", "begins with a 7×7"),
        (["xception_65/entry_flow/conv1_1/weights"], "deeplabv3", r"has no tensor 'logits/semantic\.weight'"),
        (["xception_65/a/weights", "logits/semantic/weights"], "deeplabv3", r"missing: .*1 unused: xception_65/a"),
    ],
)
def test_another_network_is_refused(tmp_path: Path, variables: list[str], architecture: str, words: str) -> None:
    prefix = write_bundle(tmp_path / "m", {name: np.zeros((1, 1, 2, 5), "f4") for name in variables})
    with pytest.raises(ConversionError, match=words):
        convert_tensorflow(prefix, architecture)


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not to 'fcn8s'"):
        convert_tensorflow(tmp_path / "m", "fcn8s")


def test_a_bundle_is_read_as_written(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    written = {f"scope_{i % 7}/layer_{i}/weights": random.normal(size=(i % 5, 3, 2)).astype("f4") for i in range(150)}
    written |= {"global_step": np.array(7), "d": random.normal(size=4), "i": np.arange(3, dtype="i4")}
    read = read_tensor_bundle(write_bundle(tmp_path / "m", written))
    assert sorted(written) == list(read)
    for name, array in written.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype


def test_what_is_missing_of_a_checkpoint_is_told_with_what_it_belongs_to(tmp_path: Path) -> None:
    def refused(prefix: Path) -> str:
        done = atrous("convert", "tensorflow", prefix, "--as", "deeplabv3", "--out", tmp_path / "out")
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        return done.stderr

    prefix = write_bundle(tmp_path / "net.ckpt-3", {"a/weights": np.ones((1, 1, 2, 5), "f4")})
    index, data = (tmp_path / f"net.ckpt-3.{end}" for end in ("index", "data-00000-of-00001"))
    assert f"is a folder; name a checkpoint in it: {prefix}" in refused(tmp_path)
    data.rename(elsewhere := tmp_path / "elsewhere")
    said = refused(prefix)
    assert (
        f"{data} is missing: it contains the variables that net.ckpt-3.index lists, and belongs in its folder" in said
    )
    elsewhere.rename(data)
    index.unlink()
    for named in (prefix, data, index):
        said = refused(named)
        assert f"{index} is missing" in said
        assert "which belong together; found net.ckpt-3.data-00000-of-00001" in said
    index.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "`git lfs pull`" in refused(prefix)
    (tmp_path / "frozen.pb").write_bytes(b"a graph")
    assert "single-file checkpoints are not supported" in refused(tmp_path / "frozen.pb")
    assert "found no file of that name" in refused(tmp_path / "none")
    (tmp_path / "images").mkdir()
    assert "without the .index of a checkpoint" in refused(tmp_path / "images")


def test_damaged_bundles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"m\.index"):
        read_tensor_bundle(tmp_path / "m")
    prefix = write_bundle(tmp_path / "m", {f"name_{i}": np.ones((4, 4), "f4") for i in range(3)})
    index, data = tmp_path / "m.index", tmp_path / "m.data-00000-of-00001"
    good = index.read_bytes()
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(CheckpointFileError, match=r"name_2 \[4, 4\] float32 should be 64 bytes from 128 on"):
        read_tensor_bundle(prefix)
    data.unlink()
    with pytest.raises(FileNotFoundError, match="data-00000"):
        read_tensor_bundle(prefix)
    index.write_bytes(good[:-1])
    with pytest.raises(CheckpointFileError, match="does not end like a table"):
        read_tensor_bundle(prefix)
    size = good.index((0).to_bytes(4, "little") + (1).to_bytes(4, "little") + b"\0")
    index.write_bytes(good[: size + 8] + b"\1" + good[size + 9 :])
    with pytest.raises(CheckpointFileError, match="a compressed block"):
        read_tensor_bundle(prefix)
    for cut in range(0, len(good) - 48, 7):
        index.write_bytes(good[:cut] + b"\xff" + good[cut + 1 :])
        with suppress(CheckpointFileError, FileNotFoundError):
            read_tensor_bundle(prefix)
