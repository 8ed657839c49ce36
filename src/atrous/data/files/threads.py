"""Reading many files in threads; decoding releases the GIL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Progress = Callable[[int, int], None]
"""Called with the number of items done and their total."""
THREADS = 4

T = TypeVar("T")
R = TypeVar("R")


def read_all(read: Callable[[T], R], items: Sequence[T], progress: Progress | None = None) -> Iterator[R]:
    """Yield the result of reading each item, in order; several are read at once."""
    with ThreadPoolExecutor(THREADS, "read") as pool:
        for done, result in enumerate(pool.map(read, items), 1):
            yield result
            if progress:
                progress(done, len(items))
