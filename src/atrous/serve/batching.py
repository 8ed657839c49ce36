"""A queue of images for a few threads: bounded, with deadlines, and images of one size together where that is faster.

A large image takes several places, so that the memory of what runs at the same time is bounded, and an image that is
alone gets all threads.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any

from atrous.inference.side_by_side import PIXELS_AT_ONCE, Processors

WAITING_PIXELS = 2**26
"""Pixels of all images that wait, decoded: 200 MB."""
MOST_TOGETHER = 32
"""Images that run together at most."""


class BusyError(Exception):
    """The queue is full.

    Attributes:
        seconds: after which there will be room, by what images have taken so far.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class LateError(Exception):
    """The deadline passed before the job began."""


@dataclass(eq=False)
class Job:
    """Something to compute.

    Args:
        payload: of the job.
        run: payloads → results; of one group's jobs, that of the first is called with all of them.
        pixels: that the network sees at once.
        decoded: pixels of the image, which are in memory while it waits.
        deadline: on the monotonic clock; the job is dropped if it has not begun by then.
        group: jobs of the same group run together; one without a group runs alone.

    Attributes:
        future: of the result; cancelled, the job is dropped unless it has begun.
        waited: seconds in the queue, once it has begun.
        together: how many jobs ran with it.
    """

    payload: Any
    run: Callable[[list[Any]], Sequence[Any]]
    pixels: int
    decoded: int
    deadline: float
    group: Hashable | None = None
    future: Future[Any] = field(default_factory=Future)
    queued: float = field(default_factory=time.monotonic)
    waited: float = 0.0
    together: int = 1


class Queue:
    """Runs jobs in threads.

    Args:
        processors: how many threads compute, and how their number is set.
        waiting: jobs that may wait.
        window: seconds that the first of a group waits for others.
    """

    def __init__(self, processors: Processors, waiting: int, window: float = 0.0) -> None:
        self._processors, self._most_waiting, self._window = processors, waiting, window
        self._jobs: deque[Job] = deque()
        self._changed = Condition()
        self._closed = False
        self._running = self._running_pixels = 0
        self._seconds = 0.1  # a job's, on average
        self._threads = [Thread(target=self._work, name="segment", daemon=True) for _ in range(processors.total)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._jobs)

    @property
    def running(self) -> int:
        """How many threads compute."""
        return self._running

    def check_room(self) -> None:
        """Fail if no job could be added now.

        Raises:
            BusyError: the queue is full.
        """
        with self._changed:
            self._drop()
            if len(self._jobs) >= self._most_waiting:
                raise BusyError((len(self._jobs) + 1) * self._seconds / len(self._threads))

    def add(self, job: Job) -> None:
        """Add a job.

        Raises:
            BusyError: the queue is full, of jobs or of pixels.
        """
        self.check_room()
        with self._changed:
            if self._jobs and sum(other.decoded for other in self._jobs) + job.decoded > WAITING_PIXELS:
                raise BusyError((len(self._jobs) + 1) * self._seconds / len(self._threads))
            self._jobs.append(job)
            self._changed.notify_all()

    def close(self) -> None:
        """Finish what has begun or waits, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._begun() as (batch, threads):
                if not batch:
                    return
                self._processors.set_threads(threads)
                _finish(batch)

    @contextlib.contextmanager
    def _begun(self) -> Iterator[tuple[list[Job], int]]:
        """The next jobs, once there is room for them, and the threads to compute them in; none when it is closed."""
        with self._changed:
            batch = self._next()
            pixels = sum(job.pixels for job in batch)
            total = self._processors.total
            alone = not self._running and not self._jobs
            threads = total if alone else min(total, max(1, -(-pixels * total // PIXELS_AT_ONCE)))
            self._running += 1
            self._running_pixels += pixels
        begin = time.monotonic()
        try:
            yield batch, threads
        finally:
            with self._changed:
                self._running -= 1
                self._running_pixels -= pixels
                if batch:
                    self._seconds += 0.1 * ((time.monotonic() - begin) / len(batch) - self._seconds)
                self._changed.notify_all()

    def _next(self) -> list[Job]:
        while True:
            self._drop()
            if self._jobs and self._fits(self._jobs[0]):
                break
            if self._closed and not self._jobs:
                return []
            self._changed.wait(self._until_deadline())
        first = self._jobs.popleft()
        batch, most = [first], min(MOST_TOGETHER, max(1, PIXELS_AT_ONCE // max(1, first.pixels)))
        while first.group is not None:
            self._drop()
            batch += self._alike(first, most - len(batch))
            left = first.queued + self._window - time.monotonic()
            if left <= 0 or self._closed or len(batch) == most:
                break
            self._changed.wait(left)
        begun = [job for job in batch if job.future.set_running_or_notify_cancel()]
        for job in begun:
            job.waited, job.together = time.monotonic() - job.queued, len(begun)
        return begun or self._next()

    def _alike(self, first: Job, most: int) -> list[Job]:
        """Take waiting jobs of a group out of the queue."""
        found = [job for job in self._jobs if job.group == first.group][:most]
        for job in found:
            self._jobs.remove(job)
        return found

    def _fits(self, job: Job) -> bool:
        return not self._running or self._running_pixels + job.pixels <= PIXELS_AT_ONCE

    def _until_deadline(self) -> float | None:
        soonest = min((job.deadline for job in self._jobs), default=None)
        return None if soonest is None else max(0.001, soonest - time.monotonic())

    def _drop(self) -> None:
        """Take out jobs that nobody waits for, and those that are late."""
        now = time.monotonic()
        for job in [job for job in self._jobs if job.future.cancelled() or job.deadline < now]:
            self._jobs.remove(job)
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(LateError())


def _finish(batch: list[Job]) -> None:
    try:
        results = batch[0].run([job.payload for job in batch])
    except BaseException as error:  # it belongs to whoever waits for the result
        for job in batch:
            job.future.set_exception(error)
        return
    for job, result in zip(batch, results, strict=True):
        job.future.set_result(result)
