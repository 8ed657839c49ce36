"""What a recipe asks for: the network, what of it stays as it came, the optimizer, the average of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from atrous.data.dataset import Dataset
from atrous.models.backbones.base import Backbone
from atrous.models.base import SegmentationModel
from atrous.models.loading import load
from atrous.models.registry import create_model
from atrous.models.surgery.trace import evaluating
from atrous.training.recipe import Recipe, RecipeError


def build_model(recipe: Recipe, dataset: Dataset) -> SegmentationModel:
    """The recipe's network for a dataset's classes and channels, in train mode.

    Raises:
        RecipeError: options or a backbone that the architecture can't use, heads that the data have no masks for, or a
            start_from of another network.
    """
    section = recipe.model
    _check_heads(section.options.get("heads") or {}, dataset)
    try:
        model = create_model(
            section.name,
            backbone=section.backbone,
            label_set=dataset.label_set,
            output_stride=section.output_stride,
            in_channels=dataset.extras.channels,
            pretrained=section.pretrained if not section.start_from else False,
            **section.options,
        )
    except (TypeError, ValueError) as error:
        raise RecipeError(f"model: {error}") from error
    means = dataset.extras.means(model.preprocessing.mean[:3])
    model.preprocessing = replace(model.preprocessing, mean=means)
    if section.start_from:
        source = load(section.start_from)
        try:
            model.start_from(source)
        except ValueError as error:
            raise RecipeError(f"model.start_from: '{section.start_from}' is {error}") from error
    return model.train()


def _check_heads(heads: object, dataset: Dataset) -> None:
    there = {name: len(masks.form.label_set) for name, masks in dataset.extras.masks.items()}
    if not isinstance(heads, dict) or any(there.get(name) != classes for name, classes in heads.items()):
        has = ", ".join(f"{name} = {classes}" for name, classes in there.items())
        raise RecipeError(
            f"model.options.heads: each head learns from masks of its own; {dataset.name} has "
            + (f"heads = {{ {has} }}, not {heads}" if has else "none beside the main ones")
        )


def freeze(
    model: SegmentationModel, until_stride: int, norms_of: nn.Module | None, only: Sequence[str] = ()
) -> list[nn.Module]:
    """Stop training the backbone's first layers, its batch norms, or all but a few parts.

    Args:
        model: in place: its parameters lose their gradients.
        until_stride: layers that work up to this stride; 0 for none.
        norms_of: every batch norm of this part: the backbone, or the model.
        only: beginnings of the names of all that goes on learning; nothing else does, unless this is empty.

    Returns:
        The modules that must stay in eval mode.

    Raises:
        RecipeError: a stride at which the backbone has no features, or a beginning that no name has.
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


def batch_norms(part: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Every batch norm of a network or a part of it."""
    return [m for m in part.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def _others(model: SegmentationModel, only: tuple[str, ...]) -> list[nn.Module]:
    """The modules with parameters of which none has a name that begins so."""
    names = [name for name, _ in model.named_parameters()]
    for start in only:
        if not any(name.startswith(start) for name in names):
            parts = dict.fromkeys(name.partition(".")[0] for name in names)
            raise RecipeError(
                f"training.only: nothing in {model.name} begins with '{start}'; parts: {', '.join(parts)}"
            )
    others = []
    for prefix, module in model.named_modules():
        own = [name for name, _ in module.named_parameters(prefix, recurse=False)]
        if own and not any(name.startswith(only) for name in own):
            others.append(module)
    return others


def _upstream(backbone: Backbone, stride: int) -> set[int]:
    """The parameters that the deepest feature of a stride depends on, found by asking for its gradient."""
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


def build_optimizer(recipe: Recipe, model: SegmentationModel) -> torch.optim.Optimizer:
    """SGD or AdamW over groups: what comes from a classifier and what is new, each with weights (which decay), biases
    and norms (which do not); depthwise weights decay if the recipe says so.
    """
    options = recipe.optimizer
    inherited = {id(p) for p in model.inherited()}
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm)]
    in_norms = {id(p) for norm in norms for p in norm.parameters(recurse=False)}
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    depthwise = {id(m.weight) for m in convolutions if m.groups == m.in_channels > 1}
    backbone_lr = options.lr if options.backbone_lr is None else options.backbone_lr
    groups: dict[tuple[bool, bool, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            bias = name.endswith("bias") and id(parameter) not in in_norms
            decays = parameter.ndim > 1 and (options.depthwise_decay or id(parameter) not in depthwise)
            groups.setdefault((id(parameter) in inherited, decays, bias), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "base_lr": (backbone_lr if came else options.lr) * (options.bias_factor if bias else 1),
            "weight_decay": options.weight_decay if decays else 0.0,
        }
        for (came, decays, bias), parameters in groups.items()
    ]
    if options.name == "sgd":
        return torch.optim.SGD(settings, lr=options.lr, momentum=options.momentum, fused=True)
    return torch.optim.AdamW(settings, lr=options.lr, betas=(options.momentum, 0.999), fused=True)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the average of the weights towards the model's; early steps count more, so that it forgets the start."""
    share = 1 - min(decay, (1 + step) / (10 + step))
    # One kernel for many tensors: of launching one for each, a GPU would see more than of the arithmetic.
    mine, theirs = ([*net.parameters(), *net.buffers()] for net in (average, model))
    pairs = list(zip(mine, theirs, strict=True))
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [t for _, t in floats], share)
    if counts := [pair for pair in pairs if not pair[0].is_floating_point()]:
        torch._foreach_copy_([a for a, _ in counts], [t for _, t in counts])
