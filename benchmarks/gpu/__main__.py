"""Measure on a GPU: ``python -m benchmarks.gpu``, about a minute.

Each row stands alone: one that fails shows its error, and the others continue. ``--trial`` shows on any machine that
everything runs, at sizes whose figures mean nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks._compare import FOLDER
from benchmarks._images import SEED
from benchmarks.gpu import crf, depthwise, device, label_maps, networks, training
from benchmarks.gpu._measure import TRIAL, Rows, Sizes, installed, section
from studies.results import Result, command_line, origin_of

NOTES = (
    "Times are from the end of a call to the end of the next, by the GPU's own clock, medians after some calls that do "
    "not count. Memory is the peak beyond weights and input.",
    "Operations by PyTorch's counter, 2 for a multiply-add; the share is of the matrix product in the same run. The "
    "interpolation of logits is counted, as matrix products. A training step has three times those of its forward pass "
    "(the counter takes the gradients of depthwise layers for those of full ones).",
    "autocast: float32 weights under bfloat16 autocast, as predict, evaluate and training run. Images are on the "
    "device, preprocessed; logits are float32 at the image's size.",
    "Peers run once as their documentation says, under autocast, and once more channels-last.",
    "A training step is complete: the batch from pinned memory, loss at the image's size, gradients and their norm, "
    "SGD, the average of the weights; its images are read beforehand.",
)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of gpu.md and gpu.json")
    parser.add_argument("--only", help="some sections, separated by commas")
    parser.add_argument("--compile", action="store_true", help="also networks through torch.compile: minutes")
    parser.add_argument("--autotune", action="store_true", help="also training with cudnn.benchmark")
    parser.add_argument("--commit", help="the commit, for a copy of the tree without its repository")
    parser.add_argument("--trial", action="store_true", help="tiny sizes, on the CPU if there is no GPU")
    options = parser.parse_args()
    if not (torch.cuda.is_available() or options.trial):
        parser.error("there is no GPU here; --trial shows that the benchmark runs")
    if options.trial and options.out == FOLDER:
        options.out = Path(tempfile.mkdtemp())
        print(f"trial results are written to {options.out}")
    return options


def sections(options: argparse.Namespace, where: torch.device) -> dict[str, tuple[str, Callable[[], Rows]]]:
    """Each section's heading and rows."""
    sizes = TRIAL if options.trial else Sizes()
    every: dict[str, tuple[str, Callable[[], Rows]]] = {
        "card": ("The GPU", lambda: device.rows(where, sizes)),
        "crf": ("Dense CRF", lambda: crf.rows(where, sizes)),
        "labels": ("Coarse logits to labels", lambda: label_maps.rows(where, sizes)),
        "training": ("Training", lambda: training.rows(where, sizes, options.autotune)),
        "inference": (
            f"Inference, {sizes.side}×{sizes.side}",
            lambda: networks.rows(networks.NETWORKS, where, sizes, options.compile),
        ),
        "dilated": (
            "Inference: dilated ResNet-101",
            lambda: networks.rows(networks.DILATED, where, sizes, options.compile),
        ),
        "depthwise": ("Depthwise layers, forward and backward", lambda: depthwise.rows(where, sizes)),
    }
    return {key: every[key] for key in (options.only.split(",") if options.only else every)}


def main() -> None:
    options, rate = parse(), None
    command = command_line("benchmarks.gpu")
    peers = [networks.SMP] if installed(networks.SMP) else []
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for key, (heading, measure) in sections(options, where).items():
        begin, rows = time.perf_counter(), list(measure())
        print(f"— {heading}: {time.perf_counter() - begin:.0f} s", flush=True)
        rate = device.matrix_rate(rows) if key == "card" else rate
        origin = origin_of(command, seed=SEED, peers=peers, commit=options.commit)
        found = {key: section(heading, rows, rate, origin)}
        Result("On a GPU", "python -m benchmarks.gpu", NOTES, found).write(options.out / "gpu")  # kept if cut short


if __name__ == "__main__":
    main()
