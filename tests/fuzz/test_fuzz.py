"""A few hundred mutated inputs for every target, and that the harness finds every kind of fault."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.harness import TARGETS, Counts, Worker, load, run_cases

SLOW = {"folder": 60, "models": 60, "tensorflow": 60, "tflite": 60, "caffe": 100, "coco": 100, "predictions": 100}
SLOW |= {"pytorch": 100}
"""Cases of the targets that take more than a few milliseconds."""


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as worker:
        yield worker


@pytest.mark.slow
@pytest.mark.parametrize("target", load(TARGETS))
def test_mutated_inputs_give_a_result_or_an_error_for_the_user(target: str, worker: Worker, tmp_path: Path) -> None:
    counts = Counts()
    run_cases(worker, target, range(SLOW.get(target, 300)), counts, 0, tmp_path)
    assert counts.failures == {}
    assert counts.results + counts.errors == counts.cases


@pytest.mark.slow
def test_every_kind_of_fault_is_found_and_its_files_are_kept(tmp_path: Path) -> None:
    found = {}
    with Worker("tests.fuzz.broken") as worker:
        for target in load("tests.fuzz.broken"):
            found[target] = Counts()
            run_cases(worker, target, range(3), found[target], 0, tmp_path)
    assert (found["healthy"].results, found["refuses"].errors) == (3, 3)
    assert list(found["raises"].failures) == ["KeyError"]
    assert list(found["allocates"].failures) == ["MemoryError"]
    assert list(found["aborts"].failures) == ["crash SIGABRT"]
    kept = Path(found["raises"].failures["KeyError"]["files"])
    assert (kept / "a.bin").read_bytes() != b"healthy"
