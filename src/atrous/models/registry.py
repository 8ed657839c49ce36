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
    ::

        @atrous.register_model("linear")
        def linear(*, backbone: Backbone, label_set: LabelSet, bias: bool = True) -> SegmentationModel:
            return Linear(backbone, label_set, bias)


        model = atrous.create_model("linear", backbone="resnet18", num_classes=2, bias=False)

    Args:
        name: of the model.
        output_stride: the default.
        backbones: builders of backbones that this model has in a form of its own, by name; see
            :func:`register_backbone`.

    Raises:
        InputError: another model has the name.
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
    """

    def enter(build: AnyBackboneBuilder) -> AnyBackboneBuilder:
        BACKBONES.add(name, build, build)
        return build

    return enter


def is_known_backbone(architecture: str, name: str) -> bool:
    """Whether an architecture can build a backbone by this name."""
    published = ARCHITECTURES.find(architecture).backbones
    return all(part in published or part in BACKBONES or timm.is_model(part) for part in name.split("+"))
