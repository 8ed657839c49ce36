"""A server under load, beside ``predict`` on the same images: ``python -m benchmarks.serve [load|overload|hour]``.

``load``: throughput with as many clients as processors, latency of one client and at 0.8 of the capacity, ten times the
capacity for a short while, mutated uploads. ``overload``: ten times the capacity for two minutes. ``hour``: half the
capacity for an hour. ``--seconds`` sets other times. Clients are threads of this process on the same machine, which
should do nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import atrous
from atrous.bundle import DEFAULT
from atrous.inference.batch import predict_files
from benchmarks._compare import FOLDER
from benchmarks._images import SEED, make_images
from benchmarks._load import Load, Server, load, server, watched
from studies.results import Result, Section, command_line, origin_of

SECONDS = {"load": 20.0, "overload": 120.0, "hour": 3600.0}
"""Of each phase; of a capacity that is only needed as a measure, at most the first one."""
OVERLOAD = 10
IMAGES = 12


TITLE = "Serving"
NOTES = (
    "`atrous serve` with the bundled model, one process; images of 500×375, answers as PNG. Clients run on the same "
    "machine.",
    "`predict` is the folder command, files to files, and a call is `atrous.predict` on one file.",
)


def mutated(content: bytes, count: int) -> list[bytes]:
    """Changed, cut and lengthened copies of a file."""
    random = np.random.default_rng(SEED)
    found = []
    for _ in range(count):
        values = bytearray(content[: random.integers(1, len(content) + 1)])
        for place in random.integers(0, len(values), random.integers(0, 20)):
            values[place] = random.integers(0, 256)
        found.append(bytes(values))
    return found


def predicted(folder: Path, seconds: float) -> float:
    """Images per second of ``atrous predict`` on the same images."""
    model, out = atrous.load(DEFAULT), folder / "masks"
    rates = []
    begin = time.perf_counter()
    while len(rates) < 2 or time.perf_counter() - begin < seconds:
        rates.append(IMAGES / predict_files(model, [folder / "images"], out).seconds)
    return max(rates[1:])


def one_call(image: Path) -> float:
    """Seconds of one ``predict`` call."""
    model = atrous.load(DEFAULT)
    times = []
    for _ in range(12):
        begin = time.perf_counter()
        atrous.predict(model, image)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[2:])


def recovery(target: Server, content: bytes, normal: float) -> float:
    """Seconds after an overload until an answer takes less than twice its usual time; at most a minute."""
    begin = time.perf_counter()
    while True:
        status, took = target.post(content)
        passed = time.perf_counter() - begin
        if (status == 200 and took < 2 * normal) or passed > 60:
            return passed - took


def prepared(target: Server, folder: Path, seconds: float) -> tuple[list[bytes], Load, Load]:
    """Images, the latency of one client, and the capacity, measured after programs and caches have been made."""
    make_images(folder / "data", IMAGES)
    contents = [file.read_bytes() for file in sorted((folder / "data/images").iterdir())]
    cores = torch.get_num_threads()
    load(target, contents, cores, 3)
    return contents, load(target, contents, 1, seconds / 2), load(target, contents, cores, seconds)


def long_phase(kind: str, seconds: float) -> None:
    """Two minutes of ten times the capacity, or an hour of half of it, with the curve of the memory."""
    share, clients = (OVERLOAD, 8 * OVERLOAD) if kind == "overload" else (0.5, 64)
    with tempfile.TemporaryDirectory() as name, server() as target:
        contents, alone, full = prepared(target, Path(name), min(seconds, SECONDS["load"]))
        with watched(target, seconds) as curve:
            found = load(target, contents, clients, seconds, share * full.rate)
        again = recovery(target, contents[0], alone.quantile(0.5))
    rows = _long_rows(kind, found, curve, again)
    picture = FOLDER / f"serve_{kind}.png"
    draw(curve, f"{share:g} × capacity", picture)
    command = command_line("benchmarks.serve")
    facts = {**summary(found), "capacity": full.rate, "recovery_seconds": again, "memory": curve}
    what = f"{share:g} × the capacity of {full.rate:.2f} images/s for {seconds:g} s, {clients} clients."
    below = f"![Memory of the server]({picture.name})"
    origin = origin_of(command, seed=SEED, peers=["starlette", "uvicorn"])
    heading = {"overload": "Overload", "hour": "An hour"}[kind]
    section = Section(heading, what, rows, below, facts, origin)
    Result(TITLE, "python -m benchmarks.serve", NOTES, {kind: section}).write(FOLDER / "serve")
    for row in rows:
        print(" | ".join(row))


def draw(curve: list[tuple[float, float]], title: str, file: Path) -> None:
    """The memory over time."""
    figure, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
    axes.plot(*zip(*curve, strict=True), color="#0072b2")
    axes.set(title=title, xlabel="seconds", ylabel="resident MB", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def summary(found: Load) -> dict[str, object]:
    """A load as JSON values, with three quantiles of its latencies."""
    latencies = [found.quantile(share) for share in (0.5, 0.9, 0.99)] if found.latencies else []
    return {**asdict(found), "latencies": latencies}


def _long_rows(kind: str, found: Load, curve: list[tuple[float, float]], again: float) -> list[list[str]]:
    allowed = (200, 429) if kind == "overload" else (200,)
    errors = sum(count for status, count in found.statuses.items() if status not in allowed)
    settled = curve[len(curve) // 10][1]  # after the first tenth
    growth = max(megabytes for _, megabytes in curve[len(curve) // 10 :]) - settled
    table = [
        (
            "answers",
            ", ".join(f"{count} × {status}" for status, count in sorted(found.statuses.items())),
            f"{' and '.join(map(str, allowed))}, nothing else",
            errors == 0 and all(status in found.statuses for status in allowed),
        ),
        (
            "growth of memory after the first tenth",
            f"{growth:+.0f} MB, to {found.megabytes:.0f} MB",
            "≤ 50 MB",
            growth <= 50,
        ),
        ("recovery after it", f"{again:.2f} s", "≤ 2 s", again <= 2),
    ]
    if found.latencies:
        p50, p99 = 1000 * found.quantile(0.5), 1000 * found.quantile(0.99)
        table.append(("latency, median and p99", f"{p50:.0f} ms, {p99:.0f} ms", "–", True))
    return _with_verdicts(table)


def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as name, server() as target:
        folder = Path(name)
        contents, alone, full = prepared(target, folder, seconds)
        predict, call = predicted(folder / "data", seconds / 2), one_call(next((folder / "data/images").iterdir()))
        partial = load(target, contents, 64, seconds, 0.8 * full.rate)
        before = target.megabytes
        over = load(target, contents, 8 * OVERLOAD, 2 * seconds, OVERLOAD * full.rate)
        again = recovery(target, contents[0], alone.quantile(0.5))
        broken = load(target, mutated(contents[0], 2000), 4, seconds)
        tried = target.post(contents[0])[0]
    rows = _rows(predict, call, alone, full, partial, over, over.megabytes - before, again, broken, tried)
    command = command_line("benchmarks.serve")
    facts = {
        "predict_images_per_second": predict,
        "predict_call_seconds": call,
        "recovery_seconds": again,
        "alone": summary(alone),
        "full": summary(full),
        "partial": summary(partial),
        "over": summary(over),
        "broken": summary(broken),
    }
    text = f"{seconds:g} s a phase, the overload {2 * seconds:g} s."
    origin = origin_of(command, seed=SEED, peers=["starlette", "uvicorn"])
    section = Section("Load", text, rows, facts=facts, origin=origin)
    Result(TITLE, "python -m benchmarks.serve", NOTES, {"load": section}).write(FOLDER / "serve")
    for row in rows:
        print(" | ".join(row))


def _rows(
    predict: float,
    call: float,
    alone: Load,
    full: Load,
    partial: Load,
    over: Load,
    growth: float,
    again: float,
    broken: Load,
    tried: int,
) -> list[list[str]]:
    ratio, p50, p99 = full.rate / predict, alone.quantile(0.5), partial.quantile(0.99)
    errors = sum(count for status, count in over.statuses.items() if status not in (200, 429))
    bad = sum(count for status, count in broken.statuses.items() if not 200 <= status < 500)
    busy = over.statuses.get(429, 0)

    table: list[tuple[str, str, str, bool]] = [
        (
            "throughput",
            f"{full.rate:.2f} images/s, predict {predict:.2f}: {ratio:.2f}×",
            "≥ 0.9× predict",
            ratio >= 0.9,
        ),
        (
            "latency of one client, median",
            f"{1000 * p50:.0f} ms, one predict call {1000 * call:.0f} ms: {p50 / call:.2f}×",
            "≤ 1.2× a call",
            p50 <= 1.2 * call,
        ),
        (
            "latency at 0.8 of capacity, p99",
            f"{1000 * p99:.0f} ms (median {1000 * partial.quantile(0.5):.0f} ms): {p99 / p50:.1f}×",
            "≤ 4× the median of one client",
            p99 <= 4 * p50,
        ),
        (
            f"{OVERLOAD}× capacity",
            f"{over.statuses.get(200, 0)} × 200, {busy} × 429, {errors} others; {over.rate:.2f} images/s",
            "nothing but 200 and 429",
            errors == 0 and busy > 0,
        ),
        ("growth of memory in it", f"{growth:+.0f} MB, to {over.megabytes:.0f} MB", "≤ 50 MB", growth <= 50),
        ("recovery after it", f"{again:.2f} s", "≤ 2 s", again <= 2),
        (
            "mutated uploads",
            f"{sum(broken.statuses.values())} sent, {bad} answers of 500 and above or none; then {tried}",
            "no 5xx",
            bad == 0 and tried == 200,
        ),
    ]
    return _with_verdicts(table)


def _with_verdicts(table: list[tuple[str, str, str, bool]]) -> list[list[str]]:
    verdicts = {True: "reached", False: "MISSED"}
    return [["what", "measured", "target", ""], *([what, seen, aim, verdicts[met]] for what, seen, aim, met in table)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", nargs="?", choices=tuple(SECONDS), default="load")
    parser.add_argument("--seconds", type=float, help="of a phase")
    given = parser.parse_args()
    if given.kind == "load":
        main(given.seconds or SECONDS["load"])
    else:
        long_phase(given.kind, given.seconds or SECONDS[given.kind])
