"""The doctor on exports of annotation tools: shapes outside, empty or twice; near duplicates in two splits."""

from pathlib import Path

import numpy as np
from PIL import Image

from atrous.data.doctor.check import check


def vivid(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC)


def test_shapes_that_are_outside_empty_or_twice_are_named(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    vivid(0).save(tmp_path / "images/a.png")
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [leaf, stem]\n")
    (tmp_path / "labels").mkdir()
    lines = ["0 .1 .1 .5 .1 .5 .5 .1 .5", "1 .1 .1 .5 .1 .5 .5 .1 .5", "0 .9 .9 1.9 .9 1.9 1.9", "1 .2 .2 .2 .2 .2 .2"]
    (tmp_path / "labels/a.txt").write_text("\n".join(lines))
    findings = {finding.kind: finding for finding in check(f"yolo:{tmp_path}", ["train"]).findings}
    assert findings["outside-image"].items[0].detail == "line 3 ('0')"
    assert findings["empty-shape"].items[0].detail == "line 4 ('1')"
    assert findings["repeated-shape"].items[0].detail == "line 2 ('1') like line 1 ('0')"
    assert {findings[kind].severity for kind in ("outside-image", "empty-shape", "repeated-shape")} == {"warning"}


def test_a_copy_in_another_split_is_found_whatever_it_is_called(tmp_path: Path) -> None:
    for name in ("images", "masks", "splits"):
        (tmp_path / name).mkdir()
    (tmp_path / "labels.toml").write_text('names = ["ground", "plant"]')
    for seed, name in enumerate(("meadow", "river", "town")):
        vivid(seed).save(tmp_path / f"images/{name}.png")
        Image.fromarray(np.eye(48, 64, dtype=np.uint8)).save(tmp_path / f"masks/{name}.png")
    vivid(1).resize((80, 60)).save(tmp_path / "images/DSC1.jpg", quality=70)
    Image.fromarray(np.eye(60, 80, dtype=np.uint8)).save(tmp_path / "masks/DSC1.png")
    (tmp_path / "splits/train.txt").write_text("meadow\nriver")
    (tmp_path / "splits/val.txt").write_text("town\nDSC1")
    (finding,) = [finding for finding in check(f"folder:{tmp_path}").findings if finding.kind == "near-duplicate"]
    assert str(finding.items[0]).endswith(f"DSC1.jpg: in val, like {tmp_path}/images/river.png in train")
