"""`atrous data`: checking, counting and converting datasets, and finding wrong masks."""

from __future__ import annotations

import typer

from atrous.cli.common import add_commands
from atrous.cli.data.check import check
from atrous.cli.data.convert import convert
from atrous.cli.data.find_errors import find_errors
from atrous.cli.data.split import split
from atrous.cli.data.stats import stats
from atrous.cli.data.tile import tile

data_app = typer.Typer(no_args_is_help=True)
add_commands(data_app, check, stats, convert, split, tile, find_errors)


@data_app.callback()
def _data() -> None:
    """Check, count, convert, split and cut datasets, and find wrong masks."""
