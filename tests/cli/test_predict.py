"""predict and demo."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from typer.testing import Result

from atrous.bundle import DEFAULT

Run = Callable[..., Result]
MakeImage = Callable[[Path], Path]


def test_predict_writes_and_prints_results(tmp_path: Path, loaded: list[str], run: Run, red_image: MakeImage) -> None:
    image = red_image(tmp_path / "in/a.png")
    result = run("predict", image, "--out", tmp_path / "out", "--json", "--probabilities", "--overlay")
    assert result.exit_code == 0, result.output
    assert loaded == [DEFAULT]
    assert f"{image} → {tmp_path / 'out/a.png'}: red 100%" in result.stdout
    assert "1 image in" in result.stdout
    assert result.stderr == ""
    endings = {".json", ".overlay.jpg", ".png", ".probabilities.npz"}
    assert {path.name.removeprefix("a") for path in (tmp_path / "out").iterdir()} == endings


def test_predict_passes_its_options_on(tmp_path: Path, loaded: list[str], run: Run, red_image: MakeImage) -> None:
    image = red_image(tmp_path / "a.png")
    options = ["--model", "mine", "--device", "cpu", "--output-stride", 8, "--precision", "bfloat16"]
    assert run("predict", image, "--out", tmp_path / "out", *options).exit_code == 0
    assert loaded == ["mine"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_a_broken_image_is_exit_code_1_after_the_others(
    tmp_path: Path, loaded: list[str], run: Run, red_image: MakeImage
) -> None:
    red_image(tmp_path / "in/b.png")
    (tmp_path / "in/a.jpg").write_bytes(b"")
    result = run("predict", tmp_path / "in", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert f"failed: {tmp_path / 'in/a.jpg'}: an empty file" in result.stderr
    assert "1 of 2 images" in result.stdout
    assert (tmp_path / "out/b.png").is_file()


def test_many_images_are_not_listed_one_by_one(
    tmp_path: Path, loaded: list[str], run: Run, red_image: MakeImage
) -> None:
    for i in range(25):
        red_image(tmp_path / f"in/{i}.png")
    result = run("predict", tmp_path / "in", "--out", tmp_path / "out")
    assert result.stdout.count("→") == 20
    assert "… and 5 more" in result.stdout


def test_predict_takes_scales_flip_and_a_crf_with_a_note_if_it_was_not_tuned(
    loaded: list[str], tmp_path: Path, run: Run, red_image: MakeImage
) -> None:
    image = red_image(tmp_path / "image.png")
    result = run("predict", image, "--model", "fake", "--out", tmp_path / "out", "--scales", "0.5,1", "--flip", "--crf")
    assert result.exit_code == 0, result.output
    assert "red 100%" in result.stdout
    assert "no CRF was tuned" in result.stderr
    result = run("predict", image, "--model", "fake", "--out", tmp_path / "out", "--scales", "half")
    assert result.exit_code == 2
    assert "--scales takes factors" in result.stderr


def test_demo_prints_results_and_what_to_try(tmp_path: Path, loaded: list[str], run: Run) -> None:
    result = run("demo", "--out", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    assert "grace_hopper.jpg: " in result.stdout
    assert "atrous predict YOUR_PHOTO.jpg --out masks" in result.stdout
    assert (tmp_path / "demo/grace_hopper.side_by_side.jpg").is_file()


def test_predict_resumes_and_says_how_many_were_complete(
    tmp_path: Path, loaded: list[str], run: Run, red_image: MakeImage
) -> None:
    for name in ("a", "b"):
        red_image(tmp_path / f"in/{name}.png")
    run("predict", tmp_path / "in/a.png", "--out", tmp_path / "out")
    result = run("predict", tmp_path / "in", "--out", tmp_path / "out", "--resume")
    assert result.exit_code == 0, result.output
    assert "1 were complete already, 1 image in" in result.stdout


def test_predict_takes_videos_and_a_broken_one_does_not_stop_the_rest(
    tmp_path: Path, loaded: list[str], run: Run, red_image: MakeImage
) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "b.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for _ in range(4):
        writer.write(np.full((48, 64, 3), (0, 0, 255), np.uint8))
    writer.release()
    (tmp_path / "a.mp4").write_bytes(b"nonsense")
    photo = red_image(tmp_path / "photo.png")
    out = tmp_path / "out"
    result = run("predict", tmp_path / "a.mp4", tmp_path / "b.mp4", photo, "--out", out, "--every", 2)
    assert result.exit_code == 1
    assert "failed: " in result.stderr
    assert "a.mp4: not a video" in result.stderr
    assert f"{tmp_path / 'b.mp4'} → {out / 'b.overlay.mp4'} and 2 masks in {out / 'b'}" in result.stdout
    assert "red 100%" in result.stdout
    result = run("predict", photo, "--out", out, "--every", 2)
    assert (result.exit_code, "there is no video" in result.stderr) == (2, True)
