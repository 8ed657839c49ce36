"""`atrous train`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atrous.cli.progress import format_duration

if TYPE_CHECKING:
    from atrous.training.dry_run import DryRun
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
        bool,
        typer.Option(
            "--dry-run",
            help="Build everything, measure one or two images, draw the first batch; save no model, download nothing.",
        ),
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
    chosen = (
        "" if result.value is None or result.metric == "mean_iou" else f" (best {result.metric}: {result.value:.4f})"
    )
    typer.echo(f"best model: {result.best}{reached}{chosen}")
    typer.echo(f"try it: atrous predict YOUR_PHOTO.jpg --model {result.best} --out masks")


def _dry_run(recipe: Recipe, out: Path) -> None:
    from atrous.training.dry_run import dry_run

    total = 0.0
    for found in dry_run(recipe, out, typer.echo):
        for line in _lines(found):
            typer.echo(line)
        total += found.seconds * found.steps
    if recipe.stages:
        typer.echo(f"all {len(recipe.stages)} stages: about {format_duration(total)}")


def _lines(found: DryRun) -> Iterator[str]:
    """What a dry run has found."""
    for name, shape in found.shapes.items():
        yield f"{name}: {' × '.join(map(str, shape))}"
    parts = ", ".join(f"{name} {_format_bytes(size)}" for name, size in found.memory.items())
    peak = f"; peak on the GPU: {_format_bytes(found.peak)}" if found.peak else ""
    there = f"; the machine has {_format_bytes(found.available)}" if found.available else ""
    yield f"memory, extrapolated from one and two images: {parts}{peak}{there}"
    if found.available and found.needed > found.available:
        way = "a smaller training.batch_size or augment.crop"
        if found.accumulate:
            way = f"--set training.accumulate={found.accumulate} (the same numbers but for batch norm), or {way}"
        yield f"note: this does not fit into the memory; {way}"
    yield (
        f"a step: about {format_duration(found.seconds)} (loss {found.loss:.4f} on the images measured); "
        f"{found.steps} steps: about {format_duration(found.seconds * found.steps)}, without validations"
    )
    yield f"the first batch, as the network sees it: {found.image}"


def _format_bytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"


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
        first: tuple[float, int] | None = None

        def on_step(now: TrainingProgress) -> None:
            nonlocal printed, first
            first = first or (time.monotonic(), now.step)
            status = f"loss {now.loss:.4f}  lr {now.lr:.2e}  {now.images_per_second:.1f} images/s"
            bar.update(task, completed=now.step, total=now.steps, description=status)
            if not console.is_terminal and time.monotonic() - printed > SECONDS_BETWEEN_LINES:  # a log file
                printed = time.monotonic()
                left = _time_left(first, printed, now.step, now.steps)
                console.print(
                    f"step {now.step}/{now.steps}  {status}{left}", highlight=False, markup=False, soft_wrap=True
                )

        yield (
            on_step,
            lambda line: console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal),
        )


def _time_left(first: tuple[float, int], now: float, step: int, steps: int) -> str:
    """The time left at the pace since the first step, validations included; nothing at the first step."""
    began, first_step = first
    if step == first_step:
        return ""
    return f"  {format_duration((now - began) / (step - first_step) * (steps - step))} left"
