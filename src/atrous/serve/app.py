"""The application: its own endpoints, those of other tools, and the page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from atrous.errors import AtrousError
from atrous.inference.demo import find_demo_images
from atrous.labels import encode_mask
from atrous.serve import huggingface, kserve, labelstudio, scribbles
from atrous.serve.answers import accepted, describe
from atrous.serve.gate import Gate
from atrous.serve.metrics import TYPE, Metrics
from atrous.serve.openapi import describe_api
from atrous.serve.options import SegmentOptions, read_options, single
from atrous.serve.page_files import PAGE, describe_model, page_files
from atrous.serve.problems import Problem, answer, problem_of
from atrous.serve.segmenting import Segmented, Segmenter
from atrous.serve.served import ServedModel
from atrous.serve.settings import ServeSettings
from atrous.serve.uploads import GoneError, Upload, read_upload

_PLAIN_ERRORS = ("/v2", "/huggingface")
"""Paths whose clients read ``error`` in an answer that is one."""


def make_app(models: Sequence[ServedModel], settings: ServeSettings, cores: int | None = None) -> Gate:
    """Make the ASGI application of a server.

    Args:
        models: what it serves; the first one is the default.
        settings: how.
        cores: threads that compute; by default those of this machine.
    """
    metrics = Metrics()
    segmenter = Segmenter({served.name: served for served in models}, settings.limits, metrics, cores)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(_watch(segmenter, metrics))
        yield
        watching.cancel()
        await asyncio.to_thread(segmenter.queue.close)

    routes = [
        *_own_routes(segmenter, metrics),
        *kserve.routes(segmenter),
        *huggingface.routes(segmenter),
        *labelstudio.routes(segmenter, settings),
        *scribbles.routes(segmenter),
        *_page_routes(),
    ]
    errors: dict[Any, Any] = {HTTPException: _answer_http, GoneError: _answer_nobody}
    errors |= dict.fromkeys((AtrousError, MemoryError, Exception), _answer_error)
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=errors)
    gate = Gate(app, settings, metrics)
    if settings.origins:
        gate.app = CORSMiddleware(
            app,
            settings.origins,
            allow_methods=("GET", "POST"),
            allow_headers=("authorization", "content-type", "x-request-id"),
            expose_headers=("retry-after", "server-timing", "x-request-id"),
        )
    return gate


def _own_routes(segmenter: Segmenter, metrics: Metrics) -> list[BaseRoute]:
    async def segment(request: Request) -> Response:
        with segmenter.bodies.held() as share:
            upload = await read_upload(request, segmenter.bodies, share)
            options = read_options(single(request.query_params), upload.options)
            return await answer_upload(segmenter, request, upload, options)

    async def models(_: Request) -> Response:
        return JSONResponse({"models": [describe_model(served) for served in segmenter.models.values()]})

    async def card(request: Request) -> Response:
        return JSONResponse(segmenter.model(request.path_params["model"]).card)

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        return JSONResponse({"status": "ready"})  # the gate says when it is not

    async def measured(_: Request) -> Response:
        metrics.watch(segmenter.queue.waiting, segmenter.queue.running)
        return Response(metrics.text(), headers={"Content-Type": TYPE})

    async def api(_: Request) -> Response:
        return JSONResponse(describe_api(tuple(segmenter.models)))

    return [
        Route("/segment", segment, methods=["POST"]),
        Route("/models", models),
        Route("/models/{model}/card", card),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", measured),
        Route("/openapi.json", api),
    ]


async def _watch(segmenter: Segmenter, metrics: Metrics) -> None:
    """Note the state of the queue all the time: where there are several processes, another one is asked for it."""
    while True:
        metrics.watch(segmenter.queue.waiting, segmenter.queue.running)
        await asyncio.sleep(0.5)


def _page_routes() -> list[BaseRoute]:
    """The page and what belongs to it: the files there are when the server starts, no path is made of a request."""

    async def send(file: Path, _: Request) -> Response:
        return FileResponse(file, headers={"Cache-Control": "no-cache"})

    samples = {f"{number}{path.suffix}": path for number, path in enumerate(find_demo_images())}

    async def sample(request: Request) -> Response:
        if file := samples.get(request.path_params["name"]):
            return await send(file, request)
        raise Problem(404, "there is no such sample image; /page/samples.json lists them")

    async def list_samples(_: Request) -> Response:
        listed = [{"name": path.stem.replace("_", " "), "url": f"page/samples/{key}"} for key, path in samples.items()]
        return JSONResponse({"samples": listed})

    return [
        Route("/", partial(send, PAGE / "index.html")),
        Route("/scribble", partial(send, PAGE / "scribble.html")),
        Route("/docs", partial(send, PAGE / "docs.html")),
        Route("/page/samples.json", list_samples),
        Route("/page/samples/{name}", sample),
        *(Route(f"/page/{file.name}", partial(send, file)) for file in page_files()),
    ]


async def answer_upload(segmenter: Segmenter, request: Request, upload: Upload, options: SegmentOptions) -> Response:
    """Segment an upload, and answer in the form that the request accepts: a PNG or JSON."""
    kind = accepted(request.headers.get("accept", "*/*"))
    if kind == "image/png" and options.include:
        raise Problem(400, "include is for JSON: leave it out, or send 'Accept: application/json'")
    done = await segmenter.segment(request, upload.content, options)
    served = segmenter.model(options.model)
    height, width = done.found.labels.shape
    request.scope["facts"] = {"model": served.name, "width": width, "height": height, **done.timings}
    headers = {"Server-Timing": ", ".join(f"{step};dur={took}" for step, took in done.timings.items())}
    if kind == "image/png":
        content = await asyncio.to_thread(encode_mask, done.found.labels, done.found.label_set)
        return Response(content, headers=headers, media_type=kind)
    text = await asyncio.to_thread(_as_json, served, done, options)
    return Response(text, headers=headers, media_type=kind)


def _as_json(served: ServedModel, done: Segmented, options: SegmentOptions) -> bytes:
    found = describe(served, done.found, options.include, done.timings)
    return found.model_dump_json(exclude_none=True).encode()


async def _answer_http(request: Request, error: HTTPException) -> Response:
    path = request.url.path[:80]
    details = {
        404: f"there is nothing at {path}; see /docs",
        405: f"{path} does not take {request.method}; see /docs",
    }
    return answer(Problem(error.status_code, details.get(error.status_code, str(error.detail))))


async def _answer_error(request: Request, error: Exception) -> Response:
    return answer(problem_of(error), plain_error=request.url.path.startswith(_PLAIN_ERRORS))


async def _answer_nobody(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # for the log alone
