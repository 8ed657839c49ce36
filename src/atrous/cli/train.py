"""`atrous train`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from atrous.training.recipe import Recipe
    from atrous.training.types import Progress as TrainingProgress

SECONDS_BETWEEN_LINES = 30
"""How often progress is printed when the output is not a terminal."""


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A TOML file, or a name from `atrous models`.")],
    out: Annotated[Path, typer.Option("--out", help="Run folder; best/ and last/ in it are models.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="key=value", help="Change the recipe: training.epochs=5")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build everything, take two steps, draw the first batch; save no model.")
    ] = False,
) -> None:
    """Train a model from a recipe."""
    from atrous.training.parallel import is_first_process
    from atrous.training.recipe_file import load_recipe
    from atrous.training.stages import train as run

    checked = load_recipe(recipe, overrides or [])
    if dry_run:
        _dry_run(checked, out)
        return
    try:
        with _training_bar() as (on_step, print_line):
            result = run(
                checked,
                out,
                resume=resume,
                on_step=on_step,
                on_validation=lambda step, evaluation: print_line(
                    f"step {step}: mean IoU {100 * evaluation.metrics.mean_iou:.2f} %"
                ),
                on_message=print_line,
            )
    except KeyboardInterrupt as stopped:
        state = str(stopped) or f"stopped at once; --resume continues from what {out} contains"
        if not out.is_dir():
            state = f"stopped; {out} has been removed, so that there is nothing to resume"
        typer.secho(state, fg="yellow", err=True)
        raise
    if not is_first_process():
        return
    reached = "" if result.mean_iou is None else f", mean IoU {100 * result.mean_iou:.2f} %"
    typer.echo(f"best model: {result.best}{reached}")
    typer.echo(f"try it: atrous predict YOUR_PHOTO.jpg --model {result.best} --out masks")


def _dry_run(recipe: Recipe, out: Path) -> None:
    from atrous.training.dry_run import dry_run

    hours = 0.0
    for found in dry_run(recipe, out, typer.echo):
        for name, shape in found.shapes.items():
            typer.echo(f"{name}: {' × '.join(map(str, shape))}")
        parts = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in found.memory.items())
        peak = f"; peak on the GPU: {found.peak / 1e6:.0f} MB" if found.peak else ""
        typer.echo(f"memory: {parts}{peak}")
        stage_hours = found.seconds * found.steps / 3600
        hours += stage_hours
        typer.echo(
            f"a step: loss {found.loss:.4f}, {found.seconds:.2f} s; {found.steps} steps: about "
            f"{_duration(stage_hours)}, without validations"
        )
        typer.echo(f"the first batch, as the network sees it: {found.image}")
    if recipe.stages:
        typer.echo(f"all {len(recipe.stages)} stages: about {_duration(hours)}")


def _duration(hours: float) -> str:
    return f"{60 * hours:.0f} min" if hours < 1.5 else f"{hours:.1f} h"


@contextmanager
def _training_bar() -> Iterator[tuple[Callable[[TrainingProgress], None], Callable[[str], None]]]:
    """Show loss, learning rate, speed and time left in a progress bar; the second function prints a line above it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        printed = float("-inf")  # so that the first step is printed

        def on_step(now: TrainingProgress) -> None:
            nonlocal printed
            status = f"loss {now.loss:.4f}  lr {now.lr:.2e}  {now.images_per_second:.1f} images/s"
            bar.update(task, completed=now.step, total=now.steps, description=status)
            if not console.is_terminal and time.monotonic() - printed > SECONDS_BETWEEN_LINES:  # a log file
                printed = time.monotonic()
                console.print(f"step {now.step}/{now.steps}  {status}", highlight=False, markup=False)

        yield on_step, lambda line: console.print(line, highlight=False, markup=False)
