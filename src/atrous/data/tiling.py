"""Cutting a dataset of large images into tiles that overlap, with their masks; empty ones may be thinned."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from atrous.data.dataset import PairedDataset, Sample
from atrous.data.doctor.list_rules import absent_files, read_lists
from atrous.data.extras import Extras
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.world import WORLD_SUFFIX, World, world_of
from atrous.data.findings import errors_of, number
from atrous.data.folder_writer import check_target
from atrous.data.sources.base import Listed
from atrous.data.sources.labels_toml import toml_of
from atrous.data.sources.registry import find_source
from atrous.errors import DatasetError, InputError
from atrous.files import replacing_folder
from atrous.labels import LabelSet, encode_mask, ignored


@dataclass(frozen=True)
class Tiled:
    """What :func:`tile` wrote: the folder, the number of tiles of each split, and how many empty ones were left out."""

    folder: Path
    splits: Mapping[str, int]
    left_out: int

    def text(self) -> str:
        """The result as text."""
        sizes = ", ".join(f"{split} {number(count, 'tile')}" for split, count in self.splits.items())
        return f"folder:{self.folder} has {sizes}; {number(self.left_out, 'empty tile')} left out"


def tile(
    spec: str,
    folder: Path,
    splits: tuple[str, ...] = (),
    *,
    size: int = 512,
    overlap: int = 0,
    keep_empty: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> Tiled:
    """Write a dataset as a folder of tiles.

    A tile of ``NAME`` is ``NAME__y000512_x001024``, by the row and column of its upper left pixel; the last ones of a
    row or column begin earlier, so that all have the same size. Smaller images stay whole. If the image has a
    georeference (a world file beside it, or a GeoTIFF's scale), each tile gets a world file.

    Args:
        spec: ``SOURCE:PATH``.
        folder: to write; new or empty.
        splits: as for :func:`atrous.data.export.convert`; tiles stay in the split of their image.
        size: side of a tile in pixels.
        overlap: pixels that neighbouring tiles share at least.
        keep_empty: share of the tiles of class 0 and ignored pixels alone that is kept, by a hash of their names.
        progress: called with the number of images done and their total.

    Raises:
        InputError: sizes or a share that can't be.
        DatasetError: as in :func:`atrous.data.export.convert`.
    """
    if size < 1 or not 0 <= overlap < size or not 0 <= keep_empty <= 1:
        raise InputError(
            f"tiles of {size} pixels with {overlap} shared, {keep_empty:g} of the empty ones kept; expected "
            "a size of 1 or more, a smaller overlap, and a share from 0 to 1"
        )
    source = find_source(spec)
    check_target(folder, source.root)
    if source.extras != Extras():
        raise DatasetError(f"{spec} has more than images with one mask each, and tiles would lose it")
    lists, findings = read_lists(source, splits)
    if errors := errors_of([*findings, *absent_files(source, lists)]):
        raise DatasetError("\n".join(finding.sentence() for finding in errors))
    form = source.form()
    split_of = {pair: split for split in reversed(list(lists)) for pair in lists[split]}
    data = PairedDataset(spec, form, tuple((pair.image, pair.mask) for pair in split_of))
    folder.parent.mkdir(parents=True, exist_ok=True)
    names: dict[str, list[str]] = {split: [] for split in lists}
    left_out = 0
    with replacing_folder(folder) as new:
        for done, (pair, split) in enumerate(split_of.items(), 1):
            written, empty = _write(new, pair, data[done - 1], (size, overlap, keep_empty), form.label_set)
            names[split] += written
            left_out += empty
            if progress:
                progress(done, len(split_of))
        (new / "labels.toml").write_text(toml_of(MaskForm(form.label_set, orientation="upright")), encoding="utf-8")
        (new / "splits").mkdir()
        for split, tiles in names.items():
            text = "".join(f"{name}\n" for name in tiles)
            (new / "splits" / f"{split.replace('+', '_')}.txt").write_text(text, encoding="utf-8")
        if folder.exists():
            folder.rmdir()
    return Tiled(folder, {split: len(tiles) for split, tiles in names.items()}, left_out)


def _write(
    folder: Path, pair: Listed, sample: Sample, rule: tuple[int, int, float], label_set: LabelSet
) -> tuple[list[str], int]:
    """Write the tiles of an image; gives their names, and how many were left out."""
    (size, overlap, keep_empty), world = rule, world_of(pair.image)
    names, empty = [], 0
    for top, left in corners(sample.mask.shape, size, overlap):
        name = f"{pair.name}__y{top:06}_x{left:06}"
        mask = sample.mask[top : top + size, left : left + size]
        if not ((mask != 0) & ~ignored(mask)).any() and _share(name) >= keep_empty:
            empty += 1
            continue
        image, there = folder / "images" / f"{name}.png", folder / "masks" / f"{name}.png"
        for file in (image, there):
            file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(sample.image[top : top + size, left : left + size])).save(image)
        there.write_bytes(encode_mask(mask, label_set))
        if world:
            _write_world(image.with_suffix(WORLD_SUFFIX), world, top, left)
        names.append(name)
    return names, empty


def corners(shape: tuple[int, ...], size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """The upper left pixels, row and column, of the tiles of an image ``(H, W)``, in the order of rows."""
    starts = [[*range(0, max(side - size, 0), size - overlap), max(side - size, 0)] for side in shape]
    return ((top, left) for top in starts[0] for left in starts[1])


def _share(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32


def _write_world(file: Path, world: World, top: int, left: int) -> None:
    file.write_text(world.moved(left, top).text(), encoding="ascii")
