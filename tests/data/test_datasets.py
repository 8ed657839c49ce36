"""Datasets: each published layout and anybody's folder give the right pairs, or say what is missing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.dataset import PairedDataset, subset
from atrous.data.files.images import ImageError
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskError, MaskFile
from atrous.data.opening import open_dataset
from atrous.errors import DatasetError
from atrous.label_sets import CAMVID, VOC
from atrous.labels import IGNORE, LabelSet

Put = Callable[..., None]


def image(path: Path, size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 20, 30)).save(path)


def mask(path: Path, values: object = ((0, 1, 1, 0, 0, 255),) * 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).save(path)


def lines(path: Path, *text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in text))


def names(spec: str, split: str) -> list[str]:
    return [pair[0].stem for pair in open_dataset(spec, split).pairs]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abcdefgh":
        image(tmp_path / "images" / f"{name}.jpg")
        mask(tmp_path / "masks" / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize("at", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_voc_is_found_from_the_devkit_and_above(tmp_path: Path, at: str) -> None:
    base = tmp_path / at
    image(base / "JPEGImages/x.jpg")
    mask(base / "SegmentationClass/x.png", ((20,) * 6,) * 4)
    lines(base / "ImageSets/Segmentation/train.txt", "x", "")
    data = open_dataset(f"voc:{tmp_path}", "train")
    assert (data.name, data.label_set, len(data)) == ("voc:train", VOC, 1)
    sample = data[0]
    assert sample.image.shape == (4, 6, 3)
    assert sample.mask.max() == 20
    assert sample.name == "x.jpg"


def test_voc_augmented_masks_and_deeplab_lists(tmp_path: Path) -> None:
    image(tmp_path / "JPEGImages/x.jpg")
    mask(tmp_path / "SegmentationClass/x.png")
    mask(tmp_path / "SegmentationClassAug/x.png")
    lists = tmp_path / "ImageSets/Segmentation"
    lines(lists / "trainaug.txt", "x")
    lines(lists / "train.txt", "x")
    lines(lists / "deeplab.txt", "/JPEGImages/x.jpg /SegmentationClassAug/x.png")
    folders = [
        open_dataset(f"voc:{tmp_path}", split).pairs[0][1].path.parent.name
        for split in ("trainaug", "train", "deeplab")
    ]
    assert folders == ["SegmentationClassAug", "SegmentationClass", "SegmentationClassAug"]


def test_camvid_reads_published_and_plain_lists(tmp_path: Path) -> None:
    image(tmp_path / "train/0001TP_1.png")
    image(tmp_path / "val/0016E5_2.jpg")
    for split, name in (("train", "0001TP_1"), ("val", "0016E5_2")):
        mask(tmp_path / f"{split}annot/{name}.png", ((0, 10, 11, 11, 3, 3),) * 4)
    lines(tmp_path / "train.txt", "/SegNet/CamVid/train/0001TP_1.png /SegNet/CamVid/trainannot/0001TP_1.png")
    lines(tmp_path / "val.txt", "0016E5_2")
    data = open_dataset(f"camvid:{tmp_path}", "train+val")
    assert (data.name, data.label_set, len(data)) == ("camvid:train+val", CAMVID, 2)
    for sample in (data[0], data[1]):
        np.testing.assert_array_equal(sample.mask[0], [0, 10, IGNORE, IGNORE, 3, 3])


@pytest.mark.shared
@pytest.mark.parametrize(
    ("spec", "split", "count"),
    [
        ("voc:{}/data/VOCdevkit", "trainaug", 3103),
        ("voc:{}/data/VOCdevkit/VOC2012", "val", 350),
        ("camvid:{}/data/CamVid", "train+val", 468),
        ("camvid:{}/data/CamVid", "test", 233),
    ],
)
def test_real_datasets_open(shared: Path, spec: str, split: str, count: int) -> None:
    data = open_dataset(spec.format(shared), split)
    assert len(data) == count
    sample = data[count // 2]
    assert sample.image.shape[:2] == sample.mask.shape


def test_folder_draws_a_fifth_for_validation_and_never_moves_a_image(tmp_path: Path) -> None:
    for number in range(60):
        image(tmp_path / f"images/{number}.png")
        mask(tmp_path / f"masks/{number}.png")
    spec = f"folder:{tmp_path}"
    train, val = names(spec, "train"), names(spec, "val")
    assert sorted(train + val) == sorted(names(spec, "all"))
    assert 5 <= len(val) <= 20
    image(tmp_path / "images/more.png")
    mask(tmp_path / "masks/more.png")
    assert set(train) <= set(names(spec, "train"))
    assert set(val) <= set(names(spec, "val"))


def test_folder_too_small_to_draw_from_says_how_to_split_it(tmp_path: Path) -> None:
    image(tmp_path / "images/a.png")
    mask(tmp_path / "masks/a.png")
    spec = f"folder:{tmp_path}"
    with pytest.raises(DatasetError, match=r"too few .*splits/val\.txt"):
        [open_dataset(spec, split) for split in ("train", "val")]


def test_folder_splits_files_take_names_with_and_without_endings(folder: Path) -> None:
    image(folder / "images/deep/e.1.jpeg")
    mask(folder / "masks/deep/e.1.png")
    lines(folder / "splits/train.txt", "\ufeffa.jpg", "b", "  deep/e.1  ", "deep/e.1.jpeg")
    assert names(f"folder:{folder}", "train") == ["a", "b", "e.1", "e.1"]
    with pytest.raises(DatasetError, match=r"no split 'test'.*available splits: train"):
        open_dataset(f"folder:{folder}", "test")
    lines(folder / "splits/test.txt", "a", "nothing", "none")
    with pytest.raises(DatasetError, match=r"test\.txt do not exist; first: .*nothing"):
        open_dataset(f"folder:{folder}", "test")


def test_folder_subfolders_are_splits_and_val_is_never_drawn_from_train(tmp_path: Path) -> None:
    for name in ("train/a", "train/b/c", "test/d"):
        image(tmp_path / f"images/{name}.jpg")
        mask(tmp_path / f"masks/{name}.png")
    spec = f"folder:{tmp_path}"
    assert names(spec, "train") == ["a", "c"]
    assert names(spec, "train+test") == ["a", "c", "d"]
    assert sorted(names(spec, "all")) == ["a", "c", "d"]
    with pytest.raises(DatasetError, match=r"no split 'val'; its subfolders of images/ are: test, train"):
        open_dataset(spec, "val")


def test_folder_with_nested_images_that_are_no_splits(tmp_path: Path) -> None:
    for number in range(20):
        image(tmp_path / f"images/{number % 2}/{number}.jpg")
        mask(tmp_path / f"masks/{number % 2}/{number}.png")
    spec = f"folder:{tmp_path}"
    assert len(names(spec, "train")) + len(names(spec, "val")) == 20
    assert len(names(spec, "0")) == 10


def test_folder_masks_that_are_missing_are_counted_and_named(folder: Path) -> None:
    for name in "ab":
        (folder / "masks" / f"{name}.png").unlink()
    mask(folder / "masks/a_mask.png")
    with pytest.raises(
        DatasetError, match=r"2 of 8 images have no mask; first: .*a\.jpg: needs .*a\.png \(there is a_mask"
    ):
        open_dataset(f"folder:{folder}", "all")


def test_two_images_that_would_share_a_mask_are_an_error(folder: Path) -> None:
    image(folder / "images/a.png")
    with pytest.raises(
        DatasetError, match=r"1 mask belongs to more than one image; first: .*a\.jpg: would share .*a\.png"
    ):
        open_dataset(f"folder:{folder}", "all")


def test_folder_without_labels_counts_its_classes(folder: Path) -> None:
    assert open_dataset(f"folder:{folder}", "all").label_set.names == ("class 0", "class 1")
    mask(folder / "masks/h.png", ((0, 4, 255, 0, 0, 0),) * 4)
    for split in ("train", "val", "all"):
        assert len(open_dataset(f"folder:{folder}", split).label_set) == 5


def test_folder_of_0_and_255_masks_is_refused_since_nothing_would_be_learned(folder: Path) -> None:
    for name in "abcdefgh":
        mask(folder / f"masks/{name}.png", ((0, 255, 255, 0, 0, 0),) * 4)
    with pytest.raises(DatasetError, match=r"(?s)only 0 and 255.*values = \[0, 255\]"):
        open_dataset(f"folder:{folder}", "all")


def test_folder_without_labels_and_an_unreadable_mask_names_it(folder: Path) -> None:
    (folder / "masks/c.png").write_bytes(b"no")
    with pytest.raises(MaskError, match=r"c\.png: not a readable"):
        open_dataset(f"folder:{folder}", "all")


def test_labels_toml_names_colours_and_ignored_values(folder: Path) -> None:
    lines(folder / "labels.toml", 'names = ["sky", "car"]', "colors = [[1, 2, 3], [4, 5, 6]]", "ignore = [7]")
    mask(folder / "masks/a.png", ((0, 1, 7, 255, 0, 0),) * 4)
    data = open_dataset(f"folder:{folder}", "all")
    assert data.label_set.names == ("sky", "car")
    assert data.label_set.colors == ((1, 2, 3), (4, 5, 6))
    np.testing.assert_array_equal(data[0].mask[0], [0, 1, 255, 255, 0, 0])


def test_labels_toml_for_rgb_masks_with_an_ignored_colour(folder: Path) -> None:
    lines(
        folder / "labels.toml",
        'names = ["a", "b"]',
        'encoding = "rgb"',
        "colors = [[9, 9, 9], [4, 5, 6]]",
        "ignore = [[0, 0, 0]]",
    )
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0], pixels[1] = (9, 9, 9), (4, 5, 6)
    Image.fromarray(pixels).save(folder / "masks/a.png")
    np.testing.assert_array_equal(open_dataset(f"folder:{folder}", "all")[0].mask[:, 0], [0, 1, 255, 255])


TWO_COLORS = 'names = ["a", "b"]\nencoding = "rgb"\ncolors = [[1, 2, 3], [4, 5, 6]]'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("colors = [[1, 2, 3]]", "names is missing"),
        ('names = "cat"', 'write names = ["cat"]'),
        ('names = ["dog"]', 'name the background too: names = ["background", "dog"]'),
        ("names = [1, 2]", "names must be strings"),
        ("names = []", "2 to 65535 classes"),
        ('names = ["a", "a"]', "more than once: a"),
        ('names = ["a", "b"]\ncolors = [[1, 2, 3]]', "2 class names but 1 colours"),
        ('names = ["a", "b"]\ncolors = [[1, 2, 300], [1, 2, 3]]', "0 to 255"),
        ('names = ["a", "b"]\ncolors = [[1, 2]]', "three numbers"),
        ('names = ["a", "b"]\nencoding = "cmyk"', "encoding is 'cmyk'"),
        ('names = ["a", "b"]\nignore = [300]', "ignore contains 300"),
        ('names = ["a", "b"]\nignored = [3]', "unknown key ignored"),
        ('names = ["a", "b"]\nencoding = "rgb"\ncolors = [[1, 2, 3], [1, 2, 3]]', "same colour"),
        ("names = [", "labels.toml"),
        ('names = ["a", "b"]\nignore = 11', "ignore is 11, expected a list; write ignore = [11]"),
        ('names = ["a", "b"]\nvalue = [1]', "did you mean values?"),
        ('names = ["a", "b"]\nvalues = [1]', "2 class names but 1 values"),
        ('names = ["a", "b"]\nvalues = [1, 1]', "two classes have the same value"),
        ('names = ["a", "b"]\nvalues = [0, 256]', "values contains 256"),
        (f"{TWO_COLORS}\nvalues = [1]", "RGB masks have colors"),
        (f"{TWO_COLORS}\nignore = [1]", "ignore = [[r, g, b], ...]"),
        ('names = ["sky", "car"]\nencoding = "rgb"', "there are no colors; write colors = [[r, g, b], ...]"),
        ('names = ["a", "b"]\norientation = "left"', "orientation is 'left'"),
    ],
)
def test_labels_toml_mistakes_are_named_with_what_is_expected(folder: Path, text: str, says: str) -> None:
    lines(folder / "labels.toml", text)
    with pytest.raises(DatasetError, match=r"labels\.toml: .*expected names = \[") as caught:
        open_dataset(f"folder:{folder}", "all")
    assert says in str(caught.value)


def test_pair_of_two_sizes_is_an_error_that_names_both_and_a_turned_image(folder: Path) -> None:
    image(folder / "images/a.jpg", (5, 4))
    image(folder / "images/b.jpg", (4, 6))
    data = open_dataset(f"folder:{folder}", "all")
    with pytest.raises(DatasetError, match=r"a\.jpg is 5×4 but its mask .*a\.png is 6×4; both"):
        data[0]
    with pytest.raises(
        DatasetError,
        match=r"b\.jpg is 4×6 but its mask .*b\.png is 6×4; one of the two is turned; both must have the same size",
    ):
        data[1]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nowhere", "is not a dataset; expected one of voc:PATH, camvid:PATH, folder:PATH, nyud:PATH"),
        ("imagenet:{}", "is not a dataset"),
        ("voc:{}/none", "folder .*none does not exist"),
        ("voc:{}", "is not a VOC dataset: expected JPEGImages"),
        ("camvid:{}", "has no split 'train' .*available splits: none"),
        ("folder:{}", "it has no 'images' folder"),
    ],
)
def test_what_is_no_dataset_says_what_was_expected(tmp_path: Path, spec: str, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        open_dataset(spec.format(tmp_path), "train")


def test_lists_that_name_what_is_not_there(tmp_path: Path) -> None:
    image(tmp_path / "JPEGImages/x.jpg")
    mask(tmp_path / "SegmentationClass/x.png")
    lines(tmp_path / "ImageSets/Segmentation/train.txt", "x", "y")
    lines(tmp_path / "ImageSets/Segmentation/none.txt")
    with pytest.raises(DatasetError, match=r"train\.txt does not exist: .*y\.jpg"):
        open_dataset(f"voc:{tmp_path}", "train")
    with pytest.raises(DatasetError, match="has no images"):
        open_dataset(f"voc:{tmp_path}", "none")


def test_a_folder_without_images_says_so(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(ImageError, match="no image in this folder"):
        open_dataset(f"folder:{tmp_path}", "all")


def test_joined_splits_have_a_shared_image_once(folder: Path) -> None:
    lines(folder / "splits/train.txt", "a", "b")
    assert names(f"folder:{folder}", "train+train") == ["a", "b"]


def test_masks_without_labels_are_read_once_while_they_do_not_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    decode = MaskFile.decode
    monkeypatch.setattr(MaskFile, "decode", lambda ref: [read.append(ref.path), decode(ref)][1])
    for split in ("train", "val", "all"):
        open_dataset(f"folder:{folder}", split)
    assert sorted(file.stem for file in read) == list("abcdefgh")
    mask(folder / "masks/c.png", ((0, 5, 1, 0, 0, 255),) * 5)
    assert len(open_dataset(f"folder:{folder}", "all").label_set) == 6
    assert len(read) == 9


def test_labels_toml_can_give_classes_their_values(folder: Path) -> None:
    lines(folder / "labels.toml", 'names = ["sky", "car"]', "values = [0, 128]", "ignore = [64]")
    mask(folder / "masks/a.png", ((0, 128, 64, 255, 0, 0),) * 4)
    np.testing.assert_array_equal(open_dataset(f"folder:{folder}", "all")[0].mask[0], [0, 1, 255, 255, 0, 0])


def test_voc_names_have_voc_colours_without_a_word(folder: Path) -> None:
    lines(folder / "labels.toml", f"names = {list(VOC.names[:3])}".replace("'", '"'), 'encoding = "rgb"')
    Image.fromarray(np.full((4, 6, 3), (0, 128, 0), np.uint8)).save(folder / "masks/a.png")
    np.testing.assert_array_equal(open_dataset(f"folder:{folder}", "all")[0].mask, np.full((4, 6), 2))


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_labels_toml_in_another_encoding_says_how_to_save_it(folder: Path, encoding: str) -> None:
    (folder / "labels.toml").write_text('names = ["größe"]', encoding=encoding)
    with pytest.raises(DatasetError, match=r"labels\.toml: .*save it again as UTF-8"):
        open_dataset(f"folder:{folder}", "all")


def test_labels_toml_may_begin_with_a_byte_order_mark(folder: Path) -> None:
    (folder / "labels.toml").write_text('names = ["a", "größe"]', encoding="utf-8-sig")
    assert open_dataset(f"folder:{folder}", "all").label_set.names == ("a", "größe")


def test_some_of_a_dataset_are_spread_evenly_and_named():
    pairs = tuple((Path(f"{i}.jpg"), MaskFile(Path(f"{i}.png"))) for i in range(10))
    whole = PairedDataset("mine:val", MaskForm(LabelSet(("a", "b"))), pairs)
    few = subset(whole, 4)
    assert few.indices == (0, 3, 6, 9)
    assert few.name == "mine:val (4 of 10)"
    assert len(subset(whole, 1)) == 1
    assert subset(whole, 10) is whole
