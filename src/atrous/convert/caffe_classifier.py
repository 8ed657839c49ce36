"""Converting Caffe's ImageNet classifiers to initial weights of an FCN or a DeepLab (``pretrained=FILE``)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from atrous.convert.caffe import read_source
from atrous.errors import InputError
from atrous.models.backbones.fcn import CAFFE, IMAGENET, VGGS, make_classifier, named_layers

CLASSIFIERS = ("caffenet", *(name for name in VGGS if not name.endswith("_bn")))


def convert_classifier(file: str | Path, name: str, out: str | Path) -> None:
    """Convert a ``.caffemodel`` of VGG or CaffeNet to safetensors with torchvision's names.

    Caffe's VGG reads blue, green, red, 0 to 255, minus the mean colour; our backbone of that name reads what
    torchvision's networks do. The first convolution compensates: its responses are the same, except at the border of a
    padded image, where the two means differ by a grey level.

    Args:
        file: for example ``VGG_ILSVRC_16_layers.caffemodel``; fully connected layers may be convolutions.
        name: one of ``CLASSIFIERS``.
        out: the ``.safetensors`` file to write.

    Raises:
        CaffeModelError, ConversionError: the file can't be read, or contains another network.
        InputError: the name is unknown, or ``out`` does not end in ``.safetensors``.
    """
    if name not in CLASSIFIERS:
        raise InputError(f"unknown classifier '{name}'; available are {', '.join(CLASSIFIERS)}")
    if Path(out).suffix != ".safetensors":
        raise InputError(f"weights are written as .safetensors: name the file {Path(out).stem}.safetensors, not {out}")
    source = read_source(Path(file))
    with torch.device("meta"):
        net = make_classifier(name, 3, False)
    theirs = {module: layer for layer, module in named_layers(net, name)[0].items()}
    connected = [module for module in net.modules() if isinstance(module, nn.Linear)]
    theirs |= dict(zip(connected, ("fc6", "fc7", "fc8"), strict=True))
    weights: dict[str, Tensor] = {}
    for path, module in net.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            for kind, slot in module.named_parameters():
                weights[f"{path}.{kind}"] = source.take(f"{theirs[module]}.{kind}", tuple(slot.shape))
    source.finish(f"the classifier {name}")
    first = next(key for key in weights if key.endswith(".weight")).removesuffix(".weight")
    weight, bias = weights[f"{first}.weight"].flip(1), weights[f"{first}.bias"]
    mean, std = (torch.tensor(values) for values in (CAFFE if name == "caffenet" else IMAGENET))
    offset = 255 * (mean - torch.tensor(CAFFE[0]))
    weights[f"{first}.weight"] = weight * (255 * std)[:, None, None]
    weights[f"{first}.bias"] = bias + (weight.sum((2, 3)) @ offset)
    save_file({key: tensor.contiguous() for key, tensor in weights.items()}, out, metadata={"format": "pt"})
