"""Progress and result of a training, and the errors that end one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from atrous.errors import AtrousError
from atrous.training.validation import Validation


class NonFiniteLossError(AtrousError, FloatingPointError):
    """The loss or the gradient is not finite; the message names the step and the images."""


class MemoryShortageError(AtrousError, RuntimeError):
    """The device, or a process that reads images, has run out of memory."""


class Stopped(KeyboardInterrupt):
    """The training was stopped by Ctrl-C or SIGTERM; its state is saved, and the message says where."""


@dataclass(frozen=True)
class Progress:
    """The progress of a training after a step.

    Args:
        step, steps: the number of steps done, and their total.
        loss: of this step.
        lr: learning rate of the new layers.
        gradient_norm: before clipping.
        images_per_second: over the last steps, including reading but not validation.
        waiting: share of that time spent waiting for images.
    """

    step: int
    steps: int
    loss: float
    lr: float
    gradient_norm: float
    images_per_second: float
    waiting: float


@dataclass(frozen=True)
class Result:
    """The result of a training.

    Args:
        best: folder of the best model by ``log.best_metric`` (of the last model if nothing was validated).
        last: folder of the model after the last step.
        mean_iou: of the best model; None without validation, and if every pixel of it is ignored.
        metric: by which it is the best.
        value: of that metric; None like ``mean_iou``.
    """

    best: Path
    last: Path
    mean_iou: float | None
    metric: str = "mean_iou"
    value: float | None = None


OnStep = Callable[[Progress], None]
OnValidation = Callable[[int, Validation], None]
OnMessage = Callable[[str], None]
