"""Sources of annotation tools: small files in each tool's own layout become the masks that were drawn."""

import base64
import io
import json
import pickle
import re
import shlex
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from atrous.cli import app
from atrous.data.doctor.check import check
from atrous.data.files.masks import MaskError
from atrous.data.files.rle import brush_of, rows_of
from atrous.data.opening import open_dataset
from atrous.data.sources.registry import find_source
from atrous.errors import DatasetError

HEIGHT, WIDTH = 20, 30
RING = [(4, 4), (16, 4), (16, 16), (4, 16)]
HOLE = [(8, 8), (12, 8), (12, 12), (8, 12)]


def disc() -> np.ndarray:
    """A square of 12 with a hole of 4, and a pixel of its own: what every tool below has drawn as 'leaf'."""
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[4:16, 4:16] = True
    inside[8:12, 8:12] = False
    return inside


def photo(path: Path, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (90, 120, 60)).save(path)
    return path


def write(path: Path, data: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def png(mask: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def labelme(root: Path) -> None:
    photo(root / "a.jpg")
    mask = base64.b64encode(png(disc()[4:16, 4:16])).decode()
    shapes: list[dict[str, Any]] = [
        {"label": "leaf", "points": [[4, 4], [15, 15]], "shape_type": "mask", "mask": mask},
        {"label": "__ignore__", "points": [[20, 0], [29, 0], [29, 3], [20, 3]], "shape_type": "polygon"},
    ]
    write(root / "a.json", {"shapes": shapes, "imagePath": "a.jpg", "imageHeight": HEIGHT, "imageWidth": WIDTH})


CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><labels>
<label><name>leaf</name><color>#00ff00</color></label><label><name>ignore</name></label></labels></task></meta>
<image id="0" name="a.jpg" width="30" height="20">
<mask label="leaf" rle="{rle}" left="4" top="4" width="12" height="12" z_order="1"></mask>
<polygon label="ignore" points="20,0;30,0;30,4;20,4" z_order="0"></polygon></image></annotations>"""


def cvat(root: Path) -> None:
    photo(root / "images/a.jpg")
    write(root / "annotations.xml", CVAT.format(rle=", ".join(map(str, rows_of(disc()[4:16, 4:16])))))


def cvat_masks(root: Path) -> None:
    photo(root / "JPEGImages/a.jpg")
    write(
        root / "labelmap.txt", "# label:color_rgb:parts:actions\nleaf:0,255,0::\nbackground:0,0,0::\nignore:9,9,9::\n"
    )
    write(root / "ImageSets/Segmentation/train.txt", "a\n")
    colors = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colors[disc()] = 0, 255, 0
    colors[:4, 20:] = 9
    (root / "SegmentationClass").mkdir()
    Image.fromarray(colors).save(root / "SegmentationClass/a.png")


def region(value: dict[str, Any], kind: str, size: tuple[int, int] = (HEIGHT, WIDTH)) -> dict[str, Any]:
    return {"value": value, "type": kind, "original_height": size[0], "original_width": size[1], "image_rotation": 0}


LEAF = {"format": "rle", "rle": brush_of(disc()), "brushlabels": ["leaf"]}
CORNER = {"x": 200 / 3, "y": 0, "width": 100 / 3, "height": 20, "rotation": 0, "rectanglelabels": ["ignore"]}


def labelstudio(root: Path) -> None:
    photo(root / "images/a b.jpg")
    drawn = {"was_cancelled": False, "result": [region(LEAF, "brushlabels"), region(CORNER, "rectanglelabels")]}
    dropped = {"was_cancelled": True, "result": []}
    task = {"id": 7, "annotations": [drawn, dropped], "data": {"image": "/data/upload/1/0a1b2c3d-a%20b.jpg"}}
    write(root / "project-1.json", [task, {"id": 8, "annotations": [], "data": {"image": "b.jpg"}}])


def labelstudio_min(root: Path) -> None:
    photo(root / "a.jpg")
    size = {"original_height": HEIGHT, "original_width": WIDTH}
    tags = [{**LEAF, **size}, {**CORNER, **size}]
    write(root / "min.json", [{"id": 7, "image": "/data/local-files/?d=photos/a.jpg", "tag": tags, "annotator": 1}])


def yolo(root: Path) -> None:
    photo(root / "images/train/a.jpg")
    write(root / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames: {0: leaf, 1: ignore}\n")
    ring = [*RING, RING[0], HOLE[0], *HOLE[::-1], RING[0]]  # a keyhole
    lines = [(0, ring), (1, [(20, 0), (30, 0), (30, 4), (20, 4)])]
    text = [f"{label} " + " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in corners) for label, corners in lines]
    write(root / "labels/train/a.txt", "\n".join(text))
    photo(root / "images/train/empty.jpg")


def roboflow(root: Path) -> None:
    photo(root / "train/a.jpg")
    write(root / "train/_classes.csv", "Pixel Value, Class\n0, background\n1, leaf\n2, ignore\n")
    mask = disc().astype(np.uint8)
    mask[:4, 20:] = 2
    Image.fromarray(mask).save(root / "train/a_mask.png")


def supervisely(root: Path) -> None:
    photo(root / "train/img/a.jpg")
    write(
        root / "meta.json",
        {"classes": [{"title": "leaf", "color": "#00FF00"}, {"title": "ignore", "color": "#000000"}]},
    )
    bitmap = base64.b64encode(zlib.compress(png(np.ones((4, 10), bool)))).decode()
    things = [
        {"classTitle": "leaf", "geometryType": "polygon", "points": {"exterior": RING, "interior": [HOLE]}},
        {"classTitle": "ignore", "geometryType": "bitmap", "bitmap": {"data": bitmap, "origin": [20, 0]}},
    ]
    write(root / "train/ann/a.jpg.json", {"size": {"height": HEIGHT, "width": WIDTH}, "objects": things})


def hasty(root: Path) -> None:
    photo(root / "set/a.jpg")
    labels = [
        {"class_name": "leaf", "bbox": [4, 4, 16, 16], "mask": rows_of(disc()[4:16, 4:16]), "z_index": 1},
        {"class_name": "ignore", "bbox": [20, 0, 30, 4], "polygon": [[20, 0], [30, 0], [30, 4], [20, 4]], "z_index": 0},
    ]
    image = {"image_name": "a.jpg", "dataset_name": "set", "width": WIDTH, "height": HEIGHT, "labels": labels}
    classes = [{"class_name": name, "color": color} for name, color in (("leaf", "#00ff00ff"), ("ignore", ""))]
    write(root / "h.json", {"export_format_version": "1.1", "label_classes": classes, "images": [image]})


def hasty_masks(root: Path) -> None:
    photo(root / "images/set/a.jpg")
    (root / "set").mkdir()
    values = np.where(disc(), 3, 0).astype(np.uint8)
    values[:4, 20:] = 7
    Image.fromarray(values).save(root / "set/a.png")
    classes = [(3, "leaf", "#4df3ce"), (7, "ignore", "#000000")]
    rows = [{"png_index": value, "class_name": name, "color": color} for value, name, color in classes]
    write(root / "label_classes.json", rows)


def via(root: Path) -> None:
    photo(root / "a.jpg")
    corner = {"name": "rect", "x": 20, "y": 0, "width": 10, "height": 4}
    ring = [*RING, RING[0], HOLE[0], *HOLE[::-1], RING[0]]
    leaf = {"name": "polygon", "all_points_x": [x for x, _ in ring], "all_points_y": [y for _, y in ring]}
    regions = [
        {"shape_attributes": leaf, "region_attributes": {"class": "leaf"}},
        {"shape_attributes": corner, "region_attributes": {"class": "ignore"}},
    ]
    write(
        root / "via.json", {"_via_img_metadata": {"a.jpg123": {"filename": "a.jpg", "size": 123, "regions": regions}}}
    )


def coco(root: Path) -> None:
    photo(root / "train/a.jpg")
    segments = [
        {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 128, "segmentation": rle_of(disc())},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 1,
            "iscrowd": 1,
            "area": 40,
            "segmentation": [[20, 0, 30, 0, 30, 4, 20, 4]],
        },
    ]
    images = [{"id": 1, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}]
    categories = [{"id": 1, "name": "leaf"}]
    write(
        root / "annotations/instances_train.json", {"images": images, "categories": categories, "annotations": segments}
    )


def rle_of(inside: np.ndarray) -> dict[str, Any]:
    return {"size": [HEIGHT, WIDTH], "counts": rows_of(inside.T)}


def panoptic(root: Path) -> None:
    photo(root / "train/a.jpg")
    numbers = np.ones((HEIGHT, WIDTH), np.uint32)
    numbers[disc()] = 70_000
    numbers[:4, 20:] = 0
    colors = np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], -1).astype(np.uint8)
    (root / "annotations/panoptic_train").mkdir(parents=True)
    Image.fromarray(colors).save(root / "annotations/panoptic_train/a.png")
    segments = [{"id": 1, "category_id": 3, "iscrowd": 0}, {"id": 70_000, "category_id": 9, "iscrowd": 0}]
    data = {
        "categories": [{"id": 3, "name": "background"}, {"id": 9, "name": "leaf"}],
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
    }
    write(root / "annotations/panoptic_train.json", data)


def mapillary(root: Path) -> None:
    photo(root / "training/images/a.jpg")
    labels = [("background", True), ("leaf", True), ("unlabeled", False)]
    config = [{"name": name, "color": [5, 5, place], "evaluate": on} for place, (name, on) in enumerate(labels)]
    write(root / "config_v2.0.json", {"labels": config})
    mask = disc().astype(np.uint8)
    mask[:4, 20:] = 2
    (root / "training/v2.0/labels").mkdir(parents=True)
    Image.fromarray(mask).save(root / "training/v2.0/labels/a.png")


Write = Callable[[Path], None]
WRITERS: dict[str, tuple[str, Write]] = {
    "labelme": ("labelme", labelme),
    "cvat": ("cvat", cvat),
    "cvat masks": ("cvat", cvat_masks),
    "labelstudio": ("labelstudio", labelstudio),
    "labelstudio min": ("labelstudio", labelstudio_min),
    "yolo": ("yolo", yolo),
    "roboflow": ("roboflow", roboflow),
    "supervisely": ("supervisely", supervisely),
    "hasty": ("hasty", hasty),
    "hasty masks": ("hasty", hasty_masks),
    "via": ("via", via),
    "coco": ("coco", coco),
    "panoptic": ("panoptic", panoptic),
    "mapillary": ("mapillary", mapillary),
}


def split_of(spec: str) -> str:
    source = find_source(spec)
    return "train" if source.splits() == ["train"] else "all"


@pytest.mark.parametrize("layout", WRITERS)
def test_each_tool_gives_the_mask_that_was_drawn_in_it(tmp_path: Path, layout: str) -> None:
    kind, make = WRITERS[layout]
    make(tmp_path)
    expected = np.where(disc(), 1, 0)
    expected[:4, 20:] = 255
    for spec in (f"{kind}:{tmp_path}", f"auto:{tmp_path}"):
        data = pickle.loads(pickle.dumps(open_dataset(spec, split_of(spec))))  # as a worker process has it
        assert data.label_set.names == ("background", "leaf")
        np.testing.assert_array_equal(data[0].mask, expected)
    if layout == "yolo":  # an image without a file of labels has no objects
        assert (len(data), data[1].mask.any()) == (2, False)


@pytest.mark.parametrize("layout", ["labelme", "cvat", "labelstudio", "yolo"])
def test_the_doctor_reads_them(tmp_path: Path, layout: str) -> None:
    kind, make = WRITERS[layout]
    make(tmp_path)
    spec = f"{kind}:{tmp_path}"
    checkup = check(spec, [split_of(spec)])
    assert [finding.kind for finding in checkup.findings if finding.severity == "error"] == []
    assert checkup.counts(split_of(spec)).pixels[1] == disc().sum()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("cvat", r'expected annotations.xml \("CVAT for images 1.1"\) or labelmap.txt.*Export task dataset'),
        ("labelme", "has no JSON files; labelme saves one beside each image"),
        (
            "labelstudio",
            r"has 0 JSON files, expected one, an export of Label Studio as JSON or JSON-MIN \(Project > Export",
        ),
        ("yolo", "has 0 YAML files, expected one data.yaml"),
        ("roboflow", r"expected train/_classes.csv .*Versions > Export Dataset"),
        ("supervisely", "expected meta.json in it, and img and ann"),
        ("hasty", "has 0 JSON files, expected one, Hasty's JSON export of version 1.1"),
        ("via", "has 0 JSON files, expected one, a project of VIA 2"),
        ("panoptic", "expected annotations/panoptic_train2017.json"),
        ("mapillary", r"expected config_v2.0.json"),
        ("auto", "is not in a form that is recognised: it has notes/"),
    ],
)
def test_a_folder_of_something_else_says_what_is_missing(tmp_path: Path, kind: str, expected: str) -> None:
    (tmp_path / "notes").mkdir()
    with pytest.raises(DatasetError, match=expected):
        open_dataset(f"{kind}:{tmp_path}", "train")


def test_a_drawn_background_of_hasty_is_refused_unless_its_value_is_0(tmp_path: Path) -> None:
    hasty_masks(tmp_path)
    file = tmp_path / "label_classes.json"
    rows = json.loads(file.read_text())
    for value in (0, 5):
        write(file, [*rows, {"png_index": value, "class_name": "Background", "color": "#102030"}])
        if value:
            with pytest.raises(DatasetError, match=r"label_classes.json.* Background has png_index 5, expected 0"):
                open_dataset(f"hasty:{tmp_path}", "all")
        else:
            assert open_dataset(f"hasty:{tmp_path}", "all").label_set.names == ("background", "leaf")


def test_masks_of_hasty_find_the_image_of_their_folder_among_those_of_one_name(tmp_path: Path) -> None:
    hasty_masks(tmp_path)
    photo(tmp_path / "images/other/a.jpg")
    assert find_source(f"hasty:{tmp_path}").listed("all")[0].image == tmp_path / "images/set/a.jpg"
    (tmp_path / "images/set/a.jpg").rename(tmp_path / "images/a.jpg")
    with pytest.raises(DatasetError, match=r"a.png may belong to any of .*; put them into folders"):
        open_dataset(f"hasty:{tmp_path}", "all")


def test_segmentation_of_objects_is_refused_with_the_right_name(tmp_path: Path) -> None:
    for name in ("JPEGImages", "SegmentationObject", "ImageSets/Segmentation"):
        (tmp_path / name).mkdir(parents=True)
    for kind in ("auto", "voc"):
        with pytest.raises(DatasetError, match="not the classes; export SegmentationClass"):
            open_dataset(f"{kind}:{tmp_path}", "train")


def test_boxes_and_lines_are_refused_by_name(tmp_path: Path) -> None:
    cvat(tmp_path)
    file = tmp_path / "annotations.xml"
    box = '<box label="leaf" xtl="1" ytl="1" xbr="5" ybr="5" z_order="0"></box></image>'
    file.write_text(file.read_text().replace("</image>", box))
    with pytest.raises(
        MaskError, match=r"annotations.xml, image a.jpg: shape 3 \('leaf', box\): shapes without an area"
    ):
        open_dataset(f"cvat:{tmp_path}", "all")[0]
    file.write_text(file.read_text().replace("<image ", "<track><box/></track><!--").replace("</image>", "-->"))
    with pytest.raises(DatasetError, match=r'"CVAT for video 1\.1", whose shapes are tracks; export the task as'):
        open_dataset(f"cvat:{tmp_path}", "all")


def test_the_rule_of_overlap_is_the_tools_own_or_chosen(tmp_path: Path) -> None:
    cvat(tmp_path)
    file = tmp_path / "annotations.xml"
    cover = '<polygon label="ignore" points="0,0;30,0;30,20;0,20" z_order="-1"></polygon></image>'
    file.write_text(file.read_text().replace("</image>", cover))
    spec = f"cvat:{tmp_path}"
    counts = {
        rule: int((open_dataset(f"{spec}?overlap={rule}", "all")[0].mask == 1).sum())
        for rule in ("order", "area", "last")
    }
    assert counts == {"order": 128, "area": 128, "last": 0}
    assert int((open_dataset(spec, "all")[0].mask == 1).sum()) == 128
    with pytest.raises(DatasetError, match=r"expected overlap=area\|order\|last"):
        open_dataset(f"{spec}?overlap=first", "all")
    (tmp_path / "masks").mkdir()
    with pytest.raises(DatasetError, match="folder has masks and no shapes that could overlap"):
        open_dataset(f"folder:{tmp_path}?overlap=last", "all")


def test_an_image_that_several_files_may_be_is_named(tmp_path: Path) -> None:
    labelstudio(tmp_path)
    photo(tmp_path / "other/a b.jpg")
    with pytest.raises(DatasetError, match=r"the image .*a b.jpg may be any of 2 files: .*; rename them"):
        open_dataset(f"labelstudio:{tmp_path}", "all")


def test_an_image_that_is_missing_is_a_finding(tmp_path: Path) -> None:
    labelstudio(tmp_path)
    (tmp_path / "images/a b.jpg").unlink()
    (finding,) = [f for f in check(f"labelstudio:{tmp_path}", ["all"]).findings if f.kind == "not-there"]
    assert finding.severity == "error"


def test_images_that_were_not_annotated_are_a_note(tmp_path: Path) -> None:
    labelme(tmp_path)
    photo(tmp_path / "new.jpg")
    (finding,) = [f for f in check(f"labelme:{tmp_path}", ["all"]).findings if f.kind == "unlisted-image"]
    assert [finding.severity, *finding.files] == ["note", str(tmp_path / "new.jpg")]


def test_labelmes_image_inside_the_file_is_taken_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    labelme(tmp_path / "data")
    file, image = tmp_path / "data/a.json", tmp_path / "data/a.jpg"
    data = json.loads(file.read_text()) | {"imageData": base64.b64encode(image.read_bytes()).decode()}
    file.write_text(json.dumps(data))
    before = open_dataset(f"labelme:{tmp_path}/data", "all")[0].image
    image.unlink()
    np.testing.assert_array_equal(open_dataset(f"labelme:{tmp_path}/data", "all")[0].image, before)
    file.write_text(json.dumps(data | {"imageData": "bm90IGFuIGltYWdl"}))
    with pytest.raises(DatasetError, match="the image inside it can't be read"):
        open_dataset(f"labelme:{tmp_path}/data", "all")


def test_of_several_annotations_of_a_task_the_latest_counts(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    late = {"updated_at": "2024-02-02", "result": []}
    early = {"updated_at": "2024-01-01", "result": [region(LEAF, "brushlabels")]}
    file = tmp_path / "tasks.json"
    for truth, painted in ((False, 0), (True, 128)):
        task = {"id": 1, "annotations": [early | {"ground_truth": truth}, late], "data": {"image": "a.jpg"}}
        names = {"id": 2, "annotations": [early], "data": {"image": "a.jpg"}}
        write(file, [task, names])
        assert open_dataset(f"labelstudio:{tmp_path}", "all")[0].mask.sum() == painted


MISTAKES: list[tuple[str, str, Any, str]] = [
    ("labelme", "a.json", {"shapes": 5}, "labelme's JSON"),
    ("labelstudio", "project-1.json", {"a": 1}, "not a list of tasks; expected an export of Label Studio"),
    ("supervisely", "meta.json", {"classes": [1]}, "a meta.json of Supervisely"),
    ("hasty", "h.json", {"export_format_version": "2"}, "its export_format_version is '2'"),
    ("hasty masks", "label_classes.json", [{"png_index": 1}], "no 'class_name'; expected Hasty's label_classes"),
    ("via", "via.json", {"_via_img_metadata": {"a": 1}}, "a project of VIA 2"),
    ("via", "via.json", "[", "not JSON"),
    ("cvat", "annotations.xml", "<a>", "not XML"),
    ("cvat", "annotations.xml", '<!DOCTYPE a [<!ENTITY b "c">]><a/>', "entities"),
    ("yolo", "data.yaml", "a: [", "not YAML"),
    ("yolo", "data.yaml", "train: images/train", "no 'names'; expected a data.yaml of Ultralytics"),
    ("roboflow", "train/_classes.csv", "Value, Class\nx, leaf", "expected a header and lines 'value, name'"),
    ("panoptic", "annotations/panoptic_train.json", {}, "no 'categories'; expected COCO's panoptic JSON"),
    ("mapillary", "config_v2.0.json", {"labels": [{}]}, "no 'name'; expected a config of Mapillary Vistas"),
]


@pytest.mark.parametrize(("layout", "file", "content", "says"), MISTAKES)
def test_a_file_in_another_form_says_what_was_expected(
    tmp_path: Path, layout: str, file: str, content: Any, says: str
) -> None:
    kind, make = WRITERS[layout]
    make(tmp_path)
    write(tmp_path / file, content)
    with pytest.raises(DatasetError, match=f"{Path(file).name}.*{says}"):
        open_dataset(f"{kind}:{tmp_path}", "train")


def test_a_yolo_line_that_is_a_box_or_in_pixels_is_refused(tmp_path: Path) -> None:
    yolo(tmp_path)
    for line, says in (
        ("0 .5 .5 .1 .1", r"line 1 \(class 0, a box\)"),
        ("0 5 5 10 5 10 10", "line 1 has the coordinate 10"),
        ("0 .1 .1 .2 .2 .3", "line 1 has 5 numbers"),
        ("7 .1 .1 .2 .2 .3 .3", "the class '7', which is not one of the dataset's"),
    ):
        write(tmp_path / "labels/train/a.txt", line)
        with pytest.raises(MaskError, match=says):
            open_dataset(f"yolo:{tmp_path}", "train")[0]


PAGE = Path(__file__).resolve().parents[3] / "docs" / "coming-from.md"
SECTIONS = {
    title: re.findall(r"^atrous (.*)$", block, re.MULTILINE)
    for title, block in re.findall(
        r"^## (.+?)\n\n```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
}


@pytest.mark.parametrize("title", SECTIONS)
def test_the_commands_for_who_comes_from_a_tool_work(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = SECTIONS[title]
    (kind,) = {found for command in commands for found in re.findall(r"([\w-]+):my-export", command)}
    monkeypatch.chdir(tmp_path)
    next(make for named, make in WRITERS.values() if named == kind)(tmp_path / "my-export")
    split = split_of(f"{kind}:my-export")  # one image is not enough to draw from
    for command in commands:
        result = CliRunner().invoke(app, [*shlex.split(command), "--split", split])
        assert result.exit_code == 0, result.output
    assert len(open_dataset("folder:my-images", split)) >= 1


def test_each_tool_has_a_section() -> None:
    kinds = {kind for commands in SECTIONS.values() for kind in re.findall(r"([\w-]+):my-export", " ".join(commands))}
    assert kinds == {kind for kind, _ in WRITERS.values()} - {"panoptic"}  # COCO's section
