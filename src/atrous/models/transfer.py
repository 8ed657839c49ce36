"""Taking over another model's weights: all tensors of the same network, and the classifiers' rows by class name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from atrous.errors import InputError
from atrous.labels import WIDE_IGNORE, LabelSet

if TYPE_CHECKING:
    from atrous.models.base import SegmentationModel

MENTIONED = 10
"""Maximum number of classes that a message lists."""


@dataclass(frozen=True)
class Transfer:
    """What a model has taken over from another one.

    Args:
        kept: classes whose classifier weights were copied.
        new: classes of the model that the source does not have; their classifier weights are new.
        dropped: classes of the source that the model does not have.
        new_parts: tensors of optional parts that the source does not have, such as an auxiliary head.
    """

    kept: tuple[str, ...]
    new: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    new_parts: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not (self.new or self.dropped or self.new_parts):
            return "all weights"
        parts = sorted({name.rpartition(".")[0] for name in self.new_parts})
        groups = {"new": self.new, "dropped": self.dropped, "new parts": parts}
        named = [f"{title}: {_listed(names)}" for title, names in groups.items() if names]
        classes = f"the classifier weights of {_listed(self.kept)}" if self.kept else "no class"
        return "; ".join([f"all weights before the classifier, and {classes}", *named])


def matched_classes(source: LabelSet, target: LabelSet) -> dict[int, int]:
    """The classes of the source by those of the target that have the same name.

    Numbered classes without names are taken to be the other ones in order, if there are as many.
    """
    unnamed = any(labels.names == LabelSet.numbered(len(labels)).names for labels in (source, target))
    if unnamed:
        return {i: i for i in range(len(target))} if len(source) == len(target) else {}
    places = {name: place for place, name in enumerate(source.names)}
    return {place: places[name] for place, name in enumerate(target.names) if name in places}


def transfer(source: SegmentationModel, target: SegmentationModel, optional: Sequence[str]) -> Transfer:
    """Copy weights into a model of the same network.

    Args:
        source: where the weights come from.
        target: changed in place, unless the networks differ.
        optional: beginnings of the names of tensors that may be missing in either model.

    Raises:
        InputError: another network; nothing has been changed then.
    """
    weights, slots = source.state_dict(), target.state_dict()
    matches = matched_classes(source.label_set, target.label_set)
    everything = {place: place for place in range(max(source.num_classes, target.num_classes))}
    class_axes = {} if matches == everything else _class_axes(target)
    new: dict[str, Tensor] = {}
    strange: list[str] = []
    for key in sorted(weights.keys() | slots.keys()):
        if key not in weights or key not in slots:
            if not key.startswith(tuple(optional)):
                strange.append(key)
        elif (found := _taken(weights[key], slots[key], class_axes.get(key, ()), source, target, matches)) is None:
            strange.append(key)
        else:
            new[key] = found
    if strange:
        raise InputError(
            f"another network ({source.name} on {source.backbone.name}): {len(strange)} tensors differ, "
            f"first: {strange[0]}; {target.name} on {target.backbone.name} needs the same backbone and options"
        )
    target.load_state_dict(new, strict=False)
    names, old = target.label_set.names, source.label_set.names
    return Transfer(
        kept=tuple(names[place] for place in matches),
        new=tuple(name for place, name in enumerate(names) if place not in matches),
        dropped=tuple(name for place, name in enumerate(old) if place not in matches.values()),
        new_parts=tuple(key for key in slots if key not in weights),
    )


def _class_axes(model: SegmentationModel) -> Mapping[str, tuple[int, ...]]:
    """The axes of each tensor that grow with the number of classes, found on a copy with another number of them."""
    from atrous.models.create import build_on  # which imports the models

    other = model.num_classes + (1 if model.num_classes < WIDE_IGNORE else -1)
    # On the meta device and on the same backbone: no memory is allocated, and no random number is drawn.
    with torch.device("meta"):
        copy = build_on(model.backbone, model.name, LabelSet.numbered(other), model.config["options"])
    sizes = {key: value.shape for key, value in copy.state_dict().items()}
    return {
        key: tuple(axis for axis, (a, b) in enumerate(zip(value.shape, sizes[key], strict=True)) if a != b)
        for key, value in model.state_dict().items()
        if key in sizes
    }


def _taken(
    weight: Tensor,
    slot: Tensor,
    axes: tuple[int, ...],
    source: SegmentationModel,
    target: SegmentationModel,
    matches: Mapping[int, int],
) -> Tensor | None:
    """The slot's tensor with the source's values for the classes that both have; None if the shapes do not fit.

    Positions beyond the classes belong to auxiliary heads, which follow the main one in the same tensor.
    """
    further = slot.shape[axes[0]] - target.num_classes if axes else 0
    expected = list(slot.shape)
    for axis in axes:
        expected[axis] = source.num_classes + further
    if list(weight.shape) != expected:
        return None
    if not axes:
        return weight
    places = dict(matches) | {target.num_classes + i: source.num_classes + i for i in range(further)}
    to, of = (torch.tensor(list(p), dtype=torch.long, device=slot.device) for p in (places, places.values()))
    taken = weight.to(slot.device)
    result = slot.clone()
    if len(axes) == 1:
        return result.index_copy_(axes[0], to, taken.index_select(axes[0], of))
    first, second = axes
    kept = taken.index_select(first, of).index_select(second, of)
    rows = result.index_select(first, to).index_copy_(second, to, kept)
    return result.index_copy_(first, to, rows)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MENTIONED} more" if len(names) > MENTIONED else ""
    return ", ".join(names[:MENTIONED]) + more
