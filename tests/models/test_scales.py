"""Several scales through one network, and their scores merged."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from atrous.grid import Grid
from atrous.models import create_model, load
from atrous.models.base import SegmentationModel
from atrous.models.multi_scale import MultiScale, scaled, scaled_size

SCALES = (1, 0.75, 0.5)


def two(base: str = "deeplab_largefov", scales: tuple[float, ...] = SCALES, **options: object) -> SegmentationModel:
    model = create_model(
        "attention_to_scale",
        base=base,
        backbone="resnet18",
        num_classes=4,
        scales=scales,
        **({"merge": "max"} | options),
    )
    return model.eval()


@pytest.mark.parametrize(
    ("n", "scale", "size"),
    [(513, 0.75, 385), (513, 0.5, 257), (321, 0.75, 241), (321, 0.5, 161), (321, 1, 321), (1, 0.5, 1), (2, 0.5, 1)],
)
def test_sizes_follow_the_aligned_rule(n: int, scale: float, size: int) -> None:
    assert scaled_size(n, scale) == size


@pytest.mark.parametrize("scale", [0.75, 0.5, 1.25])
def test_images_of_published_sizes_are_scaled_with_aligned_corners(scale: float) -> None:
    x = torch.randn(1, 3, 65, 129)
    size = (int(64 * scale) + 1, int(128 * scale) + 1)
    expected = F.interpolate(x.double(), size=size, mode="bilinear", align_corners=True).float()
    torch.testing.assert_close(scaled(x, scale), expected, rtol=0, atol=1e-4)  # it looks up in float32


def test_images_of_any_size_keep_the_scale_in_both_directions() -> None:
    ramp = torch.arange(100.0).expand(1, 1, 50, 100)
    torch.testing.assert_close(scaled(ramp, 0.75)[0, 0, 0], torch.arange(75) / 0.75)
    torch.testing.assert_close(scaled(ramp.mT, 0.75)[0, 0, :, 0], torch.arange(75) / 0.75)


def test_published_networks_have_the_published_maps() -> None:
    with torch.device("meta"):
        model = create_model("deeplab_aspp", backbone="resnet101", num_classes=21, scales=SCALES).eval()
        merged, *each = model.outputs(torch.empty(1, 3, 321, 321))
    assert (merged.name, tuple(merged.logits.shape), merged.grid) == ("main", (1, 21, 41, 41), Grid(8, 0))
    assert [o.name for o in each] == ["scale_1", "scale_0.75", "scale_0.5"]
    assert [o.logits.shape[-1] for o in each] == [41, 31, 21]
    assert [o.grid for o in each] == [Grid(8, 0), Grid(8 / 0.75, 0), Grid(16, 0)]
    assert [o.weight for o in (merged, *each)] == [1, 1, 1, 1]  # 1 + S losses


def test_merging_is_the_published_chain() -> None:
    """Interp, forward, Interp, Eltwise: all with aligned corners, at the size of the first map."""
    model = two()
    x = torch.randn(1, 3, 129, 161)
    maps = []
    with torch.no_grad():
        for scale in SCALES:
            size = (int(128 * scale) + 1, int(160 * scale) + 1)
            small = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
            scores, grid = model.base.coarse_logits(small)
            assert grid == Grid(8, 0)
            maps.append(F.interpolate(scores, size=(17, 21), mode="bilinear", align_corners=True))
        expected = torch.stack(maps)
        torch.testing.assert_close(model.coarse_logits(x)[0], expected.amax(0), rtol=1e-4, atol=1e-5)
        model.merge = "average"
        torch.testing.assert_close(model.coarse_logits(x)[0], expected.mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("merge", ["max", "average", "attention"])
@pytest.mark.parametrize("scales", [(1,), (0.5,)])
def test_one_scale_is_the_network_itself(merge: str, scales: tuple[float, ...]) -> None:
    model = two(scales=scales, merge=merge)
    x = torch.randn(2, 3, 65, 97)
    with torch.no_grad():
        torch.testing.assert_close(model.coarse_logits(x)[0], model.base.coarse_logits(scaled(x, scales[0]))[0])


def test_the_finest_scale_gives_the_resolution() -> None:
    model = two(scales=(0.5, 1, 2))
    scores, grid = model.coarse_logits(torch.randn(1, 3, 65, 65))
    assert scores.shape[-2:] == (17, 17)
    assert grid == Grid(4, 0)


@pytest.mark.parametrize("size", [(1, 1), (2, 31), (50, 35)])
@pytest.mark.parametrize("base", ["fcn8s", "deeplabv3plus", "deeplab_msc_largefov"])
@pytest.mark.parametrize("merge", ["max", "attention"])
def test_any_network_at_any_size(base: str, size: tuple[int, int], merge: str) -> None:
    model = two(base, merge=merge)
    with torch.no_grad():
        for output_stride in (None, 16) if base != "fcn8s" else (None,):
            model.output_stride = output_stride or model.output_stride
            logits = model(torch.randn(2, 3, *size))
            assert logits.shape == (2, 4, *size)
            assert logits.isfinite().all()


def test_extra_supervision_can_be_left_out() -> None:
    x = torch.randn(1, 3, 65, 65)
    assert [o.name for o in two().outputs(x)] == ["main", "scale_1", "scale_0.75", "scale_0.5"]
    assert [o.name for o in two(extra_supervision=False).outputs(x)] == ["main"]


def test_all_scales_learn_in_one_network() -> None:
    model = two().train()
    merged, *each = model.outputs(torch.randn(2, 3, 65, 65))
    for output in (merged, *each):
        gradients = torch.autograd.grad(output.logits.square().sum(), list(model.parameters()), retain_graph=True)
        assert any(g.any() for g in gradients)


def test_another_merge_is_saved_and_can_be_taken_back(tmp_path: Path) -> None:
    model = two(merge="attention")
    x = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        attended = model(x)
        model.merge = "average"
        again = load(model.save(tmp_path / "model"))
        assert again.merge == "average"
        assert torch.equal(again(x), model(x))
        assert not torch.equal(again(x), attended)
        again.merge = "attention"
        assert torch.equal(again(x), attended)
        assert again.card == {}


def test_merge_and_attention_belong_to_the_networks_that_have_them() -> None:
    plain, merged = create_model("deeplabv3", backbone="test_efficientnet", num_classes=2).eval(), two().eval()
    assert (plain.settings, plain.merges, plain.scales) == ({"output_stride": 16, "resize": "exact"}, (), (1,))
    assert merged.settings == {"output_stride": 8, "resize": "exact", "merge": "max"}
    with pytest.raises(ValueError, match="resize 'torchvision' is for networks of one scale"):
        merged.resize = "torchvision"
    with torch.no_grad():
        assert all(model.main_output(torch.randn(1, 3, 33, 33)).attention is None for model in (plain, merged))


def test_a_folder_that_tells_of_no_merge_has_the_one_it_was_built_with(tmp_path: Path) -> None:
    file = two(merge="attention").save(tmp_path / "model") / "config.json"
    config = json.loads(file.read_text())
    del config["merge"]
    file.write_text(json.dumps(config))
    assert load(tmp_path / "model").merge == "attention"


def test_starts_from_a_network_of_one_scale() -> None:
    simple = create_model("deeplab_largefov", backbone="resnet18", num_classes=7)
    model = two()
    model.start_from(simple)
    kept = simple.state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in model.base.state_dict().items() if not k.startswith("fc1"))
    other = two(merge="attention")
    other.start_from(model)
    assert all(torch.equal(a, b) for a, b in zip(model.base.parameters(), other.base.parameters(), strict=True))
    model.start_from(other)
    with pytest.raises(ValueError, match="another network"):
        model.start_from(create_model("deeplabv3", backbone="resnet18", num_classes=4))


def test_images_are_padded_before_they_are_scaled() -> None:
    with torch.device("meta"):
        model = create_model("deeplab_aspp", backbone="vgg16", num_classes=3, scales=SCALES, pad_to=513).eval()
        sizes = [tuple(output.logits.shape[-2:]) for output in model.outputs(torch.empty(1, 3, 375, 500))]
    assert sizes == [(65, 65), (65, 65), (49, 49), (33, 33)]


def test_what_does_not_fit_is_refused() -> None:
    for scales in ((), (1, 1), (1, 0), (1, -0.5), (1, 1000), (1e-9,), (float("nan"),)):
        with pytest.raises(ValueError, match=r"different factors such as 0\.75, 0\.125 to 8"):
            two(scales=scales)
    with pytest.raises(ValueError, match="merge is one of max, average, not 'attention'"):
        two().merge = "attention"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"one head, and this deeplabv3 more \(aux\): leave out base_options"):
        two("deeplabv3", base_options={"aux": True})
    with pytest.raises(ValueError, match=r"one head, and this fcn8s more \(geometric\): leave out base_options"):
        two("fcn8s", base_options={"heads": {"geometric": 3}})
    with pytest.raises(ValueError, match="has one scale"):
        two("attention_to_scale")
    with pytest.raises(ValueError, match=r"no model 'deeplab9'; there are: .*attention_to_scale"):
        two("deeplab9")
    with pytest.raises(TypeError, match="'deeplab_largefov' has no option rates; it has: kernel, pad_to, rate"):
        two(base_options={"rates": (1, 2)})


def test_mixed_scales_share_one_set_of_weights() -> None:
    model = two()
    assert isinstance(model, MultiScale)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in model.base.parameters())
