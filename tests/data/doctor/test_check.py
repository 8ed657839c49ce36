"""The mask doctor: every mistake is found in one look, with its files and with what mends it."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from atrous.data.dataset import Sample
from atrous.data.doctor.check import check, quick_check, require_healthy
from atrous.data.doctor.pair_rules import drawn_upright
from atrous.data.doctor.report import Checkup
from atrous.data.files.exif import turn
from atrous.data.files.images import ImageError
from atrous.data.files.orientation import upright_fit
from atrous.data.findings import Finding
from atrous.data.opening import open_dataset
from atrous.errors import DatasetError
from atrous.label_sets import VOC
from atrous.labels import LabelSet
from studies.mask_doctor import spoil

from ..conftest import LABELS, ImageAndMask, MakeFolder, draw


def found(checkup: Checkup, kind: str) -> Finding:
    (finding,) = [finding for finding in checkup.findings if finding.kind == kind]
    return finding


def kinds(root: Path, *splits: str) -> list[str]:
    return [finding.kind for finding in check(f"folder:{root}", splits).findings]


def expected(ways: Mapping[str, str], root: Path) -> dict[tuple[str, str], set[str]]:
    """The files of each finding, by kind and severity, in a folder that ``spoil`` has made."""
    image = {way: str(root / f"images/{name}.jpg") for way, name in ways.items()}
    mask = {way: str(root / f"masks/{name}.png") for way, name in ways.items()}
    return {
        ("not-there", "error"): {str(root / "images/not-there")},
        ("missing-mask", "error"): {image["missing"]},
        ("shared-mask", "error"): {image["shared"], image["shared"].replace(".jpg", ".png")},
        ("unreadable-image", "error"): {image["image"]},
        ("unreadable-mask", "error"): {mask["mask"]},
        ("lossy-mask", "error"): {mask["jpeg"], mask["jpg"].replace(".png", ".jpg")},
        ("rgb-mask", "error"): {mask["rgb"], mask["strange"]},
        ("binary-mask", "error"): {mask["far"]},
        ("binary-mask", "warning"): {mask["binary"]},
        ("outside-classes", "error"): {mask["outside"]},
        ("size-mismatch", "error"): {image["size"]},
        ("turned-mask", "error"): {image["stored"]},
        ("unclear-orientation", "error"): {image["half"]},
        ("shared-image", "error"): {image["twin"], image["both"]},
        ("no-split", "warning"): {str(root / "splits/test.txt")},
        ("extra-mask", "warning"): {str(root / "masks/nobody's.png")},
        ("all-ignored", "warning"): {mask["void"]},
        ("turned-image", "note"): {image["upright"]},
        ("repeated-image", "note"): {image["good"]},
    }


MENDS = {
    "not-there": "take the names out of the list",
    "missing-mask": "--fix NEW_FOLDER",
    "shared-mask": "rename or remove one image of each",
    "unreadable-image": "copy or export them again",
    "unreadable-mask": "copy or export them again",
    "lossy-mask": "export them again as PNG",
    "rgb-mask": "writes 1 of them as values",
    "binary-mask": "write the class's number in place of",
    "outside-classes": "labels.toml",
    "size-mismatch": "export the masks at the size of their images",
    "turned-mask": 'orientation = "stored"',
    "unclear-orientation": 'set orientation = "stored"',
    "shared-image": "takes them out of train",
    "no-split": "write",
    "extra-mask": "add the images",
    "all-ignored": "take the images out of their lists",
    "absent-class": "labels.toml",
}


def check_spoilt(checkup: Checkup, ways: Mapping[str, str], root: Path) -> None:
    findings = {(finding.kind, finding.severity): finding for finding in checkup.findings}
    for key, files in expected(ways, root).items():
        assert set(findings[key].files) == files, key
        assert findings[key].expected
    absent = findings["absent-class", "warning"]
    assert absent.files
    for kind, line in MENDS.items():
        assert any(line in finding.fix for finding in findings.values() if finding.kind == kind), kind
    assert not checkup.healthy
    severities = [finding.severity for finding in checkup.findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


def test_every_mistake_is_found_in_one_look(twenty: Mapping[str, ImageAndMask], tmp_path: Path) -> None:
    ways = spoil(twenty, LABELS, tmp_path)
    steps: list[tuple[int, int]] = []
    checkup = check(f"folder:{tmp_path}", progress=lambda done, total: steps.append((done, total)))
    check_spoilt(checkup, ways, tmp_path)
    assert steps[-1] == (21, 21)
    said = checkup.text()
    assert all(finding.block() in said for finding in checkup.findings)
    facts = json.loads(json.dumps(checkup.to_dict()))
    assert [f["kind"] for f in facts["findings"]] == [f.kind for f in checkup.findings]


def outlines_tell(sample: Sample) -> bool:
    """Whether the mask of a sample, turned by 180°, does not fit its image clearly: so it is in most, not in all."""
    return drawn_upright(upright_fit(sample.image, turn(sample.mask, 3), 3)) is False


@pytest.mark.shared
def test_every_mistake_is_found_in_voc_images(shared: Path, tmp_path: Path) -> None:
    data = open_dataset(f"voc:{shared}/data/VOCdevkit", "train")
    half = next(index for index in range(15, len(data)) if outlines_tell(data[index]))
    samples = [data[index] for index in (*range(15), half, *range(half + 1, half + 5))]
    images = {Path(sample.name).stem: (sample.image, sample.mask) for sample in samples}
    ways = spoil(images, VOC, tmp_path)
    check_spoilt(check(f"folder:{tmp_path}"), ways, tmp_path)


@pytest.mark.shared
def test_real_datasets_are_healthy(shared: Path) -> None:
    checkup = check(f"camvid:{shared}/data/CamVid", ["val"])
    assert checkup.findings == ()
    assert quick_check(f"voc:{shared}/data/VOCdevkit", ["trainaug", "val"]) == []


def test_a_healthy_folder_gives_its_tables_and_one_line(make_folder: MakeFolder) -> None:
    checkup = check(f"folder:{make_folder()}")
    assert checkup.findings == ()
    assert checkup.text().endswith("\n\nhealthy: no findings")
    assert "folder:train: 3 of 3 pairs are good, 64×48 to 64×48 pixels\n  ground  " in checkup.text()


def test_text_lists_ten_files_and_json_all(make_folder: MakeFolder) -> None:
    root = make_folder(16)
    for mask in (root / "masks").iterdir():
        mask.unlink()
    finding = found(check(f"folder:{root}"), "missing-mask")
    assert finding.block().count("/images/") == 10
    assert "… and 6 more" in finding.block()
    assert len(finding.to_dict()["files"]) == 16


def test_masks_with_an_addition_to_their_names_get_the_command_that_renames_them(make_folder: MakeFolder) -> None:
    root = make_folder()
    for mask in list((root / "masks").iterdir()):
        mask.rename(mask.with_name(f"{mask.stem}_mask.png"))
    finding = found(check(f"folder:{root}"), "missing-mask")
    command = f'for f in {root}/masks/*_mask.png; do mv -n "$f" "${{f%_mask.png}}.png"; done'
    assert finding.fix == f"{command}; `atrous data check folder:{root} --fix NEW_FOLDER` does it in the copy"
    assert "needs" in finding.items[0].detail
    assert "(there is a_mask.png)" in finding.items[0].detail


def write_masks(root: Path, background: int, foreground: int) -> None:
    for file in (root / "masks").iterdir():
        _, mask = draw(0)
        Image.fromarray(np.where(mask % 255 > 0, foreground, background).astype(np.uint8)).save(file)


@pytest.mark.parametrize("names", [None, ("ground", "path")])
@pytest.mark.parametrize("foreground", [128, 255])
def test_binary_masks_are_mended_by_a_line_in_labels_toml(
    make_folder: MakeFolder, names: tuple[str, ...] | None, foreground: int
) -> None:
    root = make_folder(names=names)
    write_masks(root, 0, foreground)
    finding = found(check(f"folder:{root}"), "binary-mask")
    assert finding.severity == "error"
    assert len(finding.files) == 4
    assert f"values = [0, {foreground}]" in finding.fix
    if not names:
        with pytest.raises(DatasetError, match=r"(?s)labels\.toml.*values = "):
            open_dataset(f"folder:{root}", "train")
    (root / "labels.toml").write_text(f'names = ["ground", "path"]\nvalues = [0, {foreground}]\n')
    checkup = check(f"folder:{root}")
    assert "binary-mask" not in [finding.kind for finding in checkup.findings]
    assert checkup.counts("train").pixels.min() > 0
    assert set(np.unique(open_dataset(f"folder:{root}", "train")[0].mask)) == {0, 1}


def test_0_and_255_may_be_declared_as_void(make_folder: MakeFolder) -> None:
    root = make_folder(names=None)
    write_masks(root, 0, 255)
    (root / "labels.toml").write_text('names = ["ground", "path"]\nvalues = [0, 1]\n')
    assert "binary-mask" not in kinds(root)


def test_values_with_gaps_are_no_classes_and_the_odd_masks_are_named(make_folder: MakeFolder) -> None:
    root = make_folder(names=None)
    mask = draw(0)[1]
    mask[0, 0] = 200
    Image.fromarray(mask).save(root / "masks/b.png")
    finding = found(check(f"folder:{root}"), "values-far-apart")
    assert finding.files == (str(root / "masks/b.png"),)
    assert "201 classes, of which 4 occur" in finding.found
    assert 'names = ["value 0", "value 1", "value 2", "value 200"]\n    values = [0, 1, 2, 200]' in finding.fix
    with pytest.raises(DatasetError, match="201 classes"):
        open_dataset(f"folder:{root}", "train")


def test_all_rgb_masks_are_mended_by_lines_that_name_their_colours(make_folder: MakeFolder) -> None:
    root = make_folder()
    colors = np.array([(1, 2, 3), (50, 60, 70), (9, 9, 200)], np.uint8)
    for file in (root / "masks").iterdir():
        Image.fromarray(colors[draw(0)[1] % 255]).save(file)
    mend = found(check(f"folder:{root}"), "rgb-mask").fix
    lines = [line.strip() for line in mend.splitlines()[1:]]
    (root / "labels.toml").write_text("\n".join(lines))
    assert kinds(root) == []
    assert open_dataset(f"folder:{root}", "train").label_set.names == ("color 0", "color 1", "color 2")


def turned(root: Path, name: str, orientation: int, stored_mask: bool, size: tuple[int, int] = (48, 64)) -> None:
    """Write an image that EXIF turns upright, and its mask, upright or turned with the stored pixels."""
    undo = {6: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_180, 2: Image.Transpose.FLIP_LEFT_RIGHT}
    image, mask = (Image.fromarray(pixels) for pixels in draw(7, size))
    exif = Image.Exif()
    exif[0x0112] = orientation
    (root / f"images/{name}.png").unlink()
    image.transpose(undo[orientation]).save(root / f"images/{name}.jpg", quality=95, exif=exif)
    (mask.transpose(undo[orientation]) if stored_mask else mask).save(root / f"masks/{name}.png")


@pytest.mark.parametrize("orientation", [6, 3, 2])
@pytest.mark.parametrize("size", [(48, 64), (48, 48)])
@pytest.mark.parametrize("drawn", ["upright", "stored"])
def test_a_image_and_its_mask_never_disagree_in_silence(
    make_folder: MakeFolder, orientation: int, size: tuple[int, int], drawn: str
) -> None:
    root = make_folder()
    turned(root, "b", orientation, drawn == "stored", size)
    spec = f"folder:{root}"
    told_by_size = orientation == 6 and size == (48, 64)
    if told_by_size and drawn == "upright":
        assert kinds(root) == ["turned-image"]
    else:
        kind = "turned-mask" if told_by_size else "unclear-orientation"
        finding = found(check(spec), kind)
        assert finding.files == (str(root / "images/b.jpg"),)
        assert f'orientation = "{drawn}"' in finding.fix
        with pytest.raises(DatasetError, match=r"b\.jpg is .* but its mask .*b\.png is .*; EXIF turns the image"):
            open_dataset(spec, "train")[1]
        with pytest.raises(DatasetError, match=f"(?s){kind}.*b.jpg"):
            require_healthy(spec, ["train", "val"])
    with (root / "labels.toml").open("a") as file:
        file.write(f'orientation = "{drawn}"\n')
    assert kinds(root) == ["turned-image"]
    np.testing.assert_array_equal(open_dataset(spec, "train")[1].mask, draw(7, size)[1])
    other = "stored" if drawn == "upright" else "upright"
    (root / "labels.toml").write_text((root / "labels.toml").read_text().replace(drawn, other))
    if told_by_size:
        with pytest.raises(DatasetError, match="EXIF turns the image"):
            open_dataset(spec, "train")[1]


def test_splits_that_are_not_there_or_empty(make_folder: MakeFolder) -> None:
    root = make_folder()
    finding = found(check(f"folder:{root}", ["trian", "val"]), "no-split")
    assert "no split 'trian' (did you mean 'train'?)" in finding.found
    assert finding.severity == "error"
    (root / "splits/val.txt").write_text("\n")
    assert "has no images" in found(check(f"folder:{root}"), "no-split").found
    (root / "splits/val.txt").unlink()
    finding = found(check(f"folder:{root}"), "no-split")
    assert (finding.severity, "data.val_split=none" in finding.fix) == ("warning", True)


def test_names_that_are_nearly_there_are_suggested(make_folder: MakeFolder) -> None:
    root = make_folder()
    for letter in "abcd":
        (root / f"images/{letter}.png").rename(root / f"images/garden_{letter}.png")
        (root / f"masks/{letter}.png").rename(root / f"masks/garden_{letter}.png")
    (root / "splits/train.txt").write_text("garden_a\ngarden_b\ngadren_c.png\n")
    (root / "splits/val.txt").write_text("garden_d\n")
    checkup = check(f"folder:{root}")
    item = found(checkup, "not-there").items[0]
    assert item.name.endswith("images/gadren_c")
    assert "did you mean garden_" in item.detail
    assert found(checkup, "unlisted-image").files == (str(root / "images/garden_c.png"),)


def test_a_image_in_splits_of_which_one_is_part_of_the_other_is_a_warning(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "splits/trainval.txt").write_text("a\nb\nc\nd\n")
    checkup = check(f"folder:{root}", ["train", "trainval"])
    assert checkup.healthy
    assert len(found(checkup, "shared-image").files) == 3
    assert found(check(f"folder:{root}", ["train+val", "train"]), "shared-image").severity == "warning"


def test_other_splits_are_named_but_not_looked_at(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "splits/fold1.txt").write_text("nobody\n")
    checkup = check(f"folder:{root}")
    assert checkup.healthy
    assert "not checked: fold1 (--split NAME)" in checkup.text()


def test_a_image_twice_in_a_split_tells_whether_masks_differ(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "images/b.png").write_bytes((root / "images/a.png").read_bytes())
    finding = found(check(f"folder:{root}"), "repeated-image")
    assert finding.items[0].detail == f"the same as {root / 'images/a.png'} in train, with another mask"


def test_a_broken_labels_file_is_one_finding_and_the_look_goes_on(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "labels.toml").write_text('names = ["a", "b"', encoding="utf-16")
    (root / "images/a.png").write_bytes(b"")
    checkup = check(f"folder:{root}")
    finding = found(checkup, "labels-file")
    assert "written in UTF-16; save it again as UTF-8" in finding.found
    assert 'names = ["background", ...]' in finding.expected
    assert found(checkup, "unreadable-image").files == (str(root / "images/a.png"),)
    assert checkup.form.label_set.names == ("class 0", "class 1", "class 2")


def test_a_lossless_mask_of_another_format_is_read(make_folder: MakeFolder) -> None:
    root = make_folder()
    with Image.open(root / "masks/a.png") as mask:
        mask.save(root / "masks/a.tif")
    (root / "masks/a.png").unlink()
    assert kinds(root) == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: (root / "images").rename(root / "Images"), "no 'images' folder; did you mean Images/?"),
        (lambda root: (root / "images").rename(root / "photos"), "did you mean photos/? `mv .*photos .*images`"),
        (lambda root: (root / "masks").rename(root / "mask"), "no 'masks' folder; did you mean mask/?"),
        (
            lambda root: root.rename(root.with_name("mien")),
            r"folder .*mine does not exist \(did you mean 'mien'?\)",
        ),
    ],
)
def test_misspelt_folders_are_guessed(make_folder: MakeFolder, spoil, said: str) -> None:
    root = make_folder()
    spoil(root)
    with pytest.raises(DatasetError, match=said.replace("?", r"\?")):
        check(f"folder:{root}")


def test_a_folder_labels_of_images_is_a_folder_of_masks(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "masks").rename(root / "labels")
    assert kinds(root) == []
    for mask in (root / "labels").iterdir():  # as YOLO's
        mask.rename(mask.with_suffix(".txt"))
    with pytest.raises(DatasetError, match=r"no 'masks' folder; did you mean labels/"):
        check(f"folder:{root}")


@pytest.mark.parametrize(("spec", "said"), [("{}", "did you mean folder:"), ("fodler:{}", "did you mean folder:")])
def test_misspelt_readers_are_guessed(make_folder: MakeFolder, spec: str, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        check(spec.format(make_folder()))


def test_no_images_at_all_is_an_unusable_specification(make_folder: MakeFolder) -> None:
    root = make_folder()
    for image in (root / "images").iterdir():
        image.unlink()
    with pytest.raises(ImageError, match="no image in this folder"):
        check(f"folder:{root}")


def test_require_healthy_names_every_error_in_the_doctor_s_words(
    twenty: Mapping[str, ImageAndMask],
    tmp_path: Path,
) -> None:
    spoil(twenty, LABELS, tmp_path)
    spec = f"folder:{tmp_path}"
    blocks = {f.kind: f.block() for f in check(spec).findings if f.severity == "error"}
    with pytest.raises(DatasetError) as caught:
        require_healthy(spec, ["train", "val"])
    said = str(caught.value)
    deeper = {"unreadable-image", "unreadable-mask"}  # halves have good headers; the sample reads every mask of so few
    for kind, block in blocks.items():
        if kind not in deeper | {"unclear-orientation", "shared-image"}:
            assert block in said, kind
    assert "shared-image" in said
    assert said.endswith("looks at every pixel")


def test_require_healthy_gives_what_is_no_error(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "masks/spare.png").write_bytes((root / "masks/a.png").read_bytes())
    assert [finding.kind for finding in require_healthy(f"folder:{root}", ["train", "val"])] == ["extra-mask"]


IMAGES = ["good", "cut", "empty", "grey", "turned", "upside down"]
MASKS = ["good", "cut", "rgb", "jpeg", "16 bit", "deep", "outside", "far", "void", "small", "ignored"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pairs=st.lists(st.tuples(st.sampled_from(IMAGES), st.sampled_from(MASKS)), min_size=1, max_size=4),
    labels=st.sampled_from(
        ["", "ignore = [4]", 'orientation = "stored"', "values = [0, 1, 2, 128]", 'encoding = "rgb"']
    ),
)
def test_a_pair_is_good_to_the_doctor_exactly_if_the_reader_reads_it(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], labels: str
) -> None:
    root = tmp_path_factory.mktemp("pairs")
    for folder in ("images", "masks", "splits"):
        (root / folder).mkdir()
    for number, (image, mask) in enumerate(pairs):
        make_image(root / f"images/{number}.jpg", image)
        make_mask(root / f"masks/{number}.png", mask)
    (root / "splits/train.txt").write_text("\n".join(str(number) for number in range(len(pairs))))
    colors = [list(color) for color in LABELS.colors]
    (root / "labels.toml").write_text(f'names = ["a", "b", "c", "d"]\ncolors = {colors}\n{labels}\n')
    checkup = check(f"folder:{root}", ["train"])
    good = {int(pair.name) for pair in checkup.good("train")}
    data = open_dataset(f"folder:{root}", "train")
    counts = np.zeros(4, np.int64)
    for number in range(len(pairs)):
        if number in good:
            counts += np.bincount(data[number].mask.reshape(-1), minlength=256)[:4]
        else:
            with pytest.raises(ValueError, match=f"{number}.(jpg|png)"):
                data[number]
    np.testing.assert_array_equal(checkup.counts("train").pixels, counts)


def make_image(file: Path, kind: str) -> None:
    image = Image.fromarray(draw(0)[0])
    exif = Image.Exif()
    exif[0x0112] = {"turned": 6, "upside down": 3}.get(kind, 1)
    (image.convert("L") if kind == "grey" else image).save(file, exif=exif)
    if kind in ("cut", "empty"):
        file.write_bytes(file.read_bytes()[: 0 if kind == "empty" else -300])


def make_mask(file: Path, kind: str) -> None:
    mask = draw(0)[1]
    match kind:
        case "rgb":
            Image.fromarray(LabelSet(LABELS.names).colorize(mask)).save(file)
        case "jpeg":
            Image.fromarray(mask).save(file, "JPEG")
        case "16 bit":
            Image.fromarray(mask.astype(np.uint16)).save(file)
        case "deep":
            Image.fromarray(mask.astype(np.uint16) * 200).save(file)
        case "small":
            Image.fromarray(mask[:-1]).save(file)
        case _:
            changed = {"outside": (2, 30), "far": (2, 128), "ignored": (2, 4)}.get(kind, (2, 2))
            mask[mask == changed[0]] = changed[1]
            Image.fromarray(np.full_like(mask, 255) if kind == "void" else mask).save(file)
    if kind == "cut":
        file.write_bytes(file.read_bytes()[:-40])


@pytest.mark.parametrize("video", [True, False])
def test_neighbouring_frames_in_different_splits_are_a_warning(make_folder: MakeFolder, video: bool) -> None:
    root = make_folder()
    random = np.random.default_rng(0)
    scene = random.integers(0, 256, (4, 6, 3), np.uint8)
    names = [f"drive_{number:04}" for number in range(12)]
    for name in names:
        if not video:
            scene = random.integers(0, 256, (4, 6, 3), np.uint8)
        frame = scene.repeat(10, 0).repeat(10, 1) // 2 + random.integers(0, 9, (40, 60, 3), np.uint8)
        Image.fromarray(frame).save(root / f"images/{name}.png")
        Image.fromarray(np.uint8(frame[..., 0] > 60)).save(root / f"masks/{name}.png")
    (root / "splits/train.txt").write_text("\n".join(names[::2]))
    (root / "splits/val.txt").write_text("\n".join(names[1::2]))
    finding = [finding for finding in check(f"folder:{root}").findings if finding.kind == "neighbouring-frames"]
    assert len(finding) == video
    assert not video or len(finding[0].items) == 11
    (root / "splits/train.txt").write_text("\n".join(names[:6]))
    (root / "splits/val.txt").write_text("\n".join(names[6:]))
    assert "neighbouring-frames" not in kinds(root)
