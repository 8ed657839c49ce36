"""Label Studio's ML backend: a model that annotates its tasks before a person does, with brushes in its own coding."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from atrous.data.files.documents import parse_xml
from atrous.data.files.rle import brush_of
from atrous.inference.segmentation import Segmentation
from atrous.serve.answers import confidence, present
from atrous.serve.options import read_options
from atrous.serve.problems import Problem, problem_of
from atrous.serve.segmenting import Segmenter
from atrous.serve.served import ServedModel
from atrous.serve.settings import MB, MOST_IMAGES, ServeSettings
from atrous.serve.uploads import Share, decode_text, read_json

_PLACES = re.compile(r"/(data/(upload|local-files|media)/?|tasks/\d+/(resolve|presign)/|storage-data/uploaded/)[^#\\]*")
"""Where Label Studio keeps images; what else a task names is not fetched."""


def routes(segmenter: Segmenter, settings: ServeSettings) -> list[BaseRoute]:
    """The endpoints of an ML backend, for the default model, and below ``/labelstudio/{model}`` for each."""

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "UP", "model_class": "atrous"})

    async def setup(request: Request) -> Response:
        served = segmenter.model(request.path_params.get("model"))
        with segmenter.bodies.held() as share:
            content = await read_json(request, segmenter.bodies, share)
            if schema := content.get("schema"):
                await asyncio.to_thread(_Control.read, schema, served)
        return JSONResponse({"model_version": served.name})

    async def predict(request: Request) -> Response:
        served = segmenter.model(request.path_params.get("model"))
        with segmenter.bodies.held() as share:
            content = await read_json(request, segmenter.bodies, share)
            control = await asyncio.to_thread(_Control.read, content.get("label_config"), served)
            tasks = content.get("tasks")
            if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
                raise Problem(400, "'tasks' is not a list of Label Studio's tasks")
            if len(tasks) > MOST_IMAGES:
                raise Problem(
                    400, f"there are {len(tasks)} tasks, expected at most {MOST_IMAGES}: send several requests"
                )
            results = [await _annotate(segmenter, request, served, control, task, settings) for task in tasks]
        return JSONResponse({"results": results, "model_version": served.name})

    endpoints = [("health", health, "GET"), ("setup", setup, "POST"), ("predict", predict, "POST")]
    return [
        Route(f"{place}/{name}", endpoint, methods=[method])
        for place in ("", "/labelstudio/{model}")
        for name, endpoint, method in endpoints
    ]


@dataclass(frozen=True)
class _Control:
    """The brush of a labelling interface.

    Args:
        name: of the tag ``BrushLabels``.
        to: the name of the tag ``Image``.
        variable: the member of a task's data that has the image.
        labels: of the interface, by the name of the model's class.
    """

    name: str
    to: str
    variable: str
    labels: Mapping[str, str]

    @classmethod
    def read(cls, config: object, served: ServedModel) -> _Control:
        """Find the brush in a labelling interface.

        Raises:
            Problem: 422, there is none, or none of its labels is a class of the model.
        """
        tree = parse_xml(config.encode(errors="replace") if isinstance(config, str) else b"")
        brush, image = tree.find(".//BrushLabels"), tree.find(".//Image")
        if brush is None or image is None:
            raise Problem(422, "the labelling interface has no Image or no BrushLabels: add them")
        classes = {name.lower(): name for name in served.label_set.names}
        labels: dict[str, str] = {}
        for label in brush.iter("Label"):
            value = label.get("value", "")
            for alias in (value, *label.get("predicted_values", "").split(",")):
                if known := classes.get(alias.strip().lower()):
                    labels.setdefault(known, value)
        if not labels:
            raise Problem(
                422,
                f"none of the labels is a class of {served.name}: name them as the model does "
                f"({', '.join(served.label_set.names[:8])}, ...), or in predicted_values",
            )
        return cls(
            brush.get("name", ""), brush.get("toName", ""), image.get("value", "$image").removeprefix("$"), labels
        )


async def _annotate(
    segmenter: Segmenter,
    request: Request,
    served: ServedModel,
    control: _Control,
    task: Mapping[str, Any],
    settings: ServeSettings,
) -> dict[str, Any]:
    """The prediction of a task; a task whose image can't be read has an empty one, with the reason."""
    data = task.get("data")
    image = data.get(control.variable) if isinstance(data, dict) else None
    include = "confidence" if served.has_probabilities else ""
    try:
        with segmenter.bodies.held() as share:
            content = await _fetch(image, settings, share)
            done = await segmenter.segment(request, content, read_options({"model": served.name, "include": include}))
    except Exception as error:
        problem = problem_of(error)
        if problem.status >= 429:
            raise
        return {"result": [], "score": 0.0, "model_version": served.name, "error": str(problem)}
    regions = await asyncio.to_thread(_regions, done.found, control)
    score = sum(region["score"] for region in regions) / len(regions) if regions else 0.0
    return {"result": regions, "score": round(score, 4), "model_version": served.name}


def _regions(found: Segmentation, control: _Control) -> list[dict[str, Any]]:
    height, width = found.labels.shape
    certain = None if found.class_probabilities is None else confidence(found)
    shown = {"original_width": width, "original_height": height, "image_rotation": 0, "type": "brushlabels"}
    regions = []
    for label, name, inside in present(found):
        if name in control.labels:
            value = {"format": "rle", "rle": brush_of(inside), "brushlabels": [control.labels[name]]}
            score = 1.0 if certain is None else round(float(certain[inside].mean()) / 255, 4)
            place = {"id": f"atrous-{label}", "from_name": control.name, "to_name": control.to}
            regions.append({**place, **shown, "value": value, "score": score})
    return regions


async def _fetch(image: object, settings: ServeSettings, share: Share) -> bytes:
    """The image of a task: in the task itself, or from the one Label Studio that the server was told of.

    Raises:
        Problem: 422, somewhere else.
    """
    if isinstance(image, str) and image.startswith("data:"):
        return await asyncio.to_thread(decode_text, image, "the task's image")
    if not settings.label_studio:
        raise Problem(
            422,
            "the task's image lies in Label Studio, which this server was not told of: start it with --label-studio "
            "http://HOST:PORT",
        )
    place = str(image).removeprefix(settings.label_studio.rstrip("/"))
    if not _PLACES.fullmatch(place) or ".." in unquote(place):
        raise Problem(
            422, f"the task's image is not one that {settings.label_studio} keeps; images elsewhere are not fetched"
        )
    return await asyncio.to_thread(_download, settings, place, share)


def _download(settings: ServeSettings, place: str, share: Share) -> bytes:
    address = str(settings.label_studio).rstrip("/") + quote(place, safe="/?&=%+:;,@~!$'()*")
    parts: list[bytes] = []
    try:
        call = urllib.request.Request(address, headers=_authorization(settings))
        with _OPENER.open(call, timeout=settings.limits.reading) as answer:
            while part := answer.read(MB):
                share.take(len(part))
                if share.bytes > settings.limits.body:
                    raise Problem(
                        413, f"the task's image has more than {settings.limits.body:,} bytes: use a smaller one"
                    )
                parts.append(part)
    except Problem:
        raise
    except HTTPError as error:
        error.close()
        raise Problem(422, f"Label Studio answered {error.code} for the task's image: check its access token") from None
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise Problem(422, f"Label Studio can't be reached ({error}): check --label-studio") from None
    return b"".join(parts)


def _authorization(settings: ServeSettings) -> dict[str, str]:
    """The header for an access token: an old one as it is, a personal one (a JWT) exchanged for one of five minutes."""
    token = settings.label_studio_token
    if not token:
        return {}
    if token.count(".") != 2:
        return {"Authorization": f"Token {token}"}
    call = urllib.request.Request(
        f"{str(settings.label_studio).rstrip('/')}/api/token/refresh",
        json.dumps({"refresh": token}).encode(),
        {"Content-Type": "application/json"},
    )
    with _OPENER.open(call, timeout=settings.limits.reading) as answer:
        return {"Authorization": f"Bearer {json.load(answer)['access']}"}


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a redirection within Label Studio alone."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl)[:2] != urlsplit(req.full_url)[:2]:
            fp.close()
            raise URLError("it redirects to another host, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_SameHost)
