"""From folders of photos to folders of masks: names, order, failures, and files written whole or not at all."""

from __future__ import annotations

import io
import os
import re
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from json import dumps
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from atrous.data.images import DecodedImage, FoundImage, ImageError, find_images, open_image
from atrous.inference.method import Method
from atrous.inference.predictor import Precision, Segmentation, encode_jpeg, prepared, segment, write_atomically
from atrous.labels import encode_mask
from atrous.models.attention_to_scale import AttentionToScale
from atrous.models.base import SegmentationModel
from atrous.models.scales import MultiScale
from atrous.viz import areas, attention_figure, heat_map, panel_columns

OVERLAY_SIDE = 8192
"""The longest side of an overlay, a heat map or a figure that is written, but for captions and legends; a larger photo
is drawn smaller, its mask is not.
"""

_ENDINGS = re.compile(r"\.(overlay|attention|scale_[\d.e+-]+)\.jpg$")  # pictures beside a mask
_ORIGIN = b"tEXtatrous-source\0"  # the PNG chunk, first after the header, in which a mask tells which picture it is of


@dataclass(frozen=True)
class Done:
    """One picture that was segmented: where it is, where its mask is, and the share of each class in it."""

    path: Path
    mask: Path
    fractions: dict[str, float]


@dataclass(frozen=True)
class Failed:
    """One picture that was not segmented, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Report:
    """What :func:`predict_files` did.

    Args:
        done: the pictures segmented, in the order of the input.
        failed: the pictures that were not, in the order of the input.
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

    ``photos/sub/x.jpg``, found in the folder ``photos``, becomes ``OUT/sub/x.png`` (palette mask of the photo's own
    size) and ``x.overlay.jpg``, and on request ``x.json`` (size, pixels and share of each class) and ``x.scores.npz``
    (``probabilities`` float16 ``(C, h, w)``, ``names``, ``size`` ``(H, W)``, ``stride``, ``offset``: position *i* sits
    at pixel ``stride * i + offset``), and ``x.attention.jpg`` with a heat map ``x.scale_0.5.jpg`` for each scale of a
    network that attends to scales; these pictures are at most some 8192 pixels a side. Pictures that would get the
    same name are told apart by the folders they come from, or keep their ending (``x.jpg.png``), and a note says so.

    Results are written only over results of the same picture, so that a command can be repeated: a mask remembers in a
    PNG text field which picture it is of (its name and a hash of its path). An input is never written over, and
    earlier results below ``out`` are not taken for input. Files are read and written in the background while the
    network works.

    Args:
        model: any model of this package.
        inputs: what to segment, as in :func:`atrous.data.images.find_images`.
        out: folder of the results; made if missing.
        device: as in :func:`atrous.inference.predictor.predict`, like the next two.
        output_stride: see there.
        precision: see there.
        method: how a photo becomes labels; one look when left out.
        overlays: write ``x.overlay.jpg``.
        json: write ``x.json``.
        scores: write ``x.scores.npz``.
        attention_maps: write ``x.attention.jpg`` and the heat maps.
        overwrite: write also over files that are not results of the same picture (never over an input).
        progress: called with the number of pictures finished and their total after each picture.

    Returns:
        What was done. A picture that cannot be read, segmented or written is in ``failed``; the rest goes on.

    Raises:
        ImageError: there is no picture in the inputs.
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
        raise ValueError(
            f"attention maps are of an attention_to_scale built with merge 'attention'; this is {model.name}{built}"
        )
    if model.merge != "attention":
        raise ValueError(
            f"attention maps need the model's attention, and its merge is '{model.merge}': set it back, "
            "model.merge = 'attention'"
        )
    if len(method.scales) > 1 or method.flip:
        raise ValueError(
            "attention maps are of a single look at a picture: leave out flip, and scales beside "
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
    """What :func:`predict_files` does, with any way of labelling a picture.

    Args:
        label: finds the labels of a picture; an ``ImageError``, ``ValueError``, ``MemoryError`` or ``RuntimeError`` of
            it is about this picture, and the rest goes on.
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
        raise ValueError(f"{out}: a file, where a folder for the results was expected; name another one")
    found, skipped = _without_results(find_images(inputs), out)
    stems, renamed = tell_apart(found)
    notes = [*skipped, *renamed]
    given = frozenset(os.path.realpath(image.path) for image in found)
    writer = _Writer(out, overlays, json, scores, attention_maps, overwrite, given)
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
                pending.append(pool.submit(_failed, image, error))
            else:
                pending.append(pool.submit(writer.write, image, stem, segmentation))
                notes += [f"{image.path}: {note}" for note in segmentation.notes]
            finish(allowed=workers)
        finish(allowed=0)
    done = tuple(result for result in finished if isinstance(result, Done))
    failed = tuple(result for result in finished if isinstance(result, Failed))
    return Report(done, failed, tuple(notes), time.perf_counter() - begin)


def _read_ahead(found: Sequence[FoundImage]) -> Iterator[Future[DecodedImage]]:
    """The pictures in order, up to two being read while the one before is segmented."""
    with ThreadPoolExecutor(1, "read") as reader:
        coming: deque[Future[DecodedImage]] = deque()
        for image in found:
            coming.append(reader.submit(open_image, image.path))
            if len(coming) > 2:
                yield coming.popleft()
        yield from coming


def _failed(image: FoundImage, error: Exception) -> Failed:
    reason = str(error).removeprefix(f"{image.path}: ") or type(error).__name__
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in reason:
        reason = "not enough memory to segment it whole; make it smaller or cut it into pieces"
    return Failed(image.path, reason)


# Names: what each picture's results are called.


def tell_apart(found: Sequence[FoundImage]) -> tuple[list[Path], list[str]]:
    """Choose the path below OUT, without ending, of each picture's results: all of them different.

    Returns:
        The paths in the order of ``found``, and notes on those that are not simply the picture's own.
    """
    roots = [_root(image) for image in found]
    depth = dict.fromkeys(roots, 0)
    while True:  # each turn puts one more folder in front of the pictures of the roots that clash
        names = [_last(root, depth[root]) / image.relative for root, image in zip(roots, found, strict=True)]
        count = Counter(names)
        clashing = {root for root, name in zip(roots, names, strict=True) if count[name] > 1}
        growing = {root for root in clashing if depth[root] < len(root.parts)}
        if not growing:
            break
        for root in growing:
            depth[root] += 1
    stems = [name.with_suffix("") for name in names]
    while clashes := {stem for stem, count in Counter(stems).items() if count > 1}:
        stems = [name if stem in clashes else stem for stem, name in zip(stems, names, strict=True)]
    return stems, _renamings(roots, depth, names, stems)


def _root(image: FoundImage) -> Path:
    """The folder, from the top, that ``image.relative`` starts from; as a relative path."""
    return Path(*Path(*image.path.parts[: -len(image.relative.parts)]).resolve().parts[1:])


def _last(root: Path, count: int) -> Path:
    return Path(*root.parts[len(root.parts) - count :])


def _renamings(roots: list[Path], depth: dict[Path, int], names: list[Path], stems: list[Path]) -> list[str]:
    notes = []
    if moved := sorted({f"{_last(root, depth[root])}/" for root in roots if depth[root]}):
        notes.append(f"pictures from different folders have the same names; results are kept apart in {_some(moved)}")
    if kept := [f"{stem}.png" for name, stem in zip(names, stems, strict=True) if stem == name and name.suffix]:
        notes.append(f"pictures that differ only in their ending keep it in the name of the mask: {_some(kept)}")
    return notes


def _some(items: list[str], most: int = 4) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


# Results: what is written, and what may be written over.


@dataclass(frozen=True)
class _Writer:
    out: Path
    overlays: bool
    json: bool
    scores: bool
    attention_maps: bool
    overwrite: bool
    inputs: frozenset[str]

    def write(self, image: FoundImage, stem: Path, segmentation: Segmentation) -> Done | Failed:
        base = self.out / stem
        mask = _beside(base, ".png")
        makers: dict[Path, Callable[[], bytes]] = {  # the mask first: with it, the others are known to be ours
            mask: lambda: _sign(encode_mask(segmentation.labels, segmentation.label_set), image.path)
        }
        if self.overlays:
            makers[_beside(base, ".overlay.jpg")] = lambda: encode_jpeg(_shrunk(segmentation).overlay())
        if self.json:
            makers[_beside(base, ".json")] = lambda: _describe(image.path, segmentation)
        if self.scores:
            makers[_beside(base, ".scores.npz")] = lambda: _encode_scores(segmentation)
        if self.attention_maps:
            makers |= {_beside(base, ending): make for ending, make in _draw_attention(segmentation).items()}
        try:
            self._check(image.path, mask, list(makers))
            for path, make in makers.items():
                write_atomically(path, make())
        except (OSError, ValueError) as error:
            return _failed(image, error)
        return Done(image.path, mask, segmentation.fractions())

    def _check(self, source: Path, mask: Path, targets: Sequence[Path]) -> None:
        for target in targets:
            if os.path.realpath(target) in self.inputs:
                raise ValueError(f"its result {target} would be written over an input; choose another folder for --out")
        if self.overwrite or _origin_of(mask) == _origin(source):
            return
        for target in targets:
            if target.exists():
                origin = _origin_of(target)
                what = (
                    f"is the mask of another picture, {origin.split(' #')[0]}"
                    if origin
                    else "is not a result of this picture"
                )
                raise ValueError(f"{target} exists and {what}; choose another folder for --out, or allow --overwrite")


def _beside(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)


def _origin(source: Path) -> str:
    path = os.fsencode(os.path.realpath(source))
    return f"{ascii(source.name)[1:-1]} #{blake2b(path, digest_size=8).hexdigest()}"


def _sign(png: bytes, source: Path) -> bytes:
    """Put a text chunk with the origin between the header of a PNG (33 bytes) and its data."""
    chunk = _ORIGIN + _origin(source).encode("ascii")
    return png[:33] + (len(chunk) - 4).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4) + png[33:]


def _origin_of(mask: Path) -> str | None:
    try:
        with mask.open("rb") as file:
            start = file.read(4096)
    except OSError:
        return None
    if not start.startswith(b"\x89PNG") or start[37 : 37 + len(_ORIGIN)] != _ORIGIN:
        return None
    return start[37 + len(_ORIGIN) : 41 + int.from_bytes(start[33:37])].decode("ascii", "replace")


def _without_results(found: list[FoundImage], out: Path) -> tuple[list[FoundImage], list[str]]:
    """The pictures that are not results of an earlier run, as there are when OUT lies in the folder of the photos."""
    home = out.resolve()
    kept = [image for image in found if home not in image.path.resolve().parents or not _is_result(image.path)]
    if not kept:
        raise ImageError(f"only earlier results of this command were found below {out}; name the photos themselves")
    if len(kept) == len(found):
        return kept, []
    return kept, [f"{len(found) - len(kept)} earlier results below {out} were not taken for input"]


def _is_result(path: Path) -> bool:
    name = _ENDINGS.sub("", path.name)
    return _origin_of(path if name == path.name else path.with_name(f"{name}.png")) is not None


def _shrunk(segmentation: Segmentation, columns: int = 1, rows: int = 1) -> Segmentation:
    """The picture and what was found in it, so small that a figure of so many columns and rows is not too large."""
    height, width = segmentation.labels.shape
    shrink = OVERLAY_SIDE / max(columns * width, rows * height)
    if shrink >= 1:
        return segmentation
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    image = np.asarray(cv2.resize(segmentation.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    labels = np.asarray(cv2.resize(segmentation.labels, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    weights = segmentation.attention
    if weights is not None:
        weights = np.stack([cv2.resize(weight, size, interpolation=cv2.INTER_AREA) for weight in weights])
    return replace(segmentation, image=image, labels=labels, attention=weights)


def _draw_attention(segmentation: Segmentation) -> dict[str, Callable[[], bytes]]:
    """The figure of all scales, and the heat of each, by the ending of its file."""
    heat = {
        f".scale_{scale:g}.jpg": partial(_encode_heat, segmentation, number)
        for number, scale in enumerate(segmentation.scales)
    }
    return {".attention.jpg": partial(_encode_figure, segmentation), **heat}


def _encode_figure(segmentation: Segmentation) -> bytes:
    count = 2 + len(segmentation.scales)
    columns = panel_columns(count, *segmentation.labels.shape)
    seen = _shrunk(segmentation, columns, count // columns)
    return encode_jpeg(attention_figure(seen.image, seen.labels, seen.label_set, _attention(seen), seen.scales))


def _encode_heat(segmentation: Segmentation, number: int) -> bytes:
    seen = _shrunk(segmentation)
    return encode_jpeg(heat_map(seen.image, _attention(seen)[number]))


def _attention(segmentation: Segmentation) -> NDArray[np.float32]:
    if segmentation.attention is None:
        raise ValueError("the network attended to no scales")
    return segmentation.attention


def _describe(source: Path, segmentation: Segmentation) -> bytes:
    height, width = segmentation.labels.shape
    names = segmentation.label_set.names
    classes = [
        {"name": name, "label": names.index(name), "pixels": pixels, "share": pixels / (height * width)}
        for name, pixels in areas(segmentation.labels, segmentation.label_set).items()
    ]
    content = {"image": str(source), "width": width, "height": height, "classes": classes, "notes": segmentation.notes}
    return (dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _encode_scores(segmentation: Segmentation) -> bytes:
    scores = segmentation.scores
    if scores is None:
        raise ValueError("the scores were not kept; segment with keep_scores=True")
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        probabilities=scores.probabilities,
        names=np.array(segmentation.label_set.names),
        size=np.array(segmentation.labels.shape),
        stride=np.array(scores.grid.stride),
        offset=np.array(scores.grid.offset),
    )
    return buffer.getvalue()
