"""CamVid (Brostow et al., 2009) in the split of SegNet (Badrinarayanan et al., arXiv 1511.00561)."""

from __future__ import annotations

from pathlib import Path

from atrous.data.files.find import SUFFIXES, as_written
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskFile
from atrous.data.sources.base import Listed, PublishedSource
from atrous.data.sources.names import lists_in, read_lines, visible
from atrous.label_sets import CAMVID

VOID_VALUE = 11


class CamVid(PublishedSource):
    """CamVid with 11 classes: ``train.txt``, ``train``, ``trainannot`` and so on; value 11 is void."""

    kind = "camvid"
    mask_form = MaskForm(CAMVID, ignore=(VOID_VALUE,))

    def __init__(self, root: Path) -> None:
        self.root = root

    def splits(self) -> list[str]:
        return [file.stem for file in lists_in(self.root) if (self.root / file.stem).is_dir()]

    def list_file(self, split: str) -> Path:
        return self.root / f"{split}.txt"

    def listed(self, split: str) -> list[Listed]:
        images = self._images(split)
        pairs = []
        for line in read_lines(self.list_file(split), self.root):
            stem = Path(line.split()[0]).stem  # published: /SegNet/CamVid/train/x.png /SegNet/CamVid/trainannot/x.png
            image = images.get(stem, self.root / split / f"{stem}.png")
            mask = self.root / f"{split}annot" / f"{stem}.png"
            pairs.append(Listed(stem, as_written(image), MaskFile(as_written(mask))))
        return pairs

    def unused_masks(self) -> list[Path]:
        unused = []
        for split in self.splits():
            images = self._images(split)
            unused += [mask for mask in visible((self.root / f"{split}annot").glob("*.png")) if mask.stem not in images]
        return unused

    def _images(self, split: str) -> dict[str, Path]:
        """The images of a split by stem; of two with one stem, the PNG that was published."""
        files = [file for file in visible((self.root / split).glob("*.*")) if file.suffix.lower() in SUFFIXES]
        return {file.stem: file for file in sorted(files, key=lambda file: file.suffix.lower() == ".png")}
