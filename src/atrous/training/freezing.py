"""Which layers of a model do not train."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from atrous.models.backbones.base import Backbone
from atrous.models.base import SegmentationModel
from atrous.models.surgery.trace import evaluating
from atrous.training.recipe import RecipeError


def freeze(
    model: SegmentationModel, until_stride: int, norms_of: nn.Module | None, only: Sequence[str] = ()
) -> list[nn.Module]:
    """Freeze the backbone's first layers, its batch norms, or everything except a few parts.

    Args:
        model: changed in place: frozen parameters no longer require gradients.
        until_stride: freeze the backbone's layers up to this stride; 0 freezes none.
        norms_of: freeze every batch norm in this module: the backbone, or the whole model.
        only: prefixes of parameter names; if given, every parameter that matches none of them is frozen.

    Returns:
        The frozen modules, which must stay in eval mode.

    Raises:
        RecipeError: the backbone has no features at that stride, or a prefix matches no parameter.
    """
    frozen: list[nn.Module] = []
    if until_stride:
        upstream = _upstream(model.backbone, until_stride)
        for module in model.backbone.modules():
            if any(id(p) in upstream for p in module.parameters(recurse=False)):
                frozen.append(module)
    if norms_of:
        frozen += batch_norms(norms_of)
    if only:
        frozen += _others(model, tuple(only))
    for module in frozen:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
    return frozen


def batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Every batch norm in a module."""
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def _others(model: SegmentationModel, only: tuple[str, ...]) -> list[nn.Module]:
    """The modules with parameters of their own of which no name has one of the prefixes."""
    names = [name for name, _ in model.named_parameters()]
    for prefix in only:
        if not any(name.startswith(prefix) for name in names):
            parts = dict.fromkeys(name.partition(".")[0] for name in names)
            raise RecipeError(
                f"training.only: no parameter of {model.name} begins with '{prefix}'; parts: {', '.join(parts)}"
            )
    others = []
    for path, module in model.named_modules():
        own = [name for name, _ in module.named_parameters(path, recurse=False)]
        if own and not any(name.startswith(only) for name in own):
            others.append(module)
    return others


def _upstream(backbone: Backbone, stride: int) -> set[int]:
    """Ids of the parameters that the deepest feature at a stride depends on, found through its gradient."""
    try:
        index = backbone.feature_at(stride)
    except ValueError as error:
        raise RecipeError(f"training.freeze_until_stride: {error}") from error
    parameters = list(backbone.parameters())
    side = backbone.fitting_size(64)
    with evaluating(backbone), torch.enable_grad():
        feature = backbone(parameters[0].new_zeros(1, backbone.in_channels, side, side))[index]
        gradients = torch.autograd.grad(feature.sum(), parameters, allow_unused=True)
    return {id(p) for p, g in zip(parameters, gradients, strict=True) if g is not None}
