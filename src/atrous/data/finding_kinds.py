"""Everything that can be wrong with a dataset, by name; :mod:`atrous.data.finding_rules` says what each means."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


class FindingKind(StrEnum):
    """What can be wrong with a dataset; the values are the names in reports and JSON."""

    LABELS_FILE = "labels-file"
    ONE_CLASS = "one-class"
    NO_SPLIT = "no-split"
    NOT_THERE = "not-there"
    MISSING_MASK = "missing-mask"
    MISSING_FILE = "missing-file"
    SHARED_MASK = "shared-mask"
    EXTRA_MASK = "extra-mask"
    UNLISTED_IMAGE = "unlisted-image"
    UNREADABLE_SAMPLE = "unreadable-sample"
    UNREADABLE_IMAGE = "unreadable-image"
    UNREADABLE_MASK = "unreadable-mask"
    LOSSY_MASK = "lossy-mask"
    RGB_MASK = "rgb-mask"
    VALUES_FAR_APART = "values-far-apart"
    BINARY_MASK = "binary-mask"
    UNCLEAR_255 = "unclear-255"
    NUMBERED_OBJECTS = "numbered-objects"
    PALETTE_ORDER = "palette-order"
    CLASS_IGNORED = "class-ignored"
    OUTSIDE_CLASSES = "outside-classes"
    BOX_ONLY = "box-only"
    ALL_IGNORED = "all-ignored"
    SIZE_MISMATCH = "size-mismatch"
    TURNED_MASK = "turned-mask"
    UNCLEAR_ORIENTATION = "unclear-orientation"
    TURNED_IMAGE = "turned-image"
    PARTIAL_IMAGE = "partial-image"
    IMAGE_NOTE = "image-note"
    SHARED_IMAGE = "shared-image"
    NESTED_SPLITS = "nested-splits"
    REPEATED_IMAGE = "repeated-image"
    NEIGHBOURING_FRAMES = "neighbouring-frames"
    NEAR_DUPLICATE = "near-duplicate"
    OUTSIDE_IMAGE = "outside-image"
    EMPTY_SHAPE = "empty-shape"
    REPEATED_SHAPE = "repeated-shape"
    ABSENT_CLASS = "absent-class"
    UNEVALUATED_CLASS = "unevaluated-class"
