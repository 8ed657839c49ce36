"""Using a model: demo, predict, evaluate, models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atrous.cli.common import (
    Crf,
    Device,
    Flip,
    MaybeModel,
    Merge,
    Model,
    OutputStride,
    Precision,
    Scales,
    bar,
    check_writable,
    load_model,
    make_inference,
    numbers,
    write_json,
)
from atrous.errors import InputError

if TYPE_CHECKING:
    from atrous.inference.batch import Report

SHOWN = 20
"""How many images `atrous predict` lists one by one."""


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = Path("atrous-demo"),
    model: MaybeModel = None,
    device: Device = None,
) -> None:
    """Segment sample images that installed packages carry, and show what happened."""
    from atrous.inference.demo import run_demo

    network = load_model(model, device)
    images = run_demo(network, out)
    typer.echo(f"{network.name} ({', '.join(network.label_set.names)}) looked at {len(images)} sample image(s):")
    for image in images:
        typer.echo(f"  {image.image.name}: {_shares(image.fractions)} ({image.seconds:.2f} s)")
    typer.echo(f"See {images[0].sheet}, and the masks and overlays beside it. Next, with an image of yours:")
    typer.echo("  atrous predict YOUR_PHOTO.jpg --out masks")


def predict(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help="Images, folders, or patterns in quotes.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the masks and overlays.")],
    model: MaybeModel = None,
    device: Device = None,
    output_stride: OutputStride = None,
    precision: Precision = "float32",
    scales: Scales = None,
    flip: Flip = False,
    merge: Merge = None,
    crf: Crf = False,
    json: Annotated[bool, typer.Option("--json", help="Write the area of each class too.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the class probabilities (NumPy .npz).")
    ] = False,
    attention_maps: Annotated[
        bool, typer.Option("--attention-maps", help="Draw how much each scale counts (attention_to_scale).")
    ] = False,
    no_overlay: Annotated[bool, typer.Option("--no-overlay", help="Write masks only.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are not results of the same image too.")
    ] = False,
) -> None:
    """Segment images: a mask (palette PNG) and an overlay for each; exit code 1 if some could not be read."""
    from atrous.inference.batch import predict_files
    from atrous.inference.results import OutputOptions

    network = load_model(model, device)
    inference = make_inference(network, scales, flip, merge, crf)
    with bar("segmenting") as progress:
        report = predict_files(
            network,
            inputs,
            out,
            output_stride=output_stride,
            precision=precision,
            inference=inference,
            outputs=OutputOptions(not no_overlay, json, probabilities, attention_maps, overwrite),
            progress=progress,
        )
    print_report(report, out)


def evaluate(
    model: Model,
    data: Annotated[str, typer.Option("--data", help="A reader and a place: folder:PATH, voc:PATH, ...")],
    split: Annotated[str, typer.Option("--split", help="Split to judge on.")] = "val",
    json: Annotated[Path | None, typer.Option("--json", help="Write everything to this file too.")] = None,
    device: Device = None,
    output_stride: Annotated[
        str | None, typer.Option("--output-stride", help="Run the network at 4, 8, 16 or 32; at several: 8,16,32")
    ] = None,
    precision: Precision = "float32",
    scales: Scales = None,
    flip: Flip = False,
    merge: Annotated[
        str | None, typer.Option("--merge", help="As for predict; several for a multi-scale network: attention,average")
    ] = None,
    crf: Crf = False,
    trimap: Annotated[
        str | None, typer.Option("--trimap", help="Judge bands along boundaries too, of these widths: 1,3,5,10")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw several of them: accuracy over time and memory (PNG).")
    ] = None,
) -> None:
    """Judge a model: one confusion matrix over the split, every image at its own size."""
    from atrous.data.opening import open_dataset
    from atrous.evaluation import sweep as dial
    from atrous.evaluation.evaluate import evaluate as judge
    from atrous.evaluation.report import table
    from atrous.files import write_atomically

    widths, strides = numbers("--trimap", trimap), numbers("--output-stride", output_stride)
    merges = [part.strip() for part in merge.split(",")] if merge is not None else []
    several = [name for name, values in (("output_stride", strides), ("merge", merges)) if len(set(values)) > 1]
    if len(several) > 1:
        raise InputError("--output-stride and --merge: several values of one of them at a time")
    if plot and not several:
        raise InputError("--plot draws several settings: add --output-stride 8,16,32, or --merge attention,average,max")
    if plot and plot.suffix.lower() != ".png":
        raise InputError(f"{plot}: a plot is a PNG; name it {plot.stem}.png")
    for file in (json, plot):
        check_writable(file)
    dataset = open_dataset(data, split)
    network = load_model(model, device)
    inference = make_inference(network, scales, flip, merges[0] if len(merges) == 1 else None, crf)
    if strides and "output_stride" not in several:
        network.output_stride = strides[0]
    with bar("evaluating") as progress:
        if several:
            settings = dial.turn_dial(
                network,
                dataset,
                strides if several == ["output_stride"] else merges,
                dial="output_stride" if several == ["output_stride"] else "merge",
                precision=precision,
                progress=progress,
                trimap=widths,
                inference=inference,
            )
            shown, facts = dial.table(settings), {"settings": [setting.to_dict() for setting in settings]}
            if plot:
                write_atomically(plot, dial.plot(settings))
        else:
            evaluation = judge(
                network, dataset, precision=precision, progress=progress, trimap=widths, inference=inference
            )
            shown, facts = table(evaluation), evaluation.to_dict()
    typer.echo(shown)
    write_json(json, facts)


def models() -> None:
    """List what can be built, and what is bundled with its card."""
    from json import loads

    from atrous.models import ARCHITECTURES
    from atrous.models import loading as zoo
    from atrous.training.recipe_file import shipped

    typer.echo(
        f"architectures (on any convolutional timm backbone; in their papers' form FCNs on vgg16, alexnet, caffenet, "
        f"googlenet, DeepLab v1 and v2 (deeplab_*) on vgg16 and resnet101): {', '.join(sorted(ARCHITECTURES))}"
    )
    typer.echo(f"recipes: {', '.join(shipped())}")
    names = zoo.bundled()
    typer.echo("bundled models:" if names else "bundled models: none")
    for name in names:
        folder = zoo.BUNDLE / name
        card = loads((folder / "config.json").read_text(encoding="utf-8"))
        default = " (default)" if name == zoo.DEFAULT else ""
        size = (folder / "model.safetensors").stat().st_size / 1e6
        typer.echo(f"\n{name}{default}: {card['architecture']} on {card['backbone']}, {size:.1f} MB")
        typer.echo(f"  classes: {', '.join(card['label_set']['names'])}")
        metrics = card.get("metrics", {})
        for key in ("pixel_accuracy", "mean_iou"):
            if key in metrics:
                typer.echo(f"  {key.replace('_', ' ')} on {metrics['data']}: {100 * metrics[key]:.2f} %")
        typer.echo(f"  trained on {card.get('training_data', 'data it does not name')}")
        typer.echo(f"  card: {folder / 'README.md'}")


def _shares(fractions: dict[str, float]) -> str:
    from atrous.viz import percent

    return ", ".join(f"{name} {percent(share)}" for name, share in fractions.items())


def print_report(report: Report, out: Path) -> None:
    """Say what was segmented and what failed; exit code 1 if something did."""
    for done in report.done[:SHOWN]:
        typer.echo(f"{done.path} → {done.mask}: {_shares(done.fractions)}")
    if len(report.done) > SHOWN:
        typer.echo(f"… and {len(report.done) - SHOWN} more")
    for note in report.notes:
        typer.secho(f"note: {note}", fg="yellow", err=True)
    for failed in report.failed:
        typer.secho(f"failed: {failed.path}: {failed.reason}", fg="red", err=True)
    good, total = len(report.done), len(report.done) + len(report.failed)
    count = f"{good}" if good == total else f"{good} of {total}"
    typer.echo(f"{count} {'image' if total == 1 else 'images'} in {report.seconds:.1f} s, results in {out}")
    if report.failed:
        raise typer.Exit(1)
