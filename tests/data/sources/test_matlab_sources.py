"""NYUDv2, SIFT Flow, PASCAL-Context, Person-Part: small files in the official layouts; what is wrong with others."""

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from atrous.data.doctor.check import check, quick_check
from atrous.data.doctor.repair import repair
from atrous.data.files.images import ImageError
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskError, read_mask
from atrous.data.files.matlab import MatlabMask
from atrous.data.opening import open_dataset
from atrous.data.sources.nyud import LOG_DEPTH_MEAN, read_log_depth
from atrous.data.sources.pascal_context import ANNOTATED_NUMBERS
from atrous.data.sources.person_part import CLASS_OF_PART, merge_parts
from atrous.errors import DatasetError
from atrous.label_sets import (
    GEOMETRIC,
    NYUD,
    PASCAL_CONTEXT,
    PERSON_PART,
    SIFT_FLOW,
    VOC,
)
from atrous.labels import IGNORE

SIFT = "spatial_envelope_256x256_static_8outdoorcategories"
COLUMNS, ROWS = np.meshgrid(np.arange(6, dtype=np.uint8), np.arange(4, dtype=np.uint8))


def save(path: Path, values: object, **variables: object) -> Path:
    """An image, or as ``.mat`` a matrix of the given name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if variables:
        scipy.io.savemat(path, variables, do_compression=True)
    else:
        Image.fromarray(np.asarray(values)).save(path)
    return path


def lists(root: Path, **splits: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for split, names in splits.items():
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in names.split()))


@pytest.fixture
def nyud(tmp_path: Path) -> Path:
    lists(tmp_path, train="5449 6140", val="5010", test="5133")
    for place, number in enumerate(("5449", "6140", "5010", "5133")):
        name = f"img_{number}"
        save(tmp_path / f"data/images/{name}.png", np.dstack([COLUMNS + place, ROWS, ROWS]))
        save(tmp_path / f"data/hha/{name}.png", np.dstack([ROWS + 100, COLUMNS + 50, COLUMNS]))
        save(tmp_path / f"data/depth/{name}.png", (500 + 2000 * ROWS.astype(np.uint16)))
        save(tmp_path / f"segmentation/{name}.mat", None, segmentation=(COLUMNS * 8).astype(np.uint16))
    return tmp_path


def test_nyud_takes_one_from_its_labels_and_void_becomes_255(nyud: Path) -> None:
    data = open_dataset(f"nyud:{nyud}", "train+val")
    assert (data.name, data.label_set, len(data), data.extras.channels) == ("nyud:train+val", NYUD, 3, 3)
    sample = data[1]
    assert sample.name == "img_6140.png"
    assert sample.image[0, :, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert sample.mask[0].tolist() == [IGNORE, 7, 15, 23, 31, 39]


def test_nyud_gives_hha_alone_or_behind_the_colours(nyud: Path) -> None:
    alone, both = (open_dataset(f"{kind}:{nyud}", "test") for kind in ("nyud-hha", "nyud-rgb-hha"))
    hha = np.dstack([ROWS + 100, COLUMNS + 50, COLUMNS])
    np.testing.assert_array_equal(alone[0].image, hha)
    np.testing.assert_array_equal(both[0].image, np.dstack([COLUMNS + 3, ROWS, ROWS, hha]))
    np.testing.assert_array_equal(both[0].shown, np.dstack([COLUMNS + 3, ROWS, ROWS]))
    colors = (0.1, 0.2, 0.3)
    means = tuple(mean / 255 for mean in (132.431, 94.076, 118.477))
    assert alone.extras.means(colors) == means
    assert both.extras.means(colors) == colors + means


def test_nyud_gives_the_logarithm_of_depth_as_a_fourth_channel(nyud: Path) -> None:
    data = open_dataset(f"nyud-rgbd:{nyud}", "test")
    depth = data[0].image[..., 3]
    assert depth[0, 0] == 0  # half a metre
    np.testing.assert_allclose(depth[:, 0] / 255, np.log([1, 5, 9, 13]) / np.log(20), atol=0.5 / 255)
    *_, mean = data.extras.means((0, 0, 0))
    assert np.exp(mean * np.log(20)) * 500 == pytest.approx(np.exp(LOG_DEPTH_MEAN))  # 2.55 metres


def test_depth_that_is_missing_is_the_mean_and_no_depth_at_all_says_so(tmp_path: Path) -> None:
    depth = read_log_depth(save(tmp_path / "d.png", np.array([[0, 2550, 100, 60000]], np.uint16)))
    assert depth.shape == (1, 4, 1)
    assert depth[0, :, 0].tolist() == [139, 139, 0, 255]
    with pytest.raises(ImageError, match=r"c.png: a uint8 image of shape \(4, 6, 3\); expected depth"):
        read_log_depth(save(tmp_path / "c.png", np.dstack([ROWS] * 3)))
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(ImageError, match=r"broken.png: not a readable image"):
        read_log_depth(tmp_path / "broken.png")
    with pytest.raises(ImageError, match=r"none.png: no such file"):
        read_log_depth(tmp_path / "none.png")


def test_a_layer_of_another_size_or_none_is_an_error_that_names_it(nyud: Path) -> None:
    save(nyud / "data/hha/img_5133.png", np.zeros((5, 6, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"img_5133.png is 6×4 but .*hha/img_5133.png 6×5; both must have .* size"):
        open_dataset(f"nyud-rgb-hha:{nyud}", "test")[0]
    (nyud / "data/hha/img_5133.png").unlink()
    with pytest.raises(
        DatasetError, match=r"1 image is missing a file that nyud-rgb-hha needs .* needs .*hha/img_5133.png"
    ):
        open_dataset(f"nyud-rgb-hha:{nyud}", "test")
    assert open_dataset(f"nyud:{nyud}", "test")[0].image.shape == (4, 6, 3)


@pytest.fixture
def siftflow(tmp_path: Path) -> Path:
    lists(tmp_path, trainval="coast_n1 street_b2", test="coast_n3")
    for place, name in enumerate(("coast_n1", "street_b2", "coast_n3")):
        save(tmp_path / f"Images/{SIFT}/{name}.jpg", np.full((4, 6, 3), 90 + place, np.uint8))
        names = np.array([[name] for name in SIFT_FLOW.names], object)
        save(tmp_path / f"SemanticLabels/{SIFT}/{name}.mat", None, S=COLUMNS * 6, names=names)
        shapes = np.array([[-1, 0, 1, 2, 3, 3]] * 4, np.int16)
        save(tmp_path / f"GeoLabels/{SIFT}/{name}.mat", None, S=shapes.astype(float), names=names[:3])
    return tmp_path


def test_siftflow_gives_both_of_its_masks(siftflow: Path) -> None:
    data = open_dataset(f"siftflow:{siftflow}", "trainval")
    assert (len(data), data.label_set, data.extras.masks["geometric"].form.label_set) == (2, SIFT_FLOW, GEOMETRIC)
    sample = data[0]
    assert sample.mask[0].tolist() == [IGNORE, 5, 11, 17, 23, 29]
    assert sample.auxiliary_masks["geometric"][0].tolist() == [IGNORE, IGNORE, 0, 1, 2, 2]


def test_siftflow_without_its_second_masks_says_which(siftflow: Path) -> None:
    (siftflow / f"GeoLabels/{SIFT}/street_b2.mat").unlink()
    with pytest.raises(
        DatasetError, match=r"1 image is missing a file .*street_b2.jpg: needs .*GeoLabels.*street_b2.mat"
    ):
        open_dataset(f"siftflow:{siftflow}", "trainval")


def test_the_doctor_reads_matrices_and_takes_trainval_where_there_is_no_train(siftflow: Path) -> None:
    checkup = check(f"siftflow:{siftflow}")
    assert list(checkup.lists) == ["trainval", "test"]
    assert checkup.counts("trainval").images.tolist() == [2 * (label in (5, 11, 17, 23, 29)) for label in range(33)]
    assert checkup.counts("trainval").ignored == 2 * 4
    assert not [f for f in quick_check(f"siftflow:{siftflow}", ["trainval"]) if f.severity == "error"]
    with pytest.raises(DatasetError, match=r"more than images with one mask each, and a repaired copy would lose it"):
        repair(checkup, siftflow.parent / "mended")
    save(siftflow / f"SemanticLabels/{SIFT}/coast_n1.mat", None, S=np.full((4, 7), 34, np.uint8))
    kinds = {finding.kind for finding in check(f"siftflow:{siftflow}").findings if finding.severity == "error"}
    assert kinds == {"outside-classes", "size-mismatch"}


@pytest.fixture
def context(tmp_path: Path) -> Path:
    lists(tmp_path / "VOC2010/ImageSets/Main", train="2008_000002", val="2008_000003", cow_train="2008_000002")
    raw = np.array([[0, 2, 397, 19, 80, 458], [459, 431, 1, 72, 354, 9]], np.uint16)
    for name in ("2008_000002", "2008_000003"):
        save(tmp_path / f"VOC2010/JPEGImages/{name}.jpg", np.full((2, 6, 3), 90, np.uint8))
        save(tmp_path / f"trainval/{name}.mat", None, LabelMap=raw)
    return tmp_path


def test_pascal_context_is_mapped_by_name_and_the_rest_is_background(context: Path) -> None:
    data = open_dataset(f"pascalcontext:{context}", "train")
    assert (data.label_set, len(data.label_set)) == (PASCAL_CONTEXT, 60)
    names = [[PASCAL_CONTEXT.names[label] for label in row] for row in data[0].mask]
    assert names[0] == ["background", "aeroplane", "diningtable", "bedcloth", "clothes", "wood"]
    assert names[1] == ["background"] * 3 + ["chair", "sidewalk", "bag"]


@pytest.mark.parametrize("mode", ["P", "RGB"])
def test_pascal_context_takes_classes_or_colours_for_matrices(context: Path, mode: str) -> None:
    for matrix in (context / "trainval").glob("*.mat"):
        mask = Image.fromarray(np.array([[0, 59, 3, 36, 57, 12]] * 2, np.uint8)).convert("P")
        mask.putpalette(PASCAL_CONTEXT.palette().tobytes())
        mask.convert(mode).save(matrix.with_suffix(".png"))
        matrix.unlink()
    assert open_dataset(f"pascalcontext:{context}", "val")[0].mask[1].tolist() == [0, 59, 3, 36, 57, 12]


def test_pascal_context_refuses_palettes_that_were_sorted_anew(context: Path) -> None:
    for matrix in (context / "trainval").glob("*.mat"):
        mask = Image.fromarray(np.array([[0, 1, 2]] * 2, np.uint8))
        mask.putpalette(PASCAL_CONTEXT.palette()[[0, 3, 36]].tobytes())
        mask.save(matrix.with_suffix(".png"))
        matrix.unlink()
    with pytest.raises(MaskError, match="its palette gives value 1 the colour of class 3"):
        _ = open_dataset(f"pascalcontext:{context}", "val")[0].mask


def parts_file(path: Path, *objects: tuple[str, dict[str, int]]) -> Path:
    """PASCAL-Part's ``anno`` of images of 4×6 pixels: objects, and of each its parts with the columns they fill."""
    fill = lambda columns: np.isin(COLUMNS, columns).astype(np.uint8)  # noqa: E731
    things = np.empty((1, len(objects)), [(name, object) for name in ("class", "class_ind", "mask", "parts")])
    for place, (name, columns) in enumerate(objects):
        parts = np.empty((1, len(columns)), [("part_name", object), ("mask", object)])
        for part, (part_name, column) in enumerate(columns.items()):
            parts[0, part] = (part_name, fill([column]))
        whole = fill(list(columns.values()))
        things[0, place] = (name, 15, whole, parts if columns else np.zeros((0, 0)))
    return save(path, None, anno={"imname": path.stem, "objects": things})


@pytest.fixture
def person_part(tmp_path: Path) -> Path:
    lists(tmp_path / "pascal_person_part_trainval_list", train="2008_000003", val="2008_000008")
    for name in ("2008_000003", "2008_000008"):
        save(tmp_path / f"VOC2010/JPEGImages/{name}.jpg", np.full((4, 6, 3), 90, np.uint8))
        parts_file(
            tmp_path / f"Annotations_Part/{name}.mat",
            ("train", {"head": 5}),
            ("person", {"hair": 0, "neck": 1, "luarm": 2, "rhand": 3}),
            ("bottle", {}),
            ("person", {"ruleg": 4, "lfoot": 0}),
            ("person", {}),
        )
    return tmp_path


def test_parts_of_persons_are_merged_the_later_over_the_earlier(person_part: Path) -> None:
    data = open_dataset(f"personpart:{person_part}", "train")
    assert (len(data), data.label_set, data[0].name) == (1, PERSON_PART, "2008_000003.jpg")
    names = [PERSON_PART.names[label] for label in data[0].mask[0]]
    assert names == ["lower legs", "torso", "upper arms", "lower arms", "upper legs", "background"]
    assert {PERSON_PART.names[label] for label in CLASS_OF_PART.values()} | {"background"} == set(PERSON_PART.names)
    assert not [f for f in quick_check(f"personpart:{person_part}", ["train", "val"]) if f.severity == "error"]


def test_person_part_takes_classes_and_published_lists_for_matrices(
    person_part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    for name in ("2008_000003", "2008_000008"):
        save(person_part / f"pascal_person_part_gt/{name}.png", COLUMNS + 1)
    lists(person_part, train="")
    line = "/JPEGImages/2008_000003.jpg /pascal_person_part_gt/2008_000003.png"
    (person_part / "train.txt").write_text(line)
    assert open_dataset(f"personpart:{person_part}", "train")[0].mask[0].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_file_of_parts_that_is_none_says_what_was_expected(tmp_path: Path) -> None:
    form = MaskForm(PERSON_PART)
    for name, objects in {"tail": [("person", {"tail": 1})], "empty": []}.items():
        with pytest.raises(
            MaskError, match=rf"{name}.mat: its anno is not as in PASCAL-Part .*; expected objects with"
        ):
            read_mask(MatlabMask(parts_file(tmp_path / f"{name}.mat", *objects), "anno", merge_parts), form)


def test_a_matlab_file_that_lacks_or_breaks_is_called_what_it_is(person_part: Path) -> None:
    first, second = (person_part / f"Annotations_Part/2008_00000{n}.mat" for n in (3, 8))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-200])  # its directory is whole
    missing, unreadable = (f for f in check(f"personpart:{person_part}").findings if f.kind.endswith("-mask"))
    assert missing.expected == "a .mat file, or in its place a PNG, of the image's name for each"
    assert missing.items[0].detail == f"needs {first}"
    assert unreadable.items[0].name == str(second)
    for said in (unreadable.sentence(), str(_error_of(second))):
        assert "not a readable MATLAB file" in said
        assert "copy" in said
        assert "PNG" not in said


def _error_of(mask: Path) -> MaskError:
    with pytest.raises(MaskError) as caught:
        read_mask(MatlabMask(mask, "anno", merge_parts), MaskForm(PERSON_PART))
    return caught.value


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("personpart", r"is not a PASCAL-Person-Part dataset: expected Annotations_Part"),
        ("nyud", r"is not an NYUDv2 dataset: .*images does not exist; expected train.txt"),
        ("siftflow", r"is not a SIFT Flow dataset: .*Images/.* does not exist"),
        ("pascalcontext", r"is not a PASCAL-Context dataset: expected trainval"),
    ],
)
def test_another_place_says_what_was_expected(tmp_path: Path, kind: str, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        open_dataset(f"{kind}:{tmp_path}", "train")


def test_without_scipy_the_source_names_the_extra(nyud: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(DatasetError, match=r"masks in .mat files need scipy: pip install 'atrous\[mat\]'"):
        open_dataset(f"nyud:{nyud}", "train")


def test_a_matlab_file_without_a_mask_says_what_it_holds(tmp_path: Path) -> None:
    save(tmp_path / "strange.mat", None, T=COLUMNS)
    save(tmp_path / "beyond.mat", None, S=COLUMNS.astype(int) * 60)
    (tmp_path / "broken.mat").write_bytes(b"MATLAB 5.0")
    for name, says in {
        "strange": "it contains T; expected a matrix S",
        "beyond": "its S contains 0 to 300, where integers up to 255 were expected",
        "broken": "not a readable MATLAB file",
        "none": "there is no such mask",
    }.items():
        with pytest.raises(MaskError, match=rf"{name}\.mat: {says}"):
            read_mask(MatlabMask(tmp_path / f"{name}.mat", "S"), MaskForm(VOC))


@pytest.mark.shared
def test_class_tables_are_the_published_ones(shared: Path) -> None:
    read = lambda name: (shared / "lists" / name).read_text().splitlines()  # noqa: E731
    assert [line.strip() for line in read("nyud/classes.txt") if line.strip()][:40] == list(NYUD.names)
    numbered = [line.split(maxsplit=1)[1] for line in read("sift-flow/classes.txt") if line[:2].isdigit()]
    assert numbered[:33] == list(SIFT_FLOW.names)
    task = [line.split(": ")[1] for line in read("pascal-context/classes-59.txt")]
    assert task == list(PASCAL_CONTEXT.names)
    raw = {name: int(number) for number, name in (line.split(": ") for line in read("pascal-context/classes-400.txt"))}
    renamed = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}
    assert {name: raw[renamed.get(name, name)] for name in task[1:]} == ANNOTATED_NUMBERS
    assert (len(read("sift-flow/trainval.txt")), len(read("sift-flow/test.txt"))) == (2486, 200)


@pytest.mark.shared
def test_published_samples_are_read_in_their_layouts(shared: Path, tmp_path: Path) -> None:
    samples = shared / "reference/samples"
    (tmp_path / "nyud/data/images").mkdir(parents=True)
    (tmp_path / "voc/JPEGImages").mkdir(parents=True)
    (tmp_path / "voc/trainval").mkdir(parents=True)
    image, mask = samples / "nyud40/000834.png", np.asarray(Image.open(samples / "nyud40/000834_mask.png"))
    lists(tmp_path / "nyud", test="834")
    (tmp_path / "nyud/data/images/img_834.png").write_bytes(image.read_bytes())
    save(tmp_path / "nyud/segmentation/img_834.mat", None, segmentation=mask + np.uint8(1))
    sample = open_dataset(f"nyud:{tmp_path / 'nyud'}", "test")[0]
    np.testing.assert_array_equal(sample.mask, mask)

    context = sorted((samples / "pascal_context").glob("*.jpg"))
    lists(tmp_path / "voc/ImageSets/Main", val=" ".join(image.stem for image in context))
    for image in context:
        (tmp_path / "voc/JPEGImages" / image.name).write_bytes(image.read_bytes())
        drawn = image.with_suffix(".png")
        (tmp_path / "voc/trainval" / drawn.name).write_bytes(drawn.read_bytes())
    shown = [
        {PASCAL_CONTEXT.names[label] for label in np.unique(found.mask)}
        for found in open_dataset(f"pascalcontext:{tmp_path / 'voc'}", "val")
    ]
    assert shown[0] == {"bird", "grass", "ground", "water", "wood"}
    assert {"motorbike", "person", "sky"} < shown[1]
    assert {"dog", "diningtable", "wall"} < shown[3]


@pytest.mark.shared
def test_published_masks_of_person_parts_are_read_as_they_are(shared: Path, tmp_path: Path) -> None:
    images = sorted((shared / "reference/samples/person_part").glob("*.jpg"))
    lists(tmp_path, val=" ".join(image.stem for image in images), train=images[0].stem)
    for image in images:
        for folder, file in (("JPEGImages", image), ("pascal_person_part_gt", image.with_suffix(".png"))):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / file.name).write_bytes(file.read_bytes())
    data = open_dataset(f"personpart:{tmp_path}", "val")
    assert len(data) == 4
    for sample, image in zip(data, images, strict=True):
        np.testing.assert_array_equal(sample.mask, np.asarray(Image.open(image.with_suffix(".png"))))
