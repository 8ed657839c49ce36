"""What the commands share: how they fail, their common options, progress bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EISDIR
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from atrous.errors import AtrousError, InputError

if TYPE_CHECKING:  # commands import what they need when they run: `atrous --help` must not wait for torch
    from atrous.inference.test_time import Inference
    from atrous.labels import LabelSet
    from atrous.models.base import SegmentationModel


class Commands(TyperGroup):
    """Commands whose expected errors are one message on stderr and exit code 2; Ctrl-C is exit code 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except Exception as error:
            if not is_expected(error):
                raise
            typer.secho(f"atrous: {error}", fg="red", err=True)
            raise typer.Exit(2) from None


def is_expected(error: Exception) -> bool:
    """Whether the message is for the user: an error of ours, or a file that the system refuses."""
    return isinstance(error, AtrousError) or (isinstance(error, OSError) and error.filename is not None)


Model = Annotated[str, typer.Option("--model", help="A bundled name (see `atrous models`), a folder, or a hub id.")]
MaybeModel = Annotated[
    str | None, typer.Option("--model", help="A bundled name, a folder, or a hub id; a bundled model when left out.")
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps; a GPU if there is one.")]
OutputStride = Annotated[
    int | None, typer.Option("--output-stride", help="Run the network at 4, 8, 16 or 32: smaller is finer and slower.")
]
Precision = Annotated[
    Literal["float32", "bfloat16"], typer.Option("--precision", help="bfloat16 is faster where the hardware has it.")
]
Scales = Annotated[
    str | None,
    typer.Option("--scales", help="Look at the image at several sizes, 0.125 to 8: 0.75,1,1.25; slower, better."),
]
Flip = Annotated[bool, typer.Option("--flip", help="Look at the mirror image too.")]
Merge = Annotated[
    str | None,
    typer.Option(
        "--merge",
        help="How scales are merged. A multi-scale network's own: attention, average, max. Otherwise --scales and "
        "--flip: probabilities (default), average or max of the logits.",
    ),
]
Crf = Annotated[bool, typer.Option("--crf", help="Refine with a dense CRF: the model's own if one was tuned.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write everything to this file too.")]


def numbers(option: str, text: str | None) -> list[int]:
    """Whole numbers, separated by commas; none where the option was left out."""
    try:
        return [] if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} takes integers separated by commas, such as 1,3,5, not '{text}'") from None


def read_scales(text: str | None) -> tuple[float, ...]:
    """Factors, separated by commas; none where the option was left out."""
    try:
        return () if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--scales takes factors separated by commas, such as 0.75,1,1.25, not '{text}'") from None


def make_inference(model: SegmentationModel, scales: str | None, flip: bool, merge: str | None, crf: bool) -> Inference:
    """Make the inference that a command's options describe; a note warns of a CRF that may not help."""
    from atrous.crf.tune import stored_crf, stored_settings
    from atrous.inference.test_time import Inference, with_merge

    factors = read_scales(scales) or (1.0,)
    if crf and not stored_settings(model.card):
        typer.secho(
            "note: no CRF was tuned for this model (`atrous crf tune`): it gets DeepLab v2's", fg="yellow", err=True
        )
    elif crf and not model.card["crf"]["helps"]:
        typer.secho("note: the tuning of this model's CRF found that it does not help", fg="yellow", err=True)
    inference = Inference(factors, flip, crf=stored_crf(model.card) if crf else None)
    return inference if merge is None else with_merge(model, inference, merge)


def read_classes(file: Path | None) -> LabelSet | None:
    """The class names of a text file, one a line."""
    from atrous.data.sources.labels_toml import read_text
    from atrous.labels import LabelSet

    if not file:
        return None
    try:
        return LabelSet(tuple(line.strip() for line in read_text(file).splitlines() if line.strip()))
    except ValueError as error:
        raise InputError(f"{file}: {error}") from error


def write_json(file: Path | None, facts: Any) -> None:
    """Write a file of facts, if one was asked for."""
    from json import dumps

    if file:
        from atrous.files import write_atomically  # brings torch

        write_atomically(file, (dumps(facts, indent=2) + "\n").encode())


def check_writable(file: Path | None) -> None:
    """Fail before the work rather than after it."""
    from tempfile import TemporaryFile

    if file:
        if file.is_dir():
            raise IsADirectoryError(EISDIR, "a folder, where a file is to be written", str(file))
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=file.parent):
            pass


def load_model(name: str | None, device: str | None) -> SegmentationModel:
    """The model of that name or the bundled one, on the device of that name or the best there is."""
    from atrous.models import loading as zoo

    return zoo.load(name or zoo.DEFAULT).to(find_device(device))


def find_device(name: str | None) -> Any:
    """The device of that name, or a GPU if there is one."""
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise InputError(f"no device '{name}' on this machine; there are: {', '.join(there)}") from error


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, where that is a terminal; called with the number done and the total."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
