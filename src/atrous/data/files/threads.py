"""Reading many files at once: decoding lets other threads run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Progress = Callable[[int, int], None]
"""Called with the number of things done and their total."""
READERS_AT_ONCE = 4

T = TypeVar("T")
R = TypeVar("R")


def read_all(read: Callable[[T], R], things: Sequence[T], progress: Progress | None = None) -> Iterator[R]:
    """What reading each thing gives, in order; several are read at once."""
    with ThreadPoolExecutor(READERS_AT_ONCE, "reader") as pool:
        for done, answer in enumerate(pool.map(read, things), 1):
            yield answer
            if progress:
                progress(done, len(things))
