"""The optimizer, with its parameter groups."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from atrous.models.base import SegmentationModel
from atrous.training.recipe import Recipe


def build_optimizer(recipe: Recipe, model: SegmentationModel) -> torch.optim.Optimizer:
    """SGD or AdamW over the parameters that require gradients.

    Pretrained and new parameters have their own learning rates. In each, weights decay; biases, norms and (if the
    recipe says so) depthwise weights do not. ``base_lr`` of a group is its learning rate before the schedule.
    """
    options = recipe.optimizer
    pretrained = {id(p) for p in model.inherited()}
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
            groups.setdefault((id(parameter) in pretrained, decays, bias), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "base_lr": (backbone_lr if from_classifier else options.lr) * (options.bias_factor if bias else 1),
            "weight_decay": options.weight_decay if decays else 0.0,
        }
        for (from_classifier, decays, bias), parameters in groups.items()
    ]
    if options.name == "sgd":
        return torch.optim.SGD(settings, lr=options.lr, momentum=options.momentum, fused=True)
    return torch.optim.AdamW(settings, lr=options.lr, betas=(options.momentum, 0.999), fused=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as tensors, by parameter number and name."""
    state = optimizer.state_dict()["state"]
    slots = ((f"{number}.{key}", value) for number, group in state.items() for key, value in group.items())
    return {key: value for key, value in slots if isinstance(value, Tensor)}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load what :func:`optimizer_tensors` returned."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        parameter = parameters[int(number)]
        # Fused optimizers walk weights and their moments side by side in memory: both must have the same layout.
        alike = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
        state.setdefault(int(number), {})[name] = alike
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
