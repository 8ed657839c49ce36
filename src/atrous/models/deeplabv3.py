"""DeepLabv3 (Chen et al., 2017, arXiv 1706.05587) and DeepLabv3+ (Chen et al., ECCV 2018, arXiv 1802.02611).

On ``xception41``, ``xception65``, ``xception71``, ``resnet50_beta`` and ``resnet101_beta`` the networks have their
released form; the heads go on any timm backbone too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from atrous.errors import InputError
from atrous.grid import Grid
from atrous.labels import LabelSet
from atrous.models.aspp import ASPP
from atrous.models.backbones.base import NATIVE_STRIDE, Backbone
from atrous.models.backbones.deeplabv3 import BACKBONES
from atrous.models.base import SegmentationModel
from atrous.models.decoder import DeepLabV3PlusDecoder
from atrous.models.layers import (
    Bottleneck,
    init_classifier,
    init_convolutions,
    set_rate,
)
from atrous.models.options import Positive, Probability
from atrous.models.registry import register_model


class DeepLabV3(SegmentationModel):
    """DeepLabv3: backbone, ASPP, classifier.

    Args:
        backbone: the backbone.
        label_set: the classes.
        aspp: on the backbone's last feature.
        aux: a head for training on the stride-16 features.
        width: channels of what the classifier reads, where it is not ASPP's result.
    """

    def __init__(
        self, backbone: Backbone, label_set: LabelSet, aspp: ASPP, *, aux: bool = False, width: int | None = None
    ) -> None:
        super().__init__(backbone, label_set, aux=aux)
        self.aspp = aspp
        self.classifier = nn.Conv2d(width or aspp.out_channels, len(label_set), 1)
        self._initialise()

    def _initialise(self) -> None:
        init_convolutions(
            module
            for name, child in self.named_children()
            if name not in ("backbone", "aux_classifier")
            for module in child.modules()
        )
        init_classifier(self.classifier)
        self.follow_output_stride()

    def follow_output_stride(self) -> None:
        self.aspp.set_output_stride(self.output_stride)

    @property
    def embedding_channels(self) -> int:
        """Width of ASPP, or of the decoder."""
        return self.classifier.in_channels

    def embed(self, features: list[Tensor]) -> tuple[list[Tensor], Grid]:
        return [self.aspp(features[-1])], self.backbone.grids[-1]

    def classify(self, embedding: list[Tensor]) -> Tensor:
        logits: Tensor = self.classifier(embedding[0])
        return logits


class DeepLabV3Plus(DeepLabV3):
    """DeepLabv3+: DeepLabv3's encoder, and a decoder that refines its result along low-level features (§3.1, §4.1).

    Args:
        backbone: the backbone.
        label_set: the classes.
        aspp: on the backbone's last feature.
        aux: add a head for training on the stride-16 features.
        low_level_strides: native strides of the low-level features, coarse to fine.
        decoder: options of :class:`DeepLabV3PlusDecoder`.

    Raises:
        InputError: no strides, strides that do not go from coarse to fine, or options that the decoder refuses.
    """

    def __init__(
        self,
        backbone: Backbone,
        label_set: LabelSet,
        aspp: ASPP,
        *,
        aux: bool = False,
        low_level_strides: Sequence[int] = (4,),
        **decoder: Any,
    ) -> None:
        if not low_level_strides or list(low_level_strides) != sorted(set(low_level_strides), reverse=True):
            raise InputError(
                f"low_level_strides go from coarse to fine, such as [4] or [8, 4], not {list(low_level_strides)}"
            )
        if missing := sorted(set(low_level_strides) - set(backbone.strides)):
            raise InputError(
                f"backbone '{backbone.name}' has features at strides {list(backbone.strides)}, none at {missing[0]} "
                f"for the decoder: choose among them with low_level_strides, such as [{backbone.strides[0]}], or "
                "take deeplabv3, which has no decoder"
            )
        super().__init__(backbone, label_set, aspp, aux=aux, width=decoder.get("out_channels", 256))
        self.levels = [backbone.feature_at(stride) for stride in low_level_strides]
        channels = [backbone.channels[level] for level in self.levels]
        self.decoder = DeepLabV3PlusDecoder(aspp.out_channels, channels, **decoder)
        self._initialise()

    def embed(self, features: list[Tensor]) -> tuple[list[Tensor], Grid]:
        grids = [self.backbone.grids[level] for level in self.levels]
        low_level = [features[level] for level in self.levels]
        x = self.decoder(self.aspp(features[-1]), self.backbone.grids[-1], low_level, grids)
        return [x], grids[-1]


class DeepLabV3Cascade(SegmentationModel):
    """DeepLabv3 going deeper instead of pooling (§3.2): blocks like the backbone's last one in a row, each with twice
    the rate of the one before, then the classifier.

    The residual units of the new blocks have the form of a deeper ResNet's, and change nothing in the beginning.

    Args:
        backbone: the backbone; its last block is block4.
        label_set: the classes.
        blocks: number of the last block; 4 is the backbone alone.
        multi_grid: rates of a block's units, as multiples of the block's.
        aux: a head for training on the stride-16 features.

    Raises:
        InputError: less than four blocks, or blocks without units.
    """

    def __init__(
        self, backbone: Backbone, label_set: LabelSet, blocks: int, multi_grid: Sequence[int], aux: bool
    ) -> None:
        if blocks < 4:
            raise InputError(f"blocks is the number of the last one, 4 (the backbone's own) or more, not {blocks}")
        if not multi_grid:
            raise InputError("multi_grid has a rate for each unit of a block, such as [1, 2, 1]: at least one, not []")
        super().__init__(backbone, label_set, aux=aux)
        self.multi_grid = tuple(multi_grid)
        self.cascade = nn.Sequential()
        for number in range(5, blocks + 1):
            units = (Bottleneck(backbone.channels[-1]) for _ in multi_grid)
            self.cascade.add_module(f"block{number}", nn.Sequential(*units))
        self.classifier = nn.Conv2d(backbone.channels[-1], len(label_set), 1)
        init_classifier(self.classifier)
        self.follow_output_stride()

    def follow_output_stride(self) -> None:
        rate = NATIVE_STRIDE // self.output_stride
        for block in self.cascade:
            rate *= 2
            for unit, factor in zip(block.children(), self.multi_grid, strict=True):
                set_rate(unit, rate * factor)

    def embed(self, features: list[Tensor]) -> tuple[list[Tensor], Grid]:
        return [self.cascade(features[-1])], self.backbone.grids[-1]

    def classify(self, embedding: list[Tensor]) -> Tensor:
        logits: Tensor = self.classifier(embedding[0])
        return logits


@register_model("deeplabv3", backbones=BACKBONES)
def deeplabv3(
    *,
    backbone: Backbone,
    label_set: LabelSet,
    rates: Sequence[Positive] = (6, 12, 18),
    multi_grid: Sequence[int] = (),
    image_pooling: bool = True,
    separable: bool = False,
    channels: Positive = 256,
    dropout: Probability = 0.1,
    refine: bool = False,
    aux: bool = False,
) -> DeepLabV3:
    """DeepLabv3 (arXiv 1706.05587): ASPP over a dense backbone; ``aux`` adds a head for training.

    The paper's ResNets have ``multi_grid=(1, 2, 4)``: rates of the last three convolutions, as multiples of what the
    output stride gives them. MobileNetV2's released form has ``rates=()``. ``refine`` puts a 3×3 convolution behind
    ASPP, which the paper does not have and torchvision has.
    """
    backbone.set_multi_grid(multi_grid)
    aspp = ASPP(
        backbone.channels[-1],
        rates,
        channels,
        separable=separable,
        image_pooling=image_pooling,
        dropout=dropout,
        refine=refine,
    )
    return DeepLabV3(backbone, label_set, aspp, aux=aux)


@register_model("deeplabv3_cascade", backbones=BACKBONES)
def deeplabv3_cascade(
    *,
    backbone: Backbone,
    label_set: LabelSet,
    blocks: int = 7,
    multi_grid: Sequence[int] = (1, 2, 1),
    aux: bool = False,
) -> DeepLabV3Cascade:
    """DeepLabv3's cascade (arXiv 1706.05587, §3.2): ``blocks`` is the number of the last one, ``multi_grid`` the rates
    of the units of each, block4 included.
    """
    backbone.set_multi_grid(multi_grid)
    return DeepLabV3Cascade(backbone, label_set, blocks, multi_grid, aux)


@register_model("deeplabv3plus", backbones=BACKBONES)
def deeplabv3plus(
    *,
    backbone: Backbone,
    label_set: LabelSet,
    rates: Sequence[Positive] = (6, 12, 18),
    multi_grid: Sequence[int] = (),
    image_pooling: bool = True,
    separable: bool = False,
    channels: Positive = 256,
    dropout: Probability = 0.1,
    refine: bool = False,
    aux: bool = False,
    low_level_channels: Positive = 48,
    low_level_strides: Sequence[Positive] = (4,),
    decoder_convs: int = 2,
    decoder_channels: Positive | None = None,
    decoder_kernel: int = 3,
) -> DeepLabV3Plus:
    """DeepLabv3+ (arXiv 1802.02611): DeepLabv3 with a decoder along stride-4 features.

    The decoder's form is that of tables 1 and 2: low-level features projected to 48 channels, two 3×3 convolutions as
    wide as ASPP (``decoder_channels``); ``low_level_strides=(8, 4)`` refines along Conv3 before Conv2. The other
    arguments are those of :func:`deeplabv3`.
    """
    backbone.set_multi_grid(multi_grid)
    aspp = ASPP(
        backbone.channels[-1],
        rates,
        channels,
        separable=separable,
        image_pooling=image_pooling,
        dropout=dropout,
        refine=refine,
    )
    return DeepLabV3Plus(
        backbone,
        label_set,
        aspp,
        aux=aux,
        low_level_strides=low_level_strides,
        projected_channels=low_level_channels,
        out_channels=decoder_channels or channels,
        convs=decoder_convs,
        kernel=decoder_kernel,
        separable=separable,
    )
