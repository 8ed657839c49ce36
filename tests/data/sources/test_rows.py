"""Sources whose images are not files of their own: Hugging Face datasets and tars of webdataset."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.doctor.check import check
from atrous.data.export import convert
from atrous.data.opening import open_dataset
from atrous.errors import DatasetError

NAMES = 'names = ["ground", "plant"]\n'


def pair(seed: int) -> tuple[Image.Image, Image.Image]:
    mask = np.zeros((12, 16), np.uint8)
    mask[seed : seed + 3, 2:9] = 1
    mask[-1] = 255
    return Image.fromarray(np.full((12, 16, 3), 40 * seed, np.uint8)), Image.fromarray(mask)


def tars(root: Path, *names: str, ending: str = "mask.png") -> Path:
    root.mkdir(exist_ok=True)
    (root / "labels.toml").write_text(NAMES)
    for place, name in enumerate(names):
        with tarfile.open(root / name, "w") as archive:
            for image, kind, form in zip(pair(place), ("png", ending), ("PNG", "PNG"), strict=True):
                image.save(data := io.BytesIO(), form)
                info = tarfile.TarInfo(f"shots/{place:04}.{'image.png' if kind == 'png' else kind}")
                info.size = data.tell()
                data.seek(0)
                archive.addfile(info, data)
    return root


def test_tars_are_read_by_split(tmp_path: Path) -> None:
    root = tars(tmp_path / "shards", "train-000.tar", "train-001.tar", "val-000.tar")
    data = open_dataset(f"webdataset:{root}", "train")
    assert (len(data), data.label_set.names, data[1].name) == (2, ("ground", "plant"), "shots/0001")
    np.testing.assert_array_equal(data[1].mask, np.asarray(pair(1)[1]))
    np.testing.assert_array_equal(open_dataset(f"auto:{root}", "val")[0].image, np.asarray(pair(2)[0]))
    assert check(f"webdataset:{root}").counts("train").pixels[1] == 42
    with pytest.raises(DatasetError, match=r"no split 'vall' \(did you mean 'val'\?\)"):
        open_dataset(f"webdataset:{root}", "vall")


def test_tars_are_converted(tmp_path: Path) -> None:
    root = tars(tmp_path / "shards", "train-000.tar", "val-000.tar")
    convert(f"webdataset:{root}", tmp_path / "out")
    data = open_dataset(f"folder:{tmp_path}/out", "val")
    np.testing.assert_array_equal(data[0].mask, np.asarray(pair(1)[1]))
    convert(f"webdataset:{root}", tmp_path / "yolo", to="yolo")
    assert len(open_dataset(f"yolo:{tmp_path}/yolo", "val")) == 1


def test_a_tar_of_something_else_says_what_was_expected(tmp_path: Path) -> None:
    root = tars(tmp_path / "shards", "train-000.tar", ending="txt")
    with pytest.raises(DatasetError, match=r"the key shots/0000 has image.png, txt; expected an image .* and a mask"):
        open_dataset(f"webdataset:{root}", "train")
    (root / "train-000.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(DatasetError, match="not a readable tar without compression"):
        open_dataset(f"webdataset:{root}", "train")
    (root / "labels.toml").unlink()
    with pytest.raises(DatasetError, match=r"does not name its classes; write .*labels.toml"):
        open_dataset(f"webdataset:{root}", "train")


def test_rows_of_hugging_face_are_read_from_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs atrous[hf]")
    features = datasets.Features({"image": datasets.Image(), "annotation": datasets.Image()})
    images, masks = zip(*(pair(seed) for seed in range(3)), strict=True)
    rows = datasets.Dataset.from_dict({"image": list(images), "annotation": list(masks)}, features=features)
    root = tmp_path / "rows"
    datasets.DatasetDict({"train": rows, "validation": rows.select([2])}).save_to_disk(str(root))
    with pytest.raises(DatasetError, match=r"does not name its classes; write .*labels.toml"):
        open_dataset(f"hf:{root}", "train")
    (root / "labels.toml").write_text(NAMES)
    data = open_dataset(f"auto:{root}", "train")
    assert len(data) == 3
    np.testing.assert_array_equal(data[1].mask, np.asarray(masks[1]))
    np.testing.assert_array_equal(open_dataset(f"hf:{root}", "val")[0].mask, np.asarray(masks[2]))
    with pytest.raises(DatasetError, match="is not a folder; a dataset of the hub is stored in one by"):
        open_dataset("hf:someone/scenes", "train")
