"""The gain of a tuned dense CRF on images it was not tuned on, and where it helps and hurts.

    python -m studies.crf_tuning --model deeplabv3plus_lite0_voc --data voc:../shared/data/VOCdevkit/VOC2012

The table is written to results/crf_tuning.md; image, ground truth and labels without and with CRF side by side to
runs/crf, for the images that gain most and those that lose most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from PIL import Image

import atrous
from atrous.crf import DenseCRF
from atrous.data.dataset import Dataset, Sample
from atrous.data.opening import open_dataset
from atrous.evaluation.crf_search import CRFSearch, search_crf, searched_images
from atrous.evaluation.metrics import ConfusionMatrix
from atrous.evaluation.report import percent
from atrous.evaluation.trimap import trimap
from atrous.inference.predict import predict
from atrous.labels import LabelSet, Mask
from atrous.models import SegmentationModel
from studies.options import MODEL, VOC, Data, Model, Split
from studies.results import RESULTS, ROOT, Result, Section, command_line, origin_of
from studies.samples import side_by_side

WIDTHS = (0, 1, 3, 5, 10)
"""Widths of the bands along boundaries, in pixels; 0 is the whole image."""
SHOWN = 4
"""How many images are shown of those that gain, and of those that lose."""


@dataclass(frozen=True)
class Pair:
    """A network without and with a CRF."""

    network: SegmentationModel
    crf: DenseCRF

    def labels(self, sample: Sample) -> tuple[Mask, Mask]:
        """Labels ``(H, W)`` without and with the CRF."""
        return predict(self.network, sample.image).labels, predict(self.network, sample.image, crf=self.crf).labels


class Bands:
    """Confusion matrices without and with the CRF, by band."""

    def __init__(self, label_set: LabelSet) -> None:
        self.matrices = {width: (ConfusionMatrix(label_set), ConfusionMatrix(label_set)) for width in WIDTHS}

    def add(self, sample: Sample, masks: tuple[Mask, Mask]) -> None:
        """Count an image."""
        for width, matrices in self.matrices.items():
            truth = trimap(sample.mask, width) if width else sample.mask
            for matrix, mask in zip(matrices, masks, strict=True):
                matrix.update(truth, mask)

    def rows(self) -> list[list[str]]:
        """The table."""
        rows = [["pixels", "without CRF %", "with CRF %", "gain"]]
        for width, matrices in self.matrices.items():
            name = f"at most {width} from a boundary" if width else "all"
            rows.append(gain_row(f"mean IoU, {name}", *(matrix.metrics().mean_iou for matrix in matrices)))
        frequent = (matrix.mean_iou_over() for matrix in self.matrices[0])
        return [*rows, gain_row("mean IoU, frequent classes", *frequent)]


def main(
    model: Model = MODEL,
    data: Data = VOC,
    split: Split = "val",
    images: Annotated[int, typer.Option(help="How many to search on.")] = 100,
) -> None:
    """Tune, evaluate, draw, and write the table."""
    network, dataset = atrous.load(model), open_dataset(data, split)
    found = search_crf(network, dataset, images=images, on_try=lambda s, iou: typer.echo(f"{100 * iou:.2f}  {s}"))
    pair, bands, gains = Pair(network, found.settings.build()), Bands(dataset.label_set), []
    for index in sorted(set(range(len(dataset))) - searched_images(len(dataset), images)):
        sample = dataset[index]
        without, refined = pair.labels(sample)
        bands.add(sample, (without, refined))
        before, after = (image_iou(dataset.label_set, sample.mask, mask) for mask in (without, refined))
        gains.append((after - before, index))
    gains.sort()
    draw(pair, dataset, gains)
    command = command_line("studies.crf_tuning")
    section = Section(
        text=searched(found),
        rows=bands.rows(),
        below=f"{spread([gain for gain, _ in gains])}\n\n{found.text()}",
        facts={"tuning": found.to_card(), "gains": [{"index": index, "gain": gain} for gain, index in gains]},
        origin=origin_of(command),
    )
    result = Result(f"A tuned dense CRF on {model}", command, (), {"": section})
    result.write(RESULTS / "crf_tuning")
    typer.echo(result.markdown())


def draw(pair: Pair, dataset: Dataset, gains: list[tuple[float, int]]) -> None:
    """Write the images that gain and lose most."""
    folder = ROOT / "runs" / "crf"
    folder.mkdir(parents=True, exist_ok=True)
    for name, chosen in (("hurts", gains[:SHOWN]), ("helps", gains[-SHOWN:])):
        for gain, index in chosen:
            sample = dataset[index]
            strip = side_by_side(sample.image, [sample.mask, *pair.labels(sample)], dataset.label_set)
            Image.fromarray(strip).save(folder / f"{name}_{100 * gain:+.1f}_{index}.png")


def searched(found: CRFSearch) -> str:
    """What was searched."""
    return (
        f"Searched on {found.images[0]} images of {found.data}, {len(found.tried)} settings; evaluated on the other\n"
        f"{found.images[1]}. Best: {found.settings}."
    )


def spread(gains: list[float]) -> str:
    """How the gains of images are distributed, from sorted gains."""
    better, worse = (sum(sign * gain > 0.001 for gain in gains) for sign in (1, -1))
    least, middle, most = (100 * gains[place] for place in (0, len(gains) // 2, -1))
    return (
        f"Of {len(gains)} images {better} gain (by more than 0.1 points of their own mean IoU) and {worse} lose; the\n"
        f"median changes by {middle:+.2f} points, the largest loss is {least:.1f}, the largest gain {most:+.1f}."
    )


def gain_row(name: str, before: float, after: float) -> list[str]:
    """A line of the table."""
    return [name, percent(before), percent(after), f"{100 * (after - before):+.2f}"]


def image_iou(label_set: LabelSet, truth: Mask, labels: Mask) -> float:
    """Mean IoU of one image."""
    matrix = ConfusionMatrix(label_set)
    matrix.update(truth, labels)
    return matrix.metrics().mean_iou


if __name__ == "__main__":
    typer.run(main)
