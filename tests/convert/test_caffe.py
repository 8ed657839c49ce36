"""The released FCNs in files under their published names: converted, they score as the literal net does."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from atrous.convert.caffe import convert_caffe
from atrous.convert.pytorch import convert_pytorch
from atrous.convert.tensors import ConversionError
from atrous.data.sources.nyud import read_log_depth
from atrous.label_sets import VOC
from atrous.labels import LabelSet
from atrous.models import load
from atrous.models.fcn import FCN
from atrous.models.layers import bilinear_kernel

Write = Callable[..., Path]
Blobs = dict[str, list[np.ndarray]]
VGG16 = {f"conv{b}_{i}": 3 for b, count in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, count + 1)}
WIDTHS = {"1": 4, "2": 8, "3": 16, "4": 32, "5": 32}  # a sixteenth, as in `thin`
FULL = 256  # channels of fc6 and fc7
UPSCORES = {
    "fcn32s": {"upscore": 64},
    "fcn16s": {"upscore2": 4, "upscore16": 32},
    "fcn8s": {"upscore2": 4, "upscore_pool4": 4, "upscore8": 16},
}
BGR = {
    "voc": (104.00699, 116.66877, 122.67892),
    "nyud": (116.190, 97.203, 92.318),
    "hha": (132.431, 94.076, 118.477),
    "siftflow": (114.578, 115.294, 108.353),
}
IMAGE = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 3, 37, 50), np.uint8))


def layer(outputs: int, inputs: int, kernel: int) -> list[np.ndarray]:
    random = np.random.default_rng(outputs + inputs + kernel)
    shape = (outputs, inputs, kernel, kernel)
    weight = random.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / (inputs * kernel**2)))
    return [weight, random.normal(0, 0.1, outputs).astype(np.float32)]


def bilinear(classes: int, kernel: int) -> list[np.ndarray]:
    return [(np.eye(classes)[..., None, None] * bilinear_kernel(kernel).numpy()).astype(np.float32)]


def vgg16(channels: int = 3, suffix: str = "", first: str = "conv1_1", times: int = 1) -> Blobs:
    found, inputs, full = {}, channels, times * FULL
    for name, kernel in VGG16.items():
        width = times * WIDTHS[name[4]]
        found[(first if name == "conv1_1" else name) + suffix] = layer(width, inputs, kernel)
        inputs = width
    found[f"conv1_2{suffix}"][0][:] *= 1 + len(suffix) / 10  # so that two backbones differ
    return found | {f"fc6{suffix}": layer(full, inputs, 7), f"fc7{suffix}": layer(full, full, 1)}


def scorers(architecture: str, classes: int, head: str = "", times: int = 1) -> Blobs:
    found = {f"score_fr{head}": layer(classes, times * FULL, 1)}
    if architecture != "fcn32s":
        found[f"score_pool4{head}"] = layer(classes, times * 32, 1)
    if architecture == "fcn8s":
        found[f"score_pool3{head}"] = layer(classes, times * 16, 1)
    return found | {f"{name}{head}": bilinear(classes, k) for name, k in UPSCORES[architecture].items()}


class Caffe:
    """The released net files, literally: arrays of a file, blue first, 0 to 255 less the mean."""

    def __init__(self, blobs: Mapping[str, list[np.ndarray]]) -> None:
        self.blobs = {name: [torch.from_numpy(array) for array in arrays] for name, arrays in blobs.items()}

    def conv(self, name: str, x: Tensor, **options: Any) -> Tensor:
        weight, bias = self.blobs[name]
        return F.conv2d(x, weight, bias, **options)

    def vgg16(self, x: Tensor, suffix: str = "", first: str = "conv1_1") -> dict[str, Tensor]:
        maps = {}
        for name in VGG16:
            if name.endswith("_1") and name != "conv1_1":
                x = maps[f"pool{int(name[4]) - 1}"] = F.max_pool2d(x, 2, 2, ceil_mode=True)
            padding = 100 if name == "conv1_1" else 1
            x = self.conv((first if name == "conv1_1" else name) + suffix, x, padding=padding).relu()
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        maps["fc7"] = self.conv(f"fc7{suffix}", self.conv(f"fc6{suffix}", x).relu()).relu()
        return maps

    def up(self, name: str, x: Tensor, stride: int) -> Tensor:
        return F.conv_transpose2d(x, self.blobs[name][0], stride=stride)

    def head(self, architecture: str, maps: Mapping[str, Tensor], size: tuple[int, int], head: str = "") -> Tensor:
        def crop(x: Tensor, offset: int, size: torch.Size | tuple[int, int]) -> Tensor:
            return x[..., offset : offset + size[-2], offset : offset + size[-1]]

        def scale(pool: str) -> Tensor:
            return (
                maps[pool] * self.blobs[f"scale_{pool}"][0][:, None, None]
                if f"scale_{pool}" in self.blobs
                else maps[pool]
            )

        score = self.conv(f"score_fr{head}", maps["fc7"])
        if architecture == "fcn32s":
            return crop(self.up(f"upscore{head}", score, 32), 19, size)
        score = self.up(f"upscore2{head}", score, 2)
        score = score + crop(self.conv(f"score_pool4{head}", scale("pool4")), 5, score.shape)
        if architecture == "fcn16s":
            return crop(self.up(f"upscore16{head}", score, 16), 27, size)
        score = self.up(f"upscore_pool4{head}", score, 2)
        score = score + crop(self.conv(f"score_pool3{head}", scale("pool3")), 9, score.shape)
        return crop(self.up(f"upscore8{head}", score, 8), 31, size)


def blue_first(image: Tensor, mean: tuple[float, ...]) -> Tensor:
    return image.flip(1).float() - torch.tensor(mean)[:, None, None]


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert ((ours - theirs).abs().max() / theirs.abs().max()).item() < 1e-5


@pytest.mark.parametrize("form", ["new", "old"])
@pytest.mark.parametrize("architecture", list(UPSCORES))
def test_a_converted_net_scores_as_the_released_one(
    thin: None, write_caffemodel: Write, tmp_path: Path, architecture: str, form: str
) -> None:
    blobs = vgg16() | scorers(architecture, 21)
    model = convert_caffe(write_caffemodel(blobs, form), architecture)
    caffe = Caffe(blobs)
    with torch.no_grad():
        theirs = caffe.head(architecture, caffe.vgg16(blue_first(IMAGE, BGR["voc"])), (37, 50))
        close(model(model.preprocess(IMAGE)), theirs)
        again = load(model.save(tmp_path / "model"))
        assert torch.equal(again(again.preprocess(IMAGE)), model(model.preprocess(IMAGE)))
    assert (again.label_set, again.card["converted_from"]) == (VOC, "net.caffemodel")
    assert not model.training


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("architecture", list(UPSCORES))
def test_one_output_becomes_two_classes(thin: None, write_caffemodel: Write, architecture: str, learned: bool) -> None:
    blobs = vgg16() | scorers(architecture, 1)
    if learned and architecture != "fcn32s":
        blobs["upscore2"][0][:] *= 1.5
    model = convert_caffe(write_caffemodel(blobs), architecture)
    caffe = Caffe(blobs)
    with torch.no_grad():
        theirs = caffe.head(architecture, caffe.vgg16(blue_first(IMAGE, BGR["voc"])), (37, 50))
        ours = model(model.preprocess(IMAGE))
    assert not ours[:, 0].any()
    close(ours[:, 1:], theirs)
    assert torch.equal(ours.argmax(1), (theirs[:, 0].sigmoid() > 0.5).long())
    assert model.label_set.names == ("background", "foreground")
    (change,) = model.card["changes"]
    assert change == "its one output, the logit of a sigmoid, became two classes with the logits 0 and that output"


def test_a_bias_of_another_size_beside_one_output_is_reported(thin: None, write_caffemodel: Write) -> None:
    blobs = vgg16() | scorers("fcn32s", 1)
    blobs["score_fr"][1] = np.zeros(3, np.float32)
    with pytest.raises(ConversionError, match=r"of another shape: score_fr\.bias is 3, expected 2"):
        convert_caffe(write_caffemodel(blobs), "fcn32s")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(thin: None, write_caffemodel: Write, value: float) -> None:
    blobs = vgg16() | scorers("fcn32s", 21)
    blobs["conv3_2"][0][1, 2, 0, 0] = value
    blobs["fc7"][1][:3] = value
    expected = r"net.caffemodel is not usable: 1 of the [\d,]+ values of 'conv3_2.weight' are NaN or infinite, 3 of the"
    with pytest.raises(ConversionError, match=expected):
        convert_caffe(write_caffemodel(blobs), "fcn32s")


@pytest.mark.slow
def test_in_full_size(write_caffemodel: Write) -> None:
    blobs = vgg16(times=16) | scorers("fcn8s", 21, times=16)
    file = write_caffemodel(blobs)
    model = convert_caffe(file, "fcn8s")
    file.unlink()  # half a gigabyte
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_362_751  # 134M: arXiv 1411.4038, table 1
    caffe = Caffe(blobs)
    with torch.no_grad():
        theirs = caffe.head("fcn8s", caffe.vgg16(blue_first(IMAGE, BGR["voc"])), (37, 50))
        close(model(model.preprocess(IMAGE)), theirs)


def test_trained_at_once(thin: None, write_caffemodel: Write) -> None:
    blobs = vgg16() | scorers("fcn8s", 21)
    blobs |= {"scale_pool4": [np.full(32, 0.01, np.float32)], "scale_pool3": [np.full(16, 0.0001, np.float32)]}
    for pool in ("score_pool4", "score_pool3"):
        blobs[pool][0] *= 1000
    model = convert_caffe(write_caffemodel(blobs), "fcn8s")
    caffe = Caffe(blobs)
    with torch.no_grad():
        theirs = caffe.head("fcn8s", caffe.vgg16(blue_first(IMAGE, BGR["voc"])), (37, 50))
        close(model(model.preprocess(IMAGE)), theirs)
    assert model.config["options"]["at_once"]
    blobs["scale_pool3"][0][3] = 1
    with pytest.raises(ConversionError, match=r"scale_pool3\.weight is not 0\.0001 throughout"):
        convert_caffe(write_caffemodel(blobs), "fcn8s")


def test_learned_deconvolutions_are_kept(thin: None, write_caffemodel: Write) -> None:
    blobs = vgg16() | scorers("fcn8s", 5)
    blobs["upscore_pool4"][0][1, 3] += 0.05
    model = convert_caffe(write_caffemodel(blobs), "fcn8s")
    caffe = Caffe(blobs)
    with torch.no_grad():
        theirs = caffe.head("fcn8s", caffe.vgg16(blue_first(IMAGE, BGR["voc"])), (37, 50))
        close(model(model.preprocess(IMAGE)), theirs)
    assert isinstance(model, FCN)
    assert model.config["options"]["learn_upsampling"]
    assert model.label_set == LabelSet.numbered(5)
    blobs["upscore8"][0] *= 2
    with pytest.raises(
        ConversionError, match=r"upscore8\.weight is not the bilinear 16×16 kernel at the end of fcn8s on vgg16"
    ):
        convert_caffe(write_caffemodel(blobs), "fcn8s")


@pytest.mark.parametrize(("architecture", "learned"), [("fcn16s", False), ("fcn8s", True)])
def test_sift_flows_heads_are_one_behind_the_other(
    thin: None, write_caffemodel: Write, architecture: str, learned: bool
) -> None:
    blobs = vgg16() | scorers(architecture, 33, "_sem") | scorers(architecture, 3, "_geo")
    if learned:
        blobs["upscore2_geo"][0][0, 1] += 0.05
    model = convert_caffe(write_caffemodel(blobs), architecture)
    caffe = Caffe(blobs)
    with torch.no_grad():
        maps = caffe.vgg16(blue_first(IMAGE, BGR["siftflow"]))
        x = model.preprocess(IMAGE)
        close(model(x), caffe.head(architecture, maps, (37, 50), "_sem"))
        _, geometric = model.outputs(x)
        close(geometric.at((37, 50)), caffe.head(architecture, maps, (37, 50), "_geo"))
    assert geometric.name == "geometric"
    assert model.label_set.names[:2] == ("awning", "balcony")


def test_nyud_with_depth_as_a_fourth_channel(thin: None, write_caffemodel: Write, tmp_path: Path) -> None:
    blobs = vgg16(4, first="conv1_1_bgrd") | scorers("fcn32s", 40)
    model = convert_caffe(write_caffemodel(blobs), "fcn32s")
    image = tmp_path / "depth.png"
    Image.fromarray(np.random.default_rng(0).integers(600, 9000, (37, 50)).astype(np.uint16)).save(image)
    channel = torch.from_numpy(read_log_depth(image)).permute(2, 0, 1)[None]
    depth = torch.from_numpy(np.asarray(Image.open(image), np.float32)).log()[None, None]
    seen = model.preprocess(torch.cat([IMAGE, channel], 1))
    torch.testing.assert_close(seen[:, 3:], depth - 7.844, rtol=0, atol=0.0063)  # a step is 1.2 %
    caffe = Caffe(blobs)
    with torch.no_grad():
        x = torch.cat([blue_first(IMAGE, BGR["nyud"]), seen[:, 3:]], 1)
        theirs = caffe.head("fcn32s", caffe.vgg16(x, first="conv1_1_bgrd"), (37, 50))
        close(model(seen), theirs)


def test_nyud_of_two_backbones(thin: None, write_caffemodel: Write) -> None:
    blobs = vgg16(suffix="color") | vgg16(suffix="hha") | scorers("fcn32s", 40)
    score = blobs.pop("score_fr")
    blobs |= {"score_frcolor": score, "score_frhha": [array[::-1].copy() for array in score]}
    model = convert_caffe(write_caffemodel(blobs), "fcn32s")
    hha = IMAGE.roll(7, -1)
    caffe = Caffe(blobs)
    with torch.no_grad():
        color = caffe.vgg16(blue_first(IMAGE, BGR["nyud"]), "color")["fc7"]
        shape = caffe.vgg16(hha.float() - torch.tensor(BGR["hha"])[:, None, None], "hha")["fc7"]
        fused = (caffe.conv("score_frcolor", color) + caffe.conv("score_frhha", shape)) / 2
        theirs = caffe.up("upscore", fused, 32)[..., 19 : 19 + 37, 19 : 19 + 50]
        close(model(model.preprocess(torch.cat([IMAGE, hha], 1))), theirs)
    assert model.backbone.name == "vgg16+vgg16"
    assert model.label_set.names[:2] == ("wall", "floor")


def test_what_the_three_channels_are_can_be_said(thin: None, write_caffemodel: Write) -> None:
    file = write_caffemodel(vgg16() | scorers("fcn32s", 40))
    color, hha = (convert_caffe(file, "fcn32s", inputs=inputs) for inputs in (None, "nyud-hha"))
    assert [round(255 * mean, 3) for mean in color.preprocessing.mean] == [92.318, 97.203, 116.190]
    assert [round(255 * mean, 3) for mean in hha.preprocessing.mean] == [132.431, 94.076, 118.477]
    ours, theirs = (model.state_dict()["backbone.net.conv1_1.weight"] for model in (color, hha))
    assert torch.equal(ours, theirs.flip(1))  # HHA is read as it lies
    with pytest.raises(ValueError, match="unknown inputs 'depth'; available are voc, siftflow, nyud, nyud-hha"):
        convert_caffe(file, "fcn32s", inputs="depth")
    with pytest.raises(ConversionError, match="has 3 input channels, but 'nyud-rgbd' has 4"):
        convert_caffe(file, "fcn32s", inputs="nyud-rgbd")


def caffenet() -> Blobs:
    shapes = {
        "conv1": (6, 3, 11),
        "conv2": (16, 3, 5),
        "conv3": (24, 16, 3),
        "conv4": (24, 12, 3),
        "conv5": (16, 12, 3),
    }
    blobs = {name: layer(*shape) for name, shape in shapes.items()}
    blobs |= {"fc6": layer(FULL, 16, 6), "fc7": layer(FULL, FULL, 1)}
    return blobs | {"score_fr": layer(21, FULL, 1), "upscore": bilinear(21, 63)}


def test_alexnet(thin: None, write_caffemodel: Write) -> None:
    blobs = caffenet()
    model = convert_caffe(write_caffemodel(blobs, "old"), "fcn32s")
    caffe = Caffe(blobs)

    def pool(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    def norm(x: Tensor) -> Tensor:
        squares = F.avg_pool3d(x.square()[:, None], (5, 1, 1), 1, (2, 0, 0))[:, 0] * 5
        return x / (1 + 1e-4 / 5 * squares) ** 0.75

    with torch.no_grad():
        x = blue_first(IMAGE, BGR["voc"])
        x = norm(pool(caffe.conv("conv1", x, stride=4, padding=100).relu()))
        x = norm(pool(caffe.conv("conv2", x, padding=2, groups=2).relu()))
        x = caffe.conv("conv3", x, padding=1).relu()
        x = caffe.conv("conv4", x, padding=1, groups=2).relu()
        x = pool(caffe.conv("conv5", x, padding=1, groups=2).relu())
        x = caffe.conv("score_fr", caffe.conv("fc7", caffe.conv("fc6", x).relu()).relu())
        theirs = caffe.up("upscore", x, 32)[..., 18 : 18 + 37, 18 : 18 + 50]
        close(model(model.preprocess(IMAGE)), theirs)
    assert model.backbone.name == "caffenet"


@pytest.mark.parametrize(("layout", "scales"), [("wkentaro", (1.0, 1.0)), ("wkentaro-atonce", (0.01, 0.0001))])
def test_wkentaros_state_dicts_have_the_same_names(
    thin: None, tmp_path: Path, layout: str, scales: tuple[float, float]
) -> None:
    blobs = vgg16() | scorers("fcn8s", 21)
    kinds = ("weight", "bias")
    weights = {
        f"{name}.{k}": torch.from_numpy(a) for name, both in blobs.items() for k, a in zip(kinds, both, strict=False)
    }
    torch.save({"epoch": 1, "model_state_dict": weights}, tmp_path / "fcn8s.pth")
    model = convert_pytorch(tmp_path / "fcn8s.pth", "fcn8s", layout)
    for pool, width, scale in (("pool4", 32, scales[0]), ("pool3", 16, scales[1])):
        blobs[f"scale_{pool}"] = [np.full(width, scale, np.float32)]
    caffe = Caffe(blobs)
    with torch.no_grad():
        theirs = caffe.head("fcn8s", caffe.vgg16(blue_first(IMAGE, BGR["voc"])), (37, 50))
        close(model(model.preprocess(IMAGE)), theirs)


class TestWhatDoesNotFit:
    def test_a_finer_net_has_more_than_a_coarser_one_needs(self, thin: None, write_caffemodel: Write) -> None:
        file = write_caffemodel(vgg16() | scorers("fcn16s", 21))
        with pytest.raises(
            ConversionError,
            match=r"net\.caffemodel does not contain fcn32s on vgg16: 4 unused: score_pool4\.weight 21×32×1×1, "
            r"score_pool4\.bias 21, upscore2\.weight 21×21×4×4, upscore16\.weight 21×21×32×32",
        ):
            convert_caffe(file, "fcn32s")
        with pytest.raises(
            ConversionError,
            match=r"vgg16: 2 missing: score_pool3\.weight 21×16×1×1, score_pool3\.bias 21; 1 unused: upscore16\.",
        ):
            convert_caffe(file, "fcn8s")

    def test_another_shape_is_told_with_the_one_expected(self, thin: None, write_caffemodel: Write) -> None:
        blobs = vgg16() | scorers("fcn32s", 21)
        blobs["fc6"][0] = blobs["fc6"][0][..., :6, :6]
        blobs["conv5_3"].pop()
        del blobs["upscore"]  # may be left out: it is what the model does anyway
        with pytest.raises(
            ConversionError,
            match=r"1 missing: conv5_3\.bias 32; 1 of another shape: fc6\.weight is 256×32×6×6, expected 256×32×7×7$",
        ):
            convert_caffe(write_caffemodel(blobs), "fcn32s")

    def test_fully_connected_layers_become_convolutions(self, thin: None, write_caffemodel: Write) -> None:
        blobs = vgg16() | scorers("fcn32s", 21)
        plain = convert_caffe(write_caffemodel(blobs), "fcn32s")
        for name in ("fc6", "fc7"):
            blobs[name][0] = blobs[name][0].reshape(FULL, -1)
        for form in ("new", "old"):
            flat = convert_caffe(write_caffemodel(blobs, form), "fcn32s")
            assert all(torch.equal(a, b) for a, b in zip(flat.parameters(), plain.parameters(), strict=True))

    def test_other_nets_and_names(self, thin: None, write_caffemodel: Write) -> None:
        file = write_caffemodel({"fc1000": layer(3, 2, 1)})
        with pytest.raises(ConversionError, match=r"is not an FCN: expected layers conv1_1, .* found fc1000\.weight"):
            convert_caffe(file, "fcn32s")
        with pytest.raises(
            ConversionError, match=r"has no tensor 'score_fr\.weight'; it begins with conv1_1\.weight, conv1_1"
        ):
            convert_caffe(write_caffemodel(vgg16()), "fcn32s")
        with pytest.raises(ValueError, match=r"layout 'caffe' has fcn32s, fcn16s, fcn8s, .*, not 'deeplabv3'"):
            convert_caffe(file, "deeplabv3")
        with pytest.raises(ValueError, match=r"3 class names were given, but .*net\.caffemodel has 21 classes"):
            convert_caffe(write_caffemodel(caffenet()), "fcn32s", label_set=LabelSet(("a", "b", "c")))
