"""From the bytes of a request to a segmentation: decoded, queued, computed, or dropped if late."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from starlette.requests import Request
from starlette.types import Receive

from atrous.data.files.eight_bits import shown_pixels
from atrous.data.files.images import DecodedImage, decode_image
from atrous.errors import InputError
from atrous.inference.segmentation import Segmentation
from atrous.inference.side_by_side import Processors
from atrous.inference.sources import check_pixels
from atrous.runtime.exported import ExportedModel
from atrous.serve.batching import BusyError, Job, LateError, Queue
from atrous.serve.metrics import Metrics
from atrous.serve.options import SegmentOptions, make_inference, make_large
from atrous.serve.problems import Problem
from atrous.serve.served import ServedModel
from atrous.serve.settings import Limits
from atrous.serve.uploads import Bodies, GoneError

if TYPE_CHECKING:  # an exported model needs no torch
    from atrous.inference.exported import ExportedPredictor
    from atrous.inference.large import Large
    from atrous.inference.predictor import Predictor
    from atrous.inference.test_time import Inference

T = TypeVar("T")


@dataclass(frozen=True)
class Segmented:
    """A segmentation and how long it took.

    Args:
        found: the segmentation.
        timings: milliseconds by step.
    """

    found: Segmentation
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Work:
    """What is computed of an image."""

    predictor: Predictor | ExportedPredictor
    decoded: DecodedImage
    inference: Inference | None
    keep_probabilities: bool
    large: Large | None


class Segmenter:
    """The models of a server and the queue before them.

    Args:
        models: by name; the first one is the default.
        limits: of requests.
        metrics: that are kept.
        cores: threads that compute; by default those of this machine.
    """

    def __init__(
        self, models: Mapping[str, ServedModel], limits: Limits, metrics: Metrics, cores: int | None = None
    ) -> None:
        self.models, self.limits, self.metrics = models, limits, metrics
        self.bodies = Bodies(limits)
        self.queue = Queue(_processors(models, cores), limits.waiting, limits.window)
        self._decoding = asyncio.Semaphore(max(1, cores or os.cpu_count() or 1))

    def model(self, name: str | None) -> ServedModel:
        """A model by name, or the default one.

        Raises:
            Problem: 404, an unknown name.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise Problem(404, f"there is no model '{name[:80]}' here; there are: {', '.join(self.models)}")
        return self.models[name]

    async def segment(self, request: Request, content: bytes, options: SegmentOptions) -> Segmented:
        """Segment the bytes of an image file.

        Args:
            request: that it is for; if its client goes, the work is dropped.
            content: the file.
            options: how.

        Raises:
            Problem: 429 the queue is full, 503 the deadline has passed.
            InputError: an image or options that can't be used.
            GoneError: the client has gone.
        """
        begin = time.monotonic()
        self.check_room()
        decoded = await self.decoded(partial(decode_image, content, "the image"))
        decode = 1000 * (time.monotonic() - begin)
        done = await self.label(request, decoded, options)
        return Segmented(done.found, {"decode": round(decode, 2), **done.timings})

    async def label(self, request: Request, decoded: DecodedImage, options: SegmentOptions) -> Segmented:
        """Segment decoded pixels; errors as :meth:`segment`."""
        served = self.model(options.model)
        size = (decoded.pixels.shape[0], decoded.pixels.shape[1])
        job = await asyncio.to_thread(self._job, served, decoded, options, size, self.deadline(request))
        found, timings = await self.done(request, job, served.name)
        return Segmented(found, timings)

    async def decoded(self, decode: Callable[[], T]) -> T:
        """Decode a request's files in a thread, for a few requests at the same time."""
        async with self._decoding:
            return await asyncio.to_thread(decode)

    def deadline(self, request: Request) -> float:
        """When the answer of a request is late, on the monotonic clock."""
        return float(request.scope["arrived"]) + self.limits.seconds

    async def done(self, request: Request, job: Job, name: str) -> tuple[Any, dict[str, float]]:
        """Queue a job and wait for its result, with milliseconds by step; errors as :meth:`segment`.

        Args:
            request: that it is for.
            job: of the queue.
            name: that metrics have it under.
        """
        begin = time.monotonic()
        try:
            self.queue.add(job)
        except BusyError as error:
            raise self._busy(error) from None
        try:
            found = await _unless_gone(request, self._result(job))
        except GoneError:
            self.metrics.dropped("gone")
            raise
        seconds = time.monotonic() - begin - job.waited
        self.metrics.computed(name, job.waited, seconds, job.together)
        return found, {"queue": round(1000 * job.waited, 2), "compute": round(1000 * seconds, 2)}

    def check_room(self) -> None:
        """Fail early if the queue is full.

        Raises:
            Problem: 429.
        """
        try:
            self.queue.check_room()
        except BusyError as error:
            raise self._busy(error) from None

    def _busy(self, error: BusyError) -> Problem:
        return Problem(429, "all places in the queue are taken: try again later", retry_after=error.seconds)

    def _job(
        self,
        served: ServedModel,
        decoded: DecodedImage,
        options: SegmentOptions,
        size: tuple[int, int],
        deadline: float,
    ) -> Job:
        """What is to be computed; makes the predictor of an output stride, which takes a while."""
        try:
            inference = make_inference(served, options)
            predictor = served.predictor(options.output_stride)
        except InputError as error:
            raise Problem(400, str(error)) from error
        check_pixels(decoded.pixels, "H, W", predictor.images)
        large = make_large(options, size, served.model.output_stride)
        keep = bool({"probabilities", "confidence"} & set(options.include))
        plain = inference is None and large is None and not keep and not served.attends
        group = (served.name, options.output_stride, size) if plain and predictor.batches_pay else None
        work = _Work(predictor, decoded, inference, keep, large)
        whole = size[0] * size[1]
        pixels = large.tiling.tile**2 if large and large.tiling else whole
        seen = int(pixels * max(inference.scales if inference else (1.0,)) ** 2)
        return Job(work, _run, seen, whole, deadline, group)

    async def _result(self, job: Job) -> Any:
        left = max(0.0, job.deadline - time.monotonic())
        try:
            return await asyncio.wait_for(asyncio.wrap_future(job.future), left)
        except (TimeoutError, LateError):
            self.metrics.dropped("late")
            detail = f"the image was not segmented within {self.limits.seconds:g} s: send a smaller one, or try later"
            raise Problem(503, detail, retry_after=1) from None


def _processors(models: Mapping[str, ServedModel], cores: int | None) -> Processors:
    """The threads that compute: one for each core, or a single one where a GPU does."""
    networks = [served.model for served in models.values() if not isinstance(served.model, ExportedModel)]
    if not networks:
        return Processors(cores or os.cpu_count() or 1)
    import torch

    if any(next(network.parameters()).device.type != "cpu" for network in networks):
        return Processors()
    return Processors(cores or torch.get_num_threads(), torch.set_num_threads)


def _run(batch: list[_Work]) -> list[Segmentation]:
    """Segment images that differ in their pixels alone."""
    first = batch[0]
    if len(batch) == 1:
        return [first.predictor.segment(first.decoded, first.inference, first.keep_probabilities, first.large)]
    labels = first.predictor.labels(np.stack([work.decoded.pixels for work in batch]))
    return [
        Segmentation(found, shown_pixels(work.decoded.pixels), first.predictor.label_set, work.decoded.notes)
        for found, work in zip(labels, batch, strict=True)
    ]


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Wait for work unless the client goes meanwhile, for whom it is cancelled."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise GoneError
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
