"""Finding ground-truth masks that are probably wrong, by what a model is sure of and how often it errs that way.

A region in which the ground truth and the prediction disagree speaks against the mask if the model rules the true class
out, and if it seldom does so for the classes of this dataset: a model that never finds a bus says nothing against one.
Confident learning (Northcutt et al., JAIR 2021, arXiv 1911.00068) weighs the labels of whole images likewise.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from atrous.data.dataset import Dataset, check_sample, dataset_name, require_dataset
from atrous.errors import InputError
from atrous.evaluation.classes import check_classes
from atrous.grid import Grid, Grids, by_side
from atrous.inference.prepare import Precision, prepared, require_model
from atrous.inference.test_time import Inference, Network
from atrous.labels import LabelSet, Mask, ignored
from atrous.models.base import SegmentationModel

STEP = 8
"""Distance in pixels of the positions that are compared, where the network is not coarser."""
LEAST = 0.005
"""Share of the image from which on classes and disagreements count."""
CERTAIN = 12.0
"""Evidence at a single position is cut off here, so that few positions don't decide."""
WEIGHT_OF_SIZE = 0.1
"""The power of a region's share in its score: evidence matters more than size."""
PRIOR = 3.0
"""Images of average evidence that are added to those of a class, since a few say little of it."""
Kind = Literal["missing object", "surplus object", "another class"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Disagreement:
    """Where one class is given in an image and another one is predicted.

    Args:
        given: the class in the ground truth.
        predicted: the class that the model predicts.
        share: of the image.
        evidence: mean of log p(predicted) − log p(given).
        box: left, top, right and bottom in pixels.
    """

    given: int
    predicted: int
    share: float
    evidence: float
    box: tuple[int, int, int, int]

    @property
    def strength(self) -> float:
        """Evidence and size in one figure."""
        return float(self.evidence * self.share**WEIGHT_OF_SIZE)


@dataclass(frozen=True)
class Compared:
    """An image: its name, where ground truth and prediction disagree, and the classes in either."""

    name: str
    disagreements: tuple[Disagreement, ...]
    given: frozenset[int]
    predicted: frozenset[int]


@dataclass(frozen=True)
class Suspect:
    """A mask that is probably wrong.

    Args:
        index: of the image in the dataset.
        name: of the image.
        score: how suspicious; only the order means something.
        kind: what seems wrong.
        given: the class in the ground truth.
        predicted: the class that the model predicts there.
        where: the region.
    """

    index: int
    name: str
    score: float
    kind: Kind
    given: str
    predicted: str
    where: Disagreement

    def sentence(self) -> str:
        """What seems wrong, in words."""
        share = f"{100 * self.where.share:.1f} % of the image"
        if self.kind == "missing object":
            return f"{self.predicted} may be missing ({share})"
        if self.kind == "surplus object":
            return f"{self.given} may not be there ({share})"
        return f"{self.given} may be {self.predicted} ({share})"


def find_errors(
    model: SegmentationModel,
    dataset: Dataset,
    *,
    precision: Precision = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> list[Suspect]:
    """Rank the masks of a dataset by how probably they are wrong.

    Args:
        model: a model of the dataset's classes, best one that was not trained on these masks.
        dataset: images and masks.
        precision: what the network computes in.
        progress: called with the number of finished images and their total.

    Returns:
        The images with a disagreement, the most suspicious first. A few counts are kept of each image, nothing else.

    Raises:
        InputError: an empty dataset, or one of other classes than the model's.
    """
    require_model(model)
    require_dataset(dataset)
    if not len(dataset):
        raise InputError(f"there is no image to check in {dataset_name(dataset)}")
    check_classes(model.label_set, dataset.label_set)
    images = []
    with prepared(model, precision=precision) as (ready, where):
        for index in range(len(dataset)):
            sample = dataset[index]
            check_sample(sample, model.preprocessing.dtype)
            images.append(compare_image(sample.name, sample.mask, *log_likelihoods(ready, sample.image, where)))
            if progress:
                progress(index + 1, len(dataset))
    return rank(images, dataset.label_set)


def log_likelihoods(
    model: Network, image: NDArray[np.uint8], where: torch.device
) -> tuple[NDArray[np.float32], tuple[Grid, Grid]]:
    """Run a network that is :func:`~atrous.inference.prepare.prepared` on an image ``(H, W, C)``.

    Returns:
        The log of the class probabilities, float32 ``(C, h, w)``, and where their rows and columns sit.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].to(where)
    view = Inference().views(model, model.preprocess(pixels))[0]
    rows, columns = by_side(view.grid)
    down, across = (max(1, round(STEP / grid.stride)) for grid in (rows, columns))
    logits = view.logits[0, :, ::down, ::across].float()
    grids = Grid(rows.stride * down, rows.offset), Grid(columns.stride * across, columns.offset)
    return logits.log_softmax(0).cpu().numpy(), grids


def compare_image(name: str, mask: Mask, likelihoods: NDArray[np.float32], grid: Grids) -> Compared:
    """Find where the ground truth of an image and a prediction disagree.

    Args:
        name: of the image.
        mask: ``(H, W)``, the ground truth.
        likelihoods: float32 ``(C, h, w)``, log of the class probabilities.
        grid: where their positions sit in the image.
    """
    grids, sizes = by_side(grid), zip(likelihoods.shape[1:], mask.shape, strict=True)
    places = [_places(grid, *size) for grid, size in zip(grids, sizes, strict=True)]
    likelihoods = likelihoods[:, : len(places[0]), : len(places[1])]
    given = mask[np.ix_(places[0], places[1])]
    known = ~ignored(given)
    labels = np.where(known, given, 0).astype(np.int64)
    predicted = likelihoods.argmax(axis=0)
    evidence = likelihoods.max(axis=0) - np.take_along_axis(likelihoods, labels[None], 0)[0]
    differs = (known & (labels != predicted)).astype(np.uint8)
    differs = cv2.morphologyEx(differs, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).astype(bool)  # no thin boundaries
    pairs = labels * len(likelihoods) + predicted
    found = []
    for pair in np.unique(pairs[differs]).tolist():
        region = differs & (pairs == pair)
        if (share := float(region.mean())) > LEAST:
            strength = float(np.minimum(evidence[region], CERTAIN).mean())
            label, other = divmod(pair, len(likelihoods))
            found.append(Disagreement(label, other, share, strength, _box(region, places, grids, mask.shape)))
    return Compared(name, tuple(found), _present(labels[known], differs.size), _present(predicted, differs.size))


def rank(images: Sequence[Compared], label_set: LabelSet) -> list[Suspect]:
    """Rank images by their most suspicious disagreement.

    Its strength is divided by the mean strength of the disagreements about both of its classes in the other images,
    which is large for classes that the model does not know.

    Args:
        images: of one dataset.
        label_set: its classes.
    """
    strongest = np.zeros((2, len(images), len(label_set)))  # about given and about predicted classes
    present = np.zeros((2, len(images), len(label_set)), bool)
    for number, image in enumerate(images):
        for found in image.disagreements:
            for side, label in enumerate((found.given, found.predicted)):
                strongest[side, number, label] = max(strongest[side, number, label], found.strength)
        present[0, number, list(image.given)] = present[1, number, list(image.predicted)] = True
    average = float(strongest[0].max(axis=1).mean()) if images else 0.0
    usual = _usual(strongest, present, average)
    suspects = []
    for number, image in enumerate(images):
        scored = [
            (found.strength / (1 + usual[0, number, found.given] + usual[1, number, found.predicted]), found)
            for found in image.disagreements
        ]
        if scored:
            score, found = max(scored, key=lambda pair: pair[0])
            names = label_set.names[found.given], label_set.names[found.predicted]
            suspects.append(Suspect(number, image.name, score, _kind(names), *names, found))
    return sorted(suspects, key=lambda suspect: -suspect.score)


def to_csv(suspects: Sequence[Suspect]) -> bytes:
    """A table with a row for each suspect, the most suspicious first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = "rank image score kind given predicted share evidence left top right bottom"
    writer.writerow(columns.split())
    for number, suspect in enumerate(suspects, 1):
        where = suspect.where
        figures = [f"{where.share:.4f}", f"{where.evidence:.3f}", *where.box]
        names = [suspect.kind, suspect.given, suspect.predicted]
        writer.writerow([number, suspect.name, f"{suspect.score:.4f}", *names, *figures])
    return text.getvalue().encode(errors="backslashreplace")


def _usual(strongest: Floats, present: NDArray[np.bool_], average: float) -> Floats:
    """The mean strength about each class in the other images that contain it, ``(2, images, C)``."""
    counted = np.where(present, strongest, 0)
    others, images = counted.sum(axis=1, keepdims=True) - counted, present.sum(axis=1, keepdims=True) - present
    usual: Floats = (others + PRIOR * average) / (images + PRIOR)
    return usual


def _kind(names: tuple[str, str]) -> Kind:
    if names[0] == "background":
        return "missing object"
    return "surplus object" if names[1] == "background" else "another class"


def _places(grid: Grid, positions: int, side: int) -> NDArray[np.int64]:
    """The pixels at which positions sit, without those in the padding of a small image."""
    places = np.round(grid.stride * np.arange(positions) + grid.offset).astype(np.int64)
    inside = places[places < side] if (places < side).any() else places[:1]
    return np.clip(inside, 0, side - 1)


def _present(labels: NDArray[np.int64], positions: int) -> frozenset[int]:
    """The classes in more than the least share of some positions."""
    return frozenset(np.flatnonzero(np.bincount(labels.reshape(-1)) > LEAST * positions).tolist())


def _box(
    region: NDArray[np.bool_], places: Sequence[NDArray[np.int64]], grids: tuple[Grid, Grid], size: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """The box around the largest connected part of a region, in pixels."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=8)
    left, top, width, height, _ = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()].tolist()
    down, across = (grid.stride / 2 for grid in grids)
    rows, columns = places[0][[top, top + height - 1]], places[1][[left, left + width - 1]]
    return (
        max(0, round(columns[0] - across)),
        max(0, round(rows[0] - down)),
        min(size[1], round(columns[1] + across)),
        min(size[0], round(rows[1] + down)),
    )
