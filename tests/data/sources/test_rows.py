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
    with pytest.raises(DatasetError, match="is not a folder, nor OWNER/NAME of the hub"):
        open_dataset("hf:some/one/scenes", "train")


def test_a_name_of_the_hub_is_loaded_with_the_classes_that_its_repository_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets", reason="needs atrous[hf]")
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    features = datasets.Features({"pixel_values": datasets.Image(), "label": datasets.Image()})
    columns = dict(zip(("pixel_values", "label"), zip(*(pair(seed) for seed in range(2)), strict=True), strict=True))
    rows = datasets.Dataset.from_dict({name: list(images) for name, images in columns.items()}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name: {"train": rows} if name == "someone/scenes" else None)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)

    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda _: ["train"])

    def download(name: str, file: str, repo_type: str, *, local_files_only: bool) -> str:
        assert not local_files_only
        if file not in written:
            raise EntryNotFoundError(f"{name} {repo_type}")
        (tmp_path / file).write_text(written[file])
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    written: dict[str, str] = {}
    with pytest.raises(DatasetError, match=r"no labels.toml or id2label.json on the hub"):
        open_dataset("hf:someone/scenes", "all")
    written["id2label.json"] = '{"0": "ground", "1": "plant"}'
    data = open_dataset("hf:someone/scenes", "all")
    assert data.label_set.names == ("ground", "plant")
    np.testing.assert_array_equal(data[1].mask, np.asarray(pair(1)[1]))
    written["id2label.json"] = '{"1": "ground", "2": "plant"}  '
    with pytest.raises(DatasetError, match="its numbers are 1, 2, expected 0, 1, 2"):
        open_dataset("hf:someone/scenes", "all")


def test_without_a_network_a_name_of_the_hub_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="needs atrous[hf]")
    import huggingface_hub

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("[Errno -2] Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    with pytest.raises(
        DatasetError, match=r"Name or service not known\); correct the name, or .*save_to_disk\('FOLDER'"
    ):
        open_dataset("hf:someone/scenes", "train")


def test_a_wrong_split_or_a_dataset_without_classes_downloads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets", reason="needs atrous[hf]")
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    def download(_: str, file: str, **__: object) -> str:
        if not (tmp_path / file).is_file():
            raise EntryNotFoundError(file)
        return str(tmp_path / file)

    monkeypatch.setattr(datasets, "load_dataset", lambda _: pytest.fail("it was downloaded"))
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda _: ["train", "validation"])
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(DatasetError, match=r"no labels.toml or id2label.json on the hub"):
        open_dataset("hf:someone/scenes", "train")
    (tmp_path / "labels.toml").write_text(NAMES)
    with pytest.raises(DatasetError, match=r"no split 'vall' \(did you mean 'val'\?\); available splits: train, val"):
        open_dataset("hf:someone/scenes", "vall")


def test_without_a_network_the_cache_is_used_where_it_has_the_classes_and_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets", reason="needs atrous[hf]")
    import huggingface_hub

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("[Errno -2] Name or service not known")

    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    image, mask = pair(1)
    rows = datasets.Dataset.from_dict({"image": [image], "mask": [mask]}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda _: {"train": rows})
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    cache, commit = tmp_path / "datasets--someone--scenes", "a" * 40
    for file, text in (
        ("refs/main", commit),
        (f"snapshots/{commit}/id2label.json", '["ground", "plant"]'),
        (f".no_exist/{commit}/labels.toml", ""),
    ):
        (cache / file).parent.mkdir(parents=True, exist_ok=True)
        (cache / file).write_text(text)
    assert open_dataset("hf:someone/scenes", "all").label_set.names == ("ground", "plant")
    (cache / f".no_exist/{commit}/labels.toml").unlink()  # there may be one, with other names
    with pytest.raises(DatasetError, match="Name or service not known"):
        open_dataset("hf:someone/scenes", "all")


def test_images_in_tars_are_turned_upright_with_their_masks(tmp_path: Path) -> None:
    root = tars(tmp_path / "shards", "train-000.tar")
    (root / "labels.toml").write_text(NAMES + 'orientation = "stored"')
    image, mask = pair(0)
    exif = image.getexif()
    exif[0x0112] = 6
    with tarfile.open(root / "train-000.tar", "w") as archive:
        for name, picture, options in (("a.jpg", image, {"exif": exif}), ("a.mask.png", mask, {})):
            picture.save(data := io.BytesIO(), "JPEG" if options else "PNG", **options)
            info = tarfile.TarInfo(name)
            info.size = data.tell()
            data.seek(0)
            archive.addfile(info, data)
    sample = open_dataset(f"webdataset:{root}", "train")[0]
    assert sample.image.shape == (16, 12, 3)
    np.testing.assert_array_equal(sample.mask, np.rot90(np.asarray(mask), -1))
