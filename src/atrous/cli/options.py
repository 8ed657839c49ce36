"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Inputs = Annotated[list[str], typer.Argument(metavar="INPUT", help="Images, folders, or quoted patterns.")]
ResultFolder = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
Model = Annotated[
    str, typer.Option("--model", help="A bundled name (see `atrous models`), a folder, a hub id, or an exported file.")
]
OptionalModel = Annotated[
    str | None,
    typer.Option(
        "--model", help="A bundled name, a folder, a hub id, or an exported file; a bundled model by default."
    ),
]
Data = Annotated[str, typer.Option("--data", help="A dataset: folder:PATH, voc:PATH, camvid:PATH, ...")]
DataClasses = Annotated[
    str | None,
    typer.Option("--classes", help="Class table of the data, CSV or TOML: rename, merge, drop; or coco-to-voc."),
]
DataOverlap = Annotated[
    Literal["area", "order", "last"] | None,
    typer.Option("--overlap", help="Which shape lies over another: the smaller, the one in front, the later."),
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps; a GPU if there is one.")]
OutputStride = Annotated[
    int | None, typer.Option("--output-stride", help="Run the network at 4, 8, 16 or 32: smaller is finer and slower.")
]
Resize = Annotated[
    Literal["exact", "torchvision"] | None,
    typer.Option(
        "--resize",
        help="How logits take the image's size: sampled where the features sit, or stretched as torchvision does; "
        "the model's own by default.",
    ),
]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option("--precision", help="auto: the fastest way on this machine; float32: the reference; bfloat16."),
]
Runtime = Annotated[
    Literal["auto", "torch", "onnxruntime", "openvino"] | None,
    typer.Option(
        "--runtime",
        help="What runs the model; by default torch, or what an exported file is for. auto: the fastest that gives the "
        "right labels on this machine.",
    ),
]
Scales = Annotated[
    str | None,
    typer.Option("--scales", help="Test-time scales of the image, 0.125 to 8: 0.75,1,1.25; slower, more accurate."),
]
Flip = Annotated[bool, typer.Option("--flip", help="Run on the mirror image too.")]
Merge = Annotated[
    str | None,
    typer.Option(
        "--merge",
        help="How scales are merged. A multi-scale network's own: attention, average, max. Otherwise --scales and "
        "--flip: probabilities (default), average, max.",
    ),
]
Crf = Annotated[bool, typer.Option("--crf", help="Refine with a dense CRF: the model's own if one was tuned.")]
Trimap = Annotated[
    str | None, typer.Option("--trimap", help="Also evaluate bands along boundaries, of these widths: 1,3,5,10")
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the results to this JSON file.")]
Overlay = Annotated[
    bool, typer.Option("--overlay", help="Also draw the classes over each image, with a legend (JPEG).")
]
OverwriteResults = Annotated[
    bool, typer.Option("--overwrite", help="Also replace files that were not made from the same image.")
]
