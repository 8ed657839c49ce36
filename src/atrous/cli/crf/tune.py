"""`atrous crf tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from atrous.cli.common import check_writable, load_network, make_inference, write_json
from atrous.cli.options import Data, Device, Flip, JsonFile, Merge, Model, Scales
from atrous.cli.progress import progress_bar
from atrous.errors import OutputExistsError


def tune(
    model: Model,
    data: Data,
    split: Annotated[str, typer.Option("--split", help="Split to search and evaluate on.")] = "val",
    images: Annotated[
        int, typer.Option("--images", help="How many images to search on; the others are held out.")
    ] = 100,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the model with its CRF to this folder, for predict --crf.")
    ] = None,
    scales: Scales = None,
    flip: Flip = False,
    merge: Merge = None,
    json: JsonFile = None,
    device: Device = None,
) -> None:
    """Search the CRF parameters of a model, coarse to fine, and evaluate the best ones on held-out images."""
    from atrous.data.opening import open_dataset
    from atrous.evaluation.crf_search import search_crf

    check_writable(json)
    if out and out.exists():
        raise OutputExistsError(f"{out} exists already: name a new folder for the model with its CRF")
    dataset = open_dataset(data, split)
    network = load_network(model, device)
    inference = make_inference(network, scales, flip, merge)
    tried: list[dict[str, Any]] = []

    def on_try(settings: Any, mean_iou: float) -> None:
        tried.append({"settings": str(settings), "mean_iou": mean_iou})
        typer.secho(f"{len(tried):3}  {100 * mean_iou:.2f} %  {settings}", err=True)

    with progress_bar("running the network") as progress:
        found = search_crf(network, dataset, images=images, inference=inference, progress=progress, on_try=on_try)
    typer.echo(f"{model} ({network.name}) on {found.data}, {' and '.join(map(str, found.images))} images\n")
    typer.echo(found.text())
    if out and found.helps:
        network.card["crf"] = found.to_card()
        typer.echo(f"the model with its CRF: {network.save(out)}")
    elif out:
        typer.echo(f"{out} was not written")
    write_json(json, found.to_card() | {"tried": tried})
