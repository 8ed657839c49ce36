"""More than 255 classes: masks of 16 bits from a folder through training, evaluation and prediction to files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import atrous
from atrous.cli import app
from atrous.data.files.mask_rows import write_png_rows
from atrous.data.files.rasters import open_dataset as open_raster_file
from atrous.errors import InputError
from atrous.labels import IGNORE, WIDE_IGNORE, encode_mask, ignored
from atrous.training import train
from atrous.training.recipe_file import load_recipe

CLASSES = 300
NAMES = tuple(f"parcel {number}" for number in range(CLASSES))
SHOWN = (0, 255, 256, 299)
"""The classes of the images: 255, which 8 bits would ignore, is one."""
COLORS = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)


@pytest.fixture
def parcels(tmp_path: Path) -> Path:
    """Squares in the colour of their class, in a folder; the first rows are ignored."""
    root, random = tmp_path / "parcels", np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(8):
        places = random.permuted(np.arange(4).reshape(2, 2).repeat(2, axis=1), axis=1).repeat(24, 0).repeat(12, 1)
        mask = np.array(SHOWN, np.uint16)[places]
        mask[:2] = WIDE_IGNORE
        Image.fromarray(COLORS[places]).save(root / f"images/{number}.png")
        Image.fromarray(mask).save(root / f"masks/{number}.png")
    (root / "labels.toml").write_text(f"names = {json.dumps(NAMES)}\n")
    (root / "splits").mkdir()
    for split, numbers in (("train", range(6)), ("val", range(6, 8))):
        (root / f"splits/{split}.txt").write_text("".join(f"{number}\n" for number in numbers))
    return root


def run(*arguments: object) -> str:
    answer = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_masks_are_read_counted_and_checked(parcels: Path) -> None:
    data = atrous.open_dataset(f"folder:{parcels}", "val")
    mask = data[0].mask
    assert mask.dtype == np.uint16
    assert set(np.unique(mask)) <= {*SHOWN, WIDE_IGNORE}
    assert "healthy" in run("data", "check", f"folder:{parcels}")
    run("data", "stats", f"folder:{parcels}", "--split", "val", "--json", parcels / "stats.json")
    counted = json.loads((parcels / "stats.json").read_text())
    assert counted["ignored_pixels"] == 2 * 2 * 48
    assert [row["name"] for row in counted["classes"] if row["pixels"]] == [NAMES[label] for label in SHOWN]


def test_a_network_learns_them_and_writes_them(parcels: Path, tmp_path: Path) -> None:
    settings = [
        f"data.train=folder:{parcels}",
        "data.workers=0",
        "model.backbone=test_resnet",
        "model.pretrained=false",
        "model.options={rates=[1],channels=16,decoder_channels=16}",
        "augment.crop=33",
        "augment.scale=[1.0,1.0]",
        "optimizer.lr=0.02",
        "optimizer.backbone_lr=",
        "training.steps=60",
        "training.validate_every=60",
        "training.batch_size=4",
        "training.precision=float32",
        "training.ema=",
        "loss.resolution=network",
    ]
    run_folder = tmp_path / "run"
    train(load_recipe("folder_deeplabv3plus_lite0", settings), run_folder)
    model = atrous.load(run_folder / "last")
    found = atrous.evaluate(model, atrous.open_dataset(f"folder:{parcels}", "val"), details=True, trimap=(2,))
    assert found.metrics.mean_iou_of_true_classes > 0.5
    assert found.confusion.matrix.sum() == 2 * 46 * 48
    out = tmp_path / "masks"
    run("predict", parcels / "images", "--model", run_folder / "last", "--out", out, "--overlay", "--json")
    with Image.open(out / "0.png") as image:
        labels = np.asarray(image)
    assert labels.dtype == np.uint16
    assert (labels == atrous.predict(model, parcels / "images/0.png").labels).all()


def test_what_has_8_bits_refuses_them_in_words(parcels: Path, tmp_path: Path) -> None:
    model = atrous.create_model("deeplabv3", backbone="test_resnet", num_classes=CLASSES)
    with pytest.raises(InputError, match=r"300 classes, and labels of an exported file are uint8"):
        atrous.export_model(model, tmp_path / "model.pt2")
    command = ["data", "convert", f"folder:{parcels}", "--to", "yolo", "--out", str(tmp_path / "yolo")]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 2
    assert "annotation tools are written for at most 255" in answer.output


def test_a_folder_of_many_classes_is_copied_exactly(parcels: Path, tmp_path: Path) -> None:
    run("data", "convert", f"folder:{parcels}", "--out", tmp_path / "copy")
    one, other = (atrous.open_dataset(f"folder:{root}", "val") for root in (parcels, tmp_path / "copy"))
    assert all((one[number].mask == other[number].mask).all() for number in range(len(one)))


def test_a_class_table_makes_few_classes_of_many(parcels: Path, tmp_path: Path) -> None:
    table = {name: "low" if number < 256 else "high" for number, name in enumerate(NAMES)} | {NAMES[299]: "255"}
    (tmp_path / "table.csv").write_text("class,new\n" + "".join(f"{key},{value}\n" for key, value in table.items()))
    data = atrous.open_dataset(f"folder:{parcels}?classes={tmp_path / 'table.csv'}", "val")
    mask, before = data[0].mask, atrous.open_dataset(f"folder:{parcels}", "val")[0].mask
    assert mask.dtype == np.uint8
    assert ((mask == IGNORE) == ((before == 299) | (before == WIDE_IGNORE))).all()
    assert (mask[mask != IGNORE] == (before[mask != IGNORE] >= 256)).all()


def test_rows_and_whole_masks_are_the_same_png(tmp_path: Path) -> None:
    classes = atrous.LabelSet(NAMES)
    mask = np.random.default_rng(0).integers(0, CLASSES, (50, 70)).astype(np.uint16)
    mask[0] = WIDE_IGNORE
    write_png_rows(tmp_path / "rows.png", [mask[:20], mask[20:]], mask.shape, classes)
    (tmp_path / "whole.png").write_bytes(encode_mask(mask, classes))
    for name in ("rows", "whole"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert (np.asarray(image) == mask).all()
    assert ignored(mask).sum() == 70


def test_a_geotiff_has_16_bits(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    from atrous.data.files.mask_rows import write_geotiff_rows

    mask = np.arange(300, dtype=np.uint16).reshape(10, 30)
    write_geotiff_rows(tmp_path / "mask.tif", [mask], mask.shape, atrous.LabelSet(NAMES), None)
    with open_raster_file(tmp_path / "mask.tif") as file:
        assert (file.read(1) == mask).all()
        assert (file.nodata, json.loads(file.tags()["classes"])[299]) == (WIDE_IGNORE, NAMES[299])
