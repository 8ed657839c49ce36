"""CamVid (Brostow et al., 2009) in the split of SegNet (Badrinarayanan et al., arXiv 1511.00561)."""

from __future__ import annotations

from pathlib import Path

from atrous.data.files.masks import MaskFile, MaskForm
from atrous.data.sources.base import Listed, PublishedSource
from atrous.data.sources.names import read_lines
from atrous.label_sets import CAMVID

VOID_VALUE = 11


class CamVid(PublishedSource):
    """CamVid with 11 classes: ``train.txt``, ``train``, ``trainannot`` and so on; value 11 is void."""

    kind = "camvid"
    mask_form = MaskForm(CAMVID, ignore=(VOID_VALUE,))

    def __init__(self, root: Path) -> None:
        self.root = root

    def splits(self) -> list[str]:
        return sorted(file.stem for file in self.root.glob("*.txt") if (self.root / file.stem).is_dir())

    def list_file(self, split: str) -> Path:
        return self.root / f"{split}.txt"

    def listed(self, split: str) -> list[Listed]:
        images = {file.stem: file for file in (self.root / split).glob("*.*")}
        pairs = []
        for line in read_lines(self.list_file(split), self.root):
            stem = Path(line.split()[0]).stem  # published: /SegNet/CamVid/train/x.png /SegNet/CamVid/trainannot/x.png
            image = images.get(stem, self.root / split / f"{stem}.png")
            pairs.append(Listed(stem, image, MaskFile(self.root / f"{split}annot" / f"{stem}.png")))
        return pairs

    def unused_masks(self) -> list[Path]:
        unused = []
        for split in self.splits():
            images = {file.stem for file in (self.root / split).iterdir()}
            unused += [mask for mask in sorted((self.root / f"{split}annot").glob("*.png")) if mask.stem not in images]
        return unused
