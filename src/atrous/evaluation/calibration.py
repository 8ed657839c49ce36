"""Calibration: whether a network that is 80 % sure is 80 % right (Guo et al., ICML 2017, arXiv 1706.04599)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BINS = 15
"""Bins of equal width between 0 and 1, as published."""


class Calibration:
    """Counts pixels by confidence, the largest class probability: how many, how confident, how often right.

    ``pixels`` and ``correct`` are int64 ``(15,)``, ``confidence`` is float64 ``(15,)``, the sum over the pixels.
    """

    def __init__(self) -> None:
        self.pixels: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.correct: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.confidence: NDArray[np.float64] = np.zeros(BINS)

    def update(self, confidence: Tensor, correct: Tensor) -> None:
        """Add pixels.

        Args:
            confidence: float ``(N,)``, 0 to 1, on any device.
            correct: bool ``(N,)`` beside it: whether the most probable class is the true one.
        """
        bins = (confidence * BINS).long().clamp_(0, BINS - 1)
        self.pixels += torch.bincount(bins, minlength=BINS).cpu().numpy()
        self.correct += torch.bincount(bins[correct], minlength=BINS).cpu().numpy()
        # float64 sums, since float32 ones of a million pixels lose digits
        self.confidence += np.bincount(bins.cpu().numpy(), confidence.double().cpu().numpy(), BINS)

    @property
    def expected_error(self) -> float:
        """Expected calibration error, 0 to 1: the mean over pixels of |accuracy − confidence| of their bin; nan without
        pixels.
        """
        total = int(self.pixels.sum())
        return float(np.abs(self.correct - self.confidence).sum() / total) if total else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """The error and the reliability curve as JSON values; what is undefined is None."""
        total = int(self.pixels.sum())
        return {
            "expected_error": self.expected_error if total else None,
            "bins": [
                {
                    "from": number / BINS,
                    "to": (number + 1) / BINS,
                    "pixels": int(pixels),
                    "confidence": float(confidence / pixels) if pixels else None,
                    "accuracy": float(correct / pixels) if pixels else None,
                }
                for number, (pixels, confidence, correct) in enumerate(
                    zip(self.pixels, self.confidence, self.correct, strict=True)
                )
            ],
        }
