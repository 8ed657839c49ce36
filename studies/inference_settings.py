"""Cost and benefit of inference settings: one checkpoint at several output strides, over scales, and mirrored.

    python -m studies.inference_settings --model deeplabv3plus_lite0_voc --data voc:../shared/data/VOCdevkit/VOC2012

The rows are those of DeepLabv3+'s tables 3 and 5 (arXiv 1802.02611). The table is written to
results/studies/inference_NAME.md, the plot of output strides beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import atrous
from atrous.data.dataset import subset
from atrous.data.opening import open_dataset
from atrous.evaluation.report import percent
from atrous.evaluation.sweep import COUNTED_AT, SweepPoint, multiply_adds, plot, sweep
from atrous.files import write_atomically
from atrous.inference.test_time import Inference
from atrous.models import SegmentationModel
from atrous.models.multi_scale import scaled_size
from studies.options import MODEL, VOC, Data, Model, Split
from studies.results import RESULTS, Result, Section, command_line, origin_of

BANDS = (1, 3, 5, 10)
"""Widths of the bands along boundaries, in pixels."""
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
ONCE, SCALED, MIRRORED = Inference(), Inference(SCALES), Inference(SCALES, flip=True)
ROWS = (
    (32, ONCE, "32, once", "–"),
    (16, ONCE, "16, once", "79.93"),
    (16, SCALED, "16, scales", "81.38"),
    (16, MIRRORED, "16, scales and mirrored", "81.44"),
    (8, ONCE, "8, once", "80.22"),
    (8, SCALED, "8, scales", "81.60"),
    (8, MIRRORED, "8, scales and mirrored", "81.63"),
)
"""Output stride, inference, the row's name, and the paper's mean IoU (Xception-65 with decoder)."""
HEADER = [
    *("output stride, views", "mean IoU in the paper", "mean IoU", "frequent", *(f"≤ {width} px" for width in BANDS)),
    *("pixel acc.", f"10⁹ madds at {COUNTED_AT}²", "s per image", "peak memory, MB"),
]


def main(
    model: Model = MODEL,
    data: Data = VOC,
    split: Split = "val",
    images: Annotated[int, typer.Option(help="How many of its images, spread evenly.")] = 100,
) -> None:
    """Evaluate every row, and write the table."""
    network, dataset = atrous.load(model), subset(open_dataset(data, split), images)
    rows, points = [HEADER], []
    for stride, inference, name, published in ROWS:
        (point,) = sweep(network, dataset, "output_stride", [stride], trimap=BANDS, inference=inference)
        points.append(point)
        rows.append([name, published, *figures(point), *costs(network, stride, inference, point)])
        typer.echo("  ".join(rows[-1]))
    target = RESULTS / "studies" / f"inference_{Path(model).name}"
    once = [point for point, (_, inference, _, _) in zip(points, ROWS, strict=True) if inference is ONCE]
    write_atomically(target.with_suffix(".png"), plot(once))
    found, command = points[0].evaluation, command_line("studies.inference_settings")
    section = Section(
        text=f"""One checkpoint, trained at output stride 16, on {found.images} images of {found.data}, each at its
native size, float32; in %. Scales are {", ".join(f"{scale:g}" for scale in SCALES)}; probabilities are averaged.
"frequent" is the mean over classes in at least 10 images; "≤ w px" counts pixels along boundaries only; memory is the
whole process's. Timed on a machine with other work beside it.""",
        rows=rows,
        below=f"![Mean IoU and cost by output stride]({target.name}.png)",
        facts=[point.to_dict() for point in points],
        origin=origin_of(command),
    )
    Result(f"{Path(model).name}: output stride, scales and mirror images", command, (), {"": section}).write(target)


def figures(point: SweepPoint) -> list[str]:
    """Metrics of a row, in percent."""
    found = point.evaluation
    values = [found.metrics.mean_iou, found.to_dict()["mean_iou_of_frequent_classes"]["mean_iou"]]
    values += [found.trimap[width].metrics().mean_iou for width in BANDS]
    return [percent(value) for value in (*values, found.metrics.pixel_accuracy)]


def costs(network: SegmentationModel, stride: int, inference: Inference, point: SweepPoint) -> list[str]:
    """Multiply-adds, seconds and memory of a row."""
    network.output_stride = stride
    adds = sum(multiply_adds(network, size=scaled_size(COUNTED_AT, scale)) for scale in inference.scales)
    memory = (point.memory or 0) / 1e6
    return [f"{adds * (1 + inference.flip) / 1e9:.2f}", f"{point.seconds:.3f}", f"{memory:.0f}"]


if __name__ == "__main__":
    typer.run(main)
