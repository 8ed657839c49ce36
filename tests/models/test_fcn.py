"""FCN: sizes, counts and crops of the released models, and skips on any backbone."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from atrous.grid import PIXELS, Grid, resample
from atrous.models import create_model, load
from atrous.models.backbones import fcn as classics
from atrous.models.backbones.fcn import CAFFE, ClassicBackbone
from atrous.models.backbones.weights import WeightsNotFoundError
from atrous.models.base import SegmentationModel
from atrous.models.fcn import FCN, DilatedFCN, late_fusion
from atrous.models.layers import bilinear_kernel
from atrous.models.surgery.trace import trace_windows
from atrous.ops.labelmap.op import logits_to_labels

FCNS = ["fcn32s", "fcn16s", "fcn8s"]


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def without_data(name: str, backbone: str, **options: object) -> SegmentationModel:
    with torch.device("meta"):
        return create_model(name, backbone=backbone, **({"num_classes": 21} | options)).eval()


def awake(model: SegmentationModel) -> SegmentationModel:
    """With scorers that say something: they start at zero."""
    for key, parameter in model.named_parameters():
        if key.startswith("score_"):
            nn.init.normal_(parameter, std=0.1)
    return model


class TestTheReleasedForm:
    @pytest.mark.parametrize(
        ("name", "backbone", "count"),
        [
            ("fcn32s", "vgg16", 134_346_581),
            ("fcn16s", "vgg16", 134_346_581 + 512 * 21 + 21),
            ("fcn8s", "vgg16", 134_346_581 + 16_170),
            ("fcn32s", "caffenet", 56_954_261),  # table 1 of the paper says 57 M
            ("fcn32s", "googlenet", 5_621_429),  # 6 M
        ],
    )
    def test_parameter_counts(self, name: str, backbone: str, count: int) -> None:
        assert parameters(without_data(name, backbone)) == count

    @pytest.mark.parametrize(
        ("n", "pools", "score_fr", "upscore2", "upscore_pool4", "last"),
        [  # of the released net files; the last three: upscore8, upscore16, upscore
            (500, [349, 175, 88, 44, 22], 16, 34, 70, [568, 560, 544]),
            (375, [287, 144, 72, 36, 18], 12, 26, 54, [440, 432, 416]),
            (256, [227, 114, 57, 29, 15], 9, 20, 42, [344, 336, 320]),
            (224, [211, 106, 53, 27, 14], 8, 18, 38, [312, 304, 288]),
            (1, [100, 50, 25, 13, 7], 1, 4, 10, [88, 80, 64]),
        ],
    )
    def test_sizes(
        self, n: int, pools: list[int], score_fr: int, upscore2: int, upscore_pool4: int, last: list[int]
    ) -> None:
        x = torch.empty(1, 3, n, n, device="meta")
        seen = []
        backbone = without_data("fcn32s", "vgg16").backbone
        for layer in backbone.modules():
            if isinstance(layer, nn.MaxPool2d):
                layer.register_forward_hook(lambda *args: seen.append(args[2].shape[-1]))
        backbone(x)
        assert seen == pools
        eighth, sixteenth, coarse = (
            without_data(name, "vgg16").coarse_logits(x)[0].shape[-1] for name in reversed(FCNS)
        )
        assert (coarse, sixteenth, eighth) == (score_fr, upscore2, upscore_pool4)
        assert [(eighth - 1) * 8 + 16, (sixteenth - 1) * 16 + 32, (coarse - 1) * 32 + 64] == last
        assert all(size >= crop + n for size, crop in zip(last, (31, 27, 19), strict=True))

    @pytest.mark.parametrize(
        ("backbone", "kernels", "crops", "last"),
        [("vgg16", 4, (5, 9), (64, 32, 16)), ("caffenet", 3, (5, 10), (63, 31, 15)), ("alexnet", 3, (5, 10), (63,))],
    )
    def test_crops(self, backbone: str, kernels: int, crops: tuple[int, int], last: tuple[int, ...]) -> None:
        model = without_data("fcn8s", backbone)
        assert model.crops == {"score_pool4": (kernels, crops[0]), "score_pool3": (kernels, crops[1])}
        offsets = {"vgg16": (-19, -27, -31), "caffenet": (-18, -18, -18), "alexnet": (-18,)}[backbone]
        for name, kernel, offset in zip(FCNS, last, offsets, strict=False):
            _, grid = without_data(name, backbone).coarse_logits(torch.empty(1, 3, 40, 50, device="meta"))
            assert grid.transposed(kernel, int(grid.stride)) == Grid(1, offset)

    @pytest.mark.parametrize("backbone", ["vgg16", "caffenet"])
    def test_every_crop_fits_at_every_size(self, thin: None, backbone: str) -> None:
        model = without_data("fcn8s", backbone)
        for n in (*range(1, 66), *range(500, 533)):
            scores, grid = model.coarse_logits(torch.empty(1, 3, n, n + 1, device="meta"))
            kernel = 16 if backbone == "vgg16" else 15
            crop = -grid.transposed(kernel, 8).offset
            assert (scores.shape[-2] - 1) * 8 + kernel >= crop + n

    @pytest.mark.parametrize(("backbone", "pixels"), [("vgg16", 404), ("caffenet", 355)])
    def test_receptive_fields_are_those_of_table_1(self, backbone: str, pixels: int) -> None:
        windows = trace_windows(without_data("fcn32s", backbone).backbone.net)
        assert 1 + sum((w.kernel - 1) * w.dilation * w.grid.stride for w in windows) == pixels

    def test_layers_are_named_as_in_the_released_models(self) -> None:
        names = [k.removesuffix(".weight") for k in without_data("fcn8s", "vgg16").state_dict() if "weight" in k]
        convolutions = [f"conv{b}_{i}" for b, count in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, count + 1)]
        backbone = [f"backbone.net.{name}" for name in (*convolutions, "fc6", "fc7")]
        assert names == [*backbone, "score_fr", "score_pool4", "score_pool3"]

    def test_scorers_start_at_zero(self, thin: None) -> None:
        model = create_model("fcn8s", backbone="vgg16", num_classes=3).eval()
        assert not model(torch.randn(1, 3, 20, 30)).any()

    def test_dropout_is_half_behind_fc6_and_fc7(self) -> None:
        rates = [m.p for m in without_data("fcn32s", "vgg16").modules() if isinstance(m, nn.Dropout)]
        assert rates == [0.5, 0.5]

    def test_the_output_stride_is_fixed(self) -> None:
        model = without_data("fcn8s", "vgg16")
        with pytest.raises(ValueError, match="'vgg16' has the form of its paper, at output stride 32, not 16"):
            model.output_stride = 16
        with pytest.raises(ValueError, match="a timm backbone can be made denser"):
            without_data("fcn8s", "alexnet", output_stride=8)

    def test_caffes_weights_see_0_to_255_less_the_mean_colour(self, thin: None) -> None:
        model = create_model("fcn32s", backbone="caffenet", num_classes=3)
        image = torch.tensor([255, 0, 10], dtype=torch.uint8).view(1, 3, 1, 1)
        expected = torch.tensor([255 - 122.67892, -116.66877, 10 - 104.00699])
        torch.testing.assert_close(model.preprocess(image).flatten(), expected, rtol=0, atol=1e-4)
        assert (model.preprocessing.mean, model.preprocessing.std) == CAFFE

    @pytest.mark.parametrize("size", [(1, 1), (33, 64), (97, 20)])
    @pytest.mark.parametrize("backbone", ["vgg16", "caffenet", "alexnet"])
    def test_any_size(self, thin: None, backbone: str, size: tuple[int, int]) -> None:
        for batch in (1, 2):
            logits = awake(create_model("fcn8s", backbone=backbone, num_classes=3)).eval()(torch.randn(batch, 3, *size))
            assert logits.shape == (batch, 3, *size)
            assert logits.isfinite().all()

    def test_labels_from_its_scores_are_those_of_its_logits(self, thin: None) -> None:
        model = awake(create_model("fcn32s", backbone="vgg16", num_classes=5)).eval()
        x = torch.randn(1, 3, 70, 41)
        with torch.no_grad():
            logits, (scores, grid) = model(x), model.coarse_logits(x)
        labels = logits_to_labels(scores, grid, (70, 41))
        assert (labels == logits.argmax(1)).float().mean() > 0.999  # beyond the last position logits fade, alike

    @pytest.mark.parametrize("name", FCNS)
    def test_round_trip(self, thin: None, name: str, tmp_path: Path) -> None:
        options = {"learn_upsampling": True} if name == "fcn16s" else {}
        model = awake(create_model(name, backbone="vgg16", num_classes=3, **options)).eval()
        again = load(model.save(tmp_path / "model"))
        x = torch.randn(1, 3, 40, 30)
        with torch.no_grad():
            assert torch.equal(model(x), again(x))
        assert again.config == model.config


def caffe_fcn(model: SegmentationModel, layers: dict[str, nn.Module], x: Tensor) -> Tensor:
    """The released net files, layer by layer: independent of grids and resampling."""
    classes, n = model.num_classes, x.shape[-2:]

    def deconvolution(scores: Tensor, kernel: int, stride: int) -> Tensor:
        weight = torch.zeros(classes, classes, kernel, kernel)
        weight[range(classes), range(classes)] = bilinear_kernel(kernel)
        return F.conv_transpose2d(scores, weight, stride=stride)

    def crop(scores: Tensor, offset: int, size: torch.Size) -> Tensor:
        return scores[..., offset : offset + size[-2], offset : offset + size[-1]]

    pools = {}
    for name, layer in layers.items():
        if name.startswith("conv"):
            x = F.relu(layer(x))
        if name in ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"):
            x = pools[f"pool{name[4]}"] = F.max_pool2d(x, 2, 2, ceil_mode=True)
    x = F.relu(layers["fc7"](F.relu(layers["fc6"](x))))
    scores = layers["score_fr"](x)
    if model.name == "fcn32s":
        return crop(deconvolution(scores, 64, 32), 19, n)
    upscore2 = deconvolution(scores, 4, 2)
    scale4, scale3 = (0.01, 0.0001) if model.config["options"].get("at_once") else (1, 1)
    fuse_pool4 = upscore2 + crop(layers["score_pool4"](scale4 * pools["pool4"]), 5, upscore2.shape)
    if model.name == "fcn16s":
        return crop(deconvolution(fuse_pool4, 32, 16), 27, n)
    upscore_pool4 = deconvolution(fuse_pool4, 4, 2)
    fuse_pool3 = upscore_pool4 + crop(layers["score_pool3"](scale3 * pools["pool3"]), 9, upscore_pool4.shape)
    return crop(deconvolution(fuse_pool3, 16, 8), 31, n)


@pytest.mark.parametrize("size", [(1, 1), (37, 64), (100, 75)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fcn32s", {}),
        ("fcn16s", {}),
        ("fcn8s", {}),
        ("fcn8s", {"at_once": True}),
        ("fcn8s", {"learn_upsampling": True}),  # which begins as the fixed one
    ],
)
def test_logits_are_those_of_the_released_net_files(
    thin: None, name: str, options: dict[str, object], size: tuple[int, int]
) -> None:
    model = awake(create_model(name, backbone="vgg16", num_classes=5, **options)).eval()
    layers = {k.rpartition(".")[2]: m for k, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        ours, theirs = model(x), caffe_fcn(model, layers, x)
    assert ours.shape == theirs.shape
    assert ((ours - theirs).abs().max() / theirs.abs().max()).item() < 1e-5
    (output,) = model.outputs(x)
    assert torch.equal(output.at(size), model(x))


def test_alexnets_logits_are_a_deconvolution_of_63_cropped_at_18(thin: None) -> None:
    model = awake(create_model("fcn32s", backbone="caffenet", num_classes=2)).eval()
    x = torch.randn(1, 3, 90, 51)
    with torch.no_grad():
        scores, _ = model.coarse_logits(x)
        weight = bilinear_kernel(63).expand(2, 1, -1, -1)
        theirs = F.conv_transpose2d(scores, weight, stride=32, groups=2)[..., 18 : 18 + 90, 18 : 18 + 51]
        torch.testing.assert_close(model(x), theirs, rtol=1e-5, atol=1e-5)


class TestBilinearKernels:
    @pytest.mark.parametrize(("size", "total"), [(4, 4), (16, 64), (63, 1024), (64, 1024)])
    def test_sums(self, size: int, total: float) -> None:
        assert bilinear_kernel(size).sum().item() == pytest.approx(total)

    def test_values(self) -> None:
        line = torch.tensor([0.25, 0.75, 0.75, 0.25])
        assert torch.equal(bilinear_kernel(4), line[:, None] * line)

    def test_a_constant_is_kept_but_for_the_rim(self) -> None:
        coarse = Grid(2, 0)
        grown = resample(torch.ones(1, 1, 3, 3), coarse, coarse.transposed(4, 2), (8, 8), fade=True)[0, 0]
        assert torch.equal(grown[2:-2, 2:-2], torch.ones(4, 4))  # one step of the coarse map, two of the fine one
        assert torch.equal(grown[0, :3], torch.tensor([0.0625, 0.1875, 0.25]))

    @pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (3, 2), (16, 8), (63, 32), (64, 32)])
    def test_resampling_with_fading_edges_is_the_deconvolution(self, kernel: int, stride: int) -> None:
        x = torch.randn(1, 1, 5, 4)
        theirs = F.conv_transpose2d(x, bilinear_kernel(kernel)[None, None], stride=stride)
        coarse = Grid(stride, 7)
        ours = resample(x, coarse, coarse.transposed(kernel, stride), tuple(theirs.shape[-2:]), fade=True)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


class TestStages:
    def test_a_finer_net_begins_with_the_scores_of_the_one_before(self, thin: None) -> None:
        """The same up to the chain of interpolations, which is ×2, ×2, ×8 instead of ×32."""
        coarse, middle, fine = (create_model(name, backbone="vgg16", num_classes=3).eval() for name in FCNS)
        awake(coarse)
        middle.start_from(coarse)
        fine.start_from(middle)
        x = torch.randn(1, 3, 80, 60)
        with torch.no_grad():
            scores, _ = coarse.coarse_logits(x)

            def times(scores: Tensor, factor: int) -> Tensor:
                weight = bilinear_kernel(2 * factor).expand(3, 1, -1, -1)
                return F.conv_transpose2d(scores, weight, stride=factor, groups=3)

            by_16 = times(times(scores, 2), 16)[..., 27 : 27 + 80, 27 : 27 + 60]
            by_8 = times(times(times(scores, 2), 2), 8)[..., 31 : 31 + 80, 31 : 31 + 60]
            torch.testing.assert_close(middle(x), by_16, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(fine(x), by_8, rtol=1e-5, atol=1e-5)
            away = (fine(x) - coarse(x)).abs().max() / coarse(x).abs().max()
        assert 0 < away.item() < 0.25  # close, not identical

    def test_on_a_timm_backbone(self) -> None:
        coarse, middle, fine = (create_model(n, backbone="test_resnet", num_classes=3).eval() for n in FCNS)
        awake(coarse)
        middle.start_from(coarse)
        fine.start_from(middle)
        x = torch.randn(1, 3, 129, 97)
        with torch.no_grad():
            chain, grid = coarse.coarse_logits(x)
            for model in (middle, fine):
                scores, finer = model.coarse_logits(x)
                chain, grid = resample(chain, grid, finer, tuple(scores.shape[-2:])), finer
            expected = resample(chain, grid, PIXELS, (129, 97))
            torch.testing.assert_close(fine(x), expected, rtol=1e-5, atol=1e-5)

    def test_trained_skips_are_kept(self) -> None:
        middle, fine = (create_model(n, backbone="test_resnet", num_classes=3) for n in FCNS[1:])
        awake(middle)
        fine.start_from(middle)
        assert torch.equal(fine.score_pool4.weight, middle.score_pool4.weight)
        assert not fine.score_pool3.weight.any()

    def test_other_classes_get_new_scorers(self) -> None:
        middle = awake(create_model("fcn16s", backbone="test_resnet", num_classes=3))
        other = create_model("fcn16s", backbone="test_resnet", num_classes=5)
        other.start_from(middle)
        theirs, ours = dict(middle.backbone.named_parameters()), dict(other.backbone.named_parameters())
        assert all(torch.equal(theirs[k], ours[k]) for k in theirs)
        assert not other.score_fr.weight.any()

    def test_another_network_is_refused_whole(self) -> None:
        source = create_model("fcn32s", backbone="test_resnet", num_classes=3)
        model = create_model("fcn16s", backbone="test_efficientnet", num_classes=3)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        with pytest.raises(
            ValueError, match=r"another network \(fcn32s on test_resnet\): \d+ tensors differ, first: b"
        ):
            model.start_from(source)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


class TestOptions:
    def test_learned_upsampling_is_dense_and_learns(self, thin: None) -> None:
        model = awake(create_model("fcn8s", backbone="vgg16", num_classes=3, learn_upsampling=True))
        assert model.upscore2.weight.shape == model.upscore_pool4.weight.shape == (3, 3, 4, 4)
        assert not model.upscore2.weight[0, 1].any()
        model(torch.randn(1, 3, 20, 20)).square().mean().backward()
        assert model.upscore2.weight.grad[0, 1].any()
        with pytest.raises(ValueError, match="learn_upsampling is for the papers' backbones"):
            create_model("fcn8s", backbone="test_resnet", num_classes=3, learn_upsampling=True)

    def test_at_once_scales_the_features(self) -> None:
        staged, at_once = (
            awake(create_model("fcn8s", backbone="test_resnet", num_classes=3, at_once=value)).eval()
            for value in (False, True)
        )
        at_once.load_state_dict(staged.state_dict())
        with torch.no_grad():
            at_once.score_pool4.weight *= 100
            at_once.score_pool3.weight *= 10000
            x = torch.randn(1, 3, 65, 65)
            torch.testing.assert_close(at_once(x), staged(x), rtol=1e-4, atol=1e-5)

    def test_further_heads_are_for_the_loss_alone(self) -> None:
        model = awake(create_model("fcn16s", backbone="test_resnet", num_classes=33, heads={"geometric": 3})).eval()
        x = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            main, geometric = model.outputs(x)
            assert (main.name, geometric.name, geometric.weight) == ("main", "geometric", 1)
            assert (main.logits.shape[1], geometric.logits.shape[1]) == (33, 3)
            assert model(x).shape == (1, 33, 64, 64)
            assert torch.equal(model(x), main.at((64, 64)))


class TestFusion:
    def test_early_fusion_starts_depth_at_the_mean_of_the_colours(self, thin: None) -> None:
        torch.manual_seed(1)
        colour = ClassicBackbone("vgg16")
        torch.manual_seed(1)
        early = ClassicBackbone("vgg16", in_channels=4)
        theirs, ours = colour.net.conv1_1.weight, early.net.conv1_1.weight
        assert torch.equal(ours[:, :3], theirs)
        assert torch.equal(ours[:, 3:], theirs.mean(1, keepdim=True))
        assert early.mean[:3] == colour.mean

    def test_grey_images_give_what_their_colour_copies_gave(self, thin: None) -> None:
        torch.manual_seed(1)
        colour = ClassicBackbone("vgg16")
        torch.manual_seed(1)
        grey = ClassicBackbone("vgg16", in_channels=1)
        x = torch.randn(1, 1, 9, 9)
        torch.testing.assert_close(grey.net.conv1_1(x), colour.net.conv1_1(x.expand(-1, 3, -1, -1)))

    @pytest.mark.parametrize("backbone", ["vgg16", "test_resnet"])
    def test_late_fusion_gives_the_mean_of_the_scores(self, thin: None, backbone: str) -> None:
        colour, depth = (awake(create_model("fcn16s", backbone=backbone, num_classes=4)).eval() for _ in range(2))
        depth.preprocessing = type(depth.preprocessing)((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
        fused = late_fusion(colour, depth)
        a, b = torch.randn(2, 3, 50, 70), torch.randn(2, 3, 50, 70)
        with torch.no_grad():
            torch.testing.assert_close(fused(torch.cat([a, b], 1)), (colour(a) + depth(b)) / 2, rtol=1e-4, atol=1e-5)
        assert fused.preprocessing.mean == (*colour.preprocessing.mean, 0.1, 0.2, 0.3)
        assert parameters(fused) == 2 * parameters(colour) - 4 * 2

    def test_a_fused_model_can_be_saved_and_made_denser(self, tmp_path: Path) -> None:
        model = create_model("fcn8s", backbone="test_resnet+test_resnet", in_channels=6, num_classes=2).eval()
        awake(model).output_stride = 16
        again = load(model.save(tmp_path / "fused"))
        x = torch.randn(1, 6, 40, 40)
        with torch.no_grad():
            assert torch.equal(again(x), model(x))
        assert again.output_stride == 16

    def test_what_can_not_be_fused_says_why(self) -> None:
        with pytest.raises(ValueError, match="4 channels can't be divided evenly among 3 backbones"):
            create_model("fcn8s", backbone="test_resnet+test_resnet+test_resnet", in_channels=4, num_classes=2)
        with pytest.raises(ValueError, match="'test_resnet' and 'test_convnext' have their features at different pla"):
            create_model("fcn8s", backbone="test_resnet+test_convnext", in_channels=6, num_classes=2)
        models = [create_model(name, backbone="test_resnet", num_classes=2) for name in FCNS[:2]]
        with pytest.raises(ValueError, match="FCNs of one architecture"):
            late_fusion(*models)


class TestWeights:
    def test_a_file_in_torchvisions_names_is_taken(self, thin: None, tmp_path: Path) -> None:
        donor = classics._classifier("vgg16")
        save_file(donor.state_dict(), tmp_path / "vgg16.safetensors")
        torch.save(donor.state_dict(), tmp_path / "vgg16.pth")
        for name in ("vgg16.safetensors", "vgg16.pth"):
            net = ClassicBackbone("vgg16", pretrained=tmp_path / name).net
            assert torch.equal(net.conv5_3.weight, donor.features[28].weight)
            assert torch.equal(net.fc6.weight.flatten(1), donor.classifier[0].weight)
            assert torch.equal(net.fc7.weight.flatten(1), donor.classifier[3].weight)

    def test_the_last_layer_may_be_another(self, thin: None, tmp_path: Path) -> None:
        donor = classics._classifier("vgg16")
        donor.classifier[6] = nn.Linear(4096 // 16, 2)
        save_file(donor.state_dict(), tmp_path / "mine.safetensors")
        ClassicBackbone("vgg16", pretrained=tmp_path / "mine.safetensors")

    def test_what_does_not_fit_is_named(self, thin: None, tmp_path: Path) -> None:
        file = tmp_path / "w.safetensors"
        weights = classics._classifier("vgg16").state_dict()
        save_file({k: v for k, v in weights.items() if k != "features.0.weight"}, file)
        with pytest.raises(
            WeightsNotFoundError, match=r"w\.safetensors: features\.0\.weight is missing, expected \(4, 3"
        ):
            ClassicBackbone("vgg16", pretrained=file)
        save_file(weights | {"classifier.0.weight": torch.full_like(weights["classifier.0.weight"], math.nan)}, file)
        with pytest.raises(WeightsNotFoundError, match=r"classifier\.0\.weight is not finite; .* IMAGENET1K_V1"):
            ClassicBackbone("vgg16", pretrained=file)
        file.with_suffix(".pth").write_bytes(b"no weights")
        for bad in (file.with_suffix(".pth"), tmp_path / "nowhere.pth"):
            with pytest.raises(WeightsNotFoundError, match="could not be found"):
                ClassicBackbone("vgg16", pretrained=bad)

    def test_offline_the_ways_are_named(self, thin: None, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError("no route")

        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
        monkeypatch.setattr("atrous.models.backbones.weights.is_reachable", lambda _: False)
        with pytest.raises(WeightsNotFoundError, match=r"no connection to .* give a file .* go online once"):
            ClassicBackbone("vgg16", pretrained=True)
        monkeypatch.setattr("atrous.models.backbones.weights.is_reachable", lambda _: True)
        with pytest.raises(WeightsNotFoundError, match=r"no route.* give a file .* go online once"):
            ClassicBackbone("vgg16", pretrained=True)
        with pytest.raises(WeightsNotFoundError, match="no package or hub"):
            ClassicBackbone("caffenet", pretrained=True)


def test_googlenet_takes_any_size() -> None:
    model = awake(create_model("fcn8s", backbone="googlenet", num_classes=3)).eval()
    with torch.no_grad():
        for size in ((1, 1), (33, 64), (40, 97)):
            assert model(torch.randn(1, 3, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("name", ["fcn", "deeplabv3", "deeplabv3plus"])
def test_an_auxiliary_head_is_for_training_alone(name: str, tmp_path: Path) -> None:
    options = {"backbone": "test_resnet", "num_classes": 3, "output_stride": 8}
    model = create_model(name, **options, aux=True).eval()
    x = torch.randn(1, 3, 65, 49)
    with torch.no_grad():
        main, aux = model.outputs(x)
        assert (main.name, main.weight, aux.name, aux.weight) == ("main", 1, "aux", 0.5)
        assert aux.grid.stride == 8
        assert torch.equal(main.at((65, 49)), model(x))
        assert torch.equal(load(model.save(tmp_path / "model"))(x), model(x))
    plain = create_model(name, **options)
    plain.start_from(model)
    assert not any(k.startswith("aux") for k in plain.state_dict())
    model.start_from(plain)  # and the other way


def test_the_dilated_form_is_an_fcn_by_name_only() -> None:
    model = create_model("fcn", backbone="test_resnet", num_classes=3)
    assert isinstance(model, DilatedFCN)
    assert not isinstance(model, FCN)
    assert model.output_stride == 8
