"""Every model by its name, and building one."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import timm
from pydantic import Field, TypeAdapter, ValidationError

from atrous.errors import InputError, InputTypeError
from atrous.expected import expected
from atrous.labels import LabelSet
from atrous.models.backbones.base import Backbone
from atrous.models.backbones.timm import TimmBackbone
from atrous.models.base import SegmentationModel

Positive = Annotated[int, Field(ge=1)]
"""A count, as options of architectures have them."""
NotNegative = Annotated[int, Field(ge=0)]
"""A count where 0 says "none"."""
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
"""What dropout takes away."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""Of random choices."""
Builder = Callable[..., SegmentationModel]


@dataclass(frozen=True)
class Architecture:
    """A kind of model.

    Args:
        build: takes ``backbone``, ``labels`` and its own keyword arguments.
        backbone: takes a name and the other arguments of :class:`TimmBackbone`.
        output_stride: where none is asked for.
        own: tells of a backbone's name whether ``backbone`` has a form of its own for it, and not timm's.
    """

    build: Builder
    backbone: Callable[..., Backbone]
    output_stride: int
    own: Callable[[str], bool]


ARCHITECTURES: dict[str, Architecture] = {}
"""Every model that :func:`create_model` can build, by name."""


def register(
    name: str,
    *,
    backbone: Callable[..., Backbone] = TimmBackbone,
    output_stride: int = 16,
    own: Callable[[str], bool] = lambda _: False,
) -> Callable[[Builder], Builder]:
    """Enter a builder under a name, as an :class:`Architecture`."""

    def enter(builder: Builder) -> Builder:
        ARCHITECTURES[name] = Architecture(builder, backbone, output_stride, own)
        return builder

    return enter


def create_model(
    name: str,
    *,
    backbone: str | Backbone,
    num_classes: int | None = None,
    label_set: LabelSet | Sequence[str] | None = None,
    output_stride: int | None = None,
    in_channels: int | None = None,
    pretrained: bool | str | Path = False,
    **options: Any,
) -> SegmentationModel:
    """Build a model.

    Args:
        name: one of ``atrous.models.ARCHITECTURES``, for example ``deeplabv3plus``.
        backbone: a timm model name; some architectures know more (:mod:`atrous.models.fcn`,
            :mod:`atrous.models.deeplab`, :mod:`atrous.models.deeplabv3`). Or a :class:`Backbone`, used as it is: it has
            its own ``in_channels`` and weights, and keeps its output stride when none is given.
        num_classes: number of real classes; not needed beside ``label_set``.
        label_set: class names, or a :class:`LabelSet`.
        output_stride: 4, 8, 16 or 32; the architecture's own when left out (16; FCN skips 32; ``fcn``, DeepLab
            v1 and v2 8).
            ``model.output_stride`` changes it later.
        in_channels: channels of the images; 3 when left out.
        pretrained: backbone weights: ``True`` (an installed package, else timm's hub), a file, or ``False``.
        options: arguments of the architecture (``separable``, ``rates``, ...).

    Raises:
        ValueError: an unknown name, class counts that disagree, a backbone that does not fit, or an option's value
            that can't be.
        TypeError: an option that the architecture does not have.
    """
    everything = _checked(name, options)
    for key, count in (("num_classes", num_classes), ("in_channels", in_channels)):
        if count is not None and (not isinstance(count, int) or count < 1):
            raise InputError(f"{key} is an integer ≥ 1, not {count!r}")
    if label_set is None:
        if num_classes is None:
            raise InputError("create_model needs num_classes or label_set")
        label_set = LabelSet.numbered(num_classes)
    elif not isinstance(label_set, LabelSet):
        label_set = LabelSet(tuple(label_set))
    if num_classes not in (None, len(label_set)):
        raise InputError(f"num_classes is {num_classes}, but label_set has {len(label_set)} classes")
    if isinstance(backbone, Backbone):
        _use_as_is(backbone, in_channels, pretrained, output_stride)
    else:
        base = everything.get("base", name)  # attention_to_scale takes the backbones of the network it shares
        backbone = _build_backbone(base, backbone, in_channels, pretrained, output_stride)
    return build_on(backbone, name, label_set, everything)


def _build_backbone(
    architecture: str, name: str, in_channels: int | None, pretrained: bool | str | Path, output_stride: int | None
) -> Backbone:
    owner = _known(architecture)
    _check_backbone(architecture, name)
    return owner.backbone(
        name,
        in_channels=3 if in_channels is None else in_channels,
        pretrained=pretrained,
        output_stride=owner.output_stride if output_stride is None else output_stride,
    )


def _use_as_is(
    backbone: Backbone, in_channels: int | None, pretrained: bool | str | Path, output_stride: int | None
) -> None:
    if pretrained is not False:
        raise InputError("pretrained is for a backbone given by name; load the weights into the backbone beforehand")
    if in_channels not in (None, backbone.in_channels):
        raise InputError(f"in_channels is {in_channels}, but the backbone takes {backbone.in_channels} channels")
    if output_stride is not None:
        backbone.output_stride = output_stride


def build_on(backbone: Backbone, name: str, label_set: LabelSet, options: dict[str, Any]) -> SegmentationModel:
    """Build a model on a backbone that is there.

    Args:
        backbone: of the kind that the architecture takes.
        name: the architecture.
        label_set: the classes.
        options: arguments of the architecture.

    Raises:
        ValueError, TypeError: as for :func:`create_model`.
    """
    options = _checked(name, options)
    model = ARCHITECTURES[name].build(backbone=backbone, label_set=label_set, **options)
    model.config = {
        "architecture": name,
        "backbone": backbone.name,
        "in_channels": backbone.in_channels,
        "options": json.loads(json.dumps(options)),  # as it comes back from config.json: tuples are lists
    }
    return model


def _known(name: str) -> Architecture:
    if name not in ARCHITECTURES:
        raise InputError(f"no model '{name}'; there are: {', '.join(sorted(ARCHITECTURES))}")
    return ARCHITECTURES[name]


def _check_backbone(name: str, backbone: str) -> None:
    """Refuse a backbone that only other architectures have; what nobody has is left to timm to name."""
    for part in (backbone, *backbone.split("+")):
        owners = sorted(other for other, kind in ARCHITECTURES.items() if kind.own(part))
        if owners and name not in owners and not timm.is_model(part):
            raise InputError(
                f"'{name}' has no backbone '{part}', which is for {', '.join(owners)}; it takes any convolutional "
                "network of timm's, such as resnet50"
            )


def _checked(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options of an architecture with what is left out; none that it does not have, each of its type."""
    build = _known(name).build
    signature = inspect.signature(build).parameters
    accepted = {k: p.default for k, p in signature.items() if k not in ("backbone", "label_set")}
    if unknown := sorted(set(options) - set(accepted)):
        raise InputTypeError(f"'{name}' has no option {', '.join(unknown)}; it has: {', '.join(sorted(accepted))}")
    kinds = get_type_hints(build, include_extras=True)
    return accepted | {key: _of_kind(key, kinds[key], value) for key, value in options.items()}


def _of_kind(key: str, kind: Any, value: Any) -> Any:
    """An option's value, if it is one."""
    option = TypeAdapter(kind)
    try:
        return option.validate_python(value)
    except ValidationError as error:
        raise InputError(f"{key} should be {expected(option.json_schema())}, not {value!r}") from error
