"""The best validation of a run, by the metric that its recipe names."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from atrous.training.validation import LOWER_IS_BETTER, Validation


@dataclass
class Best:
    """The best validation so far. It is undefined until a validation had a pixel that is not ignored.

    Args:
        metric: by which validations are compared.
        value: of the metric; None if undefined.
        mean_iou: of the best validation, whatever the metric is.
        step: of the best validation.
        stale: the number of validations since then.
    """

    metric: str
    value: float | None = None
    mean_iou: float | None = None
    step: int | None = None
    stale: int = 0

    def update(self, step: int, validation: Validation) -> bool:
        """Take a validation into account; returns whether it is the best so far.

        One in which every pixel is ignored counts neither as better nor as worse.
        """
        value = validation.metric(self.metric)
        if value is None:
            return False
        if self.value is not None and not self._better(value):
            self.stale += 1
            return False
        self.value, self.mean_iou = value, validation.metric("mean_iou")
        self.step, self.stale = step, 0
        return True

    def _better(self, value: float) -> bool:
        assert self.value is not None
        return value < self.value if self.metric in LOWER_IS_BETTER else value > self.value

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, from which :class:`Best` can be built again."""
        return asdict(self)
