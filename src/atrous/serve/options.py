"""What a request may ask for: options in its address or form, checked, and turned into an inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from starlette.datastructures import QueryParams

from atrous.errors import InputError
from atrous.inference.side_by_side import PIXELS_AT_ONCE
from atrous.inference.written_options import parse_scales
from atrous.serve.problems import Problem
from atrous.serve.served import ServedModel

if TYPE_CHECKING:  # an exported model needs no torch
    from atrous.inference.large import Large
    from atrous.inference.test_time import Inference

Extra = Literal["overlay", "probabilities", "confidence", "attention", "polygons"]
"""What an answer may hold beside labels and areas."""
MOST_SCALES = 8
MOST_WORK = 2**27
"""Pixels that the network sees for one request at most, over all views, as if at output stride 16."""
MOST_PROBABLE_PIXELS = 2**23
"""Pixels of an image up to which its class probabilities are given."""


Options = TypeVar("Options", bound=BaseModel)


class SegmentOptions(BaseModel):
    """The options of ``POST /segment``: in the address, or as fields of a form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(None, description="Name of a model, as /models lists them; the first one by default.")
    crf: bool = Field(False, description="Refine with a dense CRF: the model's own if one was tuned.")
    sxy: float | None = Field(None, ge=1, le=500, description="With crf: width in pixels of the appearance kernel.")
    srgb: float | None = Field(None, ge=1, le=255, description="With crf: its width in colour, 1 to 255.")
    smoothness_sxy: float | None = Field(
        None, ge=0.5, le=100, description="With crf: width in pixels of the smoothness kernel."
    )
    scales: str | None = Field(None, description="Test-time scales of the image, 0.125 to 8: 0.75,1,1.25")
    flip: bool = Field(False, description="Run on the mirror image too.")
    output_stride: int | None = Field(
        None, description="Run the network at 4, 8, 16 or 32: smaller is finer and slower."
    )
    tile: int | None = Field(None, ge=65, le=4097, description="Cut the image into tiles of this side.")
    include: tuple[Extra, ...] = Field(
        (), description=f"What the JSON also holds, separated by commas: {', '.join(get_args(Extra))}."
    )

    @field_validator("include", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


def read_options(*given: Mapping[str, str]) -> SegmentOptions:
    """Check the options of a request to segment: :func:`read_as`."""
    return read_as(SegmentOptions, *given)


def read_as(kind: type[Options], *given: Mapping[str, str]) -> Options:
    """Check the options of a request.

    Args:
        kind: what they are.
        given: from the address, and from a form.

    Raises:
        Problem: 400, an unknown option, a value out of range, or an option in both places.
    """
    joined: dict[str, str] = {}
    for options in given:
        if twice := sorted(joined.keys() & options.keys()):
            raise Problem(400, f"{twice[0]} is given twice: give it once, in the address or in the form")
        joined |= options
    try:
        return kind.model_validate(joined)
    except ValidationError as error:
        raise Problem(400, _sentence(error, kind)) from None


def _sentence(error: ValidationError, kind: type[BaseModel]) -> str:
    first: Any = error.errors()[0]
    name, value = ".".join(str(part) for part in first["loc"][:1]), first["input"]
    if first["type"] == "extra_forbidden":
        return f"there is no option '{name}'; there are: {', '.join(kind.model_fields)}"
    return f"{name} is {str(value)[:80]!r}, expected {first['msg'].removeprefix('Input should be ')}"


def single(query: QueryParams) -> Mapping[str, str]:
    """The options of an address.

    Raises:
        Problem: one is given twice.
    """
    names = [name for name, _ in query.multi_items()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Problem(400, f"{twice[0][:80]} is given {names.count(twice[0])} times, and takes one value: give it once")
    return dict(query)


def make_inference(served: ServedModel, options: SegmentOptions) -> Inference | None:
    """How an image becomes labels; None for a single view without a CRF.

    Raises:
        InputError: scales out of range, or something that an exported model can't do.
    """
    scales = parse_scales(options.scales, "scales")
    widths = {
        name: value for name in ("sxy", "srgb", "smoothness_sxy") if (value := getattr(options, name)) is not None
    }
    if widths and not options.crf:
        raise InputError(f"{' and '.join(widths)}: for a CRF, which is off: add crf=true")
    if len(scales) > MOST_SCALES:
        raise InputError(f"scales are at most {MOST_SCALES} factors here, not {len(scales)}")
    if "attention" in options.include and not (served.attends and len(scales) < 2 and not options.flip):
        raise InputError(
            "attention is shown of an attention_to_scale with merge 'attention', of a single view: leave out include, "
            "or scales and flip"
        )
    if {"probabilities", "confidence"} & set(options.include) and not served.has_probabilities:
        raise InputError(
            f"{served.name} computes labels alone: serve the model's own folder, or export it with --probabilities"
        )
    if not (scales or options.flip or options.crf):
        return None
    from atrous.crf.settings import Settings, stored_crf, stored_settings
    from atrous.inference.exported import check_inference
    from atrous.inference.test_time import Inference
    from atrous.runtime.exported import ExportedModel

    crf = None
    if options.crf:
        tuned = stored_settings(served.card)
        crf = replace(tuned or Settings(), **widths).build() if widths else stored_crf(served.card)
    inference = Inference(scales or (1.0,), options.flip, crf=crf)
    if isinstance(served.model, ExportedModel):
        check_inference(served.model, inference)
    return inference


def make_large(options: SegmentOptions, size: tuple[int, int], own_stride: int | None = None) -> Large | None:
    """How an image of a size is cut into tiles; None where the predictor decides.

    Args:
        options: of the request.
        size: of the image, height and width.
        own_stride: the model's output stride, at which it runs unless the options say otherwise.

    Raises:
        InputError: views that would take too much memory or time.
    """
    pixels, scales = size[0] * size[1], parse_scales(options.scales, "scales") or (1.0,)
    stride = options.output_stride or own_stride or 16
    finer = {4: 4.0, 8: 2.0}.get(stride, 1.0)  # an image at output stride 4 costs several at 16
    work = sum(scale**2 for scale in scales) * (1 + options.flip) * pixels * finer
    if work > MOST_WORK:
        raise InputError(
            f"this is as much work as an image of {work / 1e6:.0f} megapixels, expected at most "
            f"{MOST_WORK / 1e6:.0f}: use fewer or smaller scales, a larger output stride, or a smaller image"
        )
    if {"probabilities", "confidence"} & set(options.include) and pixels > MOST_PROBABLE_PIXELS:
        raise InputError(
            f"class probabilities are given of images of up to {MOST_PROBABLE_PIXELS / 1e6:.0f} megapixels, not "
            f"{pixels / 1e6:.1f}: use a smaller image"
        )
    seen = pixels * max(scales) ** 2
    if options.tile is None and seen <= PIXELS_AT_ONCE:
        return None
    from atrous.inference.large import Large
    from atrous.inference.tiles import Tiling

    side = options.tile or Tiling.tile
    if (side * max(scales)) ** 2 > 2 * PIXELS_AT_ONCE and seen > PIXELS_AT_ONCE:
        raise InputError(
            f"a tile of {side} pixels at scale {max(scales):g} does not fit the memory that a request may take: use "
            "smaller scales, or a smaller tile"
        )
    return Large(Tiling(side))
