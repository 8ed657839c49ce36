"""From files of images to files of labels: order, progress and failures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atrous.data.files.find import FoundImage, find_images
from atrous.data.files.image_form import ImageForm
from atrous.data.files.images import DecodedImage, ImageError, open_image
from atrous.data.files.raster_values import choose_bands
from atrous.data.files.rasters import is_windowed
from atrous.data.files.stored import read_as
from atrous.errors import InputError
from atrous.inference.exported import ExportedPredictor, check_inference, check_outputs
from atrous.inference.output_names import unique_stems
from atrous.inference.predict import predictor_of
from atrous.inference.results import Done, Failed, OutputOptions, Writer, failure, without_results
from atrous.inference.segmentation import Segmentation
from atrous.inference.side_by_side import FILE_THREADS, PIXELS_AT_ONCE, Places, Processors, in_order
from atrous.inference.sources import RGB
from atrous.runtime.exported import ExportedModel

if TYPE_CHECKING:  # files can be labelled without torch
    import torch

    from atrous.inference.large import Large
    from atrous.inference.predictor import Predictor
    from atrous.inference.prepare import Precision
    from atrous.inference.test_time import Inference
    from atrous.models.base import SegmentationModel


Label = Callable[[FoundImage, DecodedImage], Segmentation]
"""Finds the labels of an image."""
SegmentWindowed = Callable[[FoundImage, Path, Writer], tuple[Done | Failed, tuple[str, ...]]]
"""Segments an image that is read in windows, and writes its results below a stem."""


@dataclass(frozen=True)
class Report:
    """What :func:`predict_files` did.

    Args:
        done: the images that were segmented, in input order.
        failed: the images that were not, in input order.
        notes: remarks for the user: names that were changed, frames that were skipped.
        seconds: elapsed time, including reading and writing.
        kept: how many images had complete results already, which a resumed run keeps.
    """

    done: tuple[Done, ...]
    failed: tuple[Failed, ...]
    notes: tuple[str, ...]
    seconds: float
    kept: int = 0


def predict_files(
    model: SegmentationModel | ExportedModel,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    outputs: OutputOptions | None = None,
    device: torch.device | str | None = None,
    output_stride: int | None = None,
    precision: Precision = "auto",
    inference: Inference | None = None,
    large: Large | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Segment files, folders and patterns, and write the results below a folder.

    ``photos/sub/x.jpg``, found in the folder ``photos``, becomes ``OUT/sub/x.png``, a palette mask of the image's own
    size, with the files of :class:`~atrous.inference.results.OutputOptions` beside it; overlays and other figures are
    at most about 8192 pixels a side. Images that would get the same name are distinguished by the folders they come
    from, or keep their ending (``x.jpg.png``), and a note says so.

    Only results of the same image are replaced, so that a command can be repeated: a mask stores in PNG text fields
    which image it was made from (its name and a hash of its path) and with which model and settings. An input is never
    replaced, and earlier results below ``out`` are not used as input. On a CPU several images are segmented at the same
    time, a thread each; on a GPU files are read and written while the network runs.

    Args:
        model: any model of this package, or an exported one.
        inputs: what to segment, as in :func:`atrous.data.files.find.find_images`.
        out: folder of the results; created if missing.
        outputs: what is written beside the masks; nothing by default.
        device: as in :func:`atrous.inference.predict.predict`, like the next two.
        output_stride: see there.
        precision: see there.
        inference: how an image becomes labels; a single view by default.
        large: how large images are cut into tiles, and which bands of images are read.
        resume: keep complete results that this model made of the same files with the same settings, and make the
            others; a note counts results of another model or other settings, which are made again.
        progress: called with the number of finished images and their total after each image.

    Returns:
        What was done. An image that cannot be read, segmented or written is in ``failed``, and the rest continues.

    Raises:
        ImageError: there is no image in the inputs.
        InputError: ``out`` is a file, the network does not support the output stride, or there is no attention to draw
            (another ``merge``, or more than one view); nothing has been done then.
    """
    outputs = outputs or OutputOptions()
    check_supported(model, inference, outputs)
    predictor = predictor_of(model, device=device, output_stride=output_stride, precision=precision)
    label, label_raster = labelling(predictor, inference, outputs, large)
    with computing(predictor, inference, precision, large, outputs) as (made_with, processors):
        return label_files(
            inputs,
            out,
            label,
            label_raster,
            outputs=outputs,
            made_with=made_with,
            resume=resume,
            processors=processors,
            progress=progress,
            images=predictor.images,
        )


def labelling(
    predictor: Predictor | ExportedPredictor,
    inference: Inference | None,
    outputs: OutputOptions,
    large: Large | None,
) -> tuple[Label, SegmentWindowed]:
    """What labels a decoded image, and what segments one that is read in windows."""

    def label_raster(image: FoundImage, stem: Path, writer: Writer) -> tuple[Done | Failed, tuple[str, ...]]:
        if isinstance(predictor, ExportedPredictor):
            return failure(image, predictor.no_tiles()), ()
        from atrous.inference.large import Large, segment_raster
        from atrous.inference.test_time import Inference

        return segment_raster(image, stem, writer, predictor.network, inference or Inference(), large or Large())

    def label(image: FoundImage, decoded: DecodedImage) -> Segmentation:
        bands, channels = large.bands if large else None, predictor.in_channels
        if bands or decoded.pixels.shape[2] != channels:
            chosen = _bands_of(decoded, channels, bands, str(image.path))
            decoded = replace(decoded, pixels=np.ascontiguousarray(decoded.pixels[..., chosen]))
        return predictor.segment(decoded, inference, outputs.probabilities, large)

    return label, label_raster


def _bands_of(decoded: DecodedImage, channels: int, bands: tuple[int, ...] | None, name: str) -> list[int]:
    """The bands of a decoded image that become a network's channels."""
    pixels = decoded.pixels
    if channels == 1 and bands is None and (pixels != pixels[..., :1]).any():
        raise ImageError(f"{name}: an image in colour, and the network takes 1 channel; choose a band (--bands 2)")
    return choose_bands(pixels.shape[2], channels, bands, name)


@contextmanager
def computing(
    predictor: Predictor | ExportedPredictor,
    inference: Inference | None,
    precision: Precision,
    large: Large | None = None,
    outputs: OutputOptions | None = None,
) -> Iterator[tuple[str, Processors]]:
    """A hash of what the results depend on besides the image, and the processors that compute them."""
    outlines = f"-{outputs.simplify:g}" if outputs and outputs.polygons and outputs.simplify else ""
    with processors_of(predictor) as processors:
        if isinstance(predictor, ExportedPredictor):
            yield predictor.settings_hash(inference, large.bands if large else None) + outlines, processors
            return
        from atrous.inference.large import Large
        from atrous.inference.settings_hash import settings_hash
        from atrous.inference.test_time import Inference

        found = settings_hash(predictor.network, inference or Inference(), precision, large or Large())
        yield found + outlines, processors


@contextmanager
def processors_of(predictor: Predictor | ExportedPredictor) -> Iterator[Processors]:
    """The processors that compute a predictor's labels."""
    if isinstance(predictor, ExportedPredictor):
        yield Processors(2)  # its own threads compute; a second image fills the gaps between the layers of the first
        return
    with torch_processors(predictor.network.device) as processors:
        yield processors


@contextmanager
def torch_processors(device: torch.device) -> Iterator[Processors]:
    """The processors that torch computes with on a device; its number of threads is restored afterwards."""
    import torch

    total = torch.get_num_threads()
    try:
        yield Processors(total, torch.set_num_threads) if device.type == "cpu" else Processors()
    finally:
        torch.set_num_threads(total)


def check_supported(
    model: SegmentationModel | ExportedModel, inference: Inference | None, outputs: OutputOptions
) -> None:
    """Refuse options that would fail at every image."""
    if isinstance(model, ExportedModel):
        check_inference(model, inference)
        check_outputs(model, probabilities=outputs.probabilities, attention_maps=outputs.attention_maps)
    elif outputs.attention_maps:
        _check_attention(model, inference)


def _check_attention(model: SegmentationModel, inference: Inference | None) -> None:
    merge = model.settings.get("merge")
    if "attention" not in model.merges:
        built = f" built with merge '{merge}'" if merge else ""
        raise InputError(
            f"attention maps need an attention_to_scale built with merge 'attention'; this is {model.name}{built}"
        )
    if merge != "attention":
        raise InputError(
            f"attention maps need the model's attention, but its merge is '{merge}': set it back, "
            "model.merge = 'attention' (--merge attention)"
        )
    if inference and not inference.single_view:
        raise InputError(
            "attention maps are drawn for a single view of an image: leave out flip, and scales other than "
            f"{inference.scales[0]:g}, or attention_maps"
        )


def label_files(
    inputs: Sequence[str | Path],
    out: str | Path,
    label: Label,
    segment_windowed: SegmentWindowed | None = None,
    *,
    outputs: OutputOptions,
    made_with: str = "",
    resume: bool = False,
    processors: Processors | None = None,
    progress: Callable[[int, int], None] | None = None,
    images: ImageForm = RGB,
) -> Report:
    """Label files in any way, with the file handling of :func:`predict_files`.

    Args:
        inputs: as for :func:`predict_files`, like ``out``, ``outputs``, ``resume`` and ``progress``.
        out: see there.
        label: finds the labels of an image, in several threads at once if there are several ``processors``; its
            ``ValueError``, ``OSError``, ``MemoryError`` and ``RuntimeError`` are reported as this image's failure, and
            the rest continues.
        segment_windowed: segments and writes an image that is read in windows; without it, such images are decoded
            whole.
        outputs: see there.
        made_with: a hash of all that the labels depend on besides the image; needed to resume.
        resume: see there.
        processors: what ``label`` computes with.
        progress: see there.
        images: what they are to contain.
    """
    plan = plan_files(inputs, out, outputs, made_with, resume)
    places = Places(processors or Processors(), len(plan.jobs))

    def work(job: Job) -> Result:
        return segment_file(job, plan.writer, label, segment_windowed, places, images)

    return plan.report(in_order(work, plan.jobs, places.count + FILE_THREADS), progress)


Job = tuple[FoundImage, Path]
"""An image, and where its results go below the folder of results, without ending."""
Result = tuple[Done | Failed, tuple[str, ...]]
"""What became of an image, and notes on it."""


@dataclass(frozen=True)
class Plan:
    """What is to be done: the jobs of a call, what writes their results, and what is known before.

    Args:
        jobs: in input order.
        writer: of the results.
        notes: for the user.
        kept: how many images have complete results, which are kept.
        begin: when it was made.
    """

    jobs: tuple[Job, ...]
    writer: Writer
    notes: tuple[str, ...]
    kept: int
    begin: float

    def report(self, results: Iterable[Result], progress: Callable[[int, int], None] | None) -> Report:
        """Gather the results of the jobs, in their order."""
        finished: list[Done | Failed] = []
        notes = list(self.notes)
        for result, said in results:
            finished.append(result)
            notes += [f"{result.path}: {note}" for note in said]
            if progress:
                progress(len(finished), len(self.jobs))
        done = tuple(result for result in finished if isinstance(result, Done))
        failed = tuple(result for result in finished if isinstance(result, Failed))
        return Report(done, failed, tuple(notes), time.perf_counter() - self.begin, self.kept)


def plan_files(
    inputs: Sequence[str | Path], out: str | Path, outputs: OutputOptions, made_with: str, resume: bool
) -> Plan:
    """Find the images, and choose where the results of each go; arguments as for :func:`label_files`."""
    begin = time.perf_counter()
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; expected a folder for the results")
    found, skipped = without_results(find_images(inputs), out)
    stems, renamed = unique_stems(found)
    writer = Writer(out, outputs, frozenset(os.path.realpath(image.path) for image in found), made_with)
    todo, notes = list(zip(found, stems, strict=True)), [*skipped, *renamed]
    if resume:
        todo, remade = writer.without_complete(todo)
        notes += remade
    return Plan(tuple(todo), writer, tuple(notes), len(found) - len(todo), begin)


def segment_file(
    job: Job,
    writer: Writer,
    label: Label,
    segment_windowed: SegmentWindowed | None,
    places: Places,
    images: ImageForm = RGB,
) -> Result:
    """Read an image, segment it and write the results."""
    image, stem = job
    if segment_windowed and is_windowed(image.path, images.channels, images.dtype):
        with places.taken(PIXELS_AT_ONCE):
            return segment_windowed(image, stem, writer)
    try:
        decoded = open_image(image.path) if images.dtype == "uint8" else read_as(image.path, images)
        with places.taken(decoded.pixels.shape[0] * decoded.pixels.shape[1]):
            segmentation = label(image, decoded)
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        return failure(image, error), ()
    return writer.write(image, stem, segmentation), segmentation.notes
