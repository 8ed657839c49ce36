"""Run a study: train and evaluate its rows, and write its table. A paper's ablation from one command.

    python -m studies --list                     the studies
    python -m studies fcn_skips                  everything that is not done yet, then the table
    python -m studies fcn_skips --data CamVid    only on some datasets
    python -m studies fcn_skips --table          only the table, of the rows that are done
    python -m studies fcn_skips --part train     only train, to evaluate elsewhere: copy runs/studies there and run it
                                                 with --part evaluate
    python -m studies --pages                    write all pages again from their facts

A study is a file in studies/ablations. An interrupted run is continued; a finished one is not trained again. Results
are written to results/studies, as a page and as JSON; runs, and the rows' predictions side by side, to runs/studies.
"""

from __future__ import annotations

from typing import Annotated

import typer

from atrous.errors import AtrousError
from studies.page import write_study
from studies.rows import Part, check, run
from studies.samples import show_samples, show_split
from studies.study import choose, load_study, names


def main(
    name: Annotated[str | None, typer.Argument(help="A study; --list shows them.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="Only on these datasets.")] = None,
    rows: Annotated[list[str] | None, typer.Option("--row", help="Only these rows.")] = None,
    part: Annotated[
        Part, typer.Option(help="Only train, for runs that are evaluated elsewhere, or only evaluate finished runs.")
    ] = Part.all,
    table: Annotated[bool, typer.Option("--table", help="Train nothing; write the table of finished rows.")] = False,
    images: Annotated[
        bool, typer.Option("--images", help="Also show each row's predictions for images of installed packages.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the studies.")] = False,
    pages: Annotated[bool, typer.Option("--pages", help="Write all pages again from their facts.")] = False,
) -> None:
    """Run a study and write its table."""
    try:
        if pages:
            write_pages()
        elif list_ or name is None:
            typer.echo("\n".join(f"{each:24}{load_study(each).title}" for each in names()))
        else:
            run_study(name, data, rows, part, table=table, images=images)
    except AtrousError as error:
        typer.secho(str(error), fg="red", err=True)
        raise typer.Exit(2) from error


def run_study(
    name: str, data: list[str] | None, rows: list[str] | None, part: Part, *, table: bool, images: bool
) -> None:
    """Train and evaluate rows, and write the page."""
    study = load_study(name)
    chosen_data, chosen_rows = choose(study.data, data, "--data"), choose(study.rows, rows, "--row")
    if not table:
        for each in chosen_data if part != Part.evaluate else []:
            check(study, each, chosen_rows)
        for each in chosen_data:
            for row in chosen_rows:
                run(study, each, row, part)
    if part == Part.train:
        return
    typer.echo(write_study(study))
    for each in chosen_data:
        show_split(study, each)
        if images:
            show_samples(study, each)


def write_pages() -> None:
    """Write the pages of all studies with facts again."""
    for name in names():
        try:
            write_study(load_study(name))
        except FileNotFoundError as error:
            typer.echo(str(error))


if __name__ == "__main__":
    typer.run(main)
