"""Opening a model by name, folder, hub id or exported file, in the runtime that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from atrous.bundle import BUNDLE, bundled
from atrous.errors import AtrousError, InputError
from atrous.runtime.engines import INSTALL, RUNTIMES, Runtime, is_exported, is_installed
from atrous.runtime.exported import ExportedModel, open_exported
from atrous.runtime.machine import cache_folder, file_hash, key_of, versions
from atrous.runtime.proof import Reference, Verdict, fastest, verdicts

if TYPE_CHECKING:  # an exported model needs no torch
    from atrous.models.base import SegmentationModel

RuntimeChoice = Literal["auto", "torch", "onnxruntime", "openvino"]
"""What runs a model; ``auto`` is the fastest that has been seen on this machine to give the right labels."""


def load(source: str | Path, *, runtime: RuntimeChoice | None = None) -> Any:  # which kind, the source decides
    """Load a model, ready for use (eval mode, on the CPU).

    Args:
        source: a bundled name, a folder, a hub id (``owner/name``, fetched and cached by huggingface_hub), or an
            exported file, ``.onnx`` or ``.xml``, for which torch is not imported.
        runtime: what runs it; by default torch, or for an exported file what it is for (ONNX Runtime for ``.onnx``,
            OpenVINO for ``.xml``). ``auto`` compares all that are installed on this machine, in child processes and
            once for each model, and takes the fastest whose labels are right. A model that is not exported yet is
            exported into the user's cache for ``onnxruntime`` and ``openvino``.

    Returns:
        A network (:class:`~atrous.models.base.SegmentationModel`), or for an exported file or another runtime than
        torch an :class:`~atrous.runtime.exported.ExportedModel`. :func:`atrous.predict` and :func:`atrous.evaluate`
        take both.

    Raises:
        CheckpointError: an unknown name, or a folder that can't be read.
        ExportedModelError: an exported file that can't be opened, or a runtime that is not installed.
        InputError: an unknown runtime, or one that can't run this model.

    Example:
        >>> import atrous
        >>> model = atrous.load("deeplabv3plus_lite0_voc")
        >>> model.name, model.num_classes, model.output_stride
        ('deeplabv3plus', 21, 16)
    """
    return open_model(source, runtime)


def open_model(
    source: str | Path,
    runtime: RuntimeChoice | None = None,
    *,
    output_stride: int | None = None,
    probabilities: bool = False,
    told: Callable[[str], None] | None = None,
) -> SegmentationModel | ExportedModel:
    """Load a model as :func:`load` does, knowing what it is for.

    Args:
        source: see there.
        runtime: see there.
        output_stride: that a network is exported at, if it is; its own by default.
        probabilities: whether a network is exported with class probabilities, if it is.
        told: called with a line about what takes a while, and with one about what ``auto`` picked and why.
    """
    if runtime is not None and runtime not in get_args(RuntimeChoice):
        raise InputError(f"runtime is one of {', '.join(get_args(RuntimeChoice))}, not '{runtime}'")
    if is_exported(source):
        return _open_file(Path(source), runtime, told)
    if runtime in RUNTIMES:
        return open_exported(exported_copy(source, output_stride, probabilities, told), runtime)
    if runtime == "auto" and (picked := _pick(source, output_stride, probabilities, told)):
        return picked
    from atrous.models import loading

    return loading.load(source)


def _open_file(file: Path, runtime: RuntimeChoice | None, told: Callable[[str], None] | None) -> ExportedModel:
    if runtime == "torch":
        raise InputError(f"{file} is an exported model, which torch does not run: use the model's own folder")
    if runtime != "auto" or not file.is_file():
        return open_exported(file, None if runtime == "auto" else runtime)
    found = verdicts(file, told=told)
    best = fastest(found)
    if best is None:
        reasons = "; ".join(f"{name}: {verdict.reason}" for name, verdict in found.items())
        raise InputError(f"{file}: no runtime gives its labels on this machine ({reasons or INSTALL})")
    if told:
        told(_describe(found, best))
    return open_exported(file, cast("Runtime", best))


def _pick(
    source: str | Path, output_stride: int | None, probabilities: bool, told: Callable[[str], None] | None
) -> ExportedModel | None:
    """The fastest runtime that was seen to give torch's labels; None for torch."""
    tell = told or _say_nothing
    if not any(is_installed(runtime) for runtime in RUNTIMES):
        tell(f"runtime: torch (no other is installed: {INSTALL})")
        return None
    try:
        file = exported_copy(source, output_stride, probabilities, told)
    except AtrousError as error:
        tell(f"runtime: torch ({error})")
        return None
    found = verdicts(file, lambda: _torch_reference(source, output_stride), told=told)
    best = fastest(found)
    tell(_describe(found, best or "torch"))
    return None if best in (None, "torch") else open_exported(file, cast("Runtime", best))


def _say_nothing(_: str) -> None: ...


def _describe(found: Mapping[str, Verdict], picked: str) -> str:
    """One line: what was picked, and what was seen of each."""
    fastest_seconds = sum(found[picked].seconds) if picked in found else 0
    others = []
    for name, verdict in found.items():
        if name == picked:
            continue
        slower = sum(verdict.seconds) / fastest_seconds if fastest_seconds else 0
        others.append(f"{name} takes {slower:.1f} times as long" if verdict.passed else f"{name}: {verdict.reason}")
    why = found[picked].reason if picked in found else ""
    return f"runtime: {picked} ({'; '.join([why, *others] if why else others)})"


def exported_copy(
    source: str | Path,
    output_stride: int | None = None,
    probabilities: bool = False,
    told: Callable[[str], None] | None = None,
) -> Path:
    """A model as an ``.onnx`` file in the user's cache, exported unless it is there."""
    folder = _find_folder(source)
    facts = [file_hash(folder / name) for name in ("config.json", "model.safetensors") if (folder / name).is_file()]
    made_by = versions("atrous", "torch", "timm", "onnx", "onnxscript")
    file = cache_folder() / "exported" / key_of(facts, made_by, output_stride, probabilities) / f"{folder.name}.onnx"
    if not file.is_file():
        if told:
            told(f"exporting {source}, once, to {file}")
        from atrous.export.model import export_model
        from atrous.models import loading

        file.parent.mkdir(parents=True, exist_ok=True)
        export_model(loading.load(source), file, output_stride=output_stride, probabilities=probabilities)
    return file


def _find_folder(source: str | Path) -> Path:
    if str(source) in bundled():
        return BUNDLE / str(source)
    if Path(source).is_dir():
        return Path(source)
    from atrous.models.loading import find_model

    return find_model(source)


def _torch_reference(source: str | Path, output_stride: int | None) -> Reference:
    """The labels of the network as it is, and the time of its fast path."""
    import time
    from statistics import median

    from atrous.inference.predictor import Predictor
    from atrous.models import loading
    from atrous.runtime.examples import example_batches

    model = loading.load(source)
    exact = Predictor(model, output_stride=output_stride, precision="float32")
    fast = Predictor(model, output_stride=output_stride)
    batches = example_batches(exact.in_channels)
    seconds = []
    for batch in batches:
        fast.labels(batch)
        runs = []
        for _ in range(3):
            begin = time.perf_counter()
            fast.labels(batch)
            runs.append(time.perf_counter() - begin)
        seconds.append(median(runs))
    return Reference("torch", batches, [exact.labels(batch) for batch in batches], seconds)
