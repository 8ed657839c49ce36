"""`atrous predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from atrous.cli.common import load_model, make_inference, parse_integers, print_note, print_report, set_resize
from atrous.cli.options import (
    Crf,
    Device,
    Flip,
    Inputs,
    Merge,
    OptionalModel,
    OutputStride,
    Overlay,
    OverwriteResults,
    Precision,
    Resize,
    Runtime,
    Scales,
)
from atrous.cli.progress import progress_bar
from atrous.errors import AtrousError, InputError

if TYPE_CHECKING:
    from atrous.inference.large import Large
    from atrous.models.base import SegmentationModel
    from atrous.runtime.exported import ExportedModel


def predict(
    inputs: Inputs,
    out: Annotated[str, typer.Option("--out", help="Folder for the results; of URLs with --engine ray, its URL.")],
    model: OptionalModel = None,
    runtime: Runtime = None,
    device: Device = None,
    output_stride: OutputStride = None,
    resize: Resize = None,
    precision: Precision = "auto",
    scales: Scales = None,
    flip: Flip = False,
    merge: Merge = None,
    crf: Crf = False,
    json: Annotated[bool, typer.Option("--json", help="Also write the area of each class.")] = False,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities",
            help="Also write the class probabilities (NumPy .npz; of GeoTIFFs and arrays a GeoTIFF of bytes).",
        ),
    ] = False,
    attention_maps: Annotated[
        bool, typer.Option("--attention-maps", help="Also draw the weight of each scale (attention_to_scale).")
    ] = False,
    overlay: Overlay = False,
    every: Annotated[
        int | None, typer.Option("--every", min=1, help="Of a video, segment every n-th frame; each by default.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Keep complete results that this model made with these settings; make the rest."),
    ] = False,
    overwrite: OverwriteResults = False,
    tile: Annotated[
        int | None,
        typer.Option("--tile", min=65, help="Cut images into tiles of this side; by default where memory is short."),
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(
            "--overlap", min=0, help="Pixels that neighbouring tiles share; what the network sees, at most 1/8."
        ),
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Tiles that run together; 1 by default.")] = None,
    longest_side: Annotated[
        int | None,
        typer.Option("--longest-side", min=1, help="Shrink larger images to this for the network; masks stay large."),
    ] = None,
    bands: Annotated[
        str | None, typer.Option("--bands", help="Of an image, the bands that the network reads: 4,3,2, from 1.")
    ] = None,
    polygons: Annotated[
        Literal["gpkg", "geojson"] | None,
        typer.Option("--polygons", help="Also write the outlines of all regions (extra geo)."),
    ] = None,
    simplify: Annotated[
        float, typer.Option("--simplify", min=0, help="How far outlines may move, in the raster's units, or pixels.")
    ] = 0.0,
    engine: Annotated[
        Literal["local", "ray"], typer.Option("--engine", help="Run here, or in workers on a Ray cluster.")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Of --engine ray; one per GPU or processor by default.")
    ] = None,
) -> None:
    """Segment images and videos: a mask (palette PNG) for each image or frame; exit code 1 if something failed."""
    if engine != "ray" and (urls := [place for place in (*inputs, out) if "://" in place]):
        raise InputError(f"{urls[0]}: images and results in object stores are for --engine ray")
    if workers is not None and engine != "ray":
        raise InputError("--workers is for --engine ray; several images run side by side anyway")
    from atrous.inference.batch import predict_files
    from atrous.inference.results import OutputOptions
    from atrous.inference.video import split_videos

    large = _large(tile, overlap, batch, longest_side, bands)
    videos, images = split_videos(inputs)
    if videos and large:
        raise InputError(
            f"--tile, --overlap, --batch, --longest-side and --bands are for images; {videos[0]} is a video"
        )
    if every is not None and not videos:
        raise InputError("--every is the distance between frames of a video, and there is no video among the inputs")
    if videos and engine == "ray":
        raise InputError(f"--engine ray is for images; {videos[0]} is a video")
    if device and engine == "ray":
        raise InputError("--engine ray picks the device of each worker: leave out --device")
    network = load_model(
        model,
        "cpu" if engine == "ray" else device,
        runtime,
        output_stride=output_stride,
        probabilities=probabilities or crf,
    )
    set_resize(network, resize)
    options: dict[str, Any] = {
        "outputs": OutputOptions(overlay, json, probabilities, attention_maps, overwrite, polygons, simplify),
        "output_stride": output_stride,
        "precision": precision,
        "inference": make_inference(network, scales, flip, merge, crf),
        "resume": resume,
    }
    bad = [video for video in videos if not _predict_video(network, video, Path(out), every or 1, options)]
    if images:
        with progress_bar("segmenting") as progress:
            if engine == "ray":
                from atrous.inference.ray_engine import predict_on_ray

                report = predict_on_ray(
                    network, images, out, workers=workers, large=large, progress=progress, **options
                )
            else:
                report = predict_files(network, images, out, large=large, progress=progress, **options)
        print_report(report, out)
    if bad:
        raise typer.Exit(1)


def _large(
    tile: int | None, overlap: int | None, batch: int | None, longest_side: int | None, bands: str | None
) -> Large | None:
    if (tile, overlap, batch, longest_side, bands) == (None, None, None, None, None):
        return None  # an exported model needs no torch
    from atrous.inference.large import Large
    from atrous.inference.tiles import Tiling

    tiling = None
    if (tile, overlap, batch) != (None, None, None):
        tiling = Tiling(tile or Tiling.tile, overlap, batch=batch or 1)
    chosen = tuple(parse_integers("--bands", bands)) or None
    return Large(tiling, chosen, longest_side)


def _predict_video(
    network: SegmentationModel | ExportedModel, video: Path, out: Path, every: int, options: dict[str, Any]
) -> bool:
    """Segment a video and print what was done; whether it worked."""
    from atrous.inference.video import predict_video

    try:
        with progress_bar(video.name) as progress:
            done = predict_video(network, video, out, every=every, progress=progress, **options)
    except (AtrousError, OSError) as error:
        typer.secho(f"failed: {error}", fg="red", err=True)
        return False
    kept = f", {done.kept} of them complete already" if done.kept else ""
    typer.echo(
        f"{video} → {done.overlay} and {done.frames} masks in {done.masks}{kept}: {done.seconds:.1f} s "
        f"({(done.frames - done.kept) / done.seconds:.3g} frames/s)"
    )
    for note in done.notes:
        print_note(note)
    return True
