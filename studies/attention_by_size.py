"""Attention to Scale: the mean weight of each scale by the size of the object it is on.

    python -m studies.attention_by_size runs/mine/best --data camvid:../shared/data/CamVid --split test --name camvid

Table and plot are written to results/studies/attention_sizes_NAME; image, ground truth, labels and weights side by side
to runs/attention/NAME. An object is a connected region of one class in the ground truth; its size is the square root of
its area.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import cv2
import matplotlib
import numpy as np
import typer
from matplotlib import pyplot as plt
from PIL import Image

import atrous
from atrous.data.dataset import Dataset
from atrous.data.opening import open_dataset
from atrous.labels import IGNORE
from atrous.models.attention_to_scale import AttentionToScale
from atrous.viz import attention_figure
from studies.results import RESULTS, ROOT, Result, Section, command_line, origin_of

SIZES = (0, 8, 16, 32, 64, 128, 256, np.inf)
"""Bounds of the size bins, in pixels."""
NAMES = [f"{low:g}–{high:g}" if np.isfinite(high) else f"over {low:g}" for low, high in pairwise(SIZES)]
SHOWN = 8
"""How many images are drawn."""


class Bins:
    """Objects, their pixels and the summed weights of each scale, by size bin."""

    def __init__(self, scales: Sequence[float]) -> None:
        self.scales = scales
        self.objects = np.zeros(len(NAMES), int)
        self.pixels = np.zeros(len(NAMES), int)
        self.sums = np.zeros((len(NAMES), len(scales)))

    def add(self, mask: np.ndarray, attention: np.ndarray) -> None:
        """Add the objects of a mask ``(H, W)`` with the weights ``(S, H, W)`` on them."""
        for label in set(np.unique(mask).tolist()) - {IGNORE}:
            count, regions = cv2.connectedComponents((mask == label).astype(np.uint8))
            areas = np.bincount(regions.ravel(), minlength=count)
            for region in range(1, count):
                place = int(np.searchsorted(SIZES, np.sqrt(areas[region]), side="right")) - 1
                self.objects[place] += 1
                self.pixels[place] += areas[region]
                self.sums[place] += attention[:, regions == region].sum(1)

    def facts(self) -> list[dict[str, Any]]:
        """The mean weights of each bin that has objects."""
        return [
            {
                "size": NAMES[place],
                "objects": int(self.objects[place]),
                "pixels": int(self.pixels[place]),
                "weights": (self.sums[place] / self.pixels[place]).tolist(),
            }
            for place in np.flatnonzero(self.pixels)
        ]


def main(
    model: Annotated[str, typer.Argument(help="A model folder.")],
    data: Annotated[str, typer.Option(help="camvid:PATH, voc:PATH, ...")],
    name: Annotated[str, typer.Option(help="Name of the result.")],
    split: Annotated[str, typer.Option(help="Split to measure.")] = "val",
) -> None:
    """Measure, draw, and write the table."""
    network, dataset = atrous.load(model), open_dataset(data, split)
    if not isinstance(network, AttentionToScale):
        raise typer.BadParameter(f"{model} is {network.name}, which has no attention")
    facts = measure(network, dataset, ROOT / "runs" / "attention" / name).facts()
    scales = [f"scale {scale:g}" for scale in network.scales]
    target = RESULTS / "studies" / f"attention_sizes_{name}"
    plot(facts, scales, target.with_suffix(".png"))
    command = command_line("studies.attention_by_size")
    section = Section(
        rows=[["size of the object, px", "objects", "pixels", *scales], *map(row, facts)],
        below=f"![the same as a plot]({target.name}.png)",
        facts={"scales": list(network.scales), "sizes": facts},
        origin=origin_of(command),
    )
    Result(f"Attention by object size: mean weight of each scale, {name}", command, (), {"": section}).write(target)
    typer.echo(section.markdown())


def measure(network: AttentionToScale, dataset: Dataset, drawings: Path) -> Bins:
    """Measure all images of a dataset, and draw some."""
    bins = Bins(network.scales)
    drawn = set(np.linspace(0, len(dataset) - 1, SHOWN).astype(int).tolist())
    drawings.mkdir(parents=True, exist_ok=True)
    for index in range(len(dataset)):
        sample = dataset[index]
        found = atrous.predict(network, sample.image)
        assert found.attention is not None
        bins.add(sample.mask, found.attention)
        if index in drawn:
            figure = attention_figure(sample.image, found.labels, dataset.label_set, found.attention, found.scales)
            Image.fromarray(figure).save(drawings / f"{index:04d}.png")
    return bins


def row(found: dict[str, Any]) -> list[str]:
    """A bin's line of the table."""
    weights = [f"{weight:.3f}" for weight in found["weights"]]
    return [found["size"], str(found["objects"]), str(found["pixels"]), *weights]


def plot(facts: Sequence[dict[str, Any]], scales: Sequence[str], file: Path) -> None:
    """The mean weight of each scale by size."""
    matplotlib.use("agg")
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for number, scale in enumerate(scales):
        weights = [found["weights"][number] for found in facts]
        axes.plot([found["size"] for found in facts], weights, marker="o", label=scale)
    axes.set(xlabel="square root of the object's area, pixels", ylabel="mean weight")
    axes.legend(frameon=False)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    typer.run(main)
