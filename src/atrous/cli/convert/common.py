"""What the convert commands share."""

from __future__ import annotations

from errno import ENOTDIR
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atrous.cli.common import check_writable, parse_integers, print_note, read_classes
from atrous.errors import InputError, OutputExistsError

if TYPE_CHECKING:
    from atrous.labels import LabelSet
    from atrous.models.base import SegmentationModel

Weights = Annotated[Path, typer.Argument(metavar="FILE", help="The file of weights.")]
ModelFolder = Annotated[Path, typer.Option("--out", help="The model folder to write.")]
Classes = Annotated[
    Path | None, typer.Option("--classes", help="Text file of class names, one per line; numbers by default.")
]
ClassesOf = Annotated[str | None, typer.Option("--data", help="A dataset that has these classes: voc:PATH, ...")]
Rates = Annotated[
    str | None, typer.Option("--rates", help="A DeepLab's rates, if they differ from the published ones: 2,4,8,12.")
]
BuiltInScales = Annotated[
    str | None,
    typer.Option("--scales", help="A DeepLab v2's own scales, if other than trained with: 1 is three times as fast."),
]
FCNInputs = Annotated[
    str | None, typer.Option("--inputs", help="An FCN's inputs, if the file does not specify them: nyud-hha.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing result.")]


def read_label_set(classes: Path | None, data: str | None) -> LabelSet | None:
    """The label set of a text file of class names, or of a dataset."""
    from atrous.data.sources.registry import find_source

    if classes and data:
        raise InputError("--classes and --data both name the classes; give one of them")
    return find_source(data).form().label_set if data else read_classes(classes)


def conversion_options(classes: Path | None, data: str | None, rates: str | None, scales: str | None) -> dict[str, Any]:
    """The options of a conversion that several programs' networks have in common."""
    from atrous.inference.written_options import parse_scales

    return {
        "label_set": read_label_set(classes, data),
        "rates": parse_integers("--rates", rates) or None,
        "scales": parse_scales(scales) or None,
    }


def check_file(out: Path, overwrite: bool) -> None:
    """Fail before the work, and before a file is replaced."""
    check_writable(out)
    if out.exists() and not overwrite:
        raise OutputExistsError(f"{out} exists already: name a new file, or use --overwrite")


def check_model_folder(out: Path, overwrite: bool) -> None:
    """Fail before the work, and before a model is replaced."""
    from atrous.models.checkpoint import is_model_folder

    for above in out.parents:
        if above.exists() and not above.is_dir():
            raise NotADirectoryError(ENOTDIR, "a file, where a folder is to be written in", str(above))
    if is_model_folder(out):
        if not overwrite:
            raise OutputExistsError(f"{out} contains a model: name a new folder, or use --overwrite")
    elif out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputExistsError(f"{out} exists and is not a model folder: name a new one")


def save_converted(model: SegmentationModel, out: Path) -> None:
    """Write a converted model, and print what it is."""
    from atrous.convert.tensors import listed

    model.save(out)
    size = sum(parameter.numel() for parameter in model.parameters())
    names = ", ".join(model.label_set.names)
    typer.echo(f"{model.name} on {model.backbone.name}, {size:,} parameters, {model.num_classes} classes: {names}")
    if options := {key: value for key, value in model.config["options"].items() if value or value == []}:
        typer.echo(f"options: {', '.join(f'{key} {value}' for key, value in options.items())}")
    if model.resize != "exact":
        print_note(
            f"full-size logits are made as {model.resize} makes them, so that labels are the same there and here; "
            "--resize exact samples them where the features sit"
        )
    for change in model.card.get("changes", ()):
        print_note(change)
    if left_out := model.card.get("left_out"):
        print_note(f"{len(left_out)} tensors that have no effect on the logits were left out: {listed(left_out)}")
    typer.echo(f"try it: atrous predict YOUR_PHOTO.jpg --model {out} --out masks")
