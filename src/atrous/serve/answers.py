"""What a request gets: masks, areas, run lengths, outlines and images of a segmentation."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field

from atrous.data.files.outlines import outlines_of
from atrous.data.files.rle import pack_runs, runs_of
from atrous.data.writers.base import hex_of
from atrous.errors import InputError
from atrous.grid import PIXELS, Grid, by_side, resample
from atrous.inference.segmentation import Segmentation
from atrous.labels import encode_mask
from atrous.serve.options import Extra
from atrous.serve.problems import Problem
from atrous.serve.served import ServedModel
from atrous.viz import areas, encode_jpeg, lightened

_VALUES_AT_ONCE = 2**22
"""Probabilities that are interpolated at once."""


class RunLengths(BaseModel):
    """COCO's compressed run lengths of a class."""

    size: tuple[int, int] = Field(description="Height and width.")
    counts: str = Field(description="Runs down the columns: outside, inside, outside, …, in COCO's coding.")


class ClassFound(BaseModel):
    """A class that was found."""

    label: int = Field(description="Its value in the mask.")
    name: str
    pixels: int
    fraction: float = Field(description="Of the image.")
    rle: RunLengths


class ClassKnown(BaseModel):
    """A class that a model knows."""

    label: int = Field(description="Its value in the mask.")
    name: str
    color: str = Field(description="In the mask's palette, as #rrggbb.")
    shown: str = Field(description="The colour in overlays, which is lighter where the palette is dark.")


class Polygon(BaseModel):
    """An outline along the edges of pixels, with the holes in it."""

    label: int
    outer: list[list[int]] = Field(description="Corners, x and y.")
    holes: list[list[list[int]]] = Field(description="Of each hole.")


class Probabilities(BaseModel):
    """Class probabilities at network resolution."""

    shape: list[int] = Field(description="Classes, rows and columns.")
    dtype: str = "float16"
    data: str = Field(description="Base64 of the values, little-endian, in C order.")
    stride: list[float] = Field(description="Pixels between rows, and between columns.")
    offset: list[float] = Field(description="Pixel of the first row, and of the first column.")


class AttentionMap(BaseModel):
    """The weight of one of the network's own scales."""

    scale: float
    mean: float = Field(description="Over the image.")
    png: str = Field(description="Base64 of a grey PNG of the image's size: 0 to 255 for 0 to 1.")


class Answer(BaseModel):
    """The labels of an image, and what was asked for beside them."""

    model: str
    width: int
    height: int
    classes: list[ClassFound] = Field(description="Those found, largest first.")
    label_set: list[ClassKnown] = Field(description="All that the model knows.")
    mask: str = Field(description="Base64 of a palette PNG, whose values are the classes.")
    notes: list[str] = Field(description="How the image was read, where that is worth knowing.")
    timings: dict[str, float] = Field(description="Milliseconds: decode, queue, compute, encode.")
    overlay: str | None = Field(None, description="Base64 of a JPEG of the classes over the image.")
    probabilities: Probabilities | None = None
    confidence: str | None = Field(
        None, description="Base64 of a grey PNG: the probability of the likeliest class, before any CRF, 0 to 255."
    )
    attention: list[AttentionMap] | None = None
    polygons: list[Polygon] | None = None


def known_classes(served: ServedModel) -> list[ClassKnown]:
    """The classes of a model with their colours."""
    names, colors = served.label_set.names, served.label_set.colors
    shown = lightened(served.label_set).colors
    return [
        ClassKnown(label=label, name=name, color=hex_of(colors[label]), shown=hex_of(shown[label]))
        for label, name in enumerate(names)
    ]


def describe(served: ServedModel, found: Segmentation, include: tuple[Extra, ...], timings: dict[str, float]) -> Answer:
    """A segmentation as JSON has it.

    Raises:
        InputError: attention maps of a network that does not attend to scales.
    """
    height, width = found.labels.shape
    extras: dict[str, Any] = {}
    if "overlay" in include:
        extras["overlay"] = as_text(encode_jpeg(found.overlay()))
    if "probabilities" in include:
        extras["probabilities"] = _probabilities(found)
    if "confidence" in include:
        extras["confidence"] = as_text(encode_grey(confidence(found)))
    if "attention" in include:
        extras["attention"] = _attention(found)
    if "polygons" in include:
        extras["polygons"] = list(_polygons(found))
    return Answer(
        model=served.name,
        width=width,
        height=height,
        classes=list(classes_found(found)),
        label_set=known_classes(served),
        mask=as_text(encode_mask(found.labels, found.label_set)),
        notes=list(found.notes),
        timings=timings,
        **extras,
    )


def accepted(header: str) -> str:
    """The first of a header's types that there is; parameters such as ``q`` do not count.

    Raises:
        Problem: 406, none of them.
    """
    for part in header.split(","):
        kind = part.partition(";")[0].strip().lower()
        if kind == "image/png":
            return kind
        if kind in ("application/json", "*/*", "application/*", ""):
            return "application/json"
        if kind == "image/*":
            return "image/png"
    raise Problem(406, f"the request accepts {header[:80]}; there are image/png (the mask) and application/json")


def as_text(content: bytes) -> str:
    """Bytes in base64."""
    return base64.b64encode(content).decode("ascii")


def encode_grey(values: NDArray[np.uint8]) -> bytes:
    """A grey PNG of an array uint8 ``(H, W)``."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def present(found: Segmentation) -> Iterator[tuple[int, str, NDArray[np.bool_]]]:
    """The classes of a segmentation, largest first: label, name, and pixels ``(H, W)``."""
    for name in areas(found.labels, found.label_set):
        label = found.label_set.names.index(name)
        yield label, name, found.labels == label


def confidence(found: Segmentation) -> NDArray[np.uint8]:
    """The probability of the likeliest class at each pixel ``(H, W)``, before any CRF: 0 to 255 for 0 to 1."""
    kept = found.class_probabilities
    assert kept is not None
    import torch

    height, width = found.labels.shape
    values = torch.from_numpy(kept.values.astype(np.float32))[None]
    best = np.empty((height, width), np.uint8)
    rows = max(1, _VALUES_AT_ONCE // (len(kept.values) * width))
    for top in range(0, height, rows):
        size = min(rows, height - top), width
        strip = resample(values, kept.grid, (Grid(1, top), PIXELS), size)[0].amax(0)
        best[top : top + rows] = (255 * strip.clamp(0, 1)).round().numpy().astype(np.uint8)
    return best


def classes_found(found: Segmentation) -> Iterator[ClassFound]:
    """The classes of a segmentation as JSON has them, largest first."""
    for label, name, inside in present(found):
        pixels = int(inside.sum())
        runs = RunLengths(size=found.labels.shape, counts=pack_runs(runs_of(inside)))
        yield ClassFound(label=label, name=name, pixels=pixels, fraction=pixels / inside.size, rle=runs)


def _polygons(found: Segmentation) -> Iterator[Polygon]:
    for label, _, inside in present(found):
        for outline in outlines_of(inside):
            yield Polygon(label=label, outer=outline.outer.tolist(), holes=[hole.tolist() for hole in outline.holes])


def _probabilities(found: Segmentation) -> Probabilities:
    kept = found.class_probabilities
    assert kept is not None
    sides = by_side(kept.grid)
    return Probabilities(
        shape=list(kept.values.shape),
        data=as_text(kept.values.astype("<f2").tobytes()),
        stride=[side.stride for side in sides],
        offset=[side.offset for side in sides],
    )


def _attention(found: Segmentation) -> list[AttentionMap]:
    if found.attention is None:  # an image that was cut into tiles
        raise InputError("attention is shown of images that are not cut into tiles: send a smaller one")
    return [
        AttentionMap(
            scale=scale,
            mean=float(weights.mean()),
            png=as_text(encode_grey((255 * weights.clip(0, 1)).round().astype(np.uint8))),
        )
        for scale, weights in zip(found.scales, found.attention, strict=True)
    ]
