"""Datasets by name: the sources of Atrous, and those that users and other packages register."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

from atrous.data.dataset import Dataset, Joined
from atrous.data.sources import coco, nyud
from atrous.data.sources.ade20k import Ade20k
from atrous.data.sources.auto import recognise
from atrous.data.sources.base import DatasetSource
from atrous.data.sources.camvid import CamVid
from atrous.data.sources.cityscapes import Cityscapes
from atrous.data.sources.cvat import open_cvat
from atrous.data.sources.folder import Folder
from atrous.data.sources.geojson import GeoJson
from atrous.data.sources.hasty import open_hasty
from atrous.data.sources.huggingface import open_huggingface
from atrous.data.sources.labelme import open_labelme
from atrous.data.sources.labelstudio import LabelStudio
from atrous.data.sources.mapillary import Mapillary
from atrous.data.sources.names import closest, did_you_mean, folders_in
from atrous.data.sources.panoptic import CocoPanoptic
from atrous.data.sources.pascal_context import PascalContext
from atrous.data.sources.person_part import PersonPart
from atrous.data.sources.reclassed import ReclassedDataset, ReclassedSource
from atrous.data.sources.roboflow import open_roboflow
from atrous.data.sources.siftflow import SiftFlow
from atrous.data.sources.spec import parse_spec
from atrous.data.sources.supervisely import Supervisely
from atrous.data.sources.via import Via
from atrous.data.sources.voc import Voc
from atrous.data.sources.webdataset import open_webdataset
from atrous.data.sources.yolo import Yolo
from atrous.errors import DatasetError, InputError
from atrous.registry import Registry

SOURCES: dict[str, Callable[..., DatasetSource]] = {
    "voc": Voc,
    "camvid": CamVid,
    "folder": Folder,
    **{kind: partial(nyud.Nyud, kind=kind) for kind in nyud.KINDS},
    "siftflow": SiftFlow,
    "pascalcontext": PascalContext,
    "personpart": PersonPart,
    "cityscapes": Cityscapes,
    "ade20k": Ade20k,
    "panoptic": CocoPanoptic,
    **{kind: partial(coco.Coco, kind=kind) for kind in coco.KINDS},
    "cvat": open_cvat,
    "labelme": open_labelme,
    "labelstudio": LabelStudio,
    "yolo": Yolo,
    "roboflow": open_roboflow,
    "supervisely": Supervisely,
    "hasty": open_hasty,
    "via": Via,
    "mapillary": Mapillary,
    "geojson": GeoJson,
}
"""The dataset sources, by the name before the colon of a data specification."""

DRAWN = frozenset(
    (
        *coco.KINDS,
        "cvat",
        "labelme",
        "labelstudio",
        "yolo",
        "roboflow",
        "supervisely",
        "hasty",
        "via",
        "mapillary",
        "geojson",
    )
)
"""The sources whose masks are drawn from shapes, which take ``overlap``."""
_FILES = DRAWN - {"coco-voc", "coco-stuff", "roboflow", "supervisely", "mapillary", "geojson"}
"""The sources whose path may also be a file."""
AUTO = "auto"
"""In the place of a source: the one that recognises the path."""

Opener = Callable[[str, str], Dataset]
"""(path, split) → dataset; raises a :class:`~atrous.errors.DatasetError` for a split that does not exist."""
BUILT_IN: dict[str, Opener] = {"hf": open_huggingface, "webdataset": open_webdataset}
"""Sources whose images are not files of their own."""
OPENERS: Registry[Opener] = Registry("dataset", "atrous.datasets")
"""The registered datasets by name."""

F = TypeVar("F", bound=Opener)


def register_dataset(name: str) -> Callable[[F], F]:
    """Register a function that opens a split of a dataset under a name.

    Afterwards ``NAME:PATH`` is a dataset for :func:`~atrous.data.open_dataset`, the doctor, training and the command
    line. A package does the same for all its users with an entry point of the group ``atrous.datasets`` that names
    the function.

    Args:
        name: the part before the colon.

    Raises:
        InputError: a dataset of Atrous or another function has this name, or it contains a colon.

    Example:
        >>> @register_dataset("fields")
        ... def open_fields(path: str, split: str) -> Dataset:
        ...     return Fields(path, split)
    """
    if name in {*SOURCES, *BUILT_IN, AUTO} or ":" in name or not name:
        raise InputError(
            f"a dataset can't be registered as '{name}'; choose a name without a colon that Atrous does not use"
        )

    def register(opener: F) -> F:
        OPENERS.add(name, opener, opener)
        return opener

    return register


def find_opener(spec: str) -> Opener | None:
    """The function that opens ``NAME:PATH``, if the name is registered, by a decorator or by an installed package."""
    name, colon, _ = spec.partition(":")
    if colon and name == AUTO and (place := Path(parse_spec(spec).place).expanduser()).exists():
        name = recognise(place)
    if colon and name in BUILT_IN:
        return BUILT_IN[name]
    return OPENERS[name] if colon and name not in SOURCES and name in OPENERS else None


def open_registered(spec: str, split: str) -> Dataset:
    """Open a split of a registered dataset, or several joined by ``+``.

    Raises:
        DatasetError: the name is not registered, or what its function raises.
    """
    opener = find_opener(spec)
    if opener is None:
        raise DatasetError(f"'{spec}' is not a registered dataset")
    parsed = parse_spec(spec)
    parts = [opener(parsed.place, part) for part in split.split("+")]
    joined = Joined(f"{parsed.kind}:{split}", parts)
    return ReclassedDataset(joined, parsed.classes) if parsed.classes else joined


def find_source(spec: str) -> DatasetSource:
    """Find a dataset on disk by its specification, ``SOURCE:PATH`` with one of :data:`SOURCES`.

    Raises:
        DatasetError: an unknown source, the path does not contain such a dataset, or a package it needs is missing; or
            a registered dataset, whose files Atrous does not know.
        ImageError: a folder without images.
    """
    parsed = parse_spec(spec)
    kind, place = parsed.kind, parsed.place
    if find_opener(spec):
        raise DatasetError(f"'{spec}' is a registered dataset; this needs one of {_known(SOURCES)}")
    if (kind not in SOURCES and kind != AUTO) or not spec.startswith(f"{kind}:"):
        near = f"folder:{spec}" if Path(spec).is_dir() else f"{closest(kind, [*SOURCES, *OPENERS])}:{place}"
        meant = "" if near.startswith("None") or near.endswith(":") else f" (did you mean {near}?)"
        raise DatasetError(
            f"'{spec}' is not a dataset{meant}; expected one of {_known([*SOURCES, *BUILT_IN, *OPENERS, AUTO])}"
        )
    root = Path(place).expanduser()
    if not root.is_dir() and not (root.is_file() and kind in {*_FILES, AUTO}):
        near = did_you_mean(root.name, folders_in(root.parent))
        raise DatasetError(f"'{spec}': the folder {root} does not exist{near}")
    if kind == AUTO:
        kind = recognise(root)
    if parsed.overlap and kind not in DRAWN:
        raise DatasetError(f"'{spec}': {kind} has masks and no shapes that could overlap; leave overlap out")
    source = SOURCES[kind](root, overlap=parsed.overlap) if kind in DRAWN else SOURCES[kind](root)
    return ReclassedSource(source, parsed.classes) if parsed.classes else source


def _known(kinds: Iterable[str]) -> str:
    return ", ".join(f"{kind}:PATH" for kind in kinds)
