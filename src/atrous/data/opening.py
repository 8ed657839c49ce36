"""Opening a dataset by its specification."""

from __future__ import annotations

from atrous.data.dataset import Dataset, PairedDataset
from atrous.data.doctor.list_rules import absent_files
from atrous.data.findings import errors_of
from atrous.data.sources.base import list_pairs
from atrous.data.sources.registry import find_opener, find_source, open_registered
from atrous.data.windows import WindowedDataset
from atrous.errors import DatasetError


def open_dataset(spec: str, split: str) -> Dataset:
    """Open a dataset by its specification.

    Args:
        spec: ``SOURCE:PATH``, with one of :data:`atrous.data.sources.registry.SOURCES` or a name that
            :func:`atrous.data.register_dataset` knows.
        split: name of a split, or several joined by ``+`` (``train+val``).

    Raises:
        DatasetError: an unknown source, a missing folder or split, or a split that lists missing files.
        MaskError: an unreadable mask, where classes are counted because nothing names them.

    Example:
        >>> import atrous
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> for folder, mode in (("images", "RGB"), ("masks", "L")):
        ...     Path("mine", folder).mkdir(parents=True)
        ...     Image.new(mode, (60, 40)).save(Path("mine", folder, "black.png"))
        >>> _ = Path("mine/labels.toml").write_text('names = ["ground", "sky"]')
        >>> data = atrous.open_dataset("folder:mine", "all")
        >>> len(data), data[0].image.shape
        (1, (40, 60, 3))
    """
    if find_opener(spec):
        return open_registered(spec, split)
    source = find_source(spec)
    pairs = list_pairs(source, split)
    if not pairs:
        raise DatasetError(f"'{spec}', split '{split}', has no images")
    if findings := errors_of(absent_files(source, {split: pairs})):
        raise DatasetError(f"'{spec}', split '{split}': " + "\n".join(finding.sentence() for finding in findings))
    name = f"{spec.partition(':')[0]}:{split}"
    data = PairedDataset(name, source.form(), tuple((pair.image, pair.mask) for pair in pairs), source.extras)
    return WindowedDataset.of(data)
