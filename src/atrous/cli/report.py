"""`atrous report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atrous.cli.common import check_writable


def report(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="RUN-OR-JSON", help="Run folders, report folders, or files of `evaluate --json`."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The HTML file to write.")] = Path("report.html"),
) -> None:
    """Join evaluations in one self-contained HTML page."""
    from atrous.evaluation.page.joined_page import joined_page
    from atrous.evaluation.stored import read_evaluation
    from atrous.files import write_atomically

    check_writable(out)
    write_atomically(out, joined_page([read_evaluation(source) for source in sources]))
    typer.echo(f"report: {out}")
