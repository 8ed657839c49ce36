"""Validation during a training, shared by its processes."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator

from atrous.data.dataset import Dataset
from atrous.evaluation.evaluate import Evaluation, evaluate
from atrous.inference.prepare import Precision
from atrous.models.base import SegmentationModel
from atrous.training.parallel import share_buffers


def validate(model: SegmentationModel, dataset: Dataset, accelerator: Accelerator, precision: Precision) -> Evaluation:
    """Evaluate a model: each process on a share of the images, then the counts of all are added.

    Args:
        model: with the same weights in every process; buffers are taken from the first one.
        dataset: the whole of it, in every process.
        accelerator: of the training.
        precision: of the network's arithmetic.
    """
    world = accelerator.num_processes
    if world > 1:
        share_buffers([model])
    evaluation = evaluate(model, dataset, precision=precision, part=(accelerator.process_index, world))
    if world > 1:
        for confusion in (evaluation.confusion, *evaluation.heads.values()):
            counts = torch.from_numpy(np.vstack([confusion.matrix, confusion.images])).to(accelerator.device)
            counts = accelerator.reduce(counts, "sum").cpu().numpy()
            confusion.matrix, confusion.images = counts[:-1], counts[-1]
    return evaluation
