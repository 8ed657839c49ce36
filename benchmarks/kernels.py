"""The two label kernels beside torchmetrics and PyTorch: ``python -m benchmarks.kernels``."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torchmetrics.classification import MulticlassConfusionMatrix

from atrous.grid import Grid
from atrous.ops.confusion import confusion_matrix
from atrous.ops.labelmap.op import logits_to_labels
from benchmarks._compare import Comparison, compare, copy_bandwidth, write_comparisons

SEED = 0
CLASSES, HEIGHT, WIDTH = 19, 1024, 2048
STRIDE = 4


def smooth_logits(rng: np.random.Generator) -> NDArray[np.float32]:
    """Logits like a network's: areas some dozens of positions wide, with a little noise."""
    coarse = rng.normal(size=(CLASSES, 8, 16)).astype(np.float32)
    size = (WIDTH // STRIDE, HEIGHT // STRIDE)
    areas = np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_CUBIC) for plane in coarse])
    return 5 * areas + 0.05 * rng.normal(size=areas.shape).astype(np.float32)


def boundary_share(logits: NDArray[np.float32]) -> float:
    """The share of cells whose four corners have different labels."""
    best = logits.argmax(axis=0)
    corners = np.stack([best[:-1, :-1], best[:-1, 1:], best[1:, :-1], best[1:, 1:]])
    return float((corners != corners[0]).any(axis=0).mean())


def label_maps(rng: np.random.Generator) -> list[Comparison]:
    grid = Grid(STRIDE, (STRIDE - 1) / 2)  # where half-pixel resizing puts the positions, so both do the same
    random = rng.normal(size=(CLASSES, HEIGHT // STRIDE, WIDTH // STRIDE)).astype(np.float32)
    moved = random.nbytes + HEIGHT * WIDTH
    floor = moved / copy_bandwidth(moved // 2)
    results = []
    for kind, array in (("smooth", smooth_logits(rng)), ("random", random)):
        logits = torch.from_numpy(array)[None]

        def ours(logits: torch.Tensor = logits) -> torch.Tensor:
            return logits_to_labels(logits, grid, (HEIGHT, WIDTH))

        def peer(logits: torch.Tensor = logits) -> torch.Tensor:
            return F.interpolate(logits, (HEIGHT, WIDTH), mode="bilinear", align_corners=False).argmax(1)

        differing = int((ours() != peer()).sum())
        assert differing < 1e-5 * HEIGHT * WIDTH, f"{differing} labels differ"
        work = (
            f"labels of {CLASSES}×{HEIGHT // STRIDE}×{WIDTH // STRIDE} {kind} logits at {HEIGHT}×{WIDTH} "
            f"({boundary_share(array):.0%} of cells on a boundary, {differing} labels differ)"
        )
        results.append(compare(work, ours, peer, peer_name="interpolate + argmax", target=8, floor=floor))
    return results


def confusion_matrices(rng: np.random.Generator) -> list[Comparison]:
    areas = logits_to_labels(torch.from_numpy(smooth_logits(rng))[None], Grid(STRIDE, 1.5), (HEIGHT, WIDTH))[0].numpy()
    random = rng.integers(0, CLASSES, (2, HEIGHT, WIDTH), dtype=np.uint8)
    floor = 2 * areas.nbytes / copy_bandwidth(areas.nbytes)
    results = []
    for kind, truth, prediction in (("areas", areas, np.roll(areas, 5, axis=1)), ("random labels", *random)):
        truth = truth.copy()
        truth[:, :20] = 255
        true, predicted = torch.from_numpy(truth)[None], torch.from_numpy(prediction)[None]
        expected = confusion_matrix(truth, prediction, CLASSES)
        for checks, note in ((True, "torchmetrics"), (False, "torchmetrics without its checks")):
            metric = MulticlassConfusionMatrix(CLASSES, ignore_index=255, validate_args=checks)

            def peer(metric=metric, true=true, predicted=predicted) -> None:
                metric.update(predicted, true)

            def ours(truth=truth, prediction=prediction) -> None:
                confusion_matrix(truth, prediction, CLASSES)

            peer()
            assert (metric.compute().numpy() == expected).all()
            work = f"confusion matrix, {HEIGHT}×{WIDTH}, {CLASSES} classes, {kind}"
            results.append(compare(work, ours, peer, peer_name=note, target=30, floor=floor))
    return results


def main() -> None:
    rng = np.random.default_rng(SEED)
    notes = [
        "Ours runs in one thread, the peers in as many as torch takes. All inputs are uint8 labels or float32 logits "
        "in memory; ours checks that all values are classes.",
        f"Full-size logits, which the peer makes and ours does not, are {CLASSES * HEIGHT * WIDTH * 4 / 1e6:.0f} MB.",
        "Floor: the bytes that must be read and written once, at the speed of a copy of as many bytes in one thread.",
    ]
    comparisons = [*confusion_matrices(rng), *label_maps(rng)]
    write_comparisons("kernels", "Label kernels", comparisons, seed=SEED, peers=("numba", "torchmetrics"), notes=notes)


if __name__ == "__main__":
    main()
