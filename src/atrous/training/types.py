"""What a training says of itself: its progress, its result, and the errors that end it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from atrous.errors import AtrousError
from atrous.evaluation.evaluate import Evaluation


class NonFiniteLossError(AtrousError, FloatingPointError):
    """A loss or gradient that is no number any more; the message names the step and the images."""


class MemoryShortageError(AtrousError, RuntimeError):
    """A batch that the device, or the processes that read it, have no memory for."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, answered: the state is kept; the message says where."""


@dataclass(frozen=True)
class Progress:
    """What a run says of itself after a step.

    Args:
        step, steps: how far it is, and its length.
        loss: of this step.
        lr: of the new layers.
        gradient_norm: before clipping.
        images_per_second: over the last steps, reading included, validation not.
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
    """The end of a run: where the best and the last model lie, and the best one's mean IoU if there is validation."""

    best: Path
    last: Path
    mean_iou: float | None


OnStep = Callable[[Progress], None]
OnValidation = Callable[[int, Evaluation], None]
OnNote = Callable[[str], None]
