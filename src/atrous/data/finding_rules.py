"""One table of everything that can be wrong with a dataset: severities, words, fixes and what a repair does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from atrous.data.finding_kinds import FindingKind, Severity

Repair = Literal["repair", "leave out", "keep"]


@dataclass(frozen=True)
class Rule:
    """A row of the table.

    Args:
        severity: ``error``: training refuses it, or would learn or evaluate wrongly; ``warning``: it works, perhaps
            not as intended; ``note``: good to know.
        one, many: what was found, after the number of items; may have fields in braces.
        expected: what should be there; may have fields too.
        fix: what the user can do.
        copy: what ``atrous data check --fix`` does about it, after the command; empty if nothing.
        repair: what becomes of such a pair in the copy: repaired where that is certain, else left out; left out; or
            kept as it is.
        reported_as: another kind under which it is reported.
    """

    severity: Severity
    one: str
    many: str
    expected: str
    fix: str
    copy: str = ""
    repair: Repair = "keep"
    reported_as: FindingKind | None = None


RULES: Mapping[FindingKind, Rule] = {
    FindingKind.LABELS_FILE: Rule(
        "error",
        one="labels.toml can't be read",
        many="labels.toml can't be read",
        expected="names = [...], and other keys if wanted",
        fix="correct {file}",
    ),
    FindingKind.ONE_CLASS: Rule(
        "error",
        one="class is named, which can't be distinguished from anything",
        many="classes are named",
        expected="two classes or more: the background is one",
        fix="name the background too",
    ),
    FindingKind.NO_SPLIT: Rule(
        "error",
        one="split is missing",
        many="splits are missing",
        expected="a split of this name, with images",
        fix="correct the name",
    ),
    FindingKind.NOT_THERE: Rule(
        "error",
        one="image listed in {lists} does not exist",
        many="images listed in {lists} do not exist",
        expected="an image for each name",
        fix="add the images, or take the names out of the list",
        copy="does so",
        repair="leave out",
    ),
    FindingKind.MISSING_MASK: Rule(
        "error",
        one="of {total} has no mask",
        many="of {total} have no mask",
        expected="{mask} of the image's name for each",
        fix="draw them",
        copy="leaves these images out",
        repair="leave out",
    ),
    FindingKind.MISSING_FILE: Rule(
        "error",
        one="image is missing a file that {source} needs beside it and its mask",
        many="images are missing a file that {source} needs beside them and their masks",
        expected="a file of the same name for each",
        fix="add them, or take the images out of the list",
    ),
    FindingKind.SHARED_MASK: Rule(
        "error",
        one="mask belongs to more than one image",
        many="masks belong to more than one image",
        expected="names that differ in more than the suffix",
        fix="rename or remove one image of each",
        copy="leaves these images out",
        repair="leave out",
    ),
    FindingKind.EXTRA_MASK: Rule(
        "warning",
        one="mask belongs to no image",
        many="masks belong to no image",
        expected="an image of the same name for each",
        fix="add the images, or correct the names",
        copy="leaves these masks out",
    ),
    FindingKind.UNLISTED_IMAGE: Rule(
        "note",
        one="image is in no split",
        many="images are in no split",
        expected="each image in one split, unless it is left out on purpose",
        fix="nothing, or add the names to a list",
    ),
    FindingKind.UNREADABLE_SAMPLE: Rule(
        "error",
        one="sample can't be used",
        many="samples can't be used",
        expected="a Sample with image uint8 (H, W, C) and mask uint8 (H, W)",
        fix="correct what the dataset returns for these indices",
    ),
    FindingKind.UNREADABLE_IMAGE: Rule(
        "error",
        one="image can't be read",
        many="images can't be read",
        expected="complete image files",
        fix="copy or export them again",
        copy="leaves them out",
        repair="leave out",
    ),
    FindingKind.UNREADABLE_MASK: Rule(
        "error",
        one="mask can't be read",
        many="masks can't be read",
        expected="complete mask files",
        fix="copy or export them again",
        copy="leaves them out",
        repair="leave out",
    ),
    FindingKind.LOSSY_MASK: Rule(
        "error",
        one="mask is compressed with loss, which changes values along every edge",
        many="masks are compressed with loss, which changes values along every edge",
        expected="lossless PNG masks",
        fix="export them again as PNG where they were drawn (what was lost can't be restored with certainty)",
        copy="leaves them out",
        repair="leave out",
    ),
    FindingKind.RGB_MASK: Rule(
        "error",
        one="mask is a coloured image",
        many="masks are coloured images",
        expected="palette or grey images whose values are the classes",
        fix="export them as palette PNG",
        copy="leaves them out",
        repair="repair",
    ),
    FindingKind.VALUES_FAR_APART: Rule(
        "error",
        one="mask has values that are not class numbers",
        many="masks have values that are not class numbers",
        expected="classes numbered 0, 1, 2, …, or a labels.toml that declares the values",
        fix="write a labels.toml",
    ),
    FindingKind.BINARY_MASK: Rule(
        "error",
        one="mask has two values far apart",
        many="masks have two values far apart",
        expected="a class number for each pixel",
        fix="write the class's number in place of the larger value",
        copy="leaves them out",
        repair="repair",
    ),
    FindingKind.UNCLEAR_255: Rule(
        "error",
        one="mask contains 255, which may be a class or mark ignored pixels",
        many="masks contain 255, which may be a class or mark ignored pixels",
        expected="a labels.toml that declares what the values mean",
        fix="write a labels.toml",
    ),
    FindingKind.NUMBERED_OBJECTS: Rule(
        "warning",
        one="mask numbers what is in it from 1 on, as masks of objects do",
        many="masks number what is in them from 1 on, as masks of objects do",
        expected="the number of a class for each pixel",
        fix="declare in labels.toml that they number objects; nothing, if these are classes",
    ),
    FindingKind.PALETTE_ORDER: Rule(
        "error",
        one="palette mask has its colours in another order than the classes",
        many="palette masks have their colours in another order than the classes",
        expected="masks whose values are the classes; GIF, and programs that make PNGs smaller, sort palettes anew",
        fix="export them as PNG where they were drawn",
        copy="reads them by their colours, where these are the classes' own, and leaves the others out",
        repair="repair",
    ),
    FindingKind.CLASS_IGNORED: Rule(
        "warning",
        one="mask contains only 0 and 255, which is background and ignored pixels",
        many="masks contain only 0 and 255, which is background and ignored pixels",
        expected="the number of a class where there is an object",
        fix="write the class's number in place of 255; nothing, if 255 means ignored",
        reported_as=FindingKind.BINARY_MASK,
    ),
    FindingKind.OUTSIDE_CLASSES: Rule(
        "error",
        one="mask contains pixels of no class",
        many="masks contain pixels of no class",
        expected="only classes and ignored pixels",
        fix="redraw these pixels",
        copy="leaves the images out",
        repair="leave out",
    ),
    FindingKind.BOX_ONLY: Rule(
        "warning",
        one="annotation has a box and no outline, so the pixels inside are ignored",
        many="annotations have a box and no outline, so the pixels inside are ignored",
        expected="an outline for each object",
        fix="draw them, or nothing",
    ),
    FindingKind.ALL_IGNORED: Rule(
        "warning",
        one="mask has only ignored pixels",
        many="masks have only ignored pixels",
        expected="pixels of some class in each",
        fix="draw them, or take the images out of their lists",
        copy="leaves them out",
        repair="leave out",
    ),
    FindingKind.SIZE_MISMATCH: Rule(
        "error",
        one="image and its mask differ in size",
        many="images and their masks differ in size",
        expected="the same size for both",
        fix="export the masks at the size of their images, without smoothing",
        copy="leaves the images out",
        repair="leave out",
    ),
    FindingKind.TURNED_MASK: Rule(
        "error",
        one="image is turned by EXIF, and its mask was drawn on it the other way",
        many="images are turned by EXIF, and their masks were drawn on them the other way",
        expected="masks drawn on the image as it is shown, upright, or another orientation in labels.toml",
        fix="turn them",
        copy="turns them",
        repair="repair",
    ),
    FindingKind.UNCLEAR_ORIENTATION: Rule(
        "error",
        one="image is turned by EXIF in a way that sizes don't show, so its mask may be upright or not",
        many="images are turned by EXIF in a way that sizes don't show, so their masks may be upright or not",
        expected="an orientation in labels.toml: what masks were drawn on",
        fix="save the images upright",
        copy="turns the masks whose outlines fit one way only, and leaves the others out",
        repair="repair",
    ),
    FindingKind.TURNED_IMAGE: Rule(
        "note",
        one="image is turned by EXIF, and its mask with it",
        many="images are turned by EXIF, and their masks with them",
        expected="nothing else: images are read upright",
        fix="nothing",
        copy="writes upright pixels, for programs that ignore EXIF",
    ),
    FindingKind.PARTIAL_IMAGE: Rule(
        "warning",
        one="image decodes, but ends in one exact color or pattern, as if its file had been copied in part",
        many="images decode, but end in one exact color or pattern, as if their files had been copied in part",
        expected="complete image files",
        fix="look at them, and copy or export them again; nothing, if they are so by intention",
    ),
    FindingKind.IMAGE_NOTE: Rule(
        "note",
        one="image is read with a remark",
        many="images are read with a remark",
        expected="ordinary 8-bit images",
        fix="nothing, or export them as ordinary JPEG or PNG",
    ),
    FindingKind.SHARED_IMAGE: Rule(
        "error",
        one="image is in more than one split, so a model is evaluated on what it was trained on",
        many="images are in more than one split, so a model is evaluated on what it was trained on",
        expected="each image in one split",
        fix="take them out of one of the two",
        copy="takes them out of train",
        repair="repair",
    ),
    FindingKind.NESTED_SPLITS: Rule(
        "warning",
        one="image is in two splits, of which one is part of the other by its name",
        many="images are in two splits, of which one is part of the other by its name",
        expected="never to train on one and evaluate on the other",
        fix="nothing, if you do not",
        reported_as=FindingKind.SHARED_IMAGE,
    ),
    FindingKind.REPEATED_IMAGE: Rule(
        "note",
        one="image is in a split more than once",
        many="images are in a split more than once",
        expected="each image once, unless it should count more",
        fix="nothing, or take the repetitions out of the list",
    ),
    FindingKind.NEIGHBOURING_FRAMES: Rule(
        "warning",
        one="image is nearly the same as its neighbour by number in another split",
        many="images are nearly the same as their neighbours by number in another split, as frames of a video are",
        expected="whole videos in one split, so that a model is evaluated on what it has not seen",
        fix="draw the splits by video, or by long sections of it",
    ),
    FindingKind.NEAR_DUPLICATE: Rule(
        "warning",
        one="image is nearly the same as one in another split, which it may be a copy of",
        many="images are nearly the same as ones in another split, which they may be copies of",
        expected="different images in each split, so that a model is evaluated on what it has not seen",
        fix="draw the splits with `atrous data split`, which keeps them together; nothing, if they do differ",
    ),
    FindingKind.OUTSIDE_IMAGE: Rule(
        "warning",
        one="mask is drawn from shapes of which most lies outside the image",
        many="masks are drawn from shapes of which most lies outside the image",
        expected="shapes on the image; others were drawn on an image of another size or orientation",
        fix="look at them, and draw them again; nothing, if only small pieces stick out",
    ),
    FindingKind.EMPTY_SHAPE: Rule(
        "warning",
        one="mask has shapes that contain no pixel",
        many="masks have shapes that contain no pixel",
        expected="an area for each shape: a polygon without one was often clicked by mistake",
        fix="delete them in the tool, or nothing",
    ),
    FindingKind.REPEATED_SHAPE: Rule(
        "warning",
        one="mask has shapes that are there twice, with the same pixels",
        many="masks have shapes that are there twice, with the same pixels",
        expected="each object once; two classes for the same pixels are decided by the rule of overlap",
        fix="delete one of each in the tool, or nothing, if their class is the same",
    ),
    FindingKind.ABSENT_CLASS: Rule(
        "warning",
        one="class of {total} can't be learned",
        many="classes of {total} can't be learned",
        expected="each class in some images of train",
        fix="add images of them; nothing, if that is intended",
    ),
    FindingKind.UNEVALUATED_CLASS: Rule(
        "note",
        one="class of {total} is missing from a split",
        many="classes of {total} are missing from a split",
        expected="each class in some images of each split",
        fix="nothing, or move images of them; a mean leaves out classes that do not occur",
    ),
}
