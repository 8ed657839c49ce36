"""Threads for pieces of work that release Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from threading import Lock
from typing import Any, TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")


class Workers:
    """Runs a task on many pieces in several threads, this one included; whichever is free takes the next piece.

    Args:
        threads: number of threads, at least 1.
    """

    def __init__(self, threads: int) -> None:
        self._helpers = threads - 1
        self._pool = ThreadPoolExecutor(max(1, self._helpers))

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: Any) -> None:
        self._pool.shutdown()

    def __call__(self, task: Callable[[Piece], object], pieces: Sequence[Piece]) -> None:
        waiting = iter(pieces)

        def work() -> None:
            for piece in waiting:
                task(piece)

        helping = [self._pool.submit(work) for _ in range(min(self._helpers, len(pieces) - 1))]
        work()
        for helper in helping:
            if not helper.cancel():  # one that has not begun has nothing left to do
                helper.result()

    def in_order(
        self, task: Callable[[Piece], Result], then: Callable[[Piece, Result], object], pieces: Sequence[Piece]
    ) -> None:
        """Run a task on many pieces, and ``then`` on each piece and its result, one at a time, in order."""
        lock, results, following = Lock(), dict[int, Result](), 0

        def work(number: int) -> None:
            nonlocal following
            result = task(pieces[number])
            with lock:
                results[number] = result
                while following in results:
                    then(pieces[following], results.pop(following))
                    following += 1

        self(work, range(len(pieces)))


_workers = cache(Workers)
os.register_at_fork(after_in_child=_workers.cache_clear)  # threads are not inherited


def share_rows(work: Callable[[int, int], object], count: int) -> None:
    """Do ``count`` rows or blocks, from a first to before a last one, in as many threads as torch uses, this one
    included.
    """
    threads = torch.get_num_threads()
    pieces = min(count, 2 * threads if threads > 1 else 1)
    bounds = [count * i // pieces for i in range(pieces + 1)] if count else []
    _workers(threads)(lambda piece: work(*piece), list(pairwise(bounds)))
