"""Resuming: complete results of the same model and settings are kept, all others are made again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from atrous.inference.batch import Report, predict_files
from atrous.inference.results import OutputOptions
from atrous.inference.test_time import Inference
from tests.inference.small import DarkOrLight, image, tree

OVERLAYS = OutputOptions(overlays=True)
MADE_AGAIN = "earlier results below {} are of another model, other settings, or images that have changed since"


def folder(tmp_path: Path, count: int = 3) -> Path:
    for number in range(count):
        image(tmp_path / f"in/{number}.png", 20 * number)
    return tmp_path / "in"


def again(tmp_path: Path, **options: object) -> Report:
    options = {"model": DarkOrLight(), "inputs": [tmp_path / "in"], "out": tmp_path / "out", "resume": True} | options
    return predict_files(**options)  # type: ignore[arg-type]


def test_complete_results_are_kept_as_they_are(tmp_path: Path) -> None:
    folder(tmp_path)
    assert (again(tmp_path).kept, len(again(tmp_path, resume=False).done)) == (0, 3)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    steps: list[tuple[int, int]] = []
    image(tmp_path / "in/new.png")
    report = again(tmp_path, progress=lambda done, total: steps.append((done, total)))
    assert (report.kept, [done.path.name for done in report.done], steps) == (3, ["new.png"], [(1, 1)])
    assert {file: file.stat().st_mtime_ns for file in before} == before
    report = again(tmp_path)
    assert (report.kept, report.done, report.failed, report.notes) == (4, (), (), ())


def test_results_of_another_model_or_other_settings_are_made_again_with_a_note(tmp_path: Path) -> None:
    folder(tmp_path)
    again(tmp_path)
    other = DarkOrLight()
    torch.nn.init.constant_(other.weight, 2)
    for change in ({"model": other}, {"inference": Inference(flip=True)}, {"precision": "bfloat16"}):
        report = again(tmp_path, **change)
        assert (report.kept, len(report.done)) == (0, 3)
        assert report.notes[0].startswith("3 " + MADE_AGAIN.format(tmp_path / "out"))
    assert again(tmp_path, precision="bfloat16").kept == 3


def test_a_changed_image_a_cut_mask_and_a_missing_overlay_are_made_again(tmp_path: Path) -> None:
    folder(tmp_path)
    again(tmp_path, outputs=OVERLAYS)
    out = tmp_path / "out"
    image(tmp_path / "in/0.png", 200, (9, 9))
    (out / "1.png").write_bytes((out / "1.png").read_bytes()[:-3])
    (out / "2.overlay.jpg").unlink()
    assert again(tmp_path).kept == 1  # the overlay is not asked for
    assert [done.path.name for done in again(tmp_path, outputs=OVERLAYS).done] == ["0.png", "1.png", "2.png"]
    assert again(tmp_path, outputs=OVERLAYS).kept == 3


def test_an_old_overlay_does_not_count_as_the_new_masks(tmp_path: Path) -> None:
    folder(tmp_path)
    again(tmp_path, outputs=OVERLAYS)
    flipped = Inference(flip=True)
    assert again(tmp_path, inference=flipped).kept == 0  # masks alone: the overlays are still the old ones
    assert len(again(tmp_path, inference=flipped, outputs=OVERLAYS).done) == 3


def test_a_failed_image_is_tried_again_and_other_peoples_files_stay(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "in/bad.jpg").write_bytes(b"nonsense")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/1.png").write_text("precious")
    for _ in range(2):
        report = again(tmp_path)
        assert [failed.path.name for failed in report.failed] == ["1.png", "bad.jpg"]
    assert (report.kept, (tmp_path / "out/1.png").read_text()) == (2, "precious")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_and_resumed_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    count, kills = 16, 4
    folder(tmp_path, count)
    killer = [sys.executable, str(Path(__file__).with_name("killer.py")), str(tmp_path / "in"), str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*killer, str(kills)], capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    kept, made, failed = map(int, done.stdout.split())  # the last run's, without notes
    assert (kept + made, failed) == (count, 0)
    assert 3 < kept < count
    again(tmp_path, out=tmp_path / "whole", outputs=OVERLAYS)
    whole, killed = tmp_path / "whole", tmp_path / "out"
    assert tree(killed) == tree(whole)
    assert [name for name in tree(whole) if (whole / name).read_bytes() != (killed / name).read_bytes()] == []
