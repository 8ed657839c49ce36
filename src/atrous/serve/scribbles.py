"""Scribble to mask: an image and a few strokes in, the class of each pixel out."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from atrous.data.files.images import DecodedImage, decode_image
from atrous.data.files.masks import MaskError, decode_mask
from atrous.errors import InputError
from atrous.inference.segmentation import Segmentation
from atrous.inference.sources import check_pixels
from atrous.labels import IGNORE, LabelSet, Mask, encode_mask
from atrous.serve.answers import ClassFound, accepted, as_text, classes_found
from atrous.serve.batching import Job
from atrous.serve.options import read_as, single
from atrous.serve.segmenting import Segmenter
from atrous.serve.served import ServedModel
from atrous.serve.uploads import read_files

MOST_PIXELS = 2**22
MOST_PROBABILITIES = 2**27
"""Class probabilities of a network, one for each class and pixel: 0.5 GB."""


class ScribbleOptions(BaseModel):
    """The options of ``POST /scribbles``: in the address, or as fields of its form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(
        None, description="Start from this model's output; by default from the colours of the image alone."
    )
    sxy: float = Field(80, ge=1, le=500, description="Width in pixels of the appearance kernel.")
    srgb: float = Field(13, ge=1, le=255, description="Its width in colour, 1 to 255.")
    smoothness_sxy: float = Field(3, ge=0.5, le=100, description="Width in pixels of the smoothness kernel.")


class Completed(BaseModel):
    """The strokes completed to labels."""

    width: int
    height: int
    classes: list[ClassFound] = Field(description="Those with strokes, largest first.")
    mask: str = Field(description="Base64 of a palette PNG, whose values are the classes.")
    timings: dict[str, float] = Field(description="Milliseconds: decode, queue, compute.")


@dataclass(frozen=True)
class _Work:
    """What is completed."""

    image: DecodedImage
    scribbles: Mask
    options: ScribbleOptions
    served: ServedModel | None


def routes(segmenter: Segmenter) -> list[BaseRoute]:
    """The endpoint."""

    async def complete(request: Request) -> Response:
        with segmenter.bodies.held() as share:
            (image, scribbles), fields = await read_files(request, segmenter.bodies, share, ("image", "scribbles"))
            options = read_as(ScribbleOptions, single(request.query_params), fields)
            kind = accepted(request.headers.get("accept", "*/*"))
            served = None if options.model is None else segmenter.model(options.model)
            begin = time.monotonic()
            segmenter.check_room()
            work = await segmenter.decoded(partial(_read, image, scribbles, options, served))
            decode = round(1000 * (time.monotonic() - begin), 2)
            pixels = work.scribbles.size
            job = Job(work, _complete, pixels, pixels, segmenter.deadline(request))
            found, timings = await segmenter.done(request, job, served.name if served else "colours")
            timings = {"decode": decode, **timings}
            height, width = found.labels.shape
            request.scope["facts"] = {"model": options.model, "width": width, "height": height, **timings}
            headers = {"Server-Timing": ", ".join(f"{step};dur={took}" for step, took in timings.items())}
            write = partial(encode_mask, found.labels, found.label_set)
            content = await asyncio.to_thread(write if kind == "image/png" else partial(_as_json, found, timings))
            return Response(content, headers=headers, media_type=kind)

    return [Route("/scribbles", complete, methods=["POST"])]


def _read(image: bytes, scribbles: bytes, options: ScribbleOptions, served: ServedModel | None) -> _Work:
    """Decode image and strokes, and check that they go together.

    Raises:
        InputError: either can't be read, they differ in size, or are too large.
    """
    decoded = decode_image(image, "the image")
    size = decoded.pixels.shape[:2]
    pixels = size[0] * size[1]
    if pixels > MOST_PIXELS:
        raise InputError(
            f"the image has {pixels / 1e6:.1f} megapixels, expected at most {MOST_PIXELS / 1e6:.1f}: send a smaller one"
        )
    if served is not None:
        if not served.has_probabilities:
            raise InputError(
                f"{served.name} computes labels alone, and strokes start from class probabilities: serve the model's "
                "own folder, export it with --probabilities, or leave out model"
            )
        check_pixels(decoded.pixels, "H, W", served.predictor().images)
        most = MOST_PROBABILITIES // len(served.label_set)
        if pixels > most:
            raise InputError(
                f"the image has {pixels / 1e6:.1f} megapixels, expected at most {most / 1e6:.1f} for the "
                f"{len(served.label_set)} classes of {served.name}: send a smaller one, or leave out model"
            )
    labels = _labels_of(scribbles)
    if labels.shape != size:
        raise InputError(
            f"the scribbles have {labels.shape[1]}×{labels.shape[0]} pixels, expected {size[1]}×{size[0]} as the image"
        )
    return _Work(decoded, labels, options, served)


def _labels_of(content: bytes) -> Mask:
    """The strokes of a mask's file.

    Raises:
        MaskError: it can't be read.
    """
    try:
        return decode_mask(content, "the scribbles").values()
    except InputError as error:
        raise error if isinstance(error, MaskError) else MaskError(f"the scribbles: {error}") from error
    except Exception as error:  # a damaged file can raise nearly anything inside a decoder
        raise MaskError(
            f"the scribbles: not a readable image ({error}); expected a PNG of one channel, classes where there are "
            f"strokes and {IGNORE} elsewhere"
        ) from error


def _complete(works: list[_Work]) -> list[Segmentation]:
    return [_completed(work) for work in works]


def _completed(work: _Work) -> Segmentation:
    from atrous.crf import Bilateral, DenseCRF, Gaussian, labels_from_scribbles  # torch is loaded when it is needed

    options = work.options
    crf = DenseCRF([Gaussian(options.smoothness_sxy, 3), Bilateral(options.sxy, options.srgb, 10)], 5)
    probabilities: NDArray[np.float32] | None = None
    if work.served is not None:
        found = work.served.predictor().segment(work.image, keep_probabilities=True)
        probabilities = found.probabilities(full_size=True)
    labels = labels_from_scribbles(work.image.pixels, work.scribbles, probabilities=probabilities, crf=crf)
    return Segmentation(labels, work.image.pixels, LabelSet.numbered(max(2, int(labels.max()) + 1)))


def _as_json(found: Segmentation, timings: dict[str, float]) -> bytes:
    height, width = found.labels.shape
    answer = Completed(
        width=width,
        height=height,
        classes=list(classes_found(found)),
        mask=as_text(encode_mask(found.labels, found.label_set)),
        timings=timings,
    )
    return answer.model_dump_json().encode()
