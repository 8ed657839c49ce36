"""Command line options that several reports share."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[str, typer.Option(help="A bundled name or a folder.")]
Data = Annotated[str, typer.Option(help="voc:PATH, ...")]
Split = Annotated[str, typer.Option(help="Split to evaluate on.")]
MODEL = "deeplabv3plus_lite0_voc"
VOC = "voc:../shared/data/VOCdevkit/VOC2012"
