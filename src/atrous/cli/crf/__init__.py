"""`atrous crf`: the dense CRF by itself."""

from __future__ import annotations

import typer

from atrous.cli.common import add_commands
from atrous.cli.crf.refine import refine
from atrous.cli.crf.tune import tune

crf_app = typer.Typer(no_args_is_help=True)
add_commands(crf_app, refine, tune)


@crf_app.callback()
def _crf() -> None:
    """Refine any program's class predictions with a dense CRF, or tune the CRF of a model."""
