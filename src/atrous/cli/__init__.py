"""The command line: one command, one file, which parses, calls and prints. Results go to stdout; progress, notes and
errors to stderr.
"""

from __future__ import annotations

from typing import Annotated

import typer

from atrous.cli.bench import bench
from atrous.cli.common import Commands, add_commands, print_any_name, share_processors
from atrous.cli.compare import compare
from atrous.cli.convert import convert_app
from atrous.cli.crf import crf_app
from atrous.cli.data import data_app
from atrous.cli.demo import demo
from atrous.cli.env import env
from atrous.cli.evaluate import evaluate
from atrous.cli.export import export
from atrous.cli.models import models
from atrous.cli.predict import predict
from atrous.cli.report import report
from atrous.cli.serve import serve
from atrous.cli.sweep import sweep
from atrous.cli.train import train

app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
add_commands(app, demo, predict, evaluate, compare, report, sweep, train, bench, export, serve, models, env)
app.add_typer(data_app, name="data")
app.add_typer(crf_app, name="crf")
app.add_typer(convert_app, name="convert")


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
    """Semantic segmentation: train on your own images, evaluate, and segment images."""


def main() -> None:
    """The `atrous` command."""
    print_any_name()
    share_processors()
    app()
