"""Sources of annotation tools on files that the tools and well-known programs themselves wrote."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.files.masks import MaskError
from atrous.data.opening import open_dataset
from atrous.data.sources.auto import recognise
from atrous.data.sources.registry import find_source
from atrous.errors import DatasetError

pytestmark = pytest.mark.shared


@pytest.fixture
def formats(shared: Path) -> Path:
    folder = shared / "cases" / "formats"
    if not folder.is_dir():
        pytest.skip("needs the samples of annotation tools in ../shared/cases/formats")
    return folder


def test_labelmes_own_export_has_the_same_masks(formats: Path) -> None:
    spec = f"labelme:{formats}/labelme/semantic_segmentation/data_annotated"
    data, pairs = open_dataset(spec, "all"), find_source(spec).listed("all")
    exported = formats / "labelme/semantic_segmentation/data_dataset_voc"
    names = (exported / "class_names.txt").read_text().split("\n")
    label = [0, *(names.index(name) for name in data.label_set.names[1:])]
    table = np.array(label + [255] * (256 - len(label)))
    theirs = [np.asarray(Image.open(exported / f"SegmentationClass/{pair.name}.png")) for pair in pairs]
    differing = [int((table[sample.mask] != mask).sum()) for sample, mask in zip(data, theirs, strict=True)]
    assert differing == [0, 1, 0]  # of 550,000: another release of Pillow drew one corner


def test_labelmes_coco_export_is_read_beside_its_images(formats: Path) -> None:
    pytest.importorskip("pycocotools", reason="needs atrous[coco]")
    data = open_dataset(f"coco:{formats}/labelme/instance_segmentation/data_dataset_coco", "all")
    ours = open_dataset(f"labelme:{formats}/labelme/semantic_segmentation/data_annotated?overlap=area", "all")
    assert (len(data), data.label_set.names[1]) == (3, "aeroplane")
    for sample, same in zip(data, ours, strict=True):  # which draws the pixels that an outline touches, too
        names, others = np.array(data.label_set.names), np.array(ours.label_set.names)
        known = same.mask != 255
        agree = names[sample.mask][known] == others[same.mask % 255][known]
        assert agree.mean() > 0.98


def test_shapes_without_an_area_are_named(formats: Path) -> None:
    with pytest.raises(MaskError, match=r"shape 5 \('line', a line\), shape 6 \('point', a point\), shape 7"):
        open_dataset(f"labelme:{formats}/labelme/primitives", "all")[0]


@pytest.mark.parametrize(
    ("spec", "split", "names", "values"),
    [
        ("coco:coco_dataset/coco_instances", "val", ("background", "a", "b", "c"), [0, 1, 255]),
        ("coco:coco_dataset/coco_roboflow", "train", ("background", "a", "b", "c"), [0, 255]),
        ("coco:coco_dataset/mmdet_coco", "val", ("background", "a", "b", "c"), None),
        ("coco-stuff:coco_dataset/coco_stuff", "val", ("background", "a", "b"), [0, 255]),
        ("panoptic:coco_dataset/coco", "val", ("a", "b"), [0, 255]),
        ("roboflow:roboflow_dataset/coco", "train", ("background", "label_0", "label_1"), [0, 255]),
        ("cityscapes:cityscapes_dataset/train_dataset", "val", None, None),
    ],
)
def test_samples_of_datumaro(
    formats: Path, spec: str, split: str, names: tuple[str, ...] | None, values: list[int] | None
) -> None:
    pytest.importorskip("pycocotools", reason="needs atrous[coco]")
    kind, _, path = spec.partition(":")
    root = formats / "datumaro" / path
    data = open_dataset(f"{kind}:{root}", split)
    assert len(data) >= 1
    if names:
        assert data.label_set.names == names
    if values is not None:
        assert np.unique(data[0].mask).tolist() == values


def test_instance_ids_of_cityscapes_are_its_classes(formats: Path) -> None:
    data = open_dataset(f"cityscapes:{formats}/datumaro/cityscapes_dataset/dataset", "val")
    assert set(np.unique(data[0].mask).tolist()) <= {*range(19), 255}


def test_labelmes_export_in_vocs_folders_is_read(formats: Path) -> None:
    exported = formats / "labelme/semantic_segmentation/data_dataset_voc"
    data = open_dataset(f"auto:{exported}", "all")
    assert (len(data), data.label_set.names[:3]) == (3, ("background", "aeroplane", "bicycle"))
    mask = np.asarray(Image.open(exported / "SegmentationClass/2011_000003.png"))
    np.testing.assert_array_equal(data[0].mask, mask)


def test_a_folder_of_exports_names_those_in_it(formats: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"in it are auto:.*roboflow_dataset/coco \(roboflow\), auto:.*/yolo \(yolo\)"
    ):
        open_dataset(f"auto:{formats}/datumaro/roboflow_dataset", "train")


def test_cvats_samples_are_of_boxes_lines_and_tracks(formats: Path) -> None:
    root = formats / "datumaro/cvat_dataset"
    task = open_dataset(f"cvat:{root}/for_images/export_task", "all")
    assert task.label_set.names == ("background", "label1", "label2")
    with pytest.raises(MaskError, match=r"img0.jpg: shape 1 \('label1', box\), shape 2 \('', polyline\)"):
        task[0]
    project = find_source(f"cvat:{root}/for_images/export_project")
    assert project.splits() == ["test", "train", "val"]
    (first, *_) = project.listed("train")
    assert first.image == root / "for_images/export_project/images/Train/img0.jpg"
    with pytest.raises(DatasetError, match="CVAT for video"):
        open_dataset(f"cvat:{root}/for_video", "all")


def test_mapillarys_polygons_are_its_label_pngs(formats: Path, tmp_path: Path) -> None:
    root = tmp_path / "vistas"
    shutil.copytree(formats / "datumaro/mapillary_vistas_dataset", root, copy_function=shutil.copyfile)
    for folder in (root, *root.rglob("*")):
        folder.chmod(0o755)
    masks = [sample.mask for sample in open_dataset(f"mapillary:{root}", "val")]
    shutil.rmtree(root / "val/v2.0/labels")
    drawn = [sample.mask for sample in open_dataset(f"mapillary:{root}", "val")]
    np.testing.assert_array_equal(masks[0], drawn[0])
    np.testing.assert_array_equal(masks[1][:, 2:], drawn[1][:, 2:])  # one of its polygons crosses itself


def test_yolo_splits_that_are_not_there_are_named(formats: Path) -> None:
    with pytest.raises(DatasetError, match=r"no split 'val'.*available splits: train, all"):
        open_dataset(f"yolo:{formats}/datumaro/roboflow_dataset/yolo", "val")


def test_what_is_recognised(formats: Path) -> None:
    known = {
        "labelme/semantic_segmentation/data_annotated": "labelme",
        "labelme/instance_segmentation/data_dataset_coco": "coco",
        "datumaro/coco_dataset/coco": "coco",
        "datumaro/coco_dataset/coco_panoptic": "panoptic",
        "datumaro/coco_dataset/coco_stuff": "coco-stuff",
        "datumaro/coco_dataset/coco_roboflow": "roboflow",
        "datumaro/cvat_dataset/for_images/export_project": "cvat",
        "datumaro/mapillary_vistas_dataset": "mapillary",
        "datumaro/roboflow_dataset/yolo": "yolo",
        "datumaro/voc_dataset/voc_dataset1": "voc",
        "datumaro/cityscapes_dataset/dataset": "cityscapes",
    }
    assert {path: recognise(formats / path) for path in known} == known
