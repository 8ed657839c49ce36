"""Segmenting videos: a mask of every n-th frame, and a video with the classes drawn over it."""

from __future__ import annotations

import glob
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from atrous.data.files.exif import Pixels
from atrous.data.files.find import FoundImage
from atrous.data.files.images import DecodedImage
from atrous.errors import InputError, OutputExistsError
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

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")  # fatal errors alone: what is wrong with a video, our errors say
SUFFIXES = frozenset(".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .mjpeg .wmv".split())
"""The suffixes of the files that count as videos."""
OVERLAY_ENDING = ".overlay.mp4"
_USUAL_RATE = 25.0
_MANY = 1000  # frames of a video that does not say how many it has
_CUT_OFF = 0.95  # containers often announce a few frames too many


class VideoError(InputError):
    """A video that can't be read or segmented; the message names the file, what was found, and the fix."""


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
    model: SegmentationModel,
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
        model: any model of this package.
        video: a file that OpenCV's FFmpeg reads.
        out: folder of the results; created if missing.
        every: 1 for each frame, 5 for frames 0, 5, 10, ….
        outputs: what else is written beside each mask, apart from overlays.
        device: as in :func:`atrous.inference.predictor.predict`, like the next two.
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
    from atrous.inference.batch import torch_processors
    from atrous.inference.predictor import Predictor
    from atrous.inference.settings_hash import settings_hash
    from atrous.inference.test_time import Inference

    outputs, inference = replace(outputs or OutputOptions(), overlays=False), inference or Inference()
    predictor = Predictor(model, device=device, output_stride=output_stride, precision=precision)
    with torch_processors(predictor.network.device) as processors:
        return label_video(
            video,
            out,
            lambda _, decoded: predictor.segment(decoded, inference, outputs.probabilities),
            label_set=model.label_set,
            every=every,
            outputs=outputs,
            made_with=settings_hash(predictor.network, inference, precision),
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
    reader = _Reader(video, every)
    image = FoundImage(video, Path(video.name), explicit=True)
    overlay = out / f"{video.stem}{OVERLAY_ENDING}"
    writer = Writer(out, outputs, frozenset([os.path.realpath(video)]), made_with)
    _check_overlay(overlay, video, out / video.stem / _name(0), outputs.overwrite)
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
    with _OverlayVideo(overlay, reader.rate / every) as drawn:
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


class _Reader:
    """Every n-th frame of a video with its number, read as it is asked for.

    Raises:
        VideoError: as :func:`predict_video`; while reading, for frames of another size.
    """

    def __init__(self, path: Path, every: int) -> None:
        if every < 1:
            raise VideoError(f"every is the distance between two frames, at least 1, not {every}")
        if not path.is_file():
            raise VideoError(f"{path}: no such file; check the name")
        self.path, self.every, self.read = path, every, 0
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise VideoError(
                f"{path}: not a video that FFmpeg can read ({path.stat().st_size:,} bytes), expected MP4, MOV, AVI, "
                f"MKV or WebM; copy it again, or convert it: ffmpeg -i {path.name} converted.mp4"
            )
        rate, count = (self._capture.get(what) for what in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.rate = rate if math.isfinite(rate) and 0 < rate <= 1000 else _USUAL_RATE
        self.count = int(count) if math.isfinite(count) and count > 0 else 0

    @property
    def expected(self) -> int:
        """How many frames will come, as far as the file says."""
        return -(-self.count // self.every)

    def __iter__(self) -> Iterator[tuple[int, Pixels]]:
        size: tuple[int, ...] | None = None
        while self._capture.grab():
            if self.read % self.every == 0:
                good, pixels = self._capture.retrieve()
                if not good:
                    break
                size = size or pixels.shape
                self._check_size(size, pixels.shape)
                yield self.read, np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
            self.read += 1
        self._capture.release()
        if not self.read:
            raise VideoError(
                f"{self.path}: a video without a frame that can be decoded ({self.path.stat().st_size:,} bytes); copy "
                "or record it again"
            )

    def _check_size(self, first: tuple[int, ...], here: tuple[int, ...]) -> None:
        if here != first:
            raise VideoError(
                f"{self.path}: frame {self.read} has {here[1]}×{here[0]} pixels, the first {first[1]}×{first[0]}; "
                f"bring all to one size: ffmpeg -i {self.path.name} -vf scale={first[1]}:{first[0]} scaled.mp4"
            )

    def notes(self) -> tuple[str, ...]:
        """Remarks on what was read."""
        if self.read >= _CUT_OFF * self.count:
            return ()
        return (
            f"{self.path}: ends after {self.read} of the {self.count} frames that it announces: cut off or damaged",
        )


class _OverlayVideo:
    """Writes frames to a video that appears under its name when it is whole."""

    def __init__(self, path: Path, rate: float) -> None:
        self._path, self._rate = path, rate
        self._unfinished = path.with_name(f".{path.name.removesuffix('.mp4')}.unfinished.mp4")
        self._writer: cv2.VideoWriter | None = None

    def write(self, pixels: Pixels) -> None:
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            size = (pixels.shape[1], pixels.shape[0])
            kind = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._unfinished), cv2.CAP_FFMPEG, kind, self._rate, size)
            if not self._writer.isOpened():
                raise VideoError(
                    f"{self._path}: cannot be written as MPEG-4 at {size[0]}×{size[1]}; check that the folder may be "
                    "written to, and that frames are at most 8191 pixels a side"
                )
        self._writer.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))

    def __enter__(self) -> _OverlayVideo:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if kind is None:
            self._unfinished.replace(self._path)
        self._unfinished.unlink(missing_ok=True)
