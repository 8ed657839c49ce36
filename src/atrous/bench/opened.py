"""A model of any runtime, opened as predictions open it, in the child process that measures it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atrous.inference.batch import processors_of
from atrous.inference.predict import predictor_of
from atrous.inference.prepare import Precision
from atrous.inference.side_by_side import Places, in_order
from atrous.inference.taken import require_8_bits
from atrous.opening import RuntimeChoice, open_model
from atrous.runtime.exported import ExportedModel

OPENER = f"{__name__}:Opened"
"""What :func:`atrous.runtime.trial.run_in_child` is told to open models with."""
_REPEATS = 3


class Opened:
    """A model, ready to label.

    Args:
        source: as :func:`atrous.load` takes it.
        runtime: torch, onnxruntime or openvino.
        precision: of the network; ``auto`` for an exported file, which has its own.
        device: for torch.
        output_stride: the model's own if None.

    Attributes:
        in_channels: channels of an image.
    """

    def __init__(
        self,
        source: str,
        runtime: RuntimeChoice,
        *,
        precision: Precision = "auto",
        device: str = "cpu",
        output_stride: int | None = None,
    ) -> None:
        model = open_model(source, runtime)
        if not isinstance(model, ExportedModel):
            require_8_bits(model, "bench makes")
        self._predictor = predictor_of(model, device=device, output_stride=output_stride, precision=precision)
        self._device = device
        self.in_channels = self._predictor.in_channels

    def labels(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Find the class of every pixel: uint8 ``(N, H, W, C)`` → uint8 ``(N, H, W)``."""
        return self._predictor.labels(images)

    def measure(self, batches: Sequence[NDArray[np.uint8]]) -> dict[str, float]:
        """``throughput``, images per second, several at a time where that is how folders are predicted; ``memory``,
        peak resident bytes of the process, on a GPU those allocated there; 0 where nothing tells.
        """
        repeated = list(batches) * _REPEATS
        with processors_of(self._predictor) as processors:
            places = Places(processors, len(repeated))

            def work(batch: NDArray[np.uint8]) -> None:
                with places.taken(batch.shape[1] * batch.shape[2]):
                    self.labels(batch)

            before = time.perf_counter()
            for _ in in_order(work, repeated, places.count):
                pass
            seconds = time.perf_counter() - before
        return {"throughput": sum(map(len, repeated)) / seconds, "memory": self._peak_memory()}

    def _peak_memory(self) -> int:
        if self._device == "cpu":
            return peak_memory()
        import torch

        return torch.cuda.max_memory_allocated()


def peak_memory() -> int:
    """Peak resident bytes of this process; 0 where nothing tells."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:  # not Linux, where resource counts the parent's memory too
        try:
            import resource
        except ImportError:  # Windows
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
