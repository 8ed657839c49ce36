"""Every model and every further backbone by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import timm
from torch import nn

from atrous.registry import Registry

if TYPE_CHECKING:
    from atrous.models.base import SegmentationModel

Builder = Callable[..., "SegmentationModel"]
BackboneBuilder = Callable[..., nn.Module]
"""Takes ``in_channels``, ``pretrained`` (as :func:`create_model` has it) and ``output_stride`` by keyword; returns a
:class:`Backbone` or a plain network.
"""
AnyBuilder = TypeVar("AnyBuilder", bound=Builder)
AnyBackboneBuilder = TypeVar("AnyBackboneBuilder", bound=BackboneBuilder)


@dataclass(frozen=True)
class Architecture:
    """A kind of model.

    Args:
        build: takes ``backbone``, ``label_set`` and the options by keyword.
        output_stride: the default.
        backbones: those of the paper, in their published form; all others come from ``BACKBONES`` and timm.
    """

    build: Builder
    output_stride: int
    backbones: Mapping[str, BackboneBuilder]


ARCHITECTURES: Registry[Architecture] = Registry("model", "atrous.models")
"""Every model that :func:`create_model` can build."""
BACKBONES: Registry[BackboneBuilder] = Registry("backbone", "atrous.backbones")
"""Backbones beside timm's and the papers' own."""


def register_model(
    name: str, *, output_stride: int = 16, backbones: Mapping[str, BackboneBuilder] | None = None
) -> Callable[[AnyBuilder], AnyBuilder]:
    """Make a model known to :func:`create_model`, recipes and the command line.

    The decorated function takes ``backbone`` (a :class:`Backbone`), ``label_set`` (a :class:`LabelSet`) and its options
    by keyword, and returns a :class:`SegmentationModel`, whose hooks ``classify``, ``embed``, ``apply_head`` and
    ``follow_output_stride`` a subclass implements. The annotations of its options are checked. A package can list it
    as an entry point of the same name in the group ``atrous.models``; it is then imported when it is first asked for.

    Args:
        name: of the model.
        output_stride: the default.
        backbones: builders of backbones that this model has in a form of its own, by name; see
            :func:`register_backbone`.

    Raises:
        InputError: another model has the name.

    Example:
        >>> import atrous, torch
        >>> from torch import nn
        >>> class Linear(atrous.models.SegmentationModel):
        ...     def __init__(self, backbone, label_set):
        ...         super().__init__(backbone, label_set)
        ...         self.classifier = nn.Conv2d(backbone.channels[-1], len(label_set), 1)
        ...     def classify(self, embedding):
        ...         return self.classifier(embedding[0])
        >>> @atrous.register_model("linear_of_example")
        ... def linear(*, backbone, label_set):
        ...     return Linear(backbone, label_set)
        >>> model = atrous.create_model("linear_of_example", backbone="test_resnet", num_classes=2)
        >>> model(torch.zeros(1, 3, 33, 47)).shape
        torch.Size([1, 2, 33, 47])
    """

    def enter(build: AnyBuilder) -> AnyBuilder:
        ARCHITECTURES.add(name, build, Architecture(build, output_stride, backbones or {}))
        return build

    return enter


def register_backbone(name: str) -> Callable[[AnyBackboneBuilder], AnyBackboneBuilder]:
    """Make a backbone known by name to every model, to recipes and the command line.

    The decorated function takes ``in_channels``, ``pretrained`` (``True``, a file or ``False``) and ``output_stride``
    by keyword, and returns a :class:`Backbone`, or any plain convolutional network as :func:`create_model` takes it. A
    package can list it as an entry point of the same name in the group ``atrous.backbones``. ::

        @atrous.register_backbone("small_net")
        def small_net(*, in_channels: int, pretrained: bool | str, output_stride: int) -> nn.Module:
            return SmallNet(in_channels)

    Raises:
        InputError: another backbone has the name.

    Example:
        >>> import atrous
        >>> from torch import nn
        >>> @atrous.register_backbone("two_convolutions")
        ... def two_convolutions(*, in_channels, pretrained, output_stride):
        ...     layers = nn.Conv2d(in_channels, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 4, 1), nn.ReLU()
        ...     return atrous.models.backbones.TracedBackbone(nn.Sequential(*layers), output_stride=output_stride)
        >>> atrous.create_model("deeplabv3", backbone="two_convolutions", num_classes=2).backbone.channels
        (8, 16)
    """

    def enter(build: AnyBackboneBuilder) -> AnyBackboneBuilder:
        BACKBONES.add(name, build, build)
        return build

    return enter


def is_known_backbone(architecture: str, name: str) -> bool:
    """Whether an architecture can build a backbone by this name."""
    published = ARCHITECTURES.find(architecture).backbones
    return all(part in published or part in BACKBONES or timm.is_model(part) for part in name.split("+"))
