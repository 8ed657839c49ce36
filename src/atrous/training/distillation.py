"""Knowledge distillation: a trained model of the same classes teaches another one, beside the ground truth."""

from __future__ import annotations

import torch
from torch import Tensor

from atrous.labels import LabelSet, ignore_value
from atrous.models.base import Output
from atrous.models.loading import load
from atrous.models.transfer import matched_classes
from atrous.training.losses import PixelSum
from atrous.training.sections import DistillationSection


class Teacher:
    """A frozen model whose class probabilities another model learns to give (Hinton et al. 2015, arXiv 1503.02531, §2).

    Args:
        section: of the recipe, with the teacher's name.
        label_set: the student's classes; the teacher must have all of them, in any order.
        device: where both models are.

    Raises:
        ValueError: the teacher doesn't know all of the student's classes.
        CheckpointError: no such model, or it can't be read.
    """

    def __init__(self, section: DistillationSection, label_set: LabelSet, device: torch.device) -> None:
        self.share, self.temperature = section.share, section.temperature
        assert section.teacher is not None
        self.model = load(section.teacher).to(device).requires_grad_(False)
        places = matched_classes(self.model.label_set, label_set)
        if missing := [name for place, name in enumerate(label_set.names) if place not in places]:
            raise ValueError(f"'{section.teacher}' doesn't know these classes of the data: {', '.join(missing)}")
        self.places = torch.tensor([places[place] for place in range(len(label_set))], device=device)
        self.model.to(memory_format=torch.channels_last)

    def add_to(self, loss: PixelSum, student: Output, images: Tensor, labels: Tensor, low: bool) -> PixelSum:
        """The loss of a step in which the teacher has its share.

        Args:
            loss: of the student, compared with the ground truth.
            student: its main output.
            images: uint8 ``(B, C, H, W)``, as the student saw them.
            labels: integers ``(B, H, W)``; the teacher isn't asked where they are ignored.
            low: whether the teacher computes in bfloat16.

        Returns:
            ``(1 - share) · loss + share · T² · KL(teacher ‖ student)``, the latter averaged over the labelled pixels
            of these images; the divisor stays that of ``loss``.
        """
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=low):
            inputs = self.model.preprocess(images).contiguous(memory_format=torch.channels_last)
            taught = self.model.main_output(inputs)
        size = (images.shape[-2], images.shape[-1])
        with torch.no_grad():
            target = (taught.at(size)[:, self.places] / self.temperature).softmax(1)
        log_p = (student.at(size) / self.temperature).log_softmax(1)
        labelled = labels != ignore_value(len(self.places))
        entropy = torch.special.entr(target).sum(1)
        divergence = (-(target * log_p).sum(1) - entropy) * labelled
        mean = self.temperature**2 * divergence.sum() / labelled.sum().clamp(min=1)
        return PixelSum((1 - self.share) * loss.total + self.share * mean * loss.pixels, loss.pixels)
