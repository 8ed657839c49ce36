"""Writing a folder dataset: images, palette masks, ``labels.toml`` and lists, everything or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from atrous.data.files.masks import MaskForm
from atrous.data.files.threads import Progress, read_all
from atrous.data.sources.base import Listed
from atrous.data.sources.labels_toml import toml_of
from atrous.errors import DatasetError
from atrous.files import replacing_folder


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
) -> dict[str, int]:
    """Write a folder dataset.

    Args:
        folder: one that :func:`check_target` accepts; it appears once everything is written.
        lists: the pairs of each split.
        form: how the masks are written.
        write: called with a pair, the path of its image (with the suffix of the original) and that of its mask.
        progress: called with the number of pairs written and their total.

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
        _write_lists(new, lists, names, form)
        if folder.exists():
            folder.rmdir()  # an empty one: nothing that was put there meanwhile is replaced
    return {_list_name(split): len(pairs) for split, pairs in lists.items() if pairs}


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


def _write_lists(folder: Path, lists: Mapping[str, list[Listed]], names: Mapping[Listed, str], form: MaskForm) -> None:
    (folder / "labels.toml").write_text(toml_of(form), encoding="utf-8")
    (folder / "splits").mkdir()
    for split, pairs in lists.items():
        if pairs:
            text = "".join(f"{names[pair]}\n" for pair in pairs)
            (folder / "splits" / f"{_list_name(split)}.txt").write_text(text, encoding="utf-8")
