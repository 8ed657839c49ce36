"""Class tables rename, merge, drop and reorder classes, by name or number, and miss none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import atrous
from atrous.data import register_dataset, wrap
from atrous.data.class_tables import read_class_table
from atrous.data.doctor.check import check
from atrous.data.export import convert
from atrous.data.opening import open_dataset
from atrous.data.sources import registry
from atrous.data.sources.coco import NAMES_OF_VOC_CLASSES
from atrous.data.sources.spec import parse_spec, with_options
from atrous.errors import DatasetError, InputError
from atrous.label_sets import VOC
from atrous.labels import LabelSet

LABELS = LabelSet(("background", "car", "bus", "tree", "rock", "sign"))
MASK = np.array([[0, 1, 2, 3, 4, 5, 255]], np.uint8).repeat(8, 0)
CSV = "class,new\nsign,255\nrock,background\n3,plant\ncar, vehicle\nbus, vehicle\n"
TOML = """names = ["vehicle", "plant"]
[classes]
car = "vehicle"
bus = "vehicle"
tree = "plant"
4 = "ignore"
sign = "background"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images", "masks"):
        (tmp_path / "mine" / name).mkdir(parents=True)
    Image.fromarray(MASK * 40).convert("RGB").save(tmp_path / "mine/images/a.png")
    Image.fromarray(MASK).save(tmp_path / "mine/masks/a.png")
    (tmp_path / "mine/labels.toml").write_text(f"names = {list(LABELS.names)}".replace("'", '"'))
    return tmp_path / "mine"


def write(folder: Path, text: str) -> Path:
    file = folder.parent / ("table.toml" if "[" in text else "table.csv")
    file.write_text(text)
    return file


def test_a_csv_merges_renames_drops_and_ignores(folder: Path) -> None:
    data = open_dataset(f"folder:{folder}?classes={write(folder, CSV)}", "all")
    assert data.label_set.names == ("background", "plant", "vehicle")  # in the order of the lines
    assert data.label_set.colors == ((0, 0, 0), LABELS.colors[3], LABELS.colors[1])
    assert data[0].mask[0].tolist() == [0, 2, 2, 1, 0, 255, 255]


def test_a_toml_also_orders(folder: Path) -> None:
    data = open_dataset(with_options(f"folder:{folder}", classes=write(folder, TOML)), "all")
    assert data.label_set.names == ("background", "vehicle", "plant")
    assert data[0].mask[0].tolist() == [0, 1, 1, 2, 255, 0, 255]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (CSV.replace("rock,background\n", ""), r"leaves out the class 'rock' \(4\); write what becomes of it"),
        (CSV.replace("rock", "rok"), r"the class 'rok' is not one of the 6 classes \(did you mean 'rock'\?\)"),
        (CSV + "tree,plant\n", "has the class 'tree' twice: by its name, and as 3"),
        (CSV + "rock,plant\n", "has the class 'rock' twice"),
        (CSV.replace("255", "7"), "a class becomes 7, which is a number"),
        (CSV.replace("class,new", "a,b"), "the header a,b; expected a CSV with the header class,new"),
        (TOML.replace('"plant"]', '"plants"]'), "names has 'plants', which no class becomes"),
        (TOML.replace("[classes]", "[class]"), "unknown key class"),
        ("class,new\n" + "".join(f"{name},255\n" for name in LABELS.names[1:]), "name the background too"),
    ],
)
def test_a_mistake_in_a_table_is_named(folder: Path, text: str, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        open_dataset(f"folder:{folder}?classes={write(folder, text)}", "all")


def test_a_table_that_is_not_there_names_the_shipped_ones(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"no class table nothing\.csv; expected a file, or one of coco-to-voc"):
        open_dataset(f"folder:{folder}?classes=nothing.csv", "all")


def test_the_doctor_and_conversion_see_the_new_classes(folder: Path) -> None:
    spec = f"folder:{folder}?classes={write(folder, CSV)}"
    checkup = check(spec, ["all"])
    assert checkup.form.label_set.names == ("background", "plant", "vehicle")
    assert checkup.counts("all").pixels.tolist() == [16, 8, 16]
    convert(spec, folder.parent / "out", ["all"])
    assert open_dataset(f"folder:{folder.parent}/out", "all").label_set.names == checkup.form.label_set.names


def test_registered_datasets_take_tables_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "OPENERS", type(registry.OPENERS)("dataset", "atrous.datasets"))
    pairs = [(MASK[..., None].repeat(3, 2), MASK)]
    register_dataset("rows")(lambda path, split: wrap(pairs, LABELS))
    data = open_dataset(f"rows:x?classes={write(folder, CSV)}", "train")
    assert data.label_set.names == ("background", "plant", "vehicle")
    assert data[0].mask[0].tolist() == [0, 2, 2, 1, 0, 255, 255]


def test_a_question_mark_in_a_path_is_not_an_option() -> None:
    assert parse_spec("folder:what?/x") == ("folder", "what?/x", None, None)
    assert parse_spec("coco:what?/x?overlap=last").place == "what?/x"
    assert with_options("coco:a?overlap=last", classes="t.csv") == "coco:a?overlap=last&classes=t.csv"


def test_cocos_classes_become_vocs() -> None:
    names = [NAMES_OF_VOC_CLASSES.get(name, name) for name in VOC.names[1:]]
    table = read_class_table("coco-to-voc")
    others = [name for name in table.new if name not in (*names, "background")]
    assert len(others) == 60
    mapped = table.applied(LabelSet(("background", *names[::-1], *others)))
    assert mapped.label_set.names == VOC.names
    assert mapped.numbers == (0, *range(20, 0, -1), *[0] * 60)


def test_a_model_of_other_classes_is_evaluated_through_a_table(folder: Path) -> None:
    data = open_dataset(f"folder:{folder}?classes={write(folder, CSV)}", "all")
    model = atrous.create_model("deeplabv3", backbone="test_resnet", label_set=LABELS)
    with pytest.raises(InputError, match="the model has 6 classes"):
        atrous.evaluate(model, data)
    table = write(folder, CSV.replace("255", "background"))
    plain = atrous.evaluate(model, open_dataset(f"folder:{folder}", "all"))
    merged = atrous.evaluate(model, data, model_classes=table, details=True)
    columns = plain.confusion.matrix[[0, 1, 2, 3, 4]].sum(0)  # rows of the sign are ignored
    expected = [columns[[0, 4, 5]].sum(), columns[3], columns[[1, 2]].sum()]
    assert merged.confusion.matrix.sum(0).tolist() == expected
    assert merged.details is not None
    calibration, own = merged.details.calibration, atrous.predict(model, data[0].image, keep_probabilities=True)
    assert calibration.pixels.sum() == merged.confusion.matrix.sum()
    assert calibration.correct.sum() == merged.confusion.matrix.trace()
    probabilities = own.probabilities(full_size=True)
    confidence = np.stack([probabilities[[0, 4, 5]].sum(0), probabilities[3], probabilities[[1, 2]].sum(0)])
    chosen = np.array([0, 2, 2, 1, 0, 0])[own.labels]
    mean = np.take_along_axis(confidence, chosen[None], 0)[0][data[0].mask != 255].mean()
    assert calibration.confidence.sum() / calibration.pixels.sum() == pytest.approx(mean, abs=0.02)
    with pytest.raises(InputError, match="ignores 'sign', and a prediction must be a class"):
        atrous.evaluate(model, data, model_classes=write(folder, CSV))
