"""The dense CRF beside pydensecrf2: ``python -m benchmarks.crf``, and ``--memory`` for an image of 12 megapixels."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pydensecrf.densecrf as pydensecrf
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

import atrous
from atrous.crf import Bilateral, DenseCRF, Gaussian, unary_from_probabilities
from benchmarks._compare import FOLDER, Comparison, compare, copy_bandwidth, write_comparisons
from benchmarks._processes import peak_bytes

SEED = 0
CLASSES, HEIGHT, WIDTH = 21, 333, 500
ITERATIONS = 10
GOAL = 3.0
"""Times as fast as the peer on two cores, set-up included."""
CORNERS = 9
"""Lattice points of a pixel, in both lattices."""
IMAGES = Path(__file__).resolve().parents[2] / "shared" / "data" / "VOCdevkit" / "VOC2012" / "JPEGImages"
IMAGE = "2008_000273.jpg"

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Kernels = tuple[float, float, float]
"""Gaussian sxy, bilateral sxy and srgb."""


def image_and_logits() -> tuple[Pixels, Floats, str]:
    """An image ``(H, W, 3)``, the bundled model's logits ``(C, H, W)``, and their description; or random ones."""
    if not (IMAGES / IMAGE).exists():
        rng = np.random.default_rng(SEED)
        coarse = rng.normal(size=(CLASSES, 7, 10)).astype(np.float32)
        logits = 6 * np.stack([cv2.resize(p, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for p in coarse])
        colours = rng.integers(30, 220, (CLASSES, 3))[logits.argmax(0)] + rng.normal(0, 6, (HEIGHT, WIDTH, 3))
        return cv2.GaussianBlur(colours.clip(0, 255).astype(np.uint8), (5, 5), 1), logits, "random areas"
    image = np.array(Image.open(IMAGES / IMAGE).convert("RGB"))[:HEIGHT, :WIDTH].copy()
    model = atrous.load("deeplabv3plus_lite0_voc").eval()
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.preprocessing.mean, model.preprocessing.std))
    with torch.no_grad():
        logits = model((pixels - mean) / std)[0].numpy()
    return image, logits, f"VOC image {IMAGE}, logits of the bundled model"


def resized(image: Pixels, logits: Floats, scale: float) -> tuple[Pixels, Floats]:
    """The image and its unary energies at another size."""
    height, width = round(HEIGHT * scale), round(WIDTH * scale)
    full = F.interpolate(torch.from_numpy(logits)[None], (height, width), mode="bilinear")[0]
    return cv2.resize(image, (width, height)), unary_from_probabilities(full.softmax(0).numpy())


def with_classes(logits: Floats, classes: int) -> Floats:
    """The logits with fewer classes, or with further unlikely ones, as most of 150 are."""
    further = classes - len(logits)
    if further <= 0:
        return logits[np.argsort(-logits.max((1, 2)))[:classes]]
    rng = np.random.default_rng(SEED)
    more = logits[rng.integers(1, len(logits), further)] - 4 + rng.normal(size=(further, 1, 1))
    return np.concatenate([logits, more.astype(np.float32)])


def ours(image: Pixels, unary: Floats, kernels: Kernels, threads: int) -> Callable[[], Floats]:
    crf = DenseCRF([Gaussian(kernels[0], 3), Bilateral(kernels[1], kernels[2], 10)], ITERATIONS)

    def run() -> Floats:
        torch.set_num_threads(threads)
        return crf(image, unary)

    return run


def peer(image: Pixels, unary: Floats, kernels: Kernels) -> Callable[[], Floats]:
    def run() -> Floats:
        classes, height, width = unary.shape
        field = pydensecrf.DenseCRF2D(width, height, classes)
        field.setUnaryEnergy(unary.reshape(classes, -1))
        field.addPairwiseGaussian(sxy=kernels[0], compat=3)
        field.addPairwiseBilateral(sxy=kernels[1], srgb=kernels[2], rgbim=image, compat=10)
        return np.array(field.inference(ITERATIONS)).reshape(unary.shape)

    return run


def floor(unary: Floats) -> float:
    """Seconds to read the unary and each pixel's corners and weights in each iteration, and to write the result."""
    pixels = unary[0].size
    moved = (ITERATIONS + 1) * unary.nbytes + 2 * ITERATIONS * pixels * CORNERS * 8 + unary.nbytes
    return moved / copy_bandwidth(unary.nbytes)


STANDARD: Kernels = (3.0, 80.0, 13.0)
SCALES = (0.5, 2**0.5, 2, 8**0.5)
CLASS_COUNTS = (2, 8, 16, 40, 80, 150)
KERNELS: tuple[Kernels, ...] = (
    (1.0, 67.0, 3.0),
    (3.0, 121.0, 5.0),
    (3.0, 40.0, 13.0),
    (3.0, 80.0, 30.0),
    (6.0, 160.0, 26.0),
)


@dataclass(frozen=True)
class Point:
    """A comparison, and where it is in the plot of its group."""

    group: str
    x: float | str
    comparison: Comparison


def measure(
    work: str, image: Pixels, unary: Floats, kernels: Kernels, threads: int, *, goal: float | None = None
) -> Comparison:
    """Compare both on an image; ours with so many threads."""
    fast, slow = ours(image, unary, kernels, threads), peer(image, unary, kernels)
    off = float(np.abs(fast() - slow()).max())
    name = f"{work}; {threads} thread{'s'[: threads > 1]} (largest difference {off:.0e})"
    rounds = 9 if work.startswith("the work") else 3
    return compare(name, fast, slow, peer_name="pydensecrf2", target=goal, floor=floor(unary), rounds=rounds)


def points(image: Pixels, logits: Floats, threads: int) -> list[Point]:
    """The work itself, and other sizes, classes and kernels."""
    image_, unary = resized(image, logits, 1)
    found = []
    for count in sorted({1, threads}, reverse=True):
        goal = GOAL if count > 1 else None
        work = measure(f"the work: {HEIGHT}×{WIDTH}, {CLASSES} classes", image_, unary, STANDARD, count, goal=goal)
        found.append(Point("", "", work))
    for scale in SCALES:
        height, width = round(HEIGHT * scale), round(WIDTH * scale)
        row = measure(f"{height}×{width} pixels", *resized(image, logits, scale), STANDARD, threads)
        found.append(Point("megapixels", height * width / 1e6, row))
    for classes in CLASS_COUNTS:
        row = measure(f"{classes} classes", *resized(image, with_classes(logits, classes), 1), STANDARD, threads)
        found.append(Point("classes", classes, row))
    for kernels in KERNELS:
        work_name = f"Gaussian sxy {kernels[0]:g}, bilateral sxy {kernels[1]:g}, srgb {kernels[2]:g}"
        row = measure(work_name, image_, unary, kernels, threads)
        found.append(Point("kernels", ", ".join(f"{value:g}" for value in kernels), row))
    return found


def plot(found: Sequence[Point]) -> None:
    """Milliseconds of both by pixels, classes and kernels."""
    figure, (pixels, classes, kernels) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    work = found[0].comparison
    for axis, group, x in ((pixels, "megapixels", HEIGHT * WIDTH / 1e6), (classes, "classes", CLASSES)):
        members = sorted([Point(group, x, work), *select(found, group)], key=lambda point: float(point.x))
        for label, best in milliseconds(members).items():
            axis.loglog([point.x for point in members], best, "o-", label=label)
        axis.set(xlabel=group)
    members = [Point("kernels", "3, 80, 13", work), *select(found, "kernels")]
    places = np.arange(len(members))
    for offset, (label, best) in zip((-0.2, 0.2), milliseconds(members).items(), strict=True):
        kernels.bar(places + offset, best, 0.4, label=label)
    kernels.set_xticks(places, [str(point.x) for point in members], rotation=20)
    kernels.set(xlabel="kernels (Gaussian sxy, bilateral sxy, srgb)")
    for axis in (pixels, classes, kernels):
        axis.set(ylabel="ms, best")
        axis.legend()
    figure.savefig(FOLDER / "crf.png", dpi=110)


def select(found: Sequence[Point], group: str) -> list[Point]:
    """The points of a group."""
    return [point for point in found if point.group == group]


def milliseconds(members: Sequence[Point]) -> dict[str, list[float]]:
    """The best of each, for both."""
    return {
        "atrous": [1e3 * min(point.comparison.ours_seconds) for point in members],
        "pydensecrf2": [1e3 * min(point.comparison.peer_seconds) for point in members],
    }


def memory() -> None:
    """Print the peak memory of a process that labels a very colourful image of 12 megapixels with 21 classes."""
    rng = np.random.default_rng(SEED)
    image = cv2.resize(rng.integers(0, 255, (75, 100, 3), dtype=np.uint8), (4000, 3000), interpolation=cv2.INTER_CUBIC)
    unary = np.empty((CLASSES, 3000, 4000), np.float32)
    for plane in unary:
        cv2.resize(4 * rng.random((75, 100), dtype=np.float32), (4000, 3000), dst=plane, interpolation=cv2.INTER_CUBIC)
    begin = time.perf_counter()
    DenseCRF([Gaussian(3, 3), Bilateral(80, 13, 10)], ITERATIONS).labels(image, unary)
    peak = peak_bytes()
    print(
        f"12 megapixels, {CLASSES} classes: {time.perf_counter() - begin:.1f} s, {peak / 1e9:.2f} GB in all", end=", "
    )
    print(f"of which unary {unary.nbytes / 1e9:.2f} GB; {peak / unary[0].size:.0f} bytes per pixel")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", action="store_true", help="measure memory and time for 12 megapixels instead")
    if parser.parse_args().memory:
        memory()
        return
    threads = torch.get_num_threads()
    image, logits, what = image_and_logits()
    begin = time.perf_counter()
    ours(*resized(image, logits, 0.2), (3, 80, 13), threads)()
    first = time.perf_counter() - begin
    found = points(image, logits, threads)
    notes = [
        f"{what}; Gaussian sxy 3 weight 3, bilateral sxy 80 srgb 13 weight 10, {ITERATIONS} iterations, "
        "set-up included, unless the row says otherwise. The peer runs in one thread, as it always does.",
        "Target: 3 times as fast as the peer on two cores; the aim is 6.",
        f"The first call of this process took {first:.1f} s: compiling, or loading compiled code from the cache.",
        "Floor: reading the unary, and each pixel's corners and weights twice, in each iteration, at the speed of a "
        "copy in one thread. The rest is arithmetic: 18 rows of classes read, weighted and added, and one exponential "
        "per class, for each pixel in each iteration.",
    ]
    rows = [point.comparison for point in found]
    write_comparisons("crf", "Dense CRF", rows, seed=SEED, peers=("numba", "pydensecrf2"), notes=notes)
    plot(found)


if __name__ == "__main__":
    main()
