"""A server under load, beside ``predict`` on the same images: ``python -m benchmarks.serve [SECONDS]``.

Throughput with as many clients as processors, latency of one client and at 0.8 of the capacity, ten times the capacity,
mutated uploads, and the server's memory throughout. Clients are threads of this process on the same machine.
"""

from __future__ import annotations

import http.client
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

import atrous
from atrous.bundle import DEFAULT
from atrous.inference.batch import predict_files
from benchmarks._compare import FOLDER
from benchmarks._images import SEED, make_images
from studies.results import Result, Section, command_line, origin_of

SECONDS = 20.0
"""Of each phase."""
OVERLOAD = 10
IMAGES = 12


@dataclass(frozen=True)
class Load:
    """What some clients saw.

    Args:
        statuses: how many answers had which status; 0 for none.
        latencies: seconds of each answer with status 200, sorted.
        seconds: that it took.
        megabytes: of the server at the end.
    """

    statuses: dict[int, int]
    latencies: list[float]
    seconds: float
    megabytes: float

    @property
    def rate(self) -> float:
        """Images per second."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """Seconds within which a share of the answers came."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


@dataclass(frozen=True)
class Server:
    """A server in a process of its own."""

    process: int
    port: int

    @property
    def megabytes(self) -> float:
        """Resident memory now."""
        status = Path(f"/proc/{self.process}/status").read_text(encoding="ascii")
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1000  # type: ignore[index]

    def post(self, content: bytes, path: str = "/segment") -> tuple[int, float]:
        """Send an image: the status of the answer (0 for none), and its seconds."""
        begin = time.perf_counter()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
            connection.request("POST", path, content, {"Accept": "image/png", "Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            answer.read()
            connection.close()
        except OSError:
            return 0, time.perf_counter() - begin
        return answer.status, time.perf_counter() - begin


@contextmanager
def server() -> Iterator[Server]:
    """A server of the bundled model."""
    command = [sys.executable, "-m", "atrous", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        yield Server(process.pid, int(line.rsplit(":", 1)[1]))
        process.terminate()


def load(target: Server, contents: list[bytes], clients: int, seconds: float, rate: float | None = None) -> Load:
    """Let clients send images, one after the other or, all together, at a rate."""
    answers: list[tuple[int, float]] = []
    begin, lock = time.perf_counter(), threading.Lock()
    turn = iter(range(10**9))

    def client() -> None:
        while True:
            with lock:
                number = next(turn)
            due = begin if rate is None else begin + number / rate
            if max(due, time.perf_counter()) - begin > seconds:
                return
            time.sleep(max(0.0, due - time.perf_counter()))
            answers.append(target.post(contents[number % len(contents)]))

    with ThreadPoolExecutor(clients) as pool:
        for _ in range(clients):
            pool.submit(client)
    passed = time.perf_counter() - begin
    good = sorted(took for status, took in answers if status == 200)
    return Load(dict(Counter(status for status, _ in answers)), good, passed, target.megabytes)


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
    """Seconds after an overload until an answer takes less than twice its usual time."""
    begin = time.perf_counter()
    while True:
        status, took = target.post(content)
        if status == 200 and took < 2 * normal:
            return time.perf_counter() - begin - took


def main(seconds: float) -> None:
    cores = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as name, server() as target:
        folder = Path(name)
        make_images(folder / "data", IMAGES)
        contents = [file.read_bytes() for file in sorted((folder / "data/images").iterdir())]
        load(target, contents, cores, 3)  # programs and caches are made
        predict, call = predicted(folder / "data", seconds / 2), one_call(next((folder / "data/images").iterdir()))
        alone = load(target, contents, 1, seconds / 2)
        full = load(target, contents, cores, seconds)
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
        **{
            key: {
                **asdict(one),
                "latencies": [one.quantile(share) for share in (0.5, 0.9, 0.99)] if one.latencies else [],
            }
            for key, one in (("alone", alone), ("full", full), ("partial", partial), ("over", over), ("broken", broken))
        },
    }
    notes = [
        f"`atrous serve` with the bundled model, one process; images of 500×375, answers as PNG; {seconds:g} s a phase "
        f"(overload {2 * seconds:g} s). Clients run on the same machine.",
        "`predict` is the folder command, files to files, and a call is `atrous.predict` on one file.",
    ]
    section = Section(rows=rows, facts=facts, origin=origin_of(command, seed=SEED, peers=["starlette", "uvicorn"]))
    Result("Serving", command, notes, {"load": section}).write(FOLDER / "serve")
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

    def verdict(reached: bool) -> str:
        return "reached" if reached else "MISSED"

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
    return [["what", "measured", "target", ""], *([what, seen, aim, verdict(met)] for what, seen, aim, met in table)]


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
