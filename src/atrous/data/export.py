"""Converting a dataset to a folder of images, palette masks, ``labels.toml`` and lists, or to a tool's form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from atrous.data.dataset import PairedDataset
from atrous.data.doctor.list_rules import absent_files, read_lists
from atrous.data.extras import Extras
from atrous.data.files.image_form import ImageForm
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskFile, read_mask
from atrous.data.files.threads import Progress
from atrous.data.findings import errors_of, number
from atrous.data.folder_writer import check_target, put_image, write_as, write_folder
from atrous.data.sources.base import Listed
from atrous.data.sources.registry import find_opener, find_source, open_registered
from atrous.data.sources.spec import parse_spec
from atrous.data.writers.formats import FORMATS
from atrous.errors import DatasetError
from atrous.labels import LabelSet, Mask, encode_mask

FOLDER = "folder"
"""The form of a folder of images and masks."""


@dataclass(frozen=True)
class Converted:
    """What :func:`convert` wrote: the folder, the number of pairs in each split, the classes, and what reads it."""

    folder: Path
    splits: dict[str, int]
    label_set: LabelSet
    source: str = FOLDER

    def text(self) -> str:
        """The result as text."""
        sizes = ", ".join(f"{split} {number(count, 'pair')}" for split, count in self.splits.items())
        return f"{self.source}:{self.folder} has {sizes} of {number(len(self.label_set), 'class', 'classes')}"


def convert(
    spec: str,
    folder: Path,
    splits: Sequence[str] = (),
    *,
    to: str = FOLDER,
    link: bool = False,
    progress: Progress | None = None,
) -> Converted:
    """Write a dataset as a folder of images and masks, or in the form of an annotation tool; the original is only read.

    Args:
        spec: ``SOURCE:PATH``.
        folder: to write; new or empty.
        splits: to convert; ``train``, ``val``, and ``test`` if it exists, when left out.
        to: ``folder``, or one of :data:`atrous.data.writers.formats.FORMATS`.
        link: make hard links to the images, which take no space, instead of copies.
        progress: called with the number of pairs written and their total.

    Raises:
        DatasetError: no such dataset, split or form, ``folder`` is in use or on another disk than linked images, or the
            dataset has more than a folder of images and masks can contain.
        ImageError, MaskError: a pair that can't be read.
    """
    if to != FOLDER and to not in FORMATS:
        raise DatasetError(f"a dataset can't be written as '{to}'; expected {FOLDER}, {', '.join(FORMATS)}")
    if find_opener(spec):
        return _convert_samples(spec, folder, splits, to)
    source = find_source(spec)
    check_target(folder, source.root)
    if replace(source.extras, images=ImageForm()) != Extras():
        raise DatasetError(f"{spec} has more than images with one mask each, and a folder would lose it")
    lists, findings = read_lists(source, splits)
    if errors := errors_of([*findings, *absent_files(source, lists)]):
        raise DatasetError("\n".join(finding.sentence() for finding in errors))
    pairs = list(dict.fromkeys(pair for listed in lists.values() for pair in listed))
    place = {pair: index for index, pair in enumerate(pairs)}
    data = PairedDataset(spec, source.form(), tuple((pair.image, pair.mask) for pair in pairs), source.extras)
    if to != FOLDER:
        written = write_as(
            FORMATS[to], folder, lists, lambda pair: data[place[pair]].mask, data.label_set, link, progress
        )
        return Converted(folder, written, data.label_set, FORMATS[to].source)

    def write(pair: Listed, image: Path, mask: Path) -> None:
        mask.write_bytes(encode_mask(data[place[pair]].mask, data.label_set))
        put_image(pair.image, image, link=link)

    written = write_folder(
        folder, lists, MaskForm(data.label_set, orientation="upright"), write, progress, source.extras.images
    )
    return Converted(folder, written, data.label_set)


def _convert_samples(spec: str, folder: Path, splits: Sequence[str], to: str) -> Converted:
    """Write a dataset whose images are not files: they become PNGs."""
    check_target(folder, Path(parse_spec(spec).place).expanduser())
    opened = {split: open_registered(spec, split) for split in splits or ("train", "val")}
    with TemporaryDirectory(dir=folder.parent if folder.parent.is_dir() else None, prefix=".converting-") as temporary:
        lists: dict[str, list[Listed]] = {}
        for split, data in opened.items():
            for index in range(len(data)):
                sample = data[index]
                name = f"{index:06}"
                image = Path(temporary, split, f"{name}.png")
                image.parent.mkdir(exist_ok=True)
                Image.fromarray(sample.image).save(image)
                mask = image.with_suffix(".mask.png")
                mask.write_bytes(encode_mask(sample.mask, data.label_set))
                lists.setdefault(split, []).append(Listed(f"{split}/{name}", image, MaskFile(mask)))
        label_set = next(iter(opened.values())).label_set
        form = MaskForm(label_set, orientation="upright")
        if to != FOLDER:
            read = partial(_read_pair, form=form)
            written = write_as(FORMATS[to], folder, lists, read, label_set, link=False)
            return Converted(folder, written, label_set, FORMATS[to].source)

        def write(pair: Listed, image: Path, mask: Path) -> None:
            put_image(pair.image, image, link=False)
            put_image(pair.mask.path, mask, link=False)

        return Converted(folder, write_folder(folder, lists, form, write), label_set)


def _read_pair(pair: Listed, form: MaskForm) -> Mask:
    return read_mask(pair.mask, form)
