"""The queue before the networks: what runs together, what is refused, and what is dropped."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from atrous.inference.side_by_side import PIXELS_AT_ONCE, Processors
from atrous.serve.batching import WAITING_PIXELS, BusyError, Job, LateError, Queue


class Door:
    """Work that waits until it is let through; notes what ran together, and in how many threads."""

    def __init__(self) -> None:
        self.open, self.seen, self.begun = threading.Event(), [], threading.Semaphore(0)
        self.threads: list[int] = []

    def run(self, batch: list[Any]) -> list[Any]:
        self.seen.append(batch)
        self.begun.release()
        assert self.open.wait(20)
        return [2 * payload for payload in batch]


@pytest.fixture
def door() -> Door:
    return Door()


def job(
    door: Door, payload: int, pixels: int = 100, group: object = None, seconds: float = 20, decoded: int = 100
) -> Job:
    return Job(payload, door.run, pixels, decoded, time.monotonic() + seconds, group)


@pytest.fixture
def make(door: Door) -> Any:
    queues: list[Queue] = []

    def build(total: int = 1, waiting: int = 4, window: float = 0.0) -> Queue:
        queues.append(Queue(Processors(total, door.threads.append), waiting, window))
        return queues[-1]

    yield build
    door.open.set()
    for queue in queues:
        queue.close()


def test_results_come_back_in_any_order(make: Callable[..., Queue], door: Door) -> None:
    queue, jobs = make(2), [job(door, number) for number in range(4)]
    door.open.set()
    for each in jobs:
        queue.add(each)
    assert [each.future.result(20) for each in jobs] == [0, 2, 4, 6]


def test_alike_images_that_wait_run_together(make: Callable[..., Queue], door: Door) -> None:
    queue = make(1, waiting=10)
    first = job(door, 0, group="a")
    queue.add(first)
    assert door.begun.acquire(timeout=20)
    rest = [job(door, number, group="a" if number % 2 else "b") for number in range(1, 6)]
    for each in rest:
        queue.add(each)
    door.open.set()
    assert [each.future.result(20) for each in rest] == [2, 4, 6, 8, 10]
    assert door.seen == [[0], [1, 3, 5], [2, 4]]
    assert [each.together for each in rest] == [3, 2, 3, 2, 3]


def test_the_first_of_a_group_waits_for_others_but_not_long(make: Callable[..., Queue], door: Door) -> None:
    queue = make(1, window=0.3)
    door.open.set()
    jobs = [job(door, number, group="a") for number in range(2)]
    for each in jobs:
        queue.add(each)
        time.sleep(0.05)
    assert [each.future.result(20) for each in jobs] == [0, 2]
    assert door.seen == [[0, 1]]


def test_a_full_queue_says_when_to_try_again(make: Callable[..., Queue], door: Door) -> None:
    queue = make(1, waiting=2)
    queue.add(job(door, 0))
    assert door.begun.acquire(timeout=20)
    for number in (1, 2):
        queue.add(job(door, number))
    with pytest.raises(BusyError) as error:
        queue.add(job(door, 3))
    assert 0 < error.value.seconds < 60
    assert queue.waiting == 2


def test_images_that_wait_count_as_they_are_decoded_not_as_their_tiles(make: Callable[..., Queue], door: Door) -> None:
    queue = make(1)
    queue.add(job(door, 0))
    assert door.begun.acquire(timeout=20)
    queue.add(job(door, 1, decoded=WAITING_PIXELS))
    with pytest.raises(BusyError):
        queue.add(job(door, 2, decoded=1))
    assert queue.waiting == 1


def test_a_late_job_and_one_nobody_waits_for_are_dropped(make: Callable[..., Queue], door: Door) -> None:
    queue = make(1)
    queue.add(job(door, 0))
    assert door.begun.acquire(timeout=20)
    late, gone, last = job(door, 1, seconds=0.05), job(door, 2), job(door, 3)
    for each in (late, gone, last):
        queue.add(each)
    gone.future.cancel()
    time.sleep(0.1)
    queue.check_room()
    with pytest.raises(LateError):
        late.future.result(20)
    door.open.set()
    assert last.future.result(20) == 6
    assert door.seen == [[0], [3]]


def test_an_error_belongs_to_who_waits_and_ends_no_thread(make: Callable[..., Queue], door: Door) -> None:
    queue = make(1)

    def fail(_: list[Any]) -> list[Any]:
        raise ValueError("a bad image")

    bad, good = Job(0, fail, 1, 1, time.monotonic() + 20), job(door, 4)
    door.open.set()
    queue.add(bad)
    queue.add(good)
    with pytest.raises(ValueError, match="a bad image"):
        bad.future.result(20)
    assert good.future.result(20) == 8


def test_large_images_run_alone_and_in_all_threads(make: Callable[..., Queue], door: Door) -> None:
    queue = make(2)
    large, small = job(door, 0, PIXELS_AT_ONCE), job(door, 1)
    queue.add(large)
    assert door.begun.acquire(timeout=20)
    queue.add(small)
    assert not door.begun.acquire(timeout=0.2)
    assert door.seen == [[0]]
    door.open.set()
    assert small.future.result(20) == 2
    assert door.threads[0] == 2


def test_closing_finishes_what_waits(make: Callable[..., Queue], door: Door) -> None:
    queue, jobs = make(1), [job(door, number) for number in range(3)]
    for each in jobs:
        queue.add(each)
    threading.Timer(0.1, door.open.set).start()
    queue.close()
    assert [each.future.result(0) for each in jobs] == [0, 2, 4]
