"""Segmenting videos: a mask of every n-th frame, and a video with the classes drawn over it."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from atrous.data.files.exif import Pixels
from atrous.data.files.find import FoundImage
from atrous.data.files.images import DecodedImage
from atrous.data.files.videos import SUFFIXES, VideoError, VideoReader, VideoWriter
from atrous.errors import OutputExistsError
from atrous.files import remove_leftovers
from atrous.inference.origin import read_origin, source_of
from atrous.inference.results import Failed, OutputOptions, Writer, failure
from atrous.inference.segmentation import Segmentation
from atrous.inference.side_by_side import FILE_THREADS, Places, Processors, in_order
from atrous.labels import LabelSet

if TYPE_CHECKING:  # videos can be labelled without torch
    import torch

    from atrous.inference.prepare import Precision
    from atrous.inference.test_time import Inference
    from atrous.models.base import SegmentationModel
    from atrous.runtime.exported import ExportedModel

OVERLAY_ENDING = ".overlay.mp4"
_MANY = 1000  # frames of a video that does not say how many it has


@dataclass(frozen=True)
class VideoReport:
    """What :func:`predict_video` did.

    Args:
        path: of the video.
        masks: folder of the masks, one for each frame that was segmented, named by its number.
        overlay: the video of overlays.
        frames: how many frames were segmented, those that were kept among them.
        kept: how many of them had a complete mask already, which a resumed run keeps.
        notes: remarks for the user.
        seconds: elapsed time.
    """

    path: Path
    masks: Path
    overlay: Path
    frames: int
    kept: int
    notes: tuple[str, ...]
    seconds: float


def split_videos(inputs: Sequence[str | Path]) -> tuple[list[Path], list[str | Path]]:
    """Split inputs into video files (given by name or by a pattern) and the rest; overlay videos that a pattern matches
    are left out.
    """
    videos: dict[Path, None] = {}
    rest: list[str | Path] = []
    for given in inputs:
        path = Path(given)
        if path.suffix.lower() not in SUFFIXES or path.is_dir():
            rest.append(given)
        elif path.exists() or not glob.has_magic(str(given)):
            videos[path] = None
        else:
            matches = sorted(glob.glob(str(given), recursive=True))  # noqa: PTH207 - absolute too
            if not matches:
                raise VideoError(f"{given}: no video matches this pattern")
            videos |= {Path(match): None for match in matches if not match.endswith(OVERLAY_ENDING)}
    return list(videos), rest


def predict_video(
    model: SegmentationModel | ExportedModel,
    video: str | Path,
    out: str | Path,
    *,
    every: int = 1,
    outputs: OutputOptions | None = None,
    device: torch.device | str | None = None,
    output_stride: int | None = None,
    precision: Precision = "auto",
    inference: Inference | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> VideoReport:
    """Segment every n-th frame of a video, and write masks and a video of overlays below a folder.

    ``clip.mp4`` becomes ``OUT/clip/000000.png``, ``OUT/clip/000005.png``, … (the frames' numbers, from 0), palette
    masks of the frames' own size, and ``OUT/clip.overlay.mp4``, which plays as fast as the video. Only a few frames are
    in memory at a time.

    Args:
        model: any model of this package, or an exported one.
        video: a file that OpenCV's FFmpeg reads.
        out: folder of the results; created if missing.
        every: 1 for each frame, 5 for frames 0, 5, 10, ….
        outputs: what else is written beside each mask, apart from overlays.
        device: as in :func:`atrous.inference.predict.predict`, like the next two.
        output_stride: see there.
        precision: see there.
        inference: how a frame becomes labels; a single view by default.
        resume: keep complete masks that this model made of the same file with the same settings.
        progress: called with the number of finished frames and their expected total.

    Raises:
        VideoError: the file is missing, not a video, without frames, or its frames have several sizes; ``every`` is
            below 1.
        OutputExistsError: results of another video have the same names.
    """
    from atrous.inference.batch import computing
    from atrous.inference.predict import predictor_of

    outputs = replace(outputs or OutputOptions(), overlays=False)
    predictor = predictor_of(model, device=device, output_stride=output_stride, precision=precision)
    with computing(predictor, inference, precision) as (made_with, processors):
        return label_video(
            video,
            out,
            lambda _, decoded: predictor.segment(decoded, inference, outputs.probabilities),
            label_set=model.label_set,
            every=every,
            outputs=outputs,
            made_with=made_with,
            resume=resume,
            processors=processors,
            progress=progress,
        )


def label_video(
    video: str | Path,
    out: str | Path,
    label: Callable[[FoundImage, DecodedImage], Segmentation],
    *,
    label_set: LabelSet,
    every: int = 1,
    outputs: OutputOptions,
    made_with: str = "",
    resume: bool = False,
    processors: Processors | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VideoReport:
    """Label a video in any way, with the file handling of :func:`predict_video`.

    Args:
        video: as for :func:`predict_video`, like ``out``, ``every``, ``outputs``, ``resume`` and ``progress``.
        out: see there.
        label: finds the labels of a frame, in several threads at once if there are several ``processors``.
        label_set: names and colours of the classes.
        every: see there.
        outputs: see there.
        made_with: a hash of all that the labels depend on besides the video; needed to resume.
        resume: see there.
        processors: what ``label`` computes with.
        progress: see there.
    """
    begin = time.perf_counter()
    video, out = Path(video), Path(out)
    reader = VideoReader(video, every)
    image = FoundImage(video, Path(video.name), explicit=True)
    overlay = out / f"{video.stem}{OVERLAY_ENDING}"
    writer = Writer(out, outputs, frozenset([os.path.realpath(video)]), made_with)
    _check_overlay(overlay, video, out / video.stem / _name(0), outputs.overwrite)
    if resume:
        remove_leftovers(out / video.stem)
    places = Places(processors or Processors(), reader.expected or _MANY)

    def work(frame: tuple[int, Pixels]) -> tuple[Pixels, bool]:
        number, pixels = frame
        stem = Path(video.stem) / _name(number)
        if resume and writer.find(image, stem) == "complete":
            with Image.open(out / f"{stem}.png") as mask:
                return Segmentation(np.array(mask), pixels, label_set).overlay(legend=False), True
        try:
            with places.taken(pixels.shape[0] * pixels.shape[1]):
                found = label(image, DecodedImage(pixels))
        except (ValueError, OSError, MemoryError, RuntimeError) as error:
            raise VideoError(f"{video}: frame {number}: {failure(image, error).reason}") from error
        if isinstance(result := writer.write(image, stem, found), Failed):
            raise VideoError(f"{video}: frame {number}: {result.reason}")
        return found.overlay(legend=False), False

    kept = frames = 0
    with VideoWriter(overlay, reader.rate / every) as drawn:
        for pixels, was_kept in in_order(work, reader, places.count + FILE_THREADS):
            drawn.write(pixels)
            frames, kept = frames + 1, kept + was_kept
            if progress:
                progress(frames, max(frames, reader.expected))
    notes = reader.notes()
    return VideoReport(video, out / video.stem, overlay, frames, kept, notes, time.perf_counter() - begin)


def _name(number: int) -> str:
    return f"{number:06}"


def _check_overlay(overlay: Path, video: Path, first: Path, overwrite: bool) -> None:
    """Refuse to replace a video that is not known to be this video's overlay: its first mask tells."""
    origin = read_origin(first.with_name(f"{first.name}.png"))
    if overlay.exists() and not overwrite and not (origin and origin.source == source_of(video)):
        raise OutputExistsError(
            f"{overlay} exists and is not a result of {video}; choose another folder for --out, or use --overwrite"
        )
