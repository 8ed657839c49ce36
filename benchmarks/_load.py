"""A server in a process of its own, clients that send it images, and its memory meanwhile."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SAMPLES = 600
"""Of the memory during a long phase, at most."""


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


@contextmanager
def watched(target: Server, seconds: float) -> Iterator[list[tuple[float, float]]]:
    """The server's memory while something runs: seconds and MB, appended as time passes."""
    begin, curve, done = time.perf_counter(), [(0.0, target.megabytes)], threading.Event()

    def watch() -> None:
        while not done.wait(max(0.2, seconds / SAMPLES)):
            curve.append((time.perf_counter() - begin, target.megabytes))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield curve
    finally:
        done.set()
        watching.join()
