"""Progress of a command, on a terminal or in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

SECONDS_BETWEEN_LINES = 15
"""How often a log that is not a terminal gets a line of progress."""


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress, throughput and time left on stderr; called with the number done and the total.

    On a terminal that is a bar, in a log a line every 15 seconds.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        began = printed = time.monotonic()

        def show(done: int, total: int) -> None:
            nonlocal printed
            now = time.monotonic()
            pace = describe_pace(now - began, done, total)
            bar.update(task, completed=done, total=total, description=pace)
            if not console.is_terminal and now - printed > SECONDS_BETWEEN_LINES:
                printed = now
                typer.echo(f"{title}: {done} of {total}, {pace}", err=True)

        yield show


def describe_pace(seconds: float, done: int, total: int) -> str:
    """Describe throughput and time left, from how many were done in so many seconds."""
    if not done or seconds <= 0:
        return ""
    return f"{done / seconds:.3g}/s, {format_duration(seconds / done * (total - done))} left"


def format_duration(seconds: float) -> str:
    """Format a duration in its natural unit, from seconds to days."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    for unit, name, most in ((1, "s", 90), (60, "min", 90 * 60), (3600, "h", 48 * 3600)):
        if seconds < most:
            return f"{seconds / unit:.3g} {name}" if name == "h" else f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.3g} days"
