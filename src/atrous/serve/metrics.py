"""What a server counts and measures, for Prometheus."""

from __future__ import annotations

import os

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Requests, seconds and the queue; those of all processes where there are several.

    The library decides when it is imported whether there are several: so it is imported here, when the server knows.
    """

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = registry = CollectorRegistry()
        self._requests = Counter("atrous_requests", "Requests.", ["route", "status"], registry=registry)
        self._took = Histogram(
            "atrous_request_seconds", "From head to answer.", ["route"], registry=registry, buckets=_SECONDS
        )
        self._queued = Histogram(
            "atrous_queue_seconds", "In the queue.", ["model"], registry=registry, buckets=_SECONDS
        )
        self._computed = Histogram(
            "atrous_compute_seconds", "An image in a network.", ["model"], registry=registry, buckets=_SECONDS
        )
        self._together = Histogram(
            "atrous_batch_images",
            "Images that ran together.",
            ["model"],
            registry=registry,
            buckets=(1, 2, 4, 8, 16, 32),
        )
        self._dropped = Counter("atrous_dropped", "Images dropped: late, gone.", ["reason"], registry=registry)
        self._waiting = Gauge(
            "atrous_waiting_images", "In the queue now.", registry=registry, multiprocess_mode="livesum"
        )
        self._running = Gauge(
            "atrous_running_images", "Threads that compute now.", registry=registry, multiprocess_mode="livesum"
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._took.labels(route).observe(seconds)

    def computed(self, model: str, waited: float, seconds: float, together: int) -> None:
        """Count an image."""
        self._queued.labels(model).observe(waited)
        self._computed.labels(model).observe(seconds)
        self._together.labels(model).observe(together)

    def dropped(self, reason: str) -> None:
        """Count an image that was dropped."""
        self._dropped.labels(reason).inc()

    def watch(self, waiting: int, running: int) -> None:
        """Note how many images wait and run."""
        self._waiting.set(waiting)
        self._running.set(running)

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
