"""timm's transformers as backbones, at their native strides."""

from pathlib import Path

import pytest
import timm
import torch

from atrous.errors import InputError
from atrous.grid import Grid
from atrous.models import create_model, load
from atrous.models.backbones import TimmBackbone, TransformerBackbone

SWIN, MAXVIT = "swin_tiny_patch4_window7_224", "maxvit_rmlp_pico_rw_256"
BACKBONES = {
    "test_vit": ((16,), 16, 7.5),
    "vit_small_patch14_dinov2": ((14,), 14, 6.5),
    "efficientvit_b0": ((4, 8, 16, 32), 32, 0),
    SWIN: ((4, 8, 16, 32), 32, 15.5),
    MAXVIT: ((2, 4, 8, 16, 32), 256, 7.5),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_its_strides_grids_and_sizes_are_stated(name: str) -> None:
    backbone = TransformerBackbone(name)
    strides, raster, offset = BACKBONES[name]
    assert backbone.strides == strides
    assert backbone.grids[-1] == Grid(strides[-1], offset)
    assert [backbone.fitting_size(side) for side in (1, raster, raster + 1)] == [raster, raster, 2 * raster]
    config = timm.get_pretrained_cfg(name)
    assert (backbone.mean, backbone.std) == (config.mean, config.std)
    with torch.no_grad():
        maps = backbone.eval()(torch.zeros(2, 3, 2 * raster, raster))
    assert [x.shape[1] for x in maps] == list(backbone.channels)
    assert [tuple(x.shape[2:]) for x in maps] == [(2 * raster // s, raster // s) for s in strides]


@pytest.mark.parametrize("name", ["test_vit", "efficientvit_b0", SWIN])
class TestEveryTransformer:
    @pytest.mark.parametrize("size", [(1, 1), (2, 31), (33, 64), (97, 65)])
    def test_gives_logits_of_the_images_own_size(self, name: str, size: tuple[int, int]) -> None:
        model = create_model("deeplabv3", backbone=name, num_classes=4, channels=16).eval()
        with torch.no_grad():
            logits = model(torch.randn(1, 3, *size))
        assert logits.shape == (1, 4, *size)
        assert logits.isfinite().all()

    def test_learns_down_to_its_first_layer(self, name: str) -> None:
        model = create_model("deeplabv3", backbone=name, num_classes=4, channels=16).train()
        model(torch.randn(1, 3, 65, 65)).square().sum().backward()
        gradients = [p.grad for p in model.backbone.parameters()]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
        assert gradients[0].abs().sum() > 0

    def test_round_trip_is_bit_exact(self, name: str, tmp_path: Path) -> None:
        model = create_model("deeplabv3", backbone=name, num_classes=4, channels=16, in_channels=4).eval()
        again = load(model.save(tmp_path / "model"))
        x = torch.randn(1, 4, 64, 65)
        with torch.no_grad():
            assert torch.equal(model(x), again(x))
        assert again.config == model.config
        assert again.preprocessing == model.preprocessing

    def test_stays_at_its_native_stride(self, name: str) -> None:
        model = create_model("deeplabv3", backbone=name, num_classes=4, channels=16)
        native = model.backbone.strides[-1]
        assert model.output_stride == native
        model.output_stride = native
        with pytest.raises(InputError, match=rf"'{name}' stays at its native output stride of {native}"):
            model.output_stride = 8
        with pytest.raises(InputError, match="it can't be given 8"):
            create_model("deeplabv3", backbone=name, num_classes=4, output_stride=8)


HEADS = (
    *("fcn32s", "fcn16s", "fcn8s", "fcn", "deeplab_largefov", "deeplab_msc_largefov", "deeplab_aspp"),
    *("deeplabv3", "deeplabv3plus", "attention_to_scale"),
)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_goes_on_a_hierarchical_one(head: str) -> None:
    model = create_model(head, backbone="efficientvit_b0", num_classes=3).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 40, 33)).shape == (1, 3, 40, 33)


@pytest.mark.parametrize("head", HEADS)
def test_a_plain_one_goes_under_every_head_that_needs_one_stride(head: str) -> None:
    if head in ("fcn32s", "fcn16s", "fcn8s"):
        with pytest.raises(InputError, match=r"backbone 'test_vit' has features at strides \(16,\), none at 32"):
            create_model(head, backbone="test_vit", num_classes=3)
        return
    options = {"low_level_strides": [16]} if head == "deeplabv3plus" else {}
    model = create_model(head, backbone="test_vit", num_classes=3, **options).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 40, 33)).shape == (1, 3, 40, 33)


def test_a_stride_that_is_no_power_of_two_survives_the_round_trip(tmp_path: Path) -> None:
    model = create_model("deeplabv3", backbone="eva02_tiny_patch14_224", num_classes=3, channels=16).eval()
    again = load(model.save(tmp_path / "model"))
    assert again.output_stride == model.output_stride == 14


@pytest.mark.parametrize("name", ["convnextv2_atto", "test_resnet", "fastvit_t8"])
def test_grids_are_those_of_the_exact_trace_where_there_is_one(name: str) -> None:
    exact = TimmBackbone(name, output_stride=32)
    assert TransformerBackbone(name).grids == exact.grids


@pytest.mark.parametrize("name", ["coatnet_pico_rw_224", "levit_128s", "mvitv2_tiny", "crossvit_9_240"])
def test_one_for_a_single_size_of_image_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"backbone '{name}' can't be used for images of any size: .*"):
        create_model("deeplabv3", backbone=name, num_classes=3)


def test_a_patch_reaches_the_position_that_the_grid_says() -> None:
    """The gradient of a position before any attention is that of its patch: it is centred where the grid says."""
    backbone = TransformerBackbone("test_vit").eval()
    image = torch.zeros(1, 3, 64, 64, requires_grad=True)
    backbone.net.patch_embed.proj(image)[0, :, 1, 2].sum().backward()
    rows, columns = image.grad[0].abs().sum(0).nonzero().float().mean(0)
    grid = backbone.grids[0]
    assert (rows.item(), columns.item()) == (grid.stride + grid.offset, 2 * grid.stride + grid.offset)
