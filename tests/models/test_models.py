"""What holds for every model and backbone: one class of checks."""

import copy
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import RepositoryNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

import atrous
from atrous.label_sets import VOC
from atrous.labels import LabelSet
from atrous.models import ARCHITECTURES, SegmentationModel, create_model, load
from atrous.models.checkpoint import CheckpointError

# One of each kind: padded, TF-SAME, patches, unpadded pools.
BACKBONES = ["test_efficientnet", "tf_mobilenetv3_small_minimal_100", "test_convnext", "dla46_c"]


SMALL: dict[str, dict[str, object]] = {"deeplabv3": {"channels": 32}, "deeplabv3plus": {"channels": 32}}


def make(name: str = "deeplabv3plus", backbone: str = "test_efficientnet", **options: object) -> SegmentationModel:
    return _build(name, backbone, **options) if options else copy.deepcopy(_plain(name, backbone))


@functools.cache
def _plain(name: str, backbone: str) -> SegmentationModel:
    return _build(name, backbone)


def _build(name: str, backbone: str, **options: object) -> SegmentationModel:
    model = create_model(name, backbone=backbone, **({"num_classes": 4} | SMALL.get(name, {}) | options))
    for key, parameter in model.named_parameters():
        if key.startswith("score_"):  # an FCN's scorers start at zero and would say nothing
            nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
@pytest.mark.parametrize("backbone", BACKBONES)
class TestEveryModel:
    @pytest.mark.parametrize("size", [(1, 1), (2, 31), (33, 64), (97, 65)])
    @pytest.mark.parametrize("batch", [1, 2])
    def test_gives_logits_of_the_images_own_size(
        self, name: str, backbone: str, size: tuple[int, int], batch: int
    ) -> None:
        model = make(name, backbone).eval()
        with torch.no_grad():
            logits = model(torch.randn(batch, 3, *size))
        assert logits.shape == (batch, 4, *size)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()

    def test_trains_on_a_batch_of_one_with_everything_ignored(self, name: str, backbone: str) -> None:
        model = make(name, backbone).train()
        ignored = torch.full((1, 65, 65), 255)
        losses = [
            output.weight * F.cross_entropy(output.at((65, 65)), ignored, ignore_index=255, reduction="sum")
            for output in model.outputs(torch.randn(1, 3, 65, 65))
        ]
        loss = torch.stack(losses).sum()
        loss.backward()
        assert loss.item() == 0
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())

    def test_the_first_of_its_outputs_is_what_it_predicts_with(self, name: str, backbone: str) -> None:
        model = make(name, backbone).eval()
        x = torch.randn(1, 3, 65, 65)
        with torch.no_grad():
            main = model.outputs(x)[0]
            logits, grid = model.coarse_logits(x)
        assert (main.name, main.grid, main.weight) == ("main", grid, 1)
        assert torch.equal(main.logits, logits)

    def test_autocast_changes_little(self, name: str, backbone: str) -> None:
        model = make(name, backbone).eval()
        x = torch.randn(1, 3, 65, 65)
        with torch.no_grad():
            exact = model(x)
            with torch.autocast("cpu", torch.bfloat16):
                rough = model(x)
        assert rough.dtype == torch.float32
        assert ((rough - exact).norm() / exact.norm()).item() < 0.05

    def test_round_trip_is_bit_exact(self, name: str, backbone: str, tmp_path: Path) -> None:
        model = make(name, backbone, output_stride=8).eval()
        again = load(model.save(tmp_path / "model"))
        x = torch.randn(1, 3, 64, 65)
        with torch.no_grad():
            assert torch.equal(model(x), again(x))
        assert again.config == model.config
        assert again.label_set == model.label_set
        assert again.preprocessing == model.preprocessing
        assert not again.training

    def test_logits_can_be_stretched_as_torchvision_does(self, name: str, backbone: str, tmp_path: Path) -> None:
        model = make(name, backbone).eval()
        if len(model.scales) > 1:
            return
        x = torch.randn(1, 3, 70, 83)
        with torch.no_grad():
            plain, (logits, grid) = model(x), model.coarse_logits(x)
            model.resize = "torchvision"
            again = load(model.save(tmp_path / "model"))
            padded = tuple(model.backbone.fitting_size(n) for n in (70, 83))
            expected = F.interpolate(logits, padded, mode="bilinear")[..., :70, :83]
            torch.testing.assert_close(again(x), expected, rtol=1e-4, atol=1e-4)
            again.resize = "exact"
            assert torch.equal(again(x), plain)
            assert again.coarse_logits(x)[1] == grid

    def test_output_stride_is_a_dial(self, name: str, backbone: str) -> None:
        model = make(name, backbone, output_stride=32).eval()
        x = torch.randn(1, 3, 65, 65)
        with torch.no_grad():
            before = model(x)
            for stride in (8, 16, 4):
                model.output_stride = stride
                assert model(x).shape == before.shape
            model.output_stride = 32
            assert torch.equal(model(x), before)

    def test_takes_other_than_three_channels(self, name: str, backbone: str) -> None:
        model = make(name, backbone, in_channels=4).eval()
        images = torch.randint(0, 256, (1, 4, 40, 40), dtype=torch.uint8)
        with torch.no_grad():
            assert model(model.preprocess(images)).shape == (1, 4, 40, 40)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_moving_the_image_by_the_stride_moves_the_logits_as_far(backbone: str) -> None:
    model = make("deeplabv3", backbone, rates=(1,), output_stride=8).eval()
    # Without the branch that looks at the whole image, a place sees some 450 pixels around it at the most.
    for parameter in model.aspp.pooled.parameters():
        nn.init.zeros_(parameter)
    step, side, middle = 32, 1121, slice(530, 590)
    scene = torch.randn(1, 3, side + step, side + step)
    with torch.no_grad():
        here, there = model(scene[..., :side, :side]), model(scene[..., step:, step:])
    seen, moved = here[..., middle, middle], there[..., 530 - step : 590 - step, 530 - step : 590 - step]
    # Equal but for rounding: the tiles that convolutions are computed in lie elsewhere in the two images.
    assert ((seen - moved).abs().max() / seen.abs().max()).item() < 2e-4


def test_training_after_predicting_works() -> None:
    model = make().eval()
    with torch.inference_mode():
        model(torch.randn(1, 3, 71, 83))
    model.train()(torch.randn(1, 3, 71, 83)).sum().backward()


def test_preprocess_is_the_backbones_own() -> None:
    model = make(backbone="tf_efficientnet_lite0")
    image = torch.tensor([0, 127, 255], dtype=torch.uint8).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    torch.testing.assert_close(model.preprocess(image)[0, 0, 0], torch.tensor([-1.0, 127 / 127.5 - 1, 1.0]))
    with pytest.raises(TypeError, match="uint8"):
        model.preprocess(image.float())
    with pytest.raises(TypeError, match="from_numpy"):
        model.preprocess(image.numpy())
    with pytest.raises(ValueError, match=r"expected images \(B, 3, H, W\)"):
        model.preprocess(image[:, :1])


def test_scores_refuse_what_is_no_batch_of_images() -> None:
    with pytest.raises(ValueError, match=r"image\[None\]"):
        make().coarse_logits(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        make().coarse_logits(torch.zeros(1, 4, 8, 8))


def test_create_model_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"no model 'deeplab9'; there are: .*deeplabv3plus"):
        create_model("deeplab9", backbone="resnet10t", num_classes=2)
    with pytest.raises(TypeError, match=r"no option seperable; it has: .*separable"):
        make(seperable=True)
    with pytest.raises(ValueError, match="timm has no model 'resnet1o1'"):
        make(backbone="resnet1o1")
    with pytest.raises(ValueError, match="needs num_classes or label_set"):
        create_model("deeplabv3", backbone="test_efficientnet")
    with pytest.raises(ValueError, match="num_classes is 3, but label_set has 21 classes"):
        make(num_classes=3, label_set=VOC)
    with pytest.raises(ValueError, match="one of 4, 8, 16, 32"):
        make(output_stride=7)


def test_labels_may_be_plain_names() -> None:
    model = make(num_classes=None, label_set=["sky", "ground"])
    assert model.label_set == LabelSet(("sky", "ground"))
    assert model.num_classes == 2


def test_float16_storage_loads_as_float32(tmp_path: Path) -> None:
    model = make().eval()
    small, full = model.save(tmp_path / "half", dtype=torch.float16), model.save(tmp_path / "full")
    sizes = [(f / "model.safetensors").stat().st_size for f in (small, full)]
    assert sizes[0] < 0.55 * sizes[1]
    assert all(p.dtype == torch.float32 for p in load(small).parameters())


def test_saving_replaces_an_old_folder_whole_and_keeps_notes(tmp_path: Path) -> None:
    model = make()
    model.save(tmp_path / "m", metrics={"mean_iou": 0.5})
    (tmp_path / "m" / "stray").touch()
    again = load(tmp_path / "m")
    assert again.card == {"metrics": {"mean_iou": 0.5}}
    again.save(tmp_path / "m")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["config.json", "m", "model.safetensors"]
    assert load(tmp_path / "m").card == again.card


class TestADamagedFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return make().save(tmp_path / "model")

    def test_without_weights(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
            load(folder)

    def test_with_weights_cut_short(self, folder: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1000])
        with pytest.raises(CheckpointError, match="damaged or truncated"):
            load(folder)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_with_weights_that_are_not_finite(self, folder: Path, value: float) -> None:
        weights = load_file(folder / "model.safetensors")
        weights["classifier.weight"][0, 1] = value
        save_file(weights, folder / "model.safetensors")
        expected = r"model\.safetensors: 1 of the [\d,]+ values of 'classifier.weight' are NaN or infinite"
        with pytest.raises(CheckpointError, match=expected):
            load(folder)

    def test_with_a_broken_config(self, folder: Path) -> None:
        (folder / "config.json").write_text("{")
        with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
            load(folder)

    @pytest.mark.parametrize("brackets", ["[" * 200_000, '{"a":' * 200_000, "[" * 200_000 + "]" * 200_000])
    def test_with_nested_brackets(self, folder: Path, brackets: str) -> None:
        (folder / "config.json").write_text(brackets)
        with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
            load(folder)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"library": "other"}, "was not written by atrous"),
            ({"format": 99}, "upgrade atrous"),
            ({"format": None}, r"config\.json: format: .*valid integer, not None"),
            ({"backbone": 5}, r"config\.json: backbone: .*valid string, not 5"),
            ({"in_channels": 10**8}, r"config\.json: in_channels: .*less than or equal to 4096, not 100000000"),
            (
                {"label_set": {"names": list("abcd"), "colors": [[float("inf"), 0, 0]] * 4}},
                r"label_set\.colors\.0\.0: ",
            ),
            (
                {"preprocessing": {"mean": [0, 0, 0], "std": [1, 0, 1]}},
                r"preprocessing\.std\.1: .*greater than 0, not 0",
            ),
            ({"preprocessing": {"mean": [0, 0, 0]}}, r"preprocessing\.std: Field required"),
            ({"crf": {"helps": True}}, r"crf\.settings: Field required"),
            ({"crf": {"settings": {"weight": 3}, "helps": True}}, r"crf\.settings\.sxy: Field required"),
            ({"options": None}, r"config\.json: options: "),
            ({"options": {"channels": 10**7}}, r"config\.json describes a much larger network than the [\d,]+ values"),
            ({"options": {"rates": [2] * 10**6}}, r"config\.json describes a much larger network"),
            ({"architecture": "unet"}, "no model 'unet'"),
            ({"label_set": {"names": ["a", "b"]}}, r"classifier\.\w+ is \(4"),
            ({"options": {"separable": True}}, r"tensors \d+ missing \(first: aspp"),
        ],
    )
    def test_with_a_config_that_does_not_fit(self, folder: Path, change: dict[str, object], message: str) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
        with pytest.raises(CheckpointError, match=message):
            load(folder)


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"no model 'nothing'.*bundled models are"):
        load("nothing")


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (None, "since HF_HUB_OFFLINE is set"),
        (RepositoryNotFoundError, "the hub has no such repository, or it is private"),
        (ConnectionError, "it could not be fetched from the hub: no route$"),
    ],
)
def test_a_name_that_may_be_a_folder_is_first_said_to_be_none(tmp_path, monkeypatch, failure, words):
    def fetch(*_: object, **__: object) -> str:
        raise failure.__new__(failure, "no route\nand much more")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", failure is None)
    if failure:
        monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(
        CheckpointError, match=rf"no such folder \(nor a folder r7\) in .*{tmp_path.name}, and .*{words}"
    ):
        load("r7/best")


def test_no_folder_and_no_hub_id_either(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no such folder .*, and it can't be a hub id either"):
        load("my run/best")


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"is a file; a model is the folder that contains config\.json and"):
        load(tmp_path / "model.safetensors")


@given(size=st.tuples(st.integers(1, 70), st.integers(1, 70)))
@settings(max_examples=15, deadline=None)
def test_any_size_gives_finite_logits(size: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = _small()(torch.randn(1, 3, *size))
    assert logits.shape[-2:] == size
    assert logits.isfinite().all()


_kept: list[SegmentationModel] = []


def _small() -> SegmentationModel:
    if not _kept:
        _kept.append(make("deeplabv3plus", "tf_mobilenetv3_small_minimal_100", separable=True).eval())
    return _kept[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"num_classes": 1},
            "num_classes is 1: one class can't be distinguished from anything: name the background too",
        ),
        ({"num_classes": None, "label_set": ["dog"]}, r'names = \["background", "dog"\]'),
        ({"num_classes": 2.5}, "num_classes is an integer ≥ 1, not 2.5"),
        ({"in_channels": 0}, "in_channels is an integer ≥ 1, not 0"),
        ({"output_stride": 0}, "output_stride is one of 4, 8, 16, 32, not 0"),
        ({"rates": 6}, "rates: Input should be an instance of Sequence, not 6"),
        (
            {"rates": [1.5, 2]},
            r"rates\.0: Input should be a valid integer, got a number with a fractional part, not 1\.5",
        ),
        ({"rates": "6,12"}, "rates: 'str' instances are not allowed as a Sequence value, not '6,12'"),
        ({"low_level_channels": 0}, "low_level_channels: Input should be greater than or equal to 1, not 0"),
        ({"decoder_channels": 0}, "decoder_channels: Input should be greater than or equal to 1, not 0"),
        ({"channels": -8}, "channels: Input should be greater than or equal to 1, not -8"),
        (
            {"separable": "perhaps"},
            "separable: Input should be a valid boolean, unable to interpret input, not 'perhaps'",
        ),
        ({"dropout": 2}, "dropout: Input should be less than 1, not 2"),
        ({"dropout": float("nan")}, "dropout: Input should be a finite number, not nan"),
        ({"name": "fcn32s", "dropout": -0.1}, r"dropout: Input should be greater than or equal to 0, not -0\.1"),
        ({"name": "fcn8s", "heads": [3]}, r"heads: Input should be a valid dictionary, not \[3\]"),
        ({"name": "fcn8s", "heads": {"sky": 0}}, r"heads\.sky: Input should be greater than or equal to 1, not 0"),
        ({"name": "fcn8s", "heads": {"main": 2}}, "'main' is what scores the classes: give this one another name"),
        (
            {"name": "attention_to_scale", "merge": "sum"},
            "merge: Input should be 'max', 'average' or 'attention', not 'sum'",
        ),
        ({"name": "deeplab_largefov", "width": -1}, "width: Input should be greater than or equal to 0, not -1"),
        (
            {"name": "deeplab_largefov", "pad_to": -5},
            "pad_to: Input should be greater than or equal to 0, not -5",
        ),
        (
            {"name": "deeplab_largefov", "pad_to": 10**9},
            "pad_to: Input should be less than or equal to 8192, not 1000000000",
        ),
        ({"name": "deeplab_largefov", "kernel": 0}, "kernel: Input should be greater than or equal to 1, not 0"),
        ({"name": "deeplab_largefov", "seed": -1}, "seed: Input should be greater than or equal to 0, not -1"),
        ({"name": "deeplab_aspp", "rates": [6, 0]}, r"rates\.1: Input should be greater than or equal to 1, not 0"),
        (
            {"name": "deeplab_aspp", "scales": "1,0.5"},
            "scales: 'str' instances are not allowed as a Sequence value, not '1,0.5'",
        ),
        ({"name": "deeplab_aspp", "rates": []}, r"rates has one for each branch.* not \[\]"),
        ({"name": "deeplab_aspp", "scales": [1, 1000]}, r"scales are .* 0\.125 to 8, not \[1.0, 1000.0\]"),
        ({"name": "deeplabv3_cascade", "multi_grid": []}, r"multi_grid has a rate for each unit .* not \[\]"),
        ({"backbone": "vgg11+vgg11"}, r"3 channels can't be divided evenly among 2 backbones \(vgg11\+vgg11\)"),
        (
            {"name": "fcn8s", "backbone": "vgg11+resnet50_beta"},
            "'fcn8s' has no backbone 'resnet50_beta', which is for deeplabv3, deeplabv3_cascade, deeplabv3plus",
        ),
        (
            {"name": "attention_to_scale", "base": "deeplab_aspp", "backbone": "caffenet"},
            "'deeplab_aspp' has no backbone 'caffenet', which is for fcn16s",
        ),
        ({"backbone": "test_vit"}, r"features at strides \[16\], none at 4 .*low_level_strides, such as \[16\]"),
        ({"backbone": 3}, "backbone is a name, a Backbone or a plain nn.Module, not an int"),
    ],
)
def test_an_argument_that_can_not_be_is_named(arguments, said):
    with pytest.raises((ValueError, TypeError), match=said):
        atrous.create_model(**{"name": "deeplabv3plus", "backbone": "test_resnet", "num_classes": 3} | arguments)


def test_a_image_without_pixels_is_refused():
    model = atrous.create_model("deeplabv3plus", backbone="test_resnet", num_classes=3)
    with pytest.raises(ValueError, match="at least one pixel, not 0 × 5"):
        model(torch.zeros(1, 3, 0, 5))


def test_a_missing_folder_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine" / "best").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "runs" / "mine" / "best" / name).touch()
    with pytest.raises(CheckpointError, match="no model 'runs/main': runs has no such folder; it has: mine"):
        atrous.load("runs/main")
    with pytest.raises(CheckpointError, match=r"did you mean runs.mine.best\?"):
        atrous.load("runs/mine")


def test_a_folder_with_other_files_is_not_replaced(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="images holds something other than a model"):
        make().save(tmp_path / "images")
    assert (tmp_path / "images" / "a.jpg").read_bytes() == b"mine"
    make().save(tmp_path / "model")
    make().save(tmp_path / "model")


@pytest.mark.parametrize("value", [8.0, "8", None, 12, True])
def test_an_output_stride_that_is_none_changes_nothing(value: object) -> None:
    model = create_model("deeplabv3plus", backbone="test_efficientnet", num_classes=2, channels=16).eval()
    x = torch.randn(1, 3, 65, 65)
    before = model(x)
    with pytest.raises(ValueError, match="one of 4, 8, 16, 32, not"):
        model.output_stride = value
    assert model.output_stride == 16
    assert torch.equal(model(x), before)


def test_an_output_stride_may_be_a_number_of_numpy(tmp_path: Path) -> None:
    model = create_model("deeplabv3plus", backbone="test_efficientnet", num_classes=2, channels=16)
    model.output_stride = np.int64(8)
    assert load(model.save(tmp_path / "model")).output_stride == 8


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", None),
        ("format", "1"),
        ("backbone", 5),
        ("in_channels", 10**8),
        ("options", {"channels": 10**6}),
        ("options", None),
        ("preprocessing", {"mean": [[0], 0, 0], "std": [1, 1, 1]}),
        ("preprocessing", {"mean": [0, 0, 0], "std": [1, 0, 1]}),
        ("preprocessing", {"mean": [0, 0, 0], "std": [1, float("nan"), 1]}),
        ("nested", "["),
    ],
)
def test_a_damaged_config_is_a_documented_error(key: str, value: object, tmp_path: Path) -> None:
    options = {"channels": 8, "rates": (1, 2)}
    create_model("deeplabv3", backbone="test_resnet", num_classes=3, pretrained=False, **options).save(tmp_path / "m")
    file = tmp_path / "m" / "config.json"
    text = json.dumps(json.loads(file.read_text()) | {key: value})
    file.write_text(text.replace('"["', "[" * 200_000))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(tmp_path / "m")
