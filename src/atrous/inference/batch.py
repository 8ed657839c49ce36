"""From folders of images to folders of masks: order, progress and failures."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from atrous.data.files.images import DecodedImage, FoundImage, ImageError, find_images, open_image
from atrous.errors import InputError
from atrous.inference.output_names import tell_apart
from atrous.inference.predictor import Precision, Segmentation, prepared, segment
from atrous.inference.results import Done, Failed, Writer, failure, without_results
from atrous.inference.test_time import Method
from atrous.models.attention_to_scale import AttentionToScale
from atrous.models.base import SegmentationModel
from atrous.models.multi_scale import MultiScale


@dataclass(frozen=True)
class Report:
    """What :func:`predict_files` did.

    Args:
        done: the images segmented, in the order of the input.
        failed: the images that were not, in the order of the input.
        notes: what a person should know: names that were changed, frames that were left out.
        seconds: how long it took, reading and writing included.
    """

    done: tuple[Done, ...]
    failed: tuple[Failed, ...]
    notes: tuple[str, ...]
    seconds: float


def predict_files(
    model: SegmentationModel,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    device: torch.device | str | None = None,
    output_stride: int | None = None,
    precision: Precision = "float32",
    method: Method | None = None,
    overlays: bool = True,
    json: bool = False,
    scores: bool = False,
    attention_maps: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Segment files, folders and patterns, and write the results below a folder.

    ``photos/sub/x.jpg``, found in the folder ``images``, becomes ``OUT/sub/x.png`` (palette mask of the image's own
    size) and ``x.overlay.jpg``, and on request ``x.json`` (size, pixels and share of each class) and ``x.scores.npz``
    (``probabilities`` float16 ``(C, h, w)``, ``names``, ``size`` ``(H, W)``, ``stride``, ``offset``: position *i* sits
    at pixel ``stride * i + offset``), and ``x.attention.jpg`` with a heat map ``x.scale_0.5.jpg`` for each scale of a
    network that attends to scales; these images are at most some 8192 pixels a side. Images that would get the
    same name are told apart by the folders they come from, or keep their ending (``x.jpg.png``), and a note says so.

    Results are written only over results of the same image, so that a command can be repeated: a mask remembers in a
    PNG text field which image it is of (its name and a hash of its path). An input is never written over, and
    earlier results below ``out`` are not taken for input. Files are read and written in the background while the
    network works.

    Args:
        model: any model of this package.
        inputs: what to segment, as in :func:`atrous.data.files.images.find_images`.
        out: folder of the results; made if missing.
        device: as in :func:`atrous.inference.predictor.predict`, like the next two.
        output_stride: see there.
        precision: see there.
        method: how an image becomes labels; one look when left out.
        overlays: write ``x.overlay.jpg``.
        json: write ``x.json``.
        scores: write ``x.scores.npz``.
        attention_maps: write ``x.attention.jpg`` and the heat maps.
        overwrite: write also over files that are not results of the same image (never over an input).
        progress: called with the number of images finished and their total after each image.

    Returns:
        What was done. An image that cannot be read, segmented or written is in ``failed``; the rest goes on.

    Raises:
        ImageError: there is no image in the inputs.
        ValueError: ``out`` is a file, or the network cannot have that output stride, or has no attention to show
            (with another ``merge``, or looking more than once); nothing has been done then.
    """
    chosen = method or Method()
    if attention_maps:
        _check_attention(model, chosen)
    with prepared(model, device, output_stride, precision) as where:
        return label_files(
            inputs,
            out,
            lambda _, decoded: segment(model, decoded, where, chosen, scores),
            overlays=overlays,
            json=json,
            scores=scores,
            attention_maps=attention_maps,
            overwrite=overwrite,
            progress=progress,
        )


def _check_attention(model: SegmentationModel, method: Method) -> None:
    if not isinstance(model, AttentionToScale):
        built = f" built with merge '{model.merge}'" if isinstance(model, MultiScale) else ""
        raise InputError(
            f"attention maps are of an attention_to_scale built with merge 'attention'; this is {model.name}{built}"
        )
    if model.merge != "attention":
        raise InputError(
            f"attention maps need the model's attention, and its merge is '{model.merge}': set it back, "
            "model.merge = 'attention' (--scale-merge attention)"
        )
    if len(method.scales) > 1 or method.flip:
        raise InputError(
            "attention maps are of a single look at an image: leave out flip, and scales beside "
            f"{method.scales[0]:g}, or attention_maps"
        )


def label_files(
    inputs: Sequence[str | Path],
    out: str | Path,
    label: Callable[[FoundImage, DecodedImage], Segmentation],
    *,
    overlays: bool = True,
    json: bool = False,
    scores: bool = False,
    attention_maps: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """What :func:`predict_files` does, with any way of labelling an image.

    Args:
        label: finds the labels of an image; an ``ImageError``, ``ValueError``, ``MemoryError`` or ``RuntimeError`` of
            it is about this image, and the rest goes on.
        inputs: as for :func:`predict_files`, like all others.
        out: see there.
        overlays: see there.
        json: see there.
        scores: see there.
        attention_maps: see there.
        overwrite: see there.
        progress: see there.
    """
    begin = time.perf_counter()
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: a file, where a folder for the results was expected; name another one")
    found, skipped = without_results(find_images(inputs), out)
    stems, renamed = tell_apart(found)
    notes = [*skipped, *renamed]
    given = frozenset(os.path.realpath(image.path) for image in found)
    writer = Writer(out, overlays, json, scores, attention_maps, overwrite, given)
    finished: list[Done | Failed] = []
    pending: deque[Future[Done | Failed]] = deque()
    workers = min(4, os.cpu_count() or 1)

    def finish(allowed: int) -> None:
        while pending and (len(pending) > allowed or pending[0].done()):
            finished.append(pending.popleft().result())
            if progress:
                progress(len(finished), len(found))

    with ThreadPoolExecutor(workers, "write") as pool:
        for image, stem, reading in zip(found, stems, _read_ahead(found), strict=True):
            try:
                segmentation = label(image, reading.result())
            except (ImageError, ValueError, MemoryError, RuntimeError) as error:
                pending.append(pool.submit(failure, image, error))
            else:
                pending.append(pool.submit(writer.write, image, stem, segmentation))
                notes += [f"{image.path}: {note}" for note in segmentation.notes]
            finish(allowed=workers)
        finish(allowed=0)
    done = tuple(result for result in finished if isinstance(result, Done))
    failed = tuple(result for result in finished if isinstance(result, Failed))
    return Report(done, failed, tuple(notes), time.perf_counter() - begin)


def _read_ahead(found: Sequence[FoundImage]) -> Iterator[Future[DecodedImage]]:
    """The images in order, up to two being read while the one before is segmented."""
    with ThreadPoolExecutor(1, "read") as reader:
        coming: deque[Future[DecodedImage]] = deque()
        for image in found:
            coming.append(reader.submit(open_image, image.path))
            if len(coming) > 2:
                yield coming.popleft()
        yield from coming
