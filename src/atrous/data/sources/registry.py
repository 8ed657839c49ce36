"""Finding a dataset by its specification."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from atrous.data.sources.base import Layout, closest, did_you_mean, folders_in
from atrous.data.sources.coco import COCO_CLASSES, Coco
from atrous.data.sources.folder import Folder
from atrous.data.sources.published import CamVid, Voc
from atrous.data.sources.scenes import NYUD_INPUTS, Nyud, PascalContext, PersonPart, SiftFlow
from atrous.data.sources.trees import Ade20k, Cityscapes
from atrous.errors import DatasetError

READERS: dict[str, Callable[[Path], Layout]] = {
    "voc": Voc,
    "camvid": CamVid,
    "folder": Folder,
    **{kind: partial(Nyud, kind=kind) for kind in NYUD_INPUTS},
    "siftflow": SiftFlow,
    "pascalcontext": PascalContext,
    "personpart": PersonPart,
    "cityscapes": Cityscapes,
    "ade20k": Ade20k,
    **{kind: partial(Coco, kind=kind) for kind in COCO_CLASSES},
}
"""The readers, by the name that stands before the colon of a data specification."""


def find_layout(spec: str) -> Layout:
    """The layout of a dataset by its specification, ``READER:PATH`` with one of :data:`READERS`.

    Raises:
        DatasetError: an unknown reader, no such dataset there, or its reader needs what is not installed.
        ImageError: a folder without images.
    """
    kind, colon, place = spec.partition(":")
    if not colon or kind not in READERS:
        near = f"folder:{spec}" if Path(spec).is_dir() else f"{closest(kind, READERS)}:{place}"
        meant = "" if near.startswith("None") or near.endswith(":") else f" (did you mean {near}?)"
        raise DatasetError(f"'{spec}' names no dataset{meant}; write one of {', '.join(f'{k}:PATH' for k in READERS)}")
    root = Path(place).expanduser()
    if not root.is_dir():
        raise DatasetError(f"'{spec}': there is no folder {root}{did_you_mean(root.name, folders_in(root.parent))}")
    return READERS[kind](root)
