"""Reading and writing videos frame by frame, with OpenCV's FFmpeg."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from atrous.data.files.exif import Pixels
from atrous.errors import InputError

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")  # fatal errors alone: what is wrong with a video, our errors say
SUFFIXES = frozenset(".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .mjpeg .wmv".split())
"""The suffixes of the files that count as videos."""
_USUAL_RATE = 25.0
_CUT_OFF = 0.95  # containers often announce a few frames too many


class VideoError(InputError):
    """A video that can't be read, written or segmented; the message names the file, what was found, and the fix."""


class VideoReader:
    """Every n-th frame of a video with its number, uint8 RGB ``(H, W, 3)``, read as it is asked for.

    Args:
        path: of the video.
        every: the distance between two frames, at least 1.

    Attributes:
        rate: frames per second of the video.
        count: how many frames the file announces; 0 if it announces none.
        read: how many were read.

    Raises:
        VideoError: the file is missing or not a video, or ``every`` is below 1; while reading, there is no frame, or
            one of another size.
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


class VideoWriter:
    """Writes an MPEG-4 video that appears under its name when it is whole.

    Args:
        path: ends in ``.mp4``.
        rate: frames per second.

    Raises:
        VideoError: at the first frame, if it can't be written.
    """

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

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if kind is None:
            self._unfinished.replace(self._path)
        self._unfinished.unlink(missing_ok=True)
