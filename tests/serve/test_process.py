"""A server in processes of its own: slow and half-closed connections, a killed worker, and the end."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.serve.conftest import picture

pytest.importorskip("uvicorn", reason="needs atrous[serve]")
pytestmark = pytest.mark.slow


@contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server of the bundled model on a free port."""
    command = [sys.executable, "-m", "atrous", "serve", "--port", "0", *options]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, start_new_session=True, **pipes) as process:
        try:
            line = process.stdout.readline()
            found = re.search(r"serving deeplabv3plus_lite0_voc on http://127\.0\.0\.1:(\d+)", line)
            assert found, line + process.stderr.read()
            threading.Thread(target=process.stderr.read, daemon=True).start()  # the log, which must not fill the pipe
            yield process, int(found[1])
        finally:
            process.terminate()
            process.wait(60)


def segment(port: int) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/segment", picture(size=(96, 64)), {"Accept": "image/png", "Content-Type": "image/png"})
    answer = connection.getresponse()
    answer.body = answer.read()  # type: ignore[attr-defined]
    connection.close()
    return answer


def children(process: subprocess.Popen[str]) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(word) for word in listed.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="forks of a process, on Linux")
def test_workers_hold_through_slow_connections_and_a_kill_and_stop_when_asked() -> None:
    with running("--workers", "2") as (process, port):
        first = segment(port)
        assert first.status == 200
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
        for number, connection in enumerate(slow):
            connection.sendall(b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n"[: 20 + number])
            if number % 2:
                connection.shutdown(socket.SHUT_WR)
        assert segment(port).body == first.body  # type: ignore[attr-defined]
        for connection in slow:
            connection.close()

        before = children(process)
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        assert segment(port).body == first.body  # type: ignore[attr-defined]
        until = time.monotonic() + 60
        while len(children(process)) < 2 or before[0] in children(process):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert [segment(port).status for _ in range(4)] == [200] * 4

        found = metrics(port)
        assert b'atrous_requests_total{route="/segment",status="200"}' in found
        assert b"atrous_running_images" in found

        os.kill(children(process)[0], signal.SIGKILL)
        process.send_signal(signal.SIGTERM)  # while another one is about to be started
        assert process.wait(60) == 0


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_what_is_under_way_is_answered_before_a_server_stops_by_ctrl_c(options: tuple[str, ...]) -> None:
    if options and not Path("/proc/self/task").is_dir():
        pytest.skip("forks of a process, on Linux")
    with running(*options) as (process, port):
        assert segment(port).status == 200
        statuses: list[int] = []
        threads = [threading.Thread(target=lambda: statuses.append(segment(port).status)) for _ in range(4)]
        for thread in threads:
            thread.start()
        while b"atrous_running_images 0.0" in metrics(port):
            time.sleep(0.005)
            if not any(thread.is_alive() for thread in threads):
                break
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(60) == 0
        for thread in threads:
            thread.join()
        assert set(statuses) <= {200, 503}
        assert 200 in statuses


def metrics(port: int) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    content = connection.getresponse().read()
    connection.close()
    return content
