"""Several images at once: which of them compute at the same time, and with how many threads each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, Semaphore
from typing import TypeVar

PIXELS_AT_ONCE = 2**23
"""Pixels of the images that compute at the same time, unless a single one has more: a bound on memory."""
FILE_THREADS = 2
"""Threads that read and write files while all others compute."""

T = TypeVar("T")
R = TypeVar("R")


def _keep(_: int) -> None:
    """Leave the number of threads as it is."""


@dataclass(frozen=True)
class Processors:
    """What computes the labels: by default one image at a time, as on a GPU.

    Args:
        total: threads that compute, over all images together.
        set_threads: sets with how many threads the calling thread computes from now on.
    """

    total: int = 1
    set_threads: Callable[[int], None] = _keep


class Places:
    """Places at the processors, one for each small image; a large image takes several, and computes in more threads.

    Small images compute side by side in a thread each, which is faster than one after the other in all threads: threads
    of one image wait for each other after every layer.

    Args:
        processors: what is shared out.
        images: how many there are; fewer than processors get several threads each.

    Attributes:
        count: the number of places.
    """

    def __init__(self, processors: Processors, images: int) -> None:
        self.count = max(1, min(processors.total, images))
        self._processors = processors
        self._free = Semaphore(self.count)
        self._entrance = Lock()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait for the places of an image of so many pixels, and compute in their threads inside the block."""
        needed = min(self.count, max(1, -(-pixels * self.count // PIXELS_AT_ONCE)))
        with self._entrance:  # nobody overtakes an image that waits for several places
            for _ in range(needed):
                self._free.acquire()
        try:
            self._processors.set_threads(self._processors.total * needed // self.count)
            yield
        finally:
            self._free.release(needed)


def in_order(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Yield the result of work on each item, in order; it runs in threads, and takes few items ahead."""
    pool = ThreadPoolExecutor(threads, "image")
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            while len(pending) > 2 * threads or (pending and pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
