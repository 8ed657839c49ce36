"""The command line: it parses, calls and prints. Results go to stdout; progress, notes and errors to stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EISDIR
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:  # commands import what they need when they run: `atrous --help` must not wait for torch
    from atrous.inference.files import Report
    from atrous.labels import LabelSet
    from atrous.models.base import SegmentationModel
    from atrous.training.recipe import Recipe
    from atrous.training.trainer import Progress as TrainingProgress

PACKAGE = Path(__file__).resolve().parent
SECONDS_BETWEEN_LINES = 30
"""How often a training whose output is no terminal says where it stands."""
SHOWN = 20
"""How many pictures `atrous predict` lists one by one."""


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
    """Whether the message is for the user: an error type of ours, a ValueError raised here, or a file's OSError."""
    if type(error).__module__.startswith("atrous."):
        return True
    if isinstance(error, OSError):
        return error.filename is not None
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return (
        isinstance(error, ValueError)
        and trace is not None
        and PACKAGE in Path(trace.tb_frame.f_code.co_filename).parents
    )


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
data_app = typer.Typer(no_args_is_help=True)
app.add_typer(data_app, name="data", help="Look over datasets.")
convert_app = typer.Typer(no_args_is_help=True)
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
    """Semantic segmentation: train on your own pictures, judge honestly, segment photos."""


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


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = Path("atrous-demo"),
    model: MaybeModel = None,
    device: Device = None,
) -> None:
    """Segment sample photos that installed packages carry, and show what happened."""
    from atrous.inference.demo import run_demo

    network = _load(model, device)
    pictures = run_demo(network, out)
    typer.echo(f"{network.name} ({', '.join(network.labels.names)}) looked at {len(pictures)} sample photo(s):")
    for picture in pictures:
        typer.echo(f"  {picture.photo.name}: {_shares(picture.fractions)} ({picture.seconds:.2f} s)")
    typer.echo(f"See {pictures[0].sheet}, and the masks and overlays beside it. Next, with a photo of yours:")
    typer.echo("  atrous predict YOUR_PHOTO.jpg --out masks")


@app.command()
def predict(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help="Photos, folders, or patterns in quotes.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the masks and overlays.")],
    model: MaybeModel = None,
    device: Device = None,
    output_stride: OutputStride = None,
    precision: Precision = "float32",
    json: Annotated[bool, typer.Option("--json", help="Write the area of each class too.")] = False,
    scores: Annotated[bool, typer.Option("--scores", help="Write the class probabilities too (NumPy .npz).")] = False,
    no_overlay: Annotated[bool, typer.Option("--no-overlay", help="Write masks only.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are not results of the same photo too.")
    ] = False,
) -> None:
    """Segment photos: a mask (palette PNG) and an overlay for each; exit code 1 if some could not be read."""
    from atrous.inference.files import predict_files

    with _bar("segmenting") as progress:
        report = predict_files(
            _load(model, device),
            inputs,
            out,
            output_stride=output_stride,
            precision=precision,
            overlays=not no_overlay,
            json=json,
            scores=scores,
            overwrite=overwrite,
            progress=progress,
        )
    _print_report(report, out)
    if report.failed:
        raise typer.Exit(1)


@app.command()
def evaluate(
    model: Model,
    data: Annotated[str, typer.Option("--data", help="voc:PATH, camvid:PATH or folder:PATH.")],
    split: Annotated[str, typer.Option("--split", help="Split to judge on.")] = "val",
    json: Annotated[Path | None, typer.Option("--json", help="Write everything to this file too.")] = None,
    device: Device = None,
    output_stride: OutputStride = None,
    precision: Precision = "float32",
    trimap: Annotated[
        str | None, typer.Option("--trimap", help="Judge bands along boundaries too, of these widths: 1,3,5,10")
    ] = None,
) -> None:
    """Judge a model: one confusion matrix over the split, every picture at its own size."""
    from json import dumps

    from atrous.data.datasets import open_dataset
    from atrous.evaluation.evaluate import evaluate as judge
    from atrous.evaluation.report import table
    from atrous.inference.predictor import write_atomically

    widths = _numbers("--trimap", trimap)
    dataset = open_dataset(data, split)
    network = _load(model, device)
    if output_stride:
        network.output_stride = output_stride
    with _bar("evaluating") as progress:
        evaluation = judge(network, dataset, precision=precision, progress=progress, trimap=widths)
    typer.echo(table(evaluation))
    if json:
        write_atomically(json, (dumps(evaluation.to_dict(), indent=2) + "\n").encode())


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A TOML file, or a name from `atrous models`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the run; best/ and last/ in it are models.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="key=value", help="Change the recipe: training.epochs=5")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build everything, take two steps, draw the batch; keep nothing.")
    ] = False,
) -> None:
    """Train a model as a recipe says."""
    from atrous.training.parallel import is_first_process
    from atrous.training.recipe import load_recipe
    from atrous.training.trainer import train as run

    checked = load_recipe(recipe, overrides or [])
    if dry_run:
        _rehearse(checked, out)
        return
    try:
        with _training_bar() as (on_step, tell):
            result = run(
                checked,
                out,
                resume=resume,
                on_step=on_step,
                on_validation=lambda step, evaluation: tell(
                    f"step {step}: mean IoU {100 * evaluation.scores.mean_iou:.2f} %"
                ),
                on_note=tell,
            )
    except KeyboardInterrupt as stopped:
        typer.secho(str(stopped) or f"stopped at once; --resume goes on from what {out} holds", fg="yellow", err=True)
        raise
    if not is_first_process():
        return
    reached = "" if result.mean_iou is None else f", mean IoU {100 * result.mean_iou:.2f} %"
    typer.echo(f"best model: {result.best}{reached}")
    typer.echo(f"try it: atrous predict YOUR_PHOTO.jpg --model {result.best} --out masks")


def _rehearse(recipe: Recipe, out: Path) -> None:
    from atrous.training.rehearsal import rehearse

    found = rehearse(recipe, out, typer.echo)
    for name, shape in found.shapes.items():
        typer.echo(f"{name}: {' × '.join(map(str, shape))}")
    parts = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in found.memory.items())
    peak = f"; most at once on the GPU: {found.peak / 1e6:.0f} MB" if found.peak else ""
    typer.echo(f"memory: {parts}{peak}")
    minutes = found.seconds * found.steps / 60
    typer.echo(
        f"a step: loss {found.loss:.4f}, {found.seconds:.2f} s; {found.steps} of them: about "
        + (f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h")
        + ", validations not counted"
    )
    typer.echo(f"the first batch, as the network sees it: {found.picture}")


@app.command()
def models() -> None:
    """List what can be built, and what is bundled with its card."""
    from json import loads

    from atrous.models import ARCHITECTURES, zoo
    from atrous.training.recipe import shipped

    typer.echo(
        f"architectures (on any convolutional timm backbone; FCNs also on vgg16, alexnet, caffenet, googlenet in their "
        f"papers' form): {', '.join(sorted(ARCHITECTURES))}"
    )
    typer.echo(f"recipes: {', '.join(shipped())}")
    names = zoo.bundled()
    typer.echo("bundled models:" if names else "bundled models: none")
    for name in names:
        folder = zoo.BUNDLE / name
        card = loads((folder / "config.json").read_text(encoding="utf-8"))
        default = " (default)" if name == zoo.DEFAULT else ""
        size = (folder / "model.safetensors").stat().st_size / 1e6
        typer.echo(f"\n{name}{default}: {card['architecture']} on {card['backbone']}, {size:.1f} MB")
        typer.echo(f"  classes: {', '.join(card['labels']['names'])}")
        metrics = card.get("metrics", {})
        for key in ("pixel_accuracy", "mean_iou"):
            if key in metrics:
                typer.echo(f"  {key.replace('_', ' ')} on {metrics['data']}: {100 * metrics[key]:.2f} %")
        typer.echo(f"  trained on {card.get('training_data', 'data it does not name')}")
        typer.echo(f"  card: {folder / 'README.md'}")


@data_app.callback()
def _data() -> None:
    """Look over datasets before training on them."""


DataSpec = Annotated[str, typer.Argument(metavar="SPEC", help="voc:PATH, camvid:PATH or folder:PATH.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write everything to this file too.")]


@data_app.command("check")
def data_check(
    spec: DataSpec,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Splits to check; train, val, and test if there is one.")
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option("--fix", help="Write a mended copy into this new folder; the original stays as it is."),
    ] = None,
    json: JsonFile = None,
) -> None:
    """Read every photo and mask of a dataset and name all that is wrong with it, with what mends it.

    Exit code 0: healthy, perhaps with warnings and notes; 1: there are errors, which training would refuse or learn
    wrongly from; 2: no such dataset. With --fix, the exit code is about the copy.
    """
    from atrous.data.doctor import check
    from atrous.data.mending import check_target, mend
    from atrous.data.readers import find_layout

    _check_writable(json)
    if fix:
        check_target(fix, find_layout(spec).root)
    with _bar("checking") as progress:
        checkup = check(spec, split or (), progress)
    typer.echo(checkup.text())
    facts = checkup.to_dict()
    if fix:
        with _bar("mending") as progress:
            mended = mend(checkup, fix, progress)
        typer.echo(f"\n{mended.text()}\n")
        with _bar("checking") as progress:
            checkup = check(f"folder:{fix}", list(mended.splits) if split else (), progress)
        typer.echo(checkup.text())
        facts |= {"mended": mended.to_dict() | {"healthy": checkup.healthy}}
    _write_json(json, facts)
    if not checkup.healthy:
        raise typer.Exit(1)


@data_app.command("stats")
def data_stats(
    spec: DataSpec,
    split: Annotated[str, typer.Option("--split", help="Split to count; several joined by + are one.")] = "train",
    json: JsonFile = None,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="Draw a contact sheet, masks over photos, into this PNG.")
    ] = None,
) -> None:
    """Count classes and sizes, and suggest class weights; exit code 1 if a pair could not be read."""
    from io import BytesIO

    from PIL import Image

    from atrous.data.datasets import open_dataset
    from atrous.data.sheet import choose, contact_sheet
    from atrous.data.stats import measure
    from atrous.inference.predictor import write_atomically

    _check_writable(json)
    _check_writable(sheet)
    dataset = open_dataset(spec, split)
    with _bar("counting") as progress:
        stats = measure(dataset, progress)
    typer.echo(stats.text())
    _write_json(json, stats.to_dict())
    if sheet and stats.places:
        pictures = [stats.places[row] for row in choose(stats.pixels)]
        Image.fromarray(contact_sheet(dataset, pictures)).save(png := BytesIO(), "PNG")
        write_atomically(sheet, png.getvalue())
        typer.echo(f"contact sheet: {sheet}")
    for problem in stats.broken:
        typer.secho(problem, fg="red", err=True)
    if stats.broken:
        typer.secho(f"`atrous data check {spec}` says what mends these", fg="yellow", err=True)
        raise typer.Exit(1)


def _numbers(option: str, text: str | None) -> list[int]:
    """Whole numbers, separated by commas."""
    try:
        return [int(part) for part in (text or "").split(",") if part]
    except ValueError:
        raise ValueError(f"{option} takes whole numbers separated by commas, such as 1,3,5, not '{text}'") from None


@convert_app.callback()
def _convert() -> None:
    """Make model folders of weights that other programs trained; every tensor of a file is used, or named."""


Weights = Annotated[Path, typer.Argument(metavar="FILE", help="The file of weights.")]
ModelFolder = Annotated[Path, typer.Option("--out", help="The model folder to write.")]
Classes = Annotated[
    Path | None, typer.Option("--classes", help="A text file of class names, one a line; else by their number.")
]
ClassesOf = Annotated[str | None, typer.Option("--data", help="A dataset whose class names these are: voc:PATH, ...")]
Rates = Annotated[
    str | None, typer.Option("--rates", help="A DeepLab's rates where they are not the published: 2,4,8,12.")
]
Inputs = Annotated[
    str | None, typer.Option("--inputs", help="What an FCN looks at, where the file can't tell: nyud-hha.")
]


@convert_app.command("caffe")
def convert_caffe(
    file: Weights,
    architecture: Annotated[
        str, typer.Option("--as", help="What it holds: fcn32s, fcn16s, fcn8s, deeplab_largefov, deeplab_aspp.")
    ],
    out: ModelFolder,
    classes: Classes = None,
    data: ClassesOf = None,
    rates: Rates = None,
    inputs: Inputs = None,
) -> None:
    """Convert a released Caffe net (.caffemodel): an FCN or a DeepLab."""
    from atrous.convert.caffe import convert_caffe as convert

    _check_model_folder(out)
    labels = _class_names(classes, data)
    _keep_converted(
        convert(file, architecture, labels=labels, rates=_numbers("--rates", rates) or None, inputs=inputs), out
    )


@convert_app.command("pytorch")
def convert_pytorch(
    file: Weights,
    architecture: Annotated[str, typer.Option("--as", help="What it holds: deeplab_aspp, fcn8s, ...")],
    layout: Annotated[
        str, typer.Option("--layout", help="Whose names it has: kazuto1011, isht7, adaptsegnet, wkentaro[-atonce].")
    ],
    out: ModelFolder,
    classes: Classes = None,
    data: ClassesOf = None,
    rates: Rates = None,
    inputs: Inputs = None,
) -> None:
    """Convert the state dict (.pth or .safetensors) of a PyTorch reproduction."""
    from atrous.convert.pytorch import convert_pytorch as convert

    _check_model_folder(out)
    labels = _class_names(classes, data)
    _keep_converted(
        convert(file, architecture, layout, labels=labels, rates=_numbers("--rates", rates) or None, inputs=inputs), out
    )


def _class_names(file: Path | None, data: str | None) -> LabelSet | None:
    from atrous.data.forms import read_text
    from atrous.data.readers import find_layout
    from atrous.labels import LabelSet

    if file and data:
        raise ValueError("--classes and --data both name the classes; give one of them")
    if data:
        return find_layout(data).form().labels
    if not file:
        return None
    try:
        return LabelSet(tuple(line.strip() for line in read_text(file).splitlines() if line.strip()))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _check_model_folder(out: Path) -> None:
    """Fail before the work, and before a folder of something else is replaced."""
    if out.exists() and not (out / "config.json").is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"{out} is there and is no model folder: name a new one")


def _keep_converted(model: SegmentationModel, out: Path) -> None:
    model.save(out)
    size = sum(parameter.numel() for parameter in model.parameters())
    names = ", ".join(model.labels.names)
    typer.echo(f"{model.name} on {model.backbone.name}, {size:,} parameters, {model.num_classes} classes: {names}")
    if options := {key: value for key, value in model.config["options"].items() if value}:
        typer.echo(f"options: {', '.join(f'{key} {value}' for key, value in options.items())}")
    typer.echo(f"try it: atrous predict YOUR_PHOTO.jpg --model {out} --out masks")


def _write_json(file: Path | None, facts: Any) -> None:
    from json import dumps

    if file:
        from atrous.inference.predictor import write_atomically  # brings torch

        write_atomically(file, (dumps(facts, indent=2) + "\n").encode())


def _check_writable(file: Path | None) -> None:
    """Fail before the work rather than after it."""
    from tempfile import TemporaryFile

    if file:
        if file.is_dir():
            raise IsADirectoryError(EISDIR, "a folder, where a file is to be written", str(file))
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=file.parent):
            pass


def _load(name: str | None, device: str | None) -> SegmentationModel:
    from atrous.models import zoo

    return zoo.load(name or zoo.DEFAULT).to(_device(device))


def _device(name: str | None) -> Any:
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ValueError(f"no device '{name}' on this machine; there are: {', '.join(there)}") from error


def _shares(fractions: dict[str, float]) -> str:
    from atrous.viz import percent

    return ", ".join(f"{name} {percent(share)}" for name, share in fractions.items())


def _print_report(report: Report, out: Path) -> None:
    for done in report.done[:SHOWN]:
        typer.echo(f"{done.path} → {done.mask}: {_shares(done.fractions)}")
    if len(report.done) > SHOWN:
        typer.echo(f"… and {len(report.done) - SHOWN} more")
    for note in report.notes:
        typer.secho(f"note: {note}", fg="yellow", err=True)
    for failed in report.failed:
        typer.secho(f"failed: {failed.path}: {failed.reason}", fg="red", err=True)
    good, total = len(report.done), len(report.done) + len(report.failed)
    count = f"{good}" if good == total else f"{good} of {total}"
    typer.echo(f"{count} {'picture' if total == 1 else 'pictures'} in {report.seconds:.1f} s, results in {out}")


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, where that is a terminal; called with the number done and the total."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _training_bar() -> Iterator[tuple[Callable[[TrainingProgress], None], Callable[[str], None]]]:
    """A progress bar with loss, learning rate, speed and time left, and a function that prints a line above it."""
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
        told = float("-inf")  # the first step is told

        def on_step(now: TrainingProgress) -> None:
            nonlocal told
            said = f"loss {now.loss:.4f}  lr {now.lr:.2e}  {now.images_per_second:.1f} images/s"
            bar.update(task, completed=now.step, total=now.steps, description=said)
            if not console.is_terminal and time.monotonic() - told > SECONDS_BETWEEN_LINES:  # a log file
                told = time.monotonic()
                console.print(f"step {now.step}/{now.steps}  {said}", highlight=False, markup=False)

        yield on_step, lambda line: console.print(line, highlight=False, markup=False)


def main() -> None:
    """The `atrous` command."""
    app()
