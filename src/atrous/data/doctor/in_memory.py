"""Checking datasets that are Python objects: what their samples contain, instead of what files do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from atrous.data.dataset import Dataset, check_sample, dataset_extras, dataset_name, require_dataset
from atrous.data.doctor.dataset_rules import missing_classes, repeated_images
from atrous.data.doctor.inspect import PairFacts, look_at_arrays
from atrous.data.doctor.remedies import findings_about
from atrous.data.doctor.report import Checkup
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import DecodedMask, MaskHeader, MaskRef
from atrous.data.files.threads import Progress, read_all
from atrous.data.finding_kinds import FindingKind
from atrous.data.findings import Finding, Item, make_finding, worst_first
from atrous.data.sources.base import Listed
from atrous.errors import DatasetError, InputError


@dataclass(frozen=True)
class SampleMask(MaskRef):
    """The mask of a sample; its path is how the sample is called in messages."""

    dataset: Dataset = field(repr=False, compare=False)
    index: int

    def exists(self) -> bool:
        return True

    def header(self) -> MaskHeader:
        height, width = self.dataset[self.index].mask.shape
        return MaskHeader((height, width))

    def decode(self) -> DecodedMask:
        return DecodedMask(str(self), Image.fromarray(self.dataset[self.index].mask))


@dataclass(frozen=True)
class Opened:
    """How a dataset that is not on disk is called in messages.

    Args:
        spec: a name, or the specification by which it was opened.
        names: its splits.
    """

    spec: str
    names: Sequence[str]
    labels_file = None
    root = None
    repairable = False

    @property
    def kind(self) -> str:
        return self.spec.partition(":")[0]

    def splits(self) -> list[str]:
        return list(self.names)


def check_dataset(dataset: Dataset, progress: Progress | None = None) -> Checkup:
    """Read every sample of a dataset, and find everything that is wrong with it.

    Found are samples that raise or have a wrong dtype or shape, images and masks that differ in size, values outside
    the classes, masks with only ignored pixels, repeated images, and missing classes.

    Args:
        dataset: any object with ``__len__``, ``__getitem__`` and ``label_set``.
        progress: called with the number of samples read and their total after each sample.

    Raises:
        DatasetError: it is not a dataset, or has no samples.
    """
    return check_datasets({dataset_name(dataset): dataset}, progress)


def check_datasets(
    datasets: Mapping[str, Dataset], progress: Progress | None = None, *, spec: str = "", most: int | None = None
) -> Checkup:
    """Check datasets that belong together, as :func:`check_dataset`; images in more than one of them are found too.

    Args:
        datasets: by the name of their split, ``train`` and ``val``; of the same classes.
        progress: called with the number of samples read and their total after each sample.
        spec: name of them together; that of the first when left out.
        most: number of samples of each to read, spread evenly; all when left out.

    Raises:
        DatasetError: one is not a dataset or has no samples, or the classes differ.
    """
    for split, dataset in datasets.items():
        require_dataset(dataset, split)
    form = _common_form(datasets)
    lists = {split: _listed(split, dataset, most) for split, dataset in datasets.items()}
    pairs = [(pair, datasets[split]) for split, listed in lists.items() for pair in listed]
    seen = dict(zip([pair for pair, _ in pairs], read_all(_look, pairs, progress), strict=True))
    facts = {pair: found for pair, found in seen.items() if isinstance(found, PairFacts)}
    opened = Opened(spec or dataset_name(next(iter(datasets.values()))), tuple(datasets))
    checkup = Checkup(opened, form, tuple(datasets), lists, facts)
    findings = [
        *_unusable(seen),
        *findings_about(opened, form, facts),
        *repeated_images(opened, lists, facts),
    ]
    if most is None:
        findings += missing_classes(opened, form, {split: checkup.counts(split) for split in lists})
    return Checkup(opened, form, tuple(datasets), lists, facts, tuple(worst_first(findings)))


def _common_form(datasets: Mapping[str, Dataset]) -> MaskForm:
    first, *others = datasets.values()
    for split, dataset in datasets.items():
        if not len(dataset):
            raise DatasetError(f"dataset '{split}' has no samples")
    if different := [other for other in others if other.label_set.names != first.label_set.names]:
        raise DatasetError(
            f"{dataset_name(different[0])} has other classes ({', '.join(different[0].label_set.names)}) than "
            f"{dataset_name(first)} ({', '.join(first.label_set.names)})"
        )
    return MaskForm(first.label_set, orientation="upright")


def _listed(split: str, dataset: Dataset, most: int | None) -> list[Listed]:
    count = len(dataset)
    step = 1 if most is None else count // most + 1
    return [_pair(split, dataset, index) for index in range(0, count, step)]


def _pair(split: str, dataset: Dataset, index: int) -> Listed:
    name = f"{split}[{index}]"
    return Listed(name, Path(name), SampleMask(Path(name), dataset, index))


def _look(named: tuple[Listed, Dataset]) -> PairFacts | str:
    pair, dataset = named
    assert isinstance(pair.mask, SampleMask)
    try:
        sample = dataset[pair.mask.index]
        check_sample(sample, dataset_extras(dataset).images.dtype)
    except Exception as error:  # code of others may raise anything, and one bad sample is not the end
        return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return look_at_arrays(sample.image, sample.mask)


def _unusable(seen: Mapping[Listed, PairFacts | str]) -> list[Finding]:
    items = [Item(pair.name, reason) for pair, reason in seen.items() if isinstance(reason, str)]
    return [make_finding(FindingKind.UNREADABLE_SAMPLE, items)] if items else []
