"""The backbones of DeepLab v1 and v2 in their published form: VGG (arXiv 1412.7062 and 1606.00915) and Caffe's ResNets.

VGG's pools are 3×3 with padding 1, so that position *i* at stride 8 sits at pixel 8 *i*; pool5 is followed
by an average pool, and these two are not dilated at stride 8. The ResNets have a stride on the first 1×1 convolution of
a block, not on the 3×3, and their pool rounds up.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from atrous.errors import InputError
from atrous.models.backbones.convolutional import ConvolutionalBackbone
from atrous.models.backbones.fcn import VGGS, Tapped, make_classifier, named_layers
from atrous.models.surgery.output_stride import convolutionalize

RESNETS = ("resnet50", "resnet101", "resnet152")
PUBLISHED_STRIDE = 8


class DeepLabBackbone(ConvolutionalBackbone):
    """A backbone of DeepLab v1 or v2 for images of any size, whose output stride can be changed at any time.

    Args:
        name: ``vgg11`` to ``vgg19_bn``, ``resnet50``, ``resnet101`` or ``resnet152``.
        in_channels: as for :class:`atrous.models.backbones.fcn.ClassicBackbone`, like ``pretrained``.
        pretrained: torchvision's weights; its ResNets were trained with the stride on the 3×3 convolution.
        output_stride: 4, 8, 16 or 32.
    """

    def __init__(
        self,
        name: str,
        *,
        in_channels: int = 3,
        pretrained: bool | str | Path = False,
        output_stride: int = PUBLISHED_STRIDE,
    ) -> None:
        classifier = make_classifier(name, in_channels, pretrained)
        net = _resnet(classifier) if name in RESNETS else _vgg(classifier, name)
        connected = _connected(classifier, in_channels) if pretrained is not False and name in VGGS else None
        super().__init__(net, name, in_channels=in_channels, channels=net.channels, output_stride=output_stride)
        self._connected = connected

    def release_connected(self) -> tuple[nn.Conv2d, nn.Conv2d] | None:
        """Return fc6 and fc7 of a pretrained VGG, as convolutions, to initialise a head with, and release them, since
        they are most of its weights.
        """
        connected, self._connected = self._connected, None
        return connected

    def _dilate(self, output_stride: int) -> None:
        super()._dilate(output_stride)
        for name, pool in self.net.named_children():
            if name in ("pool5", "pool5a"):
                hole = max(1, PUBLISHED_STRIDE // output_stride)
                pool.dilation = pool.padding = hole  # type: ignore[assignment]


def _vgg(classifier: nn.Module, name: str) -> Tapped:
    layers, pools = named_layers(classifier, name)
    for pool in pools:
        layers[pool] = nn.MaxPool2d(3, stride=2, padding=1)
    layers["pool5a"] = nn.AvgPool2d(3, stride=1, padding=1)
    *taps, _ = pools
    return Tapped(layers, [*taps, "pool5a"], tuple(pools.values()))


def _resnet(classifier: nn.Module) -> Tapped:
    layers = dict(classifier.named_children())
    del layers["avgpool"], layers["fc"]
    layers["maxpool"].ceil_mode = True  # type: ignore[assignment]
    channels = {}
    for name, block in classifier.named_modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
            channels[name.partition(".")[0]] = block.conv3.out_channels
    return Tapped(layers, list(channels), tuple(channels.values()))


def _connected(classifier: nn.Module, in_channels: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    sliding = convolutionalize(classifier, 224, in_channels)
    fc6, fc7, _ = (m for m in sliding.get_submodule("classifier").children() if isinstance(m, nn.Conv2d))
    return fc6, fc7


@torch.no_grad()
def decimate(
    fc6: nn.Conv2d, fc7: nn.Conv2d, *, kernel: int = 3, width: int = 1024, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Subsample a classifier's fc6 and fc7 (arXiv 1412.7062, §3.2): some taps of each filter, some filters.

    The taps are spread evenly over fc6's kernel (of 7: 0, 3, 6 for 3; 0, 2, 4, 6 for 4), which the paper leaves open;
    the filters of both layers are drawn at random.

    Args:
        fc6: a classifier's first fully connected layer as a convolution, for VGG (4096, 512, 7, 7).
        fc7: the second, (4096, 4096, 1, 1).
        kernel: side of the new fc6.
        width: number of filters of both new layers.
        seed: for choosing them.

    Returns:
        Weight and bias of fc6, ``(width, C, kernel, kernel)`` and ``(width,)``, then of fc7, ``(width, width, 1, 1)``
        and ``(width,)``.

    Raises:
        InputError: a larger kernel or more filters than the classifier has.
    """
    if kernel > fc6.kernel_size[0] or width > min(fc6.out_channels, fc7.out_channels):
        raise InputError(
            f"fc6 has {fc6.out_channels} filters of {fc6.kernel_size[0]} × {fc6.kernel_size[0]}; "
            f"{width} of {kernel} × {kernel} can't be chosen from them"
        )
    random = torch.Generator().manual_seed(seed)
    first, second = (torch.randperm(layer.out_channels, generator=random)[:width].sort()[0] for layer in (fc6, fc7))
    taps = torch.linspace(0, fc6.kernel_size[0] - 1, kernel).round().long()
    assert fc6.bias is not None
    assert fc7.bias is not None
    return (
        fc6.weight[first][:, :, taps][..., taps].clone(),
        fc6.bias[first].clone(),
        fc7.weight[second][:, first].clone(),
        fc7.bias[second].clone(),
    )


BACKBONES = {name: partial(DeepLabBackbone, name) for name in (*VGGS, *RESNETS)}
"""The backbones that DeepLab v1 and v2 have in their published form."""
