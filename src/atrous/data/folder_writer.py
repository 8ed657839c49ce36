"""Writing a dataset, everything or nothing: as a folder of images and masks, or in the form of an annotation tool."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from atrous.data.files.image_form import ImageForm
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.threads import Progress, read_all
from atrous.data.sources.base import Listed
from atrous.data.sources.labels_toml import toml_of
from atrous.data.writers.base import Example, Format
from atrous.errors import DatasetError
from atrous.files import replacing_folder
from atrous.labels import LabelSet, Mask

READ_AHEAD = 32
"""Masks that are read at once for a form whose files are written one after the other."""


def check_target(folder: Path, root: Path) -> None:
    """Refuse a target folder in which a copy would overwrite something, or lie inside the original.

    Raises:
        DatasetError: it is a file or a folder that is not empty, or one of the two is inside the other.
    """
    here, there = folder.resolve(), root.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise DatasetError(f"a copy needs a folder of its own, and {folder} is not apart from {root}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"{folder} is there already; a copy needs a new folder")


def write_folder(
    folder: Path,
    lists: Mapping[str, list[Listed]],
    form: MaskForm,
    write: Callable[[Listed, Path, Path], None],
    progress: Progress | None = None,
    images: ImageForm | None = None,
) -> dict[str, int]:
    """Write a folder dataset.

    Args:
        folder: one that :func:`check_target` accepts; it appears once everything is written.
        lists: the pairs of each split.
        form: how the masks are written.
        write: called with a pair, the path of its image (with the suffix of the original) and that of its mask.
        progress: called with the number of pairs written and their total.
        images: what they contain, if it is not 8-bit RGB.

    Returns:
        The number of pairs of each split; joined splits have new names, and empty ones are left out.
    """
    names = _names(lists)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(folder) as new:

        def write_pair(pair: Listed) -> None:
            image = new / "images" / f"{names[pair]}{pair.image.suffix}"
            mask = new / "masks" / f"{names[pair]}.png"
            for file in (image, mask):
                file.parent.mkdir(parents=True, exist_ok=True)
            write(pair, image, mask)

        for _ in read_all(write_pair, list(names), progress):
            pass
        _write_lists(new, lists, names, form, images or ImageForm())
        if folder.exists():
            folder.rmdir()  # an empty one: nothing that was put there meanwhile is replaced
    return {_list_name(split): len(pairs) for split, pairs in lists.items() if pairs}


def write_as(
    form: Format,
    folder: Path,
    lists: Mapping[str, list[Listed]],
    mask_of: Callable[[Listed], Mask],
    label_set: LabelSet,
    link: bool,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write a dataset in the form of an annotation tool.

    Args:
        form: which.
        folder: one that :func:`check_target` accepts; it appears once everything is written.
        lists: the pairs of each split; one that is in several is written once, in the first.
        mask_of: gives the mask of a pair.
        label_set: the classes.
        link: whether to link images instead of copying them.
        progress: called with the number of pairs written and their total.

    Returns:
        The number of pairs written of each split.

    Raises:
        DatasetError: the form can't have these classes.
    """
    names = _names(lists)
    split_of = {pair: _list_name(split) for split in reversed(list(lists)) for pair in lists[split]}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(folder) as new:
        form.write(new, _examples(form, new, names, split_of, mask_of, link, progress), label_set)
        if folder.exists():
            folder.rmdir()  # an empty one, as in write_folder
    return dict(Counter(split_of.values()))


def _examples(
    form: Format,
    folder: Path,
    names: Mapping[Listed, str],
    split_of: Mapping[Listed, str],
    mask_of: Callable[[Listed], Mask],
    link: bool,
    progress: Progress | None,
) -> Iterator[Example]:
    """Put each image in its place, and yield it with its mask; a few are read ahead."""
    pairs = list(names)
    for begin in range(0, len(pairs), READ_AHEAD):
        few = pairs[begin : begin + READ_AHEAD]
        for pair, mask in zip(few, read_all(mask_of, few), strict=True):
            name = names[pair].removeprefix(f"{split_of[pair]}/")
            image = folder / form.place(split_of[pair], name, pair.image.suffix)
            image.parent.mkdir(parents=True, exist_ok=True)
            put_image(pair.image, image, link=link)
            yield Example(split_of[pair], name, image, mask)
            if progress:
                progress(begin + few.index(pair) + 1, len(pairs))


def put_image(image: Path, there: Path, *, link: bool) -> None:
    """Copy an image, or link it.

    Raises:
        DatasetError: it can't be linked.
    """
    if not link:
        shutil.copyfile(image, there)
        return
    try:
        there.hardlink_to(image.resolve())
    except OSError as error:
        raise DatasetError(
            f"{image} can't be linked ({error.strerror}); leave --link out to copy the images"
        ) from error


def _names(lists: Mapping[str, list[Listed]]) -> dict[Listed, str]:
    """A unique name for each pair; those with the same name get their split in front."""
    names: dict[Listed, str] = {}
    used: set[str] = set()
    for split, pairs in lists.items():
        for pair in pairs:
            if pair not in names:
                names[pair] = f"{_list_name(split)}/{pair.name}" if pair.name.lower() in used else pair.name
                used.add(names[pair].lower())
    return names


def _list_name(split: str) -> str:
    return split.replace("+", "_")  # joined splits become one


def _write_lists(
    folder: Path, lists: Mapping[str, list[Listed]], names: Mapping[Listed, str], form: MaskForm, images: ImageForm
) -> None:
    (folder / "labels.toml").write_text(toml_of(form, images), encoding="utf-8")
    (folder / "splits").mkdir()
    for split, pairs in lists.items():
        if pairs:
            text = "".join(f"{names[pair]}\n" for pair in pairs)
            (folder / "splits" / f"{_list_name(split)}.txt").write_text(text, encoding="utf-8")
