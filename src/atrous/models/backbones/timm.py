"""timm's convolutional classifiers as backbones.

Nothing here knows a network by name. Its features, strides and preprocessing come from timm; the grids of its features
and the image sizes it fits are read off a traced forward.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from atrous.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from atrous.models.backbones.convolutional import ConvolutionalBackbone, find_fit
from atrous.models.backbones.weights import timm_network


class TimmBackbone(ConvolutionalBackbone):
    """A timm network without its classifier, with an output stride that can be changed at any time.

    Args:
        name: a timm model name, for example ``resnet101`` or ``tf_efficientnet_lite0``.
        in_channels: channels of the image; for other than 3, timm adapts the first convolution.
        pretrained: ``True`` takes an installed weight package, else timm's hub; a path takes that file; ``False``
            starts at random.
        output_stride: 4, 8, 16 or 32.

    Raises:
        InputError: an unknown timm model, or one without feature maps.
        WeightsNotFoundError: pretrained weights that can't be found.
    """

    def __init__(
        self, name: str, *, in_channels: int = 3, pretrained: bool | str | Path = False, output_stride: int = 16
    ) -> None:
        net = self._network(name, in_channels, pretrained)
        info: Any = net.feature_info
        config: Any = net.pretrained_cfg or {}
        super().__init__(
            net,
            name,
            in_channels=in_channels,
            channels=info.channels(),
            strides=info.reduction(),
            mean=config.get("mean", IMAGENET_MEAN),
            std=config.get("std", IMAGENET_STD),
            output_stride=output_stride,
            fit=find_fit(net, name, in_channels),
        )

    def _network(self, name: str, in_channels: int, pretrained: bool | str | Path) -> nn.Module:
        return timm_network(name, in_channels, pretrained, features_only=True)
