"""Datasets of one's own: any object with samples and a label set, also by name; the doctor looks at its samples."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

import atrous.registry
from atrous.data import Sample, check, check_dataset, check_datasets, dataset_name, open_dataset, register_dataset
from atrous.data.doctor.check import quick_check, require_healthy
from atrous.data.doctor.repair import repair
from atrous.data.sources import registry
from atrous.data.sources.registry import find_source
from atrous.data.stats import measure
from atrous.errors import DatasetError, InputError
from atrous.labels import IGNORE, LabelSet
from atrous.registry import Registry

LABELS = LabelSet(("ground", "path", "plant"))


@dataclass
class Fields:
    """Nothing but what a dataset must have."""

    masks: list[np.ndarray]
    seed: int = 0
    label_set = LABELS

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        mask = self.masks[index]
        random = np.random.default_rng((self.seed, index))
        return Sample(random.integers(0, 256, (*mask.shape, 3), np.uint8), mask, f"{index}.jpg")


def mask(*values: int) -> np.ndarray:
    return np.array([values] * 4, np.uint8)


GOOD = [mask(0, 1, 2, 255), mask(2, 1, 0, 0)]


def kinds(checkup) -> dict[str, tuple[str, ...]]:
    return {finding.kind: finding.files for finding in checkup.findings}


@pytest.fixture
def fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "OPENERS", Registry("dataset", "atrous.datasets"))

    @register_dataset("fields")
    def open_fields(path: str, split: str) -> Fields:
        assert path == "here/there"
        if split not in ("train", "val"):
            raise DatasetError(f"fields has no split '{split}'")
        return Fields(GOOD, seed=len(split))


def test_a_healthy_dataset_gives_its_table() -> None:
    checkup = check_dataset(Fields(GOOD))
    assert checkup.healthy
    assert checkup.findings == ()
    assert "Fields:Fields: 2 of 2 pairs are good, 4×4 to 4×4 pixels\n  ground" in checkup.text()
    assert checkup.counts("Fields").pixels.tolist() == [12, 8, 8]
    assert checkup.to_dict()["splits"][0]["good"] == 2


def test_what_is_wrong_with_samples_is_found() -> None:
    class Bad(Fields):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            match index:
                case 3:
                    raise RuntimeError("disk full")
                case 4:
                    return Sample(sample.image[:2], sample.mask, "")
                case 5:
                    return Sample(sample.image.astype(np.float32), sample.mask, "")
                case 6:
                    return (sample.image, sample.mask)  # type: ignore[return-value]
            return sample

    masks = [mask(0, 1, 0, 0), mask(0, 1, 3, 7), mask(255, 255, 255, 255), *[mask(0, 1)] * 4]
    checkup = check_dataset(Bad(masks))
    assert kinds(checkup) == {
        "unreadable-sample": ("Bad[3]", "Bad[5]", "Bad[6]"),
        "outside-classes": ("Bad[1]",),
        "size-mismatch": ("Bad[4]",),
        "all-ignored": ("Bad[2]",),
        "absent-class": ("plant",),
    }
    details = {item.name: item.detail for finding in checkup.findings for item in finding.items}
    assert details["Bad[3]"] == "RuntimeError: disk full"
    assert details["Bad[5]"] == "its image is float32 (4, 2, 3), expected uint8 (H, W, C)"
    assert details["Bad[6]"] == "a tuple, expected atrous.data.Sample (atrous.data.wrap makes them)"
    assert details["Bad[1]"] == "value 3 in 4 pixels, value 7 in 4 pixels"
    assert "--fix" not in checkup.text()
    with pytest.raises(DatasetError, match="not a dataset on disk"):
        repair(checkup, None)


def test_an_image_in_training_and_validation_is_an_error() -> None:
    checkup = check_datasets({"train": Fields(GOOD, 1), "val": Fields(GOOD[:1], 1)})
    assert kinds(checkup)["shared-image"] == ("train[0]",)
    other = Fields(GOOD)
    other.label_set = LabelSet(("a", "b", "c"))
    with pytest.raises(DatasetError, match="other classes"):
        check_datasets({"train": Fields(GOOD), "val": other})
    with pytest.raises(DatasetError, match="'val' has no samples"):
        check_datasets({"train": Fields(GOOD), "val": Fields([])})


def test_a_registered_name_is_a_dataset_everywhere(fields: None) -> None:
    data = open_dataset("fields:here/there", "train+val")
    assert (len(data), dataset_name(data), data.label_set) == (4, "fields:train+val", LABELS)
    np.testing.assert_array_equal(data[3].image, Fields(GOOD, seed=3)[1].image)
    with pytest.raises(IndexError):
        data[4]
    assert measure(data).counts.pixels.sum() == 2 * 28
    checkup = check("fields:here/there")
    assert (checkup.healthy, list(checkup.lists), checkup.findings) == (True, ["train", "val"], ())
    assert quick_check("fields:here/there", ["train"]) == []
    with pytest.raises(DatasetError, match=r"(?s)fields:here/there can't be used, 1 error.*no split 'test'"):
        require_healthy("fields:here/there", ["train", "test"])
    with pytest.raises(DatasetError, match="fields has no split 'test'"):
        open_dataset("fields:here/there", "test")
    assert atrous.open_dataset is open_dataset


def test_a_registered_name_has_no_files(fields: None) -> None:
    with pytest.raises(DatasetError, match="'fields:here/there' is a registered dataset"):
        find_source("fields:here/there")


MEADOWS = """
from atrous.data import register_dataset, wrap

@register_dataset("meadows")
def open_meadows(path, split):
    return wrap([(), ()], ["ground", "grass"], name=path)
"""


def test_a_package_registers_by_an_entry_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meadows.py").write_text(MEADOWS)
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("meadows", "meadows:open_meadows", "atrous.datasets")
    monkeypatch.setattr(registry, "OPENERS", Registry("dataset", "atrous.datasets"))
    monkeypatch.setattr(atrous.registry, "entry_points", lambda group: [point] if group == point.group else [])
    assert len(open_dataset("meadows:x", "train")) == 2
    with pytest.raises(DatasetError, match="'medows:x' is not a dataset"):
        open_dataset("medows:x", "train")


@pytest.mark.parametrize("name", ["voc", "a:b", ""])
def test_a_name_that_is_taken_or_none_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="choose a name without a colon"):
        register_dataset(name)


def test_ignored_pixels_stay_ignored() -> None:
    assert check_dataset(Fields([mask(0, 1, 2, IGNORE)])).counts("Fields").ignored == 4
