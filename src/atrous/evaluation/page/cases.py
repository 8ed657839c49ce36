"""The images of a page, read and segmented again: only these few are ever held at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.data.dataset import Dataset
from atrous.errors import AtrousError
from atrous.evaluation.page.layers import Case
from atrous.inference.prepare import Precision, prepared
from atrous.inference.test_time import Inference
from atrous.labels import Mask
from atrous.models.base import SegmentationModel

SHOWN = 12
"""Images at each end of a ranking."""


@dataclass
class Cases:
    """Images to show, and sentences about those that could not be read again."""

    shown: dict[int, Case] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


def ends(ranked: Sequence[int]) -> tuple[list[int], list[int]]:
    """The first and the last images of a ranking, the last one first: at most 12 each, none twice."""
    half = min(SHOWN, (len(ranked) + 1) // 2)
    return list(ranked[:half]), list(ranked[half:][-SHOWN:][::-1])


def segment_again(
    models: Mapping[str, SegmentationModel],
    dataset: Dataset,
    captions: Mapping[int, str],
    inference: Inference,
    precision: Precision = "float32",
    table: Tensor | None = None,
) -> Cases:
    """Segment some images again, to show them.

    Args:
        models: one or several by the name of their layer, on their devices. The errors of ``prediction`` are shown.
        dataset: the images.
        captions: what to say of each image, by its index.
        inference: how an image becomes labels.
        precision: what the network computes in.
        table: the data's label of each of the models', uint8 ``(256,)``, where they differ.
    """
    found, errors = Cases(), "prediction" if "prediction" in models else ""
    for index, caption in captions.items():
        try:
            sample = dataset[index]
            masks = {"truth": sample.mask}
            for name, model in models.items():
                labels = _segment(model, sample.image, inference, precision)
                masks[name] = labels if table is None else table.numpy()[labels]
        except (AtrousError, OSError) as error:
            found.lost.append(f"An image that was evaluated can't be read any more: {error}")
            continue
        found.shown[index] = Case(sample.name, caption, sample.shown, masks, errors)
    return found


def _segment(model: SegmentationModel, image: NDArray[np.uint8], inference: Inference, precision: Precision) -> Mask:
    with prepared(model, precision=precision) as (ready, where):
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].to(where)
        labels: Mask = inference(ready, pixels)[0].cpu().numpy()
        return labels
