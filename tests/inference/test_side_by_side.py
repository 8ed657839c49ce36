"""Several images at once: the order of results, and who computes with how many threads."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from atrous.inference import side_by_side
from atrous.inference.side_by_side import Places, Processors, in_order


def test_results_come_in_order_and_few_items_are_taken_ahead() -> None:
    taken: list[int] = []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    def work(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        return number

    for number, result in enumerate(in_order(work, items(), threads=3)):
        assert result == number
        assert len(taken) <= number + 9


def test_an_error_comes_where_its_result_would() -> None:
    found = in_order(lambda number: 6 // number, [3, 2, 0, 1], threads=2)
    assert [next(found), next(found)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_small_images_share_the_processors_and_a_large_one_has_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "PIXELS_AT_ONCE", 400)
    threads, here, most = {}, {"small": 0, "large": 0}, {"small": 0, "large": 0}
    local, lock = threading.local(), threading.Lock()
    places = Places(Processors(4, lambda count: setattr(local, "threads", count)), images=40)

    def work(number: int) -> None:
        size = "large" if number % 10 == 3 else "small"
        with places.taken(5000 if size == "large" else 100):
            with lock:
                here[size] += 1
                most[size] = max(most[size], here[size])
                threads[size] = local.threads
                assert not here["large"] or here == {"small": 0, "large": 1}
            time.sleep(0.002)
            with lock:
                here[size] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert (threads, most["large"]) == ({"small": 1, "large": 4}, 1)
    assert 1 < most["small"] <= 4


def test_one_image_has_all_threads_and_by_default_one_computes_at_a_time() -> None:
    seen: list[int] = []
    with Places(Processors(6, seen.append), images=1).taken(10):
        assert seen == [6]
    assert Places(Processors(), images=100).count == 1
