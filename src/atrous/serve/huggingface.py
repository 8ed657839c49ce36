"""Hugging Face's task of image segmentation: an image in, ``[{label, score, mask}]`` out."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from atrous.inference.segmentation import Segmentation
from atrous.serve.answers import as_text, confidence, encode_grey, present
from atrous.serve.options import read_options
from atrous.serve.segmenting import Segmenter
from atrous.serve.uploads import decode_text, read_json, read_upload


def routes(segmenter: Segmenter) -> list[BaseRoute]:
    """The endpoints of the task, for the default model and for each by its name."""

    async def segment(request: Request) -> Response:
        served = segmenter.model(request.path_params.get("model"))
        with segmenter.bodies.held() as share:
            if request.headers.get("content-type", "").startswith("application/json"):
                found = await read_json(request, segmenter.bodies, share)
                content = await asyncio.to_thread(decode_text, found.get("inputs"), "the member 'inputs'")
            else:
                content = (await read_upload(request, segmenter.bodies, share)).content
            include = "confidence" if served.has_probabilities else ""
            options = read_options({"model": served.name, "include": include})
            done = await segmenter.segment(request, content, options)
            return JSONResponse(await asyncio.to_thread(_segments, done.found))

    return [
        Route("/huggingface", segment, methods=["POST"]),
        Route("/huggingface/{model}", segment, methods=["POST"]),
    ]


def _segments(found: Segmentation) -> list[dict[str, Any]]:
    certain = None if found.class_probabilities is None else confidence(found)
    return [
        {
            "label": name,
            "score": None if certain is None else round(float(certain[inside].mean()) / 255, 4),
            "mask": as_text(encode_grey((255 * inside).astype(np.uint8))),
        }
        for _, name, inside in present(found)
    ]
