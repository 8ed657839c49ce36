"""`atrous demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atrous.cli.common import format_fractions, load_network
from atrous.cli.options import Device, OptionalModel


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("atrous-demo"),
    model: OptionalModel = None,
    device: Device = None,
) -> None:
    """Segment sample images that ship with installed packages."""
    from atrous.inference.demo import run_demo

    network = load_network(model, device)
    images = run_demo(network, out)
    typer.echo(f"{network.name} ({', '.join(network.label_set.names)}) segmented {len(images)} sample image(s):")
    for image in images:
        typer.echo(f"  {image.image.name}: {format_fractions(image.fractions)} ({image.seconds:.2f} s)")
    typer.echo(f"See {images[0].sheet}, and the masks and overlays beside it. Next, try an image of your own:")
    typer.echo("  atrous predict YOUR_PHOTO.jpg --out masks")
