"""How many strokes a mask takes: simulated ones on images of VOC, completed by `labels_from_scribbles`.

    python -m studies.scribbles path/to/VOCdevkit/VOC2012

The first strokes are one straight line in each class, each further one is in the largest region that is wrong, as a
person would correct it. The results are written to results/scribbles.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

import atrous
from atrous.crf import labels_from_scribbles
from atrous.data.dataset import Sample
from atrous.data.opening import open_dataset
from atrous.labels import IGNORE, Mask
from studies.results import RESULTS, Result, Section, origin_of

CORRECTIONS = (0, 1, 2, 3, 5, 8)
WIDTH, LONGEST = 5, 0.2
"""Of a stroke: pixels, and the share of the image's diagonal that it is long at most."""
LEAST = 0.01
"""Share of an image that a class has at least; smaller ones are ignored."""
SEED = 1
CHOSEN_ON = ("2010_003506", "2008_004175", "2008_005097", "2008_006341", "2009_002549", "2011_001597")
"""The images on which the method's constants were chosen, which are left out."""


def stroke_in(region: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.bool_]:
    """A stroke in the largest part of a region: the longest of some lines that stay away from its edge."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8))
    part = parts == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    depth = cv2.distanceTransform(np.pad(part, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    inner = depth >= min(WIDTH / 2 + 2, 0.7 * float(depth.max()))
    places = np.argwhere(inner)
    best, length = (places[0], places[0]), 0.0
    for begin, end in places[random.integers(len(places), size=(60, 2))]:
        far = float(np.hypot(*(end - begin)))
        share = min(1.0, LONGEST * float(np.hypot(*region.shape)) / far) if far else 1.0
        between = np.linspace(0, share, int(far * share) + 2)[:, None]
        line = (begin + between * (end - begin)).astype(int)
        if far * share > length and inner[line[:, 0], line[:, 1]].all():
            best, length = (line[0], line[-1]), far * share
    drawn = np.zeros(region.shape, np.uint8)
    (top, left), (bottom, right) = best
    cv2.line(drawn, (int(left), int(top)), (int(right), int(bottom)), 1, WIDTH)
    return (drawn > 0) & region


def mean_iou(labels: Mask, truth: Mask, classes: list[int]) -> float:
    """Over the classes of one image."""
    known = truth != IGNORE
    shares = [((labels == c) & (truth == c)).sum() / (((labels == c) & known) | (truth == c)).sum() for c in classes]
    return float(np.mean(shares))


def corrected(sample: Sample, probabilities: NDArray[np.float32] | None) -> Iterator[float]:
    """Mean IoU after the first strokes and after each correction."""
    random = np.random.default_rng(SEED)
    classes = [int(c) for c in np.unique(sample.mask) if c != IGNORE and (sample.mask == c).mean() >= LEAST]
    truth = np.where(np.isin(sample.mask, classes), sample.mask, IGNORE).astype(np.uint8)
    scribbles = np.full(truth.shape, IGNORE, np.uint8)
    for label in classes:
        scribbles[stroke_in(truth == label, random)] = label
    while True:
        labels = labels_from_scribbles(sample.image, scribbles, probabilities=probabilities)
        yield mean_iou(labels, truth, classes)
        wrong = [(truth == label) & (labels != label) for label in classes]
        sizes = [cv2.connectedComponentsWithStats(one.astype(np.uint8))[2][1:, cv2.CC_STAT_AREA] for one in wrong]
        worst = int(np.argmax([size.max(initial=0) for size in sizes]))
        if wrong[worst].any():
            scribbles[stroke_in(wrong[worst], random)] = classes[worst]


def main(
    voc: Annotated[str, typer.Argument(help="A VOC2012 folder.")],
    model: Annotated[str, typer.Option(help="A bundled name or a model folder.")] = "deeplabv3plus_lite0_voc",
    images: Annotated[int, typer.Option(help="Images, chosen at random.")] = 24,
) -> None:
    """Draw, complete, correct, and write the page."""
    dataset, network = open_dataset(f"voc:{voc}", "val"), atrous.load(model)
    kept: dict[str, list[list[float]]] = {"colours": [], "network": []}
    seconds = 0.0
    for index in np.random.default_rng(SEED).permutation(len(dataset)).tolist():
        sample = dataset[index]
        if sample.name.split(".")[0] in CHOSEN_ON or len(np.setdiff1d(np.unique(sample.mask), [IGNORE])) < 2:
            continue
        if len(kept["colours"]) == images:
            break
        found = atrous.predict(network, sample.image, keep_probabilities=True).probabilities(full_size=True)
        for start, probabilities in (("colours", None), ("network", found)):
            begin = time.process_time()
            kept[start].append(list(islice(corrected(sample, probabilities), max(CORRECTIONS) + 1)))
            seconds += time.process_time() - begin
        typer.echo(f"{sample.name}: {', '.join(f'{one[-1][0]:.2f} to {one[-1][-1]:.2f}' for one in kept.values())}")
    rows = [["start", *(f"+{count}" if count else "one stroke a class" for count in CORRECTIONS)]]
    facts = {
        start: {count: float(np.mean([one[count] for one in ious])) for count in CORRECTIONS}
        for start, ious in kept.items()
    }
    names = {"colours": "colours alone", "network": f"output of `{model}`"}
    rows += [[names[start], *(f"{100 * iou:.1f}" for iou in found.values())] for start, found in facts.items()]
    each = seconds / (2 * images * (max(CORRECTIONS) + 1))
    text = (
        f"Mean IoU in percent of {images} images of VOC val, after one stroke in each class and after some more, one "
        f"at a time. The network was not trained on them. {each:.2f} s of processor time for a mask of about 500×375."
    )
    command = "python -m studies.scribbles VOC2012"
    section = Section("", text, rows, facts=facts | {"seconds": each}, origin=origin_of(command, seed=SEED))
    notes = (
        f"Strokes are straight lines {WIDTH} pixels wide, in the largest part of a class, then in the largest wrong "
        "region. Mean IoU is over an image's classes of 1 % of its pixels or more, averaged over images.",
        "The six images on which the method's constants were chosen are left out.",
    )
    Result("Scribbles to masks", command, notes, {"voc": section}).write(RESULTS / "scribbles")


if __name__ == "__main__":
    typer.run(main)
