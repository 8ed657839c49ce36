"""The dataset sources by name, and opening one by its specification."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from atrous.data.sources import coco, nyud
from atrous.data.sources.ade20k import Ade20k
from atrous.data.sources.base import DatasetSource
from atrous.data.sources.camvid import CamVid
from atrous.data.sources.cityscapes import Cityscapes
from atrous.data.sources.folder import Folder
from atrous.data.sources.names import closest, did_you_mean, folders_in
from atrous.data.sources.pascal_context import PascalContext
from atrous.data.sources.person_part import PersonPart
from atrous.data.sources.siftflow import SiftFlow
from atrous.data.sources.voc import Voc
from atrous.errors import DatasetError

SOURCES: dict[str, Callable[[Path], DatasetSource]] = {
    "voc": Voc,
    "camvid": CamVid,
    "folder": Folder,
    **{kind: partial(nyud.Nyud, kind=kind) for kind in nyud.KINDS},
    "siftflow": SiftFlow,
    "pascalcontext": PascalContext,
    "personpart": PersonPart,
    "cityscapes": Cityscapes,
    "ade20k": Ade20k,
    **{kind: partial(coco.Coco, kind=kind) for kind in coco.KINDS},
}
"""The dataset sources, by the name before the colon of a data specification."""


def find_source(spec: str) -> DatasetSource:
    """Find a dataset on disk by its specification, ``SOURCE:PATH`` with one of :data:`SOURCES`.

    Raises:
        DatasetError: an unknown source, the path does not contain such a dataset, or a package it needs is missing.
        ImageError: a folder without images.
    """
    kind, colon, place = spec.partition(":")
    if not colon or kind not in SOURCES:
        near = f"folder:{spec}" if Path(spec).is_dir() else f"{closest(kind, SOURCES)}:{place}"
        meant = "" if near.startswith("None") or near.endswith(":") else f" (did you mean {near}?)"
        known = ", ".join(f"{kind}:PATH" for kind in SOURCES)
        raise DatasetError(f"'{spec}' is not a dataset{meant}; expected one of {known}")
    root = Path(place).expanduser()
    if not root.is_dir():
        near = did_you_mean(root.name, folders_in(root.parent))
        raise DatasetError(f"'{spec}': the folder {root} does not exist{near}")
    return SOURCES[kind](root)
