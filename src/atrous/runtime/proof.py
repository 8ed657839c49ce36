"""Which runtimes run an exported model rightly on this machine, and how fast: seen once, then remembered.

A runtime is trusted only if it was seen to give the reference's labels here, in a child process, at several sizes. What
was seen is kept in the user's cache under the machine (processor, instruction sets, cores), the file and the versions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atrous.files import write_atomically
from atrous.runtime.engines import READS, is_installed
from atrous.runtime.machine import cache_folder, file_hash, key_of, processor, versions
from atrous.runtime.trial import TrialError, run_in_child

AGREEMENT = 0.995
"""Share of labels that a runtime must have in common with the reference, at each size."""


@dataclass(frozen=True)
class Verdict:
    """What was seen of a runtime.

    Args:
        passed: whether it is trusted.
        reason: in words, for the user.
        agreement: smallest share of labels, over the batches, that are the reference's; 0 if it failed.
        seconds: for each batch.
    """

    passed: bool
    reason: str
    agreement: float = 0.0
    seconds: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Reference:
    """What a runtime is compared with.

    Args:
        name: where the labels come from.
        batches: uint8 ``(N, H, W, C)`` each.
        labels: the labels that are right, uint8 ``(N, H, W)`` for each batch.
        seconds: that finding the labels of each batch took.
    """

    name: str
    batches: Sequence[NDArray[np.uint8]]
    labels: Sequence[NDArray[np.uint8]]
    seconds: Sequence[float]


def equal_shares(found: Sequence[NDArray[np.uint8]], right: Sequence[NDArray[np.uint8]]) -> list[float]:
    """The share of the labels of each batch that are right."""
    return [float((labels == truth).mean()) for labels, truth in zip(found, right, strict=True)]


def judge(file: Path, runtime: str, reference: Reference, *, repeats: int = 3) -> Verdict:
    """Try a runtime in a child process, and compare its labels with the reference's.

    Args:
        file: the exported model.
        runtime: ``onnxruntime`` or ``openvino``.
        reference: what is right.
        repeats: timed runs of each batch.
    """
    try:
        trial = run_in_child(file, runtime, reference.batches, repeats=repeats)
    except TrialError as error:
        return Verdict(False, str(error).removeprefix(f"{runtime} "))
    agreement, seconds = min(equal_shares(trial.labels, reference.labels)), tuple(trial.seconds)
    passed = agreement >= AGREEMENT
    share = f"{'' if passed else 'only '}{agreement:.2%} of its labels are those of {reference.name}"
    return Verdict(passed, share, agreement, seconds)


def verdicts(
    file: Path,
    make_reference: Callable[[], Reference] | None = None,
    *,
    told: Callable[[str], None] | None = None,
) -> dict[str, Verdict]:
    """What is known of the reference and of each installed runtime that reads a file, on this machine: remembered from
    an earlier time, or else tried now.

    Args:
        file: the exported model.
        make_reference: finds what is right; by default it is what the runtime gives that the file is for (ONNX Runtime
            for ``.onnx``), which has to run to its end in a child process itself.
        told: called with a line before something is tried, which takes a while.
    """
    candidates = [runtime for runtime in READS[file.suffix.lower()] if is_installed(runtime)]
    facts = processor(), file_hash(file), versions("atrous", "torch", *candidates), make_reference is None
    store = cache_folder() / "verdicts" / f"{key_of(*facts)}.json"
    if known := _recall(store):
        return known
    if told:
        told(f"trying {' and '.join(candidates)} on this machine, once for this model")
    found = _try_all(file, candidates, make_reference)
    write_atomically(store, json.dumps({name: asdict(verdict) for name, verdict in found.items()}, indent=2).encode())
    return found


def _try_all(
    file: Path, candidates: Sequence[str], make_reference: Callable[[], Reference] | None
) -> dict[str, Verdict]:
    found: dict[str, Verdict] = {}
    reference = make_reference() if make_reference else None
    if reference:
        found[reference.name] = Verdict(True, "it is the reference", 1.0, tuple(reference.seconds))
    for runtime in candidates:
        if reference:
            found[runtime] = judge(file, runtime, reference)
            continue
        try:
            trial = run_in_child(file, runtime)
        except TrialError as error:
            found[runtime] = Verdict(False, str(error).removeprefix(f"{runtime} "))
        else:
            reference = Reference(runtime, trial.batches, trial.labels, trial.seconds)
            found[runtime] = Verdict(True, "it is the reference", 1.0, tuple(trial.seconds))
    return found


def fastest(found: Mapping[str, Verdict]) -> str | None:
    """The fastest of the trusted runtimes; None if none is trusted."""
    trusted = {runtime: sum(verdict.seconds) for runtime, verdict in found.items() if verdict.passed}
    return min(trusted, key=trusted.__getitem__) if trusted else None


def _recall(store: Path) -> dict[str, Verdict] | None:
    try:
        stored = json.loads(store.read_text(encoding="utf-8"))
        return {name: Verdict(**(facts | {"seconds": tuple(facts["seconds"])})) for name, facts in stored.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
