"""Trainings on images of five channels of 16 bits: normalised by what was measured, they learn, resume and predict."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import atrous
from atrous.cli import app
from atrous.data.augment import Augmentation
from atrous.data.channel_stats import channel_stats
from atrous.data.dataset import Sample
from atrous.data.export import convert
from atrous.data.files.rasters import open_dataset
from atrous.data.opening import open_dataset as open_data
from atrous.errors import AtrousError, InputError
from atrous.inference.batch import predict_files
from atrous.models.base import Preprocessing
from atrous.models.loading import load
from atrous.training.building import build_model
from atrous.training.recipe import Recipe, RecipeError, check_recipe

pytest.importorskip("rasterio", reason="needs the extra geo")
SIDE = 64


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    """Water above soil, and a crop; the first rows were not measured."""
    root, random = tmp_path / "fields", np.random.default_rng(0)
    for folder in ("images", "masks", "splits"):
        (root / folder).mkdir(parents=True)
    levels = np.array([[1000, 3000, 2000, 500, 9000], [1000, 3000, 2000, 2500, 9000], [1000, 3000, 2000, 2500, 4000]])
    for number in range(6):
        labels = np.zeros((SIDE, SIDE), np.uint8)
        labels[SIDE // 2 :] = 1
        left = int(random.integers(8, SIDE - 24))
        labels[16 : SIDE - 8, left : left + 20] = 2
        values = (levels[labels] + random.normal(0, 200, (SIDE, SIDE, 5))).clip(1, 65535).astype(np.uint16)
        values[:4] = 0
        form = {"count": 5, "height": SIDE, "width": SIDE, "dtype": "uint16", "nodata": 0}
        with open_dataset(root / f"images/f{number}.tif", "w", driver="GTiff", **form) as file:
            file.write(np.moveaxis(values, -1, 0))
        np.save(root / f"masks/f{number}.npy", labels)
    (root / "splits/train.txt").write_text("f0\nf1\nf2\nf3\n")
    (root / "splits/val.txt").write_text("f4\nf5\n")
    (root / "labels.toml").write_text('names = ["water", "soil", "crop"]\n')
    return root


def recipe(fields: Path, **changes: object) -> Recipe:
    table = {
        "model": {"name": "fcn8s", "backbone": "test_resnet", "pretrained": False},
        "data": {"train": f"folder:{fields}", "workers": 0},
        "augment": {"crop": 64, "scale": [1.0, 1.0], "brightness": 0.3, "hue": 20},
        "optimizer": {"name": "adamw", "lr": 0.005},
        "training": {"batch_size": 2, "epochs": 12, "precision": "float32", "validate_every": 12},
        "log": {"samples": 1},
    }
    for key, value in changes.items():
        section, name = key.split("__")
        table[section][name] = value
    return check_recipe(table)


def test_five_channels_of_16_bits_learn_and_predict_from_files(fields: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    atrous.train(recipe(fields), out)
    model, val = load(out / "best"), open_data(f"folder:{fields}", "val")
    assert atrous.evaluate(model, val).metrics.mean_iou > 0.8
    known, found = model.preprocessing, channel_stats(open_data(f"folder:{fields}", "train"))
    assert (known.dtype, model.backbone.in_channels) == ("uint16", 5)
    np.testing.assert_allclose((known.mean, known.std), (found.mean, found.std))
    assert known.ranges[4] == pytest.approx((3500, 9500), rel=0.1)
    assert json.loads((out / "best/config.json").read_text())["format"] == 2

    report = predict_files(model, [fields / "images/f5.tif"], tmp_path / "out")
    with open_dataset(report.done[0].mask) as file:
        mask = file.read(1)
    assert (mask[:4] == 255).all()
    sample = val[1]
    predicted = atrous.predict(model, fields / "images/f5.tif").labels
    assert (predicted == atrous.predict(model, sample.image).labels).all()
    assert (predicted == sample.mask)[4:].mean() > 0.9

    other = tmp_path / "eight.npy"
    np.save(other, (sample.image >> 6).astype(np.uint8))
    failed = predict_files(model, [other], tmp_path / "out").failed
    assert "5 channels of uint8, expected 5 channels of uint16; convert it" in failed[0].reason
    with pytest.raises(InputError, match=r"expected an image as uint16 \(H, W, 5\).*, not uint8"):
        atrous.predict(model, np.zeros((40, 40, 5), np.uint8))
    with pytest.raises(AtrousError, match="takes images of 8 bits, and this model takes 5 channels of uint16"):
        atrous.export_model(model, tmp_path / "x.onnx")
    three = atrous.create_model("fcn8s", backbone="test_resnet", label_set=val.label_set)
    with pytest.raises(InputError, match=r"f4\.tif: 5 channels of uint16, but fcn8s takes 3 channels of uint8"):
        atrous.evaluate(three, val)
    three.save(tmp_path / "three")
    with pytest.raises(
        RecipeError, match=r"'.*three' takes 3 channels of uint8, and folder:train has 5 channels of uin"
    ):
        build_model(recipe(fields, model__start_from=str(tmp_path / "three")), val_of(fields))


def val_of(fields: Path) -> atrous.data.Dataset:
    return open_data(f"folder:{fields}", "train")


def test_what_images_contain_is_declared_or_found_and_checked(fields: Path) -> None:
    run = CliRunner().invoke
    stats = run(app, ["data", "stats", f"folder:{fields}", "--json", str(fields / "stats.json")])
    assert "5 channels of uint16" in stats.output
    facts = json.loads((fields / "stats.json").read_text())["image_channels"]
    assert (facts["dtype"], facts["not_measured"]) == ("uint16", 4 / 64)
    assert len(facts["channels"]) == 5
    convert(f"folder:{fields}", fields.with_name("copy"))
    assert "[images]\nchannels = 5" in (fields.with_name("copy") / "labels.toml").read_text()
    np.save(fields / "images/f3.npy", np.zeros((SIDE, SIDE, 5), np.int16))
    (fields / "images/f3.tif").unlink()
    checked = run(app, ["data", "check", f"folder:{fields}"])
    assert "5 channels of int16, expected 5 channels of uint16; convert it" in " ".join(checked.output.split())
    (fields / "labels.toml").write_text('names = ["a", "b", "c"]\n[images]\nchannels = 5\ndtype = "int16"\n')
    assert val_of(fields).extras.images == atrous.data.ImageForm(5, "int16", color=False)
    (fields / "labels.toml").write_text('names = ["a", "b", "c"]\n[images]\ndepth = 16\n')
    with pytest.raises(AtrousError, match=r"\[images\] is .*depth.*; expected channels = 5, dtype = \"uint16\""):
        val_of(fields)


def test_normalisation_by_rule(fields: Path) -> None:
    with pytest.raises(
        RecipeError, match='"pretrained" is for 8-bit images, and folder:train has 5 channels of uint16'
    ):
        build_model(recipe(fields, data__normalization="pretrained"), val_of(fields))
    pairs = [(np.full((8, 8, 3), 60 * n, np.uint8), np.zeros((8, 8), np.uint8)) for n in range(1, 4)]
    data = atrous.wrap(pairs, ("a", "b"))
    assert build_model(recipe(fields), data).preprocessing.mean == (0.5, 0.5, 0.5)
    measured = build_model(recipe(fields, data__normalization="measured"), data).preprocessing
    assert measured.mean == pytest.approx((120 / 255,) * 3)
    assert measured.std == pytest.approx((np.std([60, 120, 180]) / 255,) * 3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_augmentation_keeps_types_and_leaves_measurements_alone(dtype: str) -> None:
    values = np.arange(40 * 50 * 2).reshape(40, 50, 2).astype(dtype)
    sample = Sample(values, np.zeros((40, 50), np.uint8), "a")
    jitter = {"brightness": 0.5, "contrast": 0.5, "hue": 90.0, "saturation": 0.5}
    made = Augmentation(crop=64, scale=(1.0, 1.0), fill=(7.4, 9.0), colored=False, flip=False, **jitter)(
        sample, np.random.default_rng(0)
    )
    assert made.image.dtype == dtype
    np.testing.assert_array_equal(made.image[:40, :50], values)
    assert made.image[50, 60, 0] == (np.float32(7.4) if dtype == "float32" else 7)


def test_a_deep_image_is_normalised_exactly() -> None:
    images = torch.tensor([[[[60_000, 60_010]]]], dtype=torch.uint16)
    made = Preprocessing((60_000.0,), (5.0,), "uint16")(images)
    assert made.flatten().tolist() == [0.0, 2.0]
    assert Preprocessing.from_dict(Preprocessing((1.0,), (2.0,), "int16", ((0.0, 3.0),)).to_dict()).ranges == ((0, 3),)
