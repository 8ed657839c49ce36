"""The command line: it parses, calls and prints. Results go to stdout; progress, notes and errors to stderr."""

from __future__ import annotations

from typing import Annotated

import typer

from atrous.cli import training, use
from atrous.cli.common import Commands
from atrous.cli.convert import convert_app
from atrous.cli.crf import crf_app
from atrous.cli.data import data_app

app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
for command in (use.demo, use.predict, use.evaluate, training.train, use.models):
    app.command()(command)
app.add_typer(data_app, name="data", help="Look over datasets.")
app.add_typer(crf_app, name="crf", help="The dense CRF by itself.")
app.add_typer(convert_app, name="convert", help="Bring weights of other programs here.")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"atrous {version('atrous')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Semantic segmentation: train on your own images, judge honestly, segment images."""


def main() -> None:
    """The `atrous` command."""
    app()
