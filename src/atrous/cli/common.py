"""What the commands share: how they fail, how they open models, what they print and write."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from errno import EISDIR
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from atrous.errors import AtrousError, InputError
from atrous.files import dumps, write_atomically

if TYPE_CHECKING:  # commands import what they need when they run: `atrous --help` must not wait for torch
    from atrous.evaluation.evaluate import Evaluation
    from atrous.inference.batch import Report
    from atrous.inference.test_time import Inference
    from atrous.labels import LabelSet
    from atrous.models.base import SegmentationModel
    from atrous.opening import RuntimeChoice
    from atrous.runtime.exported import ExportedModel

LISTED = 20
"""How many segmented images are listed one by one."""


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


class Command(TyperCommand):
    """A command that refuses an option of one value that is given several times, of which only the last would count."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for option, times in Counter(given).items():
            single = isinstance(option, TyperOption) and not (option.multiple or option.is_flag)
            if times > 1 and single and not ctx.resilient_parsing:
                raise InputError(
                    f"{option.opts[0]} is given {times} times, and takes one value: give it once, or run the command "
                    "once for each value"
                )
        return super().parse_args(ctx, args)


def add_commands(app: typer.Typer, *commands: Callable[..., None]) -> None:
    """Add commands to an app under the names of their functions."""
    for command in commands:
        app.command(cls=Command)(command)


def share_processors() -> None:
    """Let idle threads sleep where others need the processors: in a process of low priority, or on a busy machine.

    OpenMP's threads otherwise spin while they wait for each other. One that has no processor then keeps the others
    spinning for its whole turn, and a network runs ten times slower than in a single thread. OpenMP reads the variable
    when torch is imported; one that the user has set stays.
    """
    niced = hasattr(os, "nice") and os.nice(0) > 0
    if niced or (hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1)):
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def print_any_name() -> None:
    """Print what the terminal's encoding lacks as an escape: file names need not be UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def is_expected(error: Exception) -> bool:
    """Whether the user can fix it, so that its message is printed: an AtrousError, or a file error of the system."""
    return isinstance(error, AtrousError) or (isinstance(error, OSError) and error.filename is not None)


def parse_integers(option: str, text: str | None) -> list[int]:
    """Integers separated by commas; none if the option was left out."""
    try:
        return [] if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} takes integers separated by commas, such as 1,3,5, not '{text}'") from None


def make_inference(
    model: SegmentationModel | ExportedModel,
    scales: str | None,
    flip: bool,
    merge: str | None = None,
    crf: bool = False,
) -> Inference | None:
    """Make the inference that a command's options describe, None for a single view; a note warns of a CRF that may not
    help.
    """
    if not (scales or flip or merge or crf):
        return None  # which needs no torch
    from atrous.crf.settings import stored_crf, stored_settings
    from atrous.inference.exported import check_inference
    from atrous.inference.test_time import Inference, with_merge
    from atrous.inference.written_options import parse_scales
    from atrous.runtime.exported import ExportedModel

    if crf and not stored_settings(model.card):
        print_note("no CRF was tuned for this model (`atrous crf tune`); DeepLab v2's parameters are used")
    elif crf and not model.card["crf"]["helps"]:
        print_note("this model's CRF did not help on held-out images when it was tuned")
    inference = Inference(parse_scales(scales) or (1.0,), flip, crf=stored_crf(model.card) if crf else None)
    if isinstance(model, ExportedModel):
        check_inference(model, inference)
        if merge:
            raise InputError(f"{model.file} has nothing to merge: leave out --merge, or use the model's own folder")
        return inference
    return inference if merge is None else with_merge(model, inference, merge)


def read_classes(file: Path | None) -> LabelSet | None:
    """Read class names from a text file, one per line."""
    from atrous.data.sources.labels_toml import read_text
    from atrous.labels import LabelSet

    if not file:
        return None
    try:
        return LabelSet(tuple(line.strip() for line in read_text(file).splitlines() if line.strip()))
    except ValueError as error:
        raise InputError(f"{file}: {error}") from error


def write_json(file: Path | None, facts: Any) -> None:
    """Write a JSON file, if one was asked for."""
    if file:
        # A file name need not be UTF-8; what is not becomes \\udcXX, which JSON reads as Python does.
        write_atomically(file, (dumps(facts) + "\n").encode(errors="backslashreplace"))


def check_writable(*files: Path | None) -> None:
    """Fail before the work rather than after it."""
    from tempfile import TemporaryFile

    for file in files:
        if file is None:
            continue
        if file.is_dir():
            raise IsADirectoryError(EISDIR, "a folder, where a file is to be written", str(file))
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=file.parent):
            pass


def load_model(
    name: str | None,
    device: str | None,
    runtime: RuntimeChoice | None = None,
    *,
    output_stride: int | None = None,
    probabilities: bool = False,
) -> SegmentationModel | ExportedModel:
    """Load a model by name, or the bundled one, onto a device by name, or the best one; exported models run on the CPU.

    Args:
        name: of the model.
        device: of a network.
        runtime: what runs it; see :func:`atrous.load`.
        output_stride: that a network is exported at, if it is.
        probabilities: whether a network is exported with class probabilities, if it is.
    """
    from atrous.bundle import DEFAULT
    from atrous.opening import open_model
    from atrous.runtime.exported import ExportedModel

    model = open_model(
        name or DEFAULT, runtime, output_stride=output_stride, probabilities=probabilities, told=print_note
    )
    if isinstance(model, ExportedModel):
        from atrous.inference.exported import require_cpu

        require_cpu(model, device)
        return model
    return model.to(find_device(device))


def set_output_stride(model: SegmentationModel | ExportedModel, output_stride: int | None) -> None:
    """Set the output stride of a network, if one was asked for; that of an exported model is fixed."""
    from atrous.inference.exported import require_output_stride
    from atrous.runtime.exported import ExportedModel

    if isinstance(model, ExportedModel):
        require_output_stride(model, output_stride)
    elif output_stride is not None:
        model.output_stride = output_stride


def set_resize(model: SegmentationModel | ExportedModel, resize: Literal["exact", "torchvision"] | None) -> None:
    """Set how a network's logits take the image's size, if that was asked for; an exported model's way is fixed."""
    from atrous.runtime.exported import ExportedModel

    if resize is None:
        return
    if isinstance(model, ExportedModel):
        raise InputError(f"{model.file} resizes as it was exported: leave out --resize, or use the model's own folder")
    model.resize = resize


def load_network(name: str | None, device: str | None) -> SegmentationModel:
    """Load a model whose network is needed, which an exported file does not contain."""
    model = load_model(name, device)
    if not hasattr(model, "parameters"):
        raise InputError(f"{name} is an exported model, which only predicts: use the model's own folder here")
    return model  # type: ignore[return-value]


def find_device(name: str | None) -> Any:
    """The device of a name, or by default a GPU if there is one."""
    import torch

    mps = torch.backends.mps.is_available()
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *(["mps"] if mps else [])]
        raise InputError(f"no device '{name}' on this machine; there are: {', '.join(there)}") from error


def print_note(note: str) -> None:
    """Print a remark to stderr."""
    typer.secho(f"note: {note}", fg="yellow", err=True)


def format_fractions(fractions: Mapping[str, float]) -> str:
    """Format the fraction of each class as percentages."""
    from atrous.viz import percent

    return ", ".join(f"{name} {percent(fraction)}" for name, fraction in fractions.items())


def describe_evaluation(model: str, evaluation: Evaluation) -> str:
    """Describe which model was evaluated, by the name it was given as, on which data, and on how many images."""
    images = "1 image" if evaluation.images == 1 else f"{evaluation.images:,} images"
    return f"{model} ({evaluation.model}) on {evaluation.data}: {images}"


def print_report(report: Report, out: Path | str) -> None:
    """Print what was segmented and what failed; exit code 1 if something did."""
    for done in report.done[:LISTED]:
        typer.echo(f"{done.path} → {done.mask}: {format_fractions(done.fractions)}")
    if len(report.done) > LISTED:
        typer.echo(f"… and {len(report.done) - LISTED} more")
    for note in report.notes:
        print_note(note)
    for failed in report.failed:
        typer.secho(f"failed: {failed.path}: {failed.reason}", fg="red", err=True)
    typer.echo(f"{_describe_work(report)}, results in {out}")
    if report.failed:
        raise typer.Exit(1)


def _describe_work(report: Report) -> str:
    good, total = len(report.done), len(report.done) + len(report.failed)
    count = f"{good}" if good == total else f"{good} of {total}"
    work = f"{count} {'image' if total == 1 else 'images'} in {report.seconds:.1f} s"
    if total > 1:
        work += f" ({total / report.seconds:.3g} images/s)"
    return f"{report.kept} were complete already, {work}" if report.kept else work
