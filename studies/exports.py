"""Proofs of exported models: what their files were seen to do in each runtime.

    python -m studies.exports [NAME...] [--data path/to/VOCdevkit/VOC2012]

Exports the named models (all by default), and writes the proofs to results/exports.md.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from filelock import FileLock

import atrous
from atrous.data.dataset import Dataset, Subset
from atrous.export.model import export_model
from atrous.export.proof import Proof
from atrous.models.base import SegmentationModel
from studies.results import RESULTS, Result, Section, origin_of

BUNDLED = "deeplabv3plus_lite0_voc"
COMMAND = "python -m studies.exports"
NOTES = (
    "Networks other than the bundled one have random weights: their proofs are of labels and times, not of quality.",
    "Equal labels and the largest difference of the class probabilities are beside eager torch in float32; times are "
    "from bytes to labels, medians, on a machine with other work, torch's just before and after. The runtimes have all "
    "cores, torch the threads that are named below each table: ratios are fair where these are two.",
)


def _random(name: str, backbone: str, **options: object) -> Callable[[], SegmentationModel]:
    def make() -> SegmentationModel:
        torch.manual_seed(0)
        model = atrous.create_model(name, backbone=backbone, num_classes=21, **options).eval()  # type: ignore[arg-type]
        for weight in model.parameters():
            if weight.ndim == 4 and not weight.any():  # FCN's scorers: every label would be 0
                torch.nn.init.normal_(weight, std=0.1)
        return model

    return make


MODELS: dict[str, Callable[[], SegmentationModel]] = {
    BUNDLED: lambda: atrous.load(BUNDLED),
    "fcn8s_resnet18": _random("fcn8s", "resnet18"),
    "deeplab_largefov_mobilenetv2": _random("deeplab_largefov", "mobilenetv2_050"),
    "deeplab_aspp_resnet": _random("deeplab_aspp", "test_resnet", scales=(1, 0.75, 0.5)),
    "attention_to_scale_resnet": _random("attention_to_scale", "test_resnet"),
    "deeplabv3_convnext": _random("deeplabv3", "convnext_atto"),
    "deeplabv3plus_xception41": _random("deeplabv3plus", "xception41", separable=True),
}
INT8 = f"{BUNDLED}_int8"


def main(
    names: Annotated[list[str] | None, typer.Argument()] = None,
    data: Annotated[Path | None, typer.Option(help="VOC, with which the bundled model in int8 is calibrated.")] = None,
) -> None:
    """Export, prove, and write the page."""
    for name in names or [*MODELS, *([INT8] if data else [])]:
        calibrate = _every_third(atrous.open_dataset(f"voc:{data}", "val")) if name == INT8 else None
        with tempfile.TemporaryDirectory() as folder:
            model = MODELS[name.removesuffix("_int8")]()
            proof = export_model(model, Path(folder, f"{name}.onnx"), calibrate=calibrate)
        typer.echo("\n".join([name, *proof.lines()]))
        with FileLock(Path(tempfile.gettempdir(), "atrous-exports.lock")):  # several may run at once
            Result("Exported models", COMMAND, NOTES, {name: _section(name, proof)}).write(RESULTS / "exports")


def _every_third(dataset: Dataset) -> Dataset:
    """Enough for ranges and for a comparison on the same images, in a few minutes."""
    return Subset(dataset, tuple(range(0, len(dataset), 3)))


def _section(name: str, proof: Proof) -> Section:
    header = ("runtime", "images", "equal labels", "probabilities within", "ms", "torch, ms", "faster by")
    rows = [
        (
            c.runtime,
            f"{c.shape[0]} × {c.shape[1]}×{c.shape[2]}",
            f"{c.equal_labels:.3%}",
            f"{c.largest_difference:.1e}",
            f"{1e3 * c.seconds:.0f}",
            f"{1e3 * c.torch_seconds:.0f}",
            f"{c.torch_seconds / c.seconds:.2f}×",
        )
        for c in proof.comparisons
    ]
    lines = [line for line in proof.lines() if "mean IoU" in line or "failed" in line]
    verdict = f"{'Good' if proof.good else 'Not good'}. " + " ".join(f"{line}." for line in lines)
    return Section(name, "", [header, *rows], verdict, asdict(proof), origin_of(" ".join([COMMAND, *sys.argv[1:]])))


if __name__ == "__main__":
    typer.run(main)
