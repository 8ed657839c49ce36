"""The models that a server has: their names, cards, and what predicts with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from atrous.data.files.images import DecodedImage
from atrous.errors import InputError
from atrous.inference.predict import predictor_of
from atrous.inference.segmentation import Segmentation
from atrous.runtime.exported import ExportedModel

if TYPE_CHECKING:  # an exported model needs no torch
    from atrous.inference.exported import ExportedPredictor
    from atrous.inference.predictor import Predictor
    from atrous.models.base import SegmentationModel

STRIDES = (32, 16, 8, 4)
"""Output strides that a network is asked for, beside its own."""


class ServedModel:
    """A model under a name.

    Args:
        name: in addresses and options.
        source: as it was given at the start.
        model: a network, or an exported model.

    Attributes:
        label_set: names and colours of its classes.
        strides: the output strides that it can run at.
    """

    def __init__(self, name: str, source: str, model: SegmentationModel | ExportedModel) -> None:
        self.name, self.source, self.model = name, source, model
        self.label_set = model.label_set
        self._predictors: dict[int | None, Predictor | ExportedPredictor] = {}
        self._making = Lock()
        own: Any = model.output_stride
        if isinstance(model, ExportedModel):
            self.strides: tuple[int, ...] = () if own is None else (own,)
        else:
            from atrous.inference.taken import require_8_bits

            require_8_bits(model, "a server takes")
            self.strides = tuple(stride for stride in sorted({own, *STRIDES}, reverse=True) if self._runs_at(stride))

    @property
    def card(self) -> dict[str, Any]:
        """What is known about the model, as its ``config.json`` has it."""
        return dict(self.model.card)

    @property
    def attends(self) -> bool:
        """Whether it attends to scales, which can be shown."""
        return not isinstance(self.model, ExportedModel) and self.model.settings.get("merge") == "attention"

    @property
    def has_probabilities(self) -> bool:
        """Whether it gives class probabilities."""
        return not isinstance(self.model, ExportedModel) or self.model.has_probabilities

    @property
    def runtime(self) -> str:
        """What runs it."""
        return self.model.runtime if isinstance(self.model, ExportedModel) else "torch"

    def predictor(self, output_stride: int | None = None) -> Predictor | ExportedPredictor:
        """What runs it at an output stride; each is made once.

        Raises:
            InputError: an output stride that it can't run at.
        """
        if isinstance(self.model, ExportedModel):
            return predictor_of(self.model, output_stride=output_stride)
        stride = output_stride or self.model.output_stride
        if stride not in self.strides:
            raise InputError(f"{self.name} runs at output strides {', '.join(map(str, self.strides))}, not {stride}")
        with self._making:
            if stride not in self._predictors:
                from atrous.inference.predictor import Predictor

                self._predictors[stride] = Predictor(self.model, output_stride=stride)
            return self._predictors[stride]

    def warm_up(self, crf: bool = False) -> Segmentation:
        """Segment a small image, so that the first request does not pay for what is made once.

        Args:
            crf: refine it too.
        """
        import numpy as np

        inference = None
        if crf:
            from atrous.crf.settings import stored_crf
            from atrous.inference.test_time import Inference

            inference = Inference(crf=stored_crf(self.card))
        predictor = self.predictor()
        return predictor.segment(DecodedImage(np.zeros((97, 129, predictor.in_channels), np.uint8)), inference)

    def _runs_at(self, stride: int) -> bool:
        from atrous.models.surgery.trace import STRUCTURE, structural_copy

        assert not isinstance(self.model, ExportedModel)
        if stride == self.model.output_stride:
            return True
        try:
            with STRUCTURE:
                structural_copy(self.model).output_stride = stride
        except (InputError, AttributeError):
            return False
        return True


def names_of(sources: Sequence[str]) -> list[str]:
    """A name for each model: the last part of its path or id, with as many parts before it as tell it from the others.

    Raises:
        InputError: the same model twice.
    """
    parts = [[part for part in Path(source).with_suffix("").parts if part not in ("/", "..")] for source in sources]
    counts = [1] * len(sources)
    while True:
        names = ["-".join(part[-count:]) for part, count in zip(parts, counts, strict=True)]
        twice = [place for place, name in enumerate(names) if names.count(name) > 1]
        if not twice:
            return names
        if all(counts[place] >= len(parts[place]) for place in twice):
            raise InputError(f"the model '{sources[twice[0]]}' is given twice: name each one once")
        for place in twice:
            counts[place] += 1
