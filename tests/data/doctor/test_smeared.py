"""Masks that JPEG smeared: found, left out, and on request taken by the nearest class, never as if exact."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.doctor.check import check
from atrous.data.doctor.repair import repair
from atrous.data.opening import open_dataset
from atrous.errors import DatasetError

TOML = 'names = ["ground", "leaf", "stem"]\n'
COLORS = np.array([[0, 0, 0], [200, 30, 30], [40, 40, 220]], np.uint8)


def truth(seed: int) -> np.ndarray:
    y, x = np.indices((64, 80))
    mask = ((x - 40) ** 2 + (y - 30) ** 2 < 300 + 80 * seed).astype(np.uint8)
    mask[50 - seed :, 10:60] = 2
    return mask


def folder(root: Path, suffix: str, colors: np.ndarray, toml: str = "") -> str:
    for name in ("images", "masks"):
        (root / name).mkdir(exist_ok=True, parents=True)
    for place in range(3):
        noise = np.random.default_rng(place).integers(0, 255, (64, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"images/{place}.png")
        Image.fromarray(colors[truth(place)]).save(smeared := root / f"masks/{place}.jpg", quality=80)
        if suffix == ".png":  # saved as JPEG once, and as PNG since
            Image.open(smeared).save(smeared.with_suffix(".png"))
            smeared.unlink()
    if toml:
        (root / "labels.toml").write_text(toml)
    return f"folder:{root}"


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("colors", [COLORS, np.array([0, 120, 240], np.uint8)], ids=["colours", "greys"])
def test_the_nearest_class_is_taken_on_request(tmp_path: Path, suffix: str, colors: np.ndarray) -> None:
    grey = colors.ndim == 1
    toml = f"{TOML}values = [0, 120, 240]" if grey else f'{TOML}colors = {COLORS.tolist()}\nencoding = "rgb"'
    checkup = check(folder(tmp_path / "in", suffix, colors, toml), ["all"])
    (finding,) = [found for found in checkup.findings if found.severity == "error"]
    assert (finding.kind, len(finding.items)) == ("lossy-mask", 3)
    assert "--tolerance 32" in finding.fix
    with pytest.raises(DatasetError, match=r"nothing of .* can be repaired with certainty"):
        repair(checkup, tmp_path / "exact")
    done = repair(checkup, tmp_path / "out", tolerance=32)
    ((step, files),) = done.done.items()
    assert files[0].endswith("% of its pixels ignored)")
    assert step == "mask: APPROXIMATED by the nearest class within 32, other pixels ignored"
    for place, sample in enumerate(open_dataset(f"folder:{tmp_path}/out", "all")):
        known = sample.mask != 255
        assert known.mean() > 0.9
        assert (sample.mask == truth(place))[known].mean() > 0.995


def test_colours_too_near_to_each_other_are_left_out_with_the_reason(tmp_path: Path) -> None:
    near = np.array([0, 40, 240], np.uint8)
    checkup = check(folder(tmp_path / "in", ".jpg", near, f"{TOML}values = [0, 40, 240]"), ["all"])
    with pytest.raises(DatasetError, match="nothing of"):
        repair(checkup, tmp_path / "out", tolerance=32)
    assert repair(checkup, tmp_path / "less", tolerance=16).splits == {"all": 3}


@pytest.mark.parametrize(("suffix", "declared"), [(".jpg", True), (".png", True), (".png", False)])
def test_the_tolerance_that_is_suggested_tells_near_classes_apart(tmp_path: Path, suffix: str, declared: bool) -> None:
    values = [0, 40, 80]
    toml = f"{TOML}values = {values}" if declared else ""
    checkup = check(folder(tmp_path / "in", suffix, np.array(values, np.uint8), toml), ["all"])
    (finding,) = [found for found in checkup.findings if found.kind == "lossy-mask"]
    assert "--tolerance 19" in finding.fix
    assert repair(checkup, tmp_path / "out", tolerance=19).splits == {"all": 3}
    sample = open_dataset(f"folder:{tmp_path}/out", "all")[0]
    known = sample.mask != 255
    assert known.mean() > 0.9
    assert (sample.mask == truth(0))[known].mean() > 0.98


def test_many_numbers_of_no_class_are_not_taken_for_smeared(tmp_path: Path) -> None:
    """They are all within the tolerance of black, the usual colour of class 0."""
    folder(tmp_path, ".png", np.array([0, 120, 240], np.uint8), TOML)
    for place in range(3):
        numbers = np.random.default_rng(place).integers(0, 32, (64, 80), dtype=np.uint8)
        Image.fromarray(numbers).save(tmp_path / f"masks/{place}.png")
    kinds = [found.kind for found in check(f"folder:{tmp_path}", ["all"]).findings if found.severity == "error"]
    assert kinds == ["outside-classes"]


def test_undeclared_values_are_recognised_as_smeared(tmp_path: Path) -> None:
    checkup = check(folder(tmp_path / "in", ".png", np.array([0, 120, 240], np.uint8)), ["all"])
    (found,) = [finding for finding in checkup.findings if finding.severity == "error"]
    assert "values, of which most pixels have 0 or 120 or 240: they were saved as JPEG once" in found.found
    assert "values = [0, 120, 240]" in found.fix
    with pytest.raises(DatasetError, match="saved as JPEG once"):
        open_dataset(f"folder:{tmp_path}/in", "all")
    repair(checkup, tmp_path / "out", tolerance=32)
    assert open_dataset(f"folder:{tmp_path}/out", "all").label_set.names == ("value 0", "value 120", "value 240")
