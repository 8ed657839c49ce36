"""Running a server: one process or several that share the weights, which finish what is under way when they stop."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType

import uvicorn
from h11 import IDLE
from uvicorn.protocols.http.h11_impl import H11Protocol

from atrous.data.files.limits import VARIABLE
from atrous.errors import InputError
from atrous.runtime.exported import ExportedModel
from atrous.serve.app import make_app
from atrous.serve.gate import Gate, write_log
from atrous.serve.served import ServedModel
from atrous.serve.settings import ServeSettings

DECODE_LIMIT_GB = "0.5"
"""Of an image of a request, unless the environment says otherwise: 62 megapixels."""
GRACE = 30
"""Seconds that a stopping server waits for the answers that are under way."""
_AGAIN = 1.0
"""Seconds between two starts of a process that ends at once, and between two signals that are not one."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve(models: Sequence[ServedModel], settings: ServeSettings, ready: Callable[[str], None]) -> None:
    """Serve models until the process is told to stop (SIGTERM, SIGINT).

    Args:
        models: what is served; the first one is the default.
        settings: how.
        ready: called with the server's address when it answers.

    Raises:
        InputError: the address can't be listened on, or several processes are not possible.
    """
    os.environ.setdefault(VARIABLE, DECODE_LIMIT_GB)
    write_log()
    listener = _listen(settings)
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if settings.workers == 1:
        for served in models:
            served.warm_up()
        ready(address)
        _run(models, settings, listener, None)
        return
    with tempfile.TemporaryDirectory(prefix="atrous-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        _check_forking(models)
        _Workers(models, settings, listener).run(lambda: ready(address))


def _listen(settings: ServeSettings) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"can't listen on {settings.host}, port {settings.port} ({error}): choose others with --host and --port"
        ) from None


def _run(models: Sequence[ServedModel], settings: ServeSettings, listener: socket.socket, cores: int | None) -> None:
    """Answer requests in this process."""
    threading.Thread(target=_prepare_crf, args=(models,), daemon=True).start()
    gate = make_app(models, settings, cores)
    config = uvicorn.Config(
        gate,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=GRACE,
    )
    _Protocol.seconds = settings.limits.reading
    _Server(config, gate).run(sockets=[listener])


def _prepare_crf(models: Sequence[ServedModel]) -> None:
    """Load what a CRF needs, or compile it once on a machine, beside the first requests."""
    networks = [served for served in models if not isinstance(served.model, ExportedModel)]
    if networks:
        import torch

        torch.set_num_threads(1)
        networks[0].warm_up(crf=True)


class _Server(uvicorn.Server):
    """Stops when all requests that are under way have been answered; new ones get 503 until then."""

    def __init__(self, config: uvicorn.Config, gate: Gate) -> None:
        super().__init__(config)
        self._gate = gate
        self._told = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's interface
        """The first signal lets requests finish, the second one does not."""
        if sig == signal.SIGINT and multiprocessing.parent_process():
            return  # Ctrl-C reaches all processes, and the first of them passes it on
        now = time.monotonic()
        if not self._gate.closing:
            self._gate.closing, self._told = True, now
            asyncio.get_event_loop().call_later(GRACE, self._stop)
        elif now > self._told + _AGAIN:  # systemd signals all processes too
            self.should_exit = self.force_exit = True

    def _stop(self) -> None:
        self.config.timeout_graceful_shutdown = 0  # the time is up: uvicorn cancels what is under way
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if self._gate.closing and not self._gate.under_way:
            self.should_exit = True
        return await super().on_tick(counter)


class _Protocol(H11Protocol):
    """Closes connections on which the head of a request takes too long, which uvicorn leaves open."""

    seconds = 30.0
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.conn.their_state is not IDLE:
            self._forget()
        elif self._late is None:
            self._late = self.loop.call_later(self.seconds, self.transport.close)

    def _forget(self) -> None:
        if self._late:
            self._late.cancel()
            self._late = None


def _check_forking(models: Sequence[ServedModel]) -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        raise InputError("several --workers are forks of one process, which this system does not have: use 1")
    for served in models:
        parameters = getattr(served.model, "parameters", None)
        if parameters is None:
            raise InputError(
                f"{served.name} is run by {served.runtime}, whose threads can't be forked: use --workers 1, or torch"
            )
        if next(parameters()).device.type != "cpu":
            raise InputError("on a GPU one process puts images together: use --workers 1")


class _Workers:
    """Processes forked from this one, which has loaded the models and computed nothing in several threads (a fork of
    OpenMP's threads hangs); their weights are the same memory. One that dies is started again.
    """

    def __init__(self, models: Sequence[ServedModel], settings: ServeSettings, listener: socket.socket) -> None:
        self._models, self._settings, self._listener = models, settings, listener
        self._fork = multiprocessing.get_context("fork")
        self._processes: list[BaseProcess] = []
        self._stopping = False
        import torch

        self._cores = max(1, torch.get_num_threads() // settings.workers)

    def run(self, ready: Callable[[], None]) -> None:
        """Start the processes, and wait until they are told to stop."""
        import torch
        from prometheus_client.multiprocess import mark_process_dead

        torch.set_num_threads(1)
        for served in self._models:
            served.warm_up()
        gc.collect()
        gc.freeze()  # so that counting references in the children's collections copies no pages
        for sig in _SIGNALS:
            signal.signal(sig, self._stop)
        began = time.monotonic()
        for _ in range(self._settings.workers):
            self._start()
        ready()
        while self._processes:
            wait([process.sentinel for process in self._processes])
            for process in [process for process in self._processes if not process.is_alive()]:
                process.join()
                mark_process_dead(process.pid)  # type: ignore[no-untyped-call]
                self._processes.remove(process)
                if not self._stopping:
                    time.sleep(max(0.0, began + _AGAIN - time.monotonic()))
                    began = time.monotonic()
                    self._start()

    def _start(self) -> None:
        """Start a process unless they are told to stop; a signal meanwhile waits, so that it reaches the new one."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            if not self._stopping:
                process = self._fork.Process(target=self._work, args=(mask,), name="atrous-serve")
                process.start()
                self._processes.append(process)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if self._stopping:  # by a signal that another thread took
            self._end()

    def _work(self, mask: set[int]) -> None:
        import torch

        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        torch.set_num_threads(self._cores)
        _run(self._models, self._settings, self._listener, self._cores)

    def _stop(self, *_: object) -> None:
        self._stopping = True
        self._end()

    def _end(self) -> None:
        for process in self._processes:
            process.terminate()
