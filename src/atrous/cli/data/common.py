"""What the data commands share."""

from __future__ import annotations

from typing import Annotated

import typer

DataSpec = Annotated[str, typer.Argument(metavar="SPEC", help="A dataset: folder:PATH, voc:PATH, camvid:PATH, ...")]
