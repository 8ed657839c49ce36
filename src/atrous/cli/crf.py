"""The dense CRF by itself: crf refine, crf tune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from atrous.cli.common import (
    Device,
    Flip,
    JsonFile,
    Merge,
    Model,
    Scales,
    bar,
    check_writable,
    load_model,
    make_inference,
    read_classes,
    write_json,
)
from atrous.cli.use import print_report
from atrous.errors import InputError

crf_app = typer.Typer(no_args_is_help=True)


@crf_app.callback()
def _crf() -> None:
    """Refine anybody's class scores along the edges of the image, or find the CRF that suits a model."""


@crf_app.command("refine")
def crf_refine(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help="Images, folders, or patterns in quotes.")],
    predictions: Annotated[
        Path,
        typer.Option("--predictions", help="Folder with NAME.npy (C, H, W), NAME.npz or NAME.png for each image NAME."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the masks and overlays.")],
    kind: Annotated[
        Literal["probabilities", "logits"],
        typer.Option("--kind", help="What the files contain."),
    ] = "probabilities",
    confidence: Annotated[
        float | None, typer.Option("--confidence", help="PNGs hold hard labels that are right with this probability.")
    ] = None,
    classes: Annotated[Path | None, typer.Option("--classes", help="A text file of class names, one a line.")] = None,
    published: Annotated[
        str | None, typer.Option("--published", help="A published set of parameters instead: deeplab_largefov, ...")
    ] = None,
    weight: Annotated[float | None, typer.Option("--weight", min=0, help="Weight of appearance: 4.")] = None,
    sxy: Annotated[float | None, typer.Option("--sxy", help="How far it reaches, in pixels: 67.")] = None,
    srgb: Annotated[float | None, typer.Option("--srgb", help="How different colours may be, of 255: 3.")] = None,
    smoothness: Annotated[float | None, typer.Option("--smoothness", min=0, help="Weight of smoothness: 3.")] = None,
    smoothness_sxy: Annotated[
        float | None, typer.Option("--smoothness-sxy", help="How far it reaches, in pixels: 3.")
    ] = None,
    iterations: Annotated[int | None, typer.Option("--iterations", min=0, help="Mean-field steps: 10.")] = None,
    no_overlay: Annotated[bool, typer.Option("--no-overlay", help="Write masks only.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are not results of the same image too.")
    ] = False,
) -> None:
    """Refine scores of any program: masks and overlays; exit code 1 if some could not be refined."""
    from atrous.crf.dense_crf import DenseCRF
    from atrous.crf.tune import Settings, changed
    from atrous.inference.crf_files import refine_files
    from atrous.inference.results import OutputOptions

    given = {
        "weight": weight,
        "sxy": sxy,
        "srgb": srgb,
        "smoothness": smoothness,
        "smoothness_sxy": smoothness_sxy,
        "iterations": iterations,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if published and changes:
        raise InputError(f"--published {published} fixes all parameters; leave out {', '.join(changes)}")
    crf = DenseCRF.published(published) if published else changed(Settings(), changes).build()
    with bar("refining") as progress:
        report = refine_files(
            inputs,
            predictions,
            out,
            crf,
            label_set=read_classes(classes),
            kind=kind,
            confidence=confidence,
            outputs=OutputOptions(overlays=not no_overlay, overwrite=overwrite),
            progress=progress,
        )
    print_report(report, out)


@crf_app.command("tune")
def crf_tune(
    model: Model,
    data: Annotated[str, typer.Option("--data", help="voc:PATH, camvid:PATH, folder:PATH, ...")],
    split: Annotated[str, typer.Option("--split", help="Split to search and judge on.")] = "val",
    images: Annotated[int, typer.Option("--images", help="How many to search on; the others judge.")] = 100,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the model with its CRF to this folder, for predict --crf.")
    ] = None,
    scales: Scales = None,
    flip: Flip = False,
    merge: Merge = None,
    json: JsonFile = None,
    device: Device = None,
) -> None:
    """Search the CRF that suits a model, coarse to fine, and say whether it helps on images it was not tuned on."""
    from atrous.data.opening import open_dataset
    from atrous.evaluation.crf_search import tune_crf

    check_writable(json)
    if out and out.exists():
        raise InputError(f"{out} is there: give the model with its CRF a new folder")
    dataset = open_dataset(data, split)
    network = load_model(model, device)
    inference = make_inference(network, scales, flip, merge, crf=False)
    tried: list[dict[str, Any]] = []

    def tell(settings: Any, score: float) -> None:
        tried.append({"settings": str(settings), "mean_iou": score})
        typer.secho(f"{len(tried):3}  {100 * score:.2f} %  {settings}", err=True)

    with bar("looking") as progress:
        found = tune_crf(network, dataset, images=images, inference=inference, progress=progress, on_try=tell)
    typer.echo(found.text())
    if out and found.helps:
        network.card["crf"] = found.to_card()
        typer.echo(f"the model with its CRF: {network.save(out)}")
    elif out:
        typer.echo(f"{out} was not written")
    write_json(json, found.to_card() | {"tried": tried})
