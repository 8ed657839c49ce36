"""What an evaluation says, in sentences."""

from __future__ import annotations

from atrous.evaluation.page.render import listed, points
from atrous.evaluation.stored import StoredEvaluation

SURE = 0.02
"""From this difference of confidence and accuracy on, a network is over- or underconfident."""
MIN_OBJECTS = 5
"""Fewer objects of a size say nothing."""
DEFINITIONS = (
    "IoU of a class: correct pixels over the pixels that are of the class or predicted as it, in one confusion matrix "
    "over all images. The mean is over classes that occur in the ground truth or in a prediction; ignored pixels (255) "
    "do not count.",
    "Intervals: the images are drawn again with replacement, 1,000 times; the interval holds the middle 95 % of the "
    "results. It says how much the figure depends on which images happened to be in the set.",
    "Boundary IoU (arXiv 2103.16562): IoU of the inner borders of true and predicted regions, 2 % of the image's "
    "diagonal wide.",
    "Objects: connected regions of a class of at least 16 pixels, not the background's. One is found if its adjusted "
    "IoU (arXiv 2104.14812) is above 0.5; a predicted region is right if more than half of it is. Small: below 32 × 32 "
    "pixels in area, large: 96 × 96 or more.",
    "Expected calibration error: the mean difference of confidence (the largest class probability, before any CRF) and "
    "accuracy, in 15 bins.",
)


def findings(e: StoredEvaluation) -> list[str]:
    """The most important findings, a sentence each."""
    return [sentence for sentence in (_classes(e), _largest(e), _sizes(e), _sureness(e), _absent(e)) if sentence]


def confusions(e: StoredEvaluation, count: int) -> list[dict[str, object]]:
    """The largest confusions: true and predicted class, pixels, and their share of the true class."""
    names = [row.name for row in e.classes]
    found = [
        {"true": names[true], "predicted": names[predicted], "pixels": pixels, "share": pixels / sum(row)}
        for true, row in enumerate(e.confusion)
        for predicted, pixels in enumerate(row)
        if pixels and true != predicted
    ]
    return sorted(found, key=lambda entry: -int(entry["pixels"]))[:count]  # type: ignore[call-overload]


def _classes(e: StoredEvaluation) -> str:
    ranked = sorted((row.iou, row.name) for row in e.classes if row.iou is not None and row.images)
    if len(ranked) < 2:
        return ""
    zero = [name for iou, name in ranked if iou == 0]
    best = " and ".join(f"{name} ({points(iou)} %)" for iou, name in ranked[::-1][:2])
    if len(zero) > 1:
        return f"Best at {best}; it never finds {listed(zero)}."
    return f"Best at {best}, worst at {ranked[0][1]} ({points(ranked[0][0])} %)."


def _largest(e: StoredEvaluation) -> str:
    if not (largest := confusions(e, 1)):
        return ""
    found = largest[0]
    share = f"{100 * float(found['share']):.1f}"  # type: ignore[arg-type]
    return f"The largest confusion: {share} % of {found['true']} is taken for {found['predicted']}."


def _sizes(e: StoredEvaluation) -> str:
    if not e.details:
        return ""
    told = [
        f"{points(row.recall)} % of the {row.objects:,} {row.name} ones"
        for row in e.details.objects.sizes
        if row.objects >= MIN_OBJECTS and row.recall is not None
    ]
    return f"Of the objects it finds {listed(told)}." if told else ""


def _sureness(e: StoredEvaluation) -> str:
    bins = [entry for entry in e.details.calibration.bins if entry.pixels] if e.details else []
    total = sum(entry.pixels for entry in bins)
    if not total:
        return ""
    sure = sum(entry.pixels * (entry.confidence or 0) for entry in bins) / total
    right = sum(entry.pixels * (entry.accuracy or 0) for entry in bins) / total
    word = "about as sure as it is right"
    if abs(sure - right) >= SURE:
        word = "overconfident" if sure > right else "underconfident"
    return f"It is {word}: {points(sure)} % sure on average, and right in {points(right)} % of the pixels."


def _absent(e: StoredEvaluation) -> str:
    absent = [row.name for row in e.classes if not row.images]
    if not absent:
        return ""
    return f"Not in the ground truth, so nothing is known of {'it' if len(absent) == 1 else 'them'}: {listed(absent)}."
