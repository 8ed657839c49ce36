"""Videos: masks of every n-th frame, the overlay video, damaged files, resuming."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from atrous.data.files import videos
from atrous.data.files.videos import VideoError
from atrous.errors import OutputExistsError
from atrous.inference.results import OutputOptions
from atrous.inference.video import VideoReport, predict_video, split_videos
from tests.inference.small import DarkOrLight, image, tree


def clip(path: Path, frames: int = 7, size: tuple[int, int] = (64, 48), codec: str = "mp4v") -> Path:
    """A video whose frames are dark, light, dark, …"""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 10, size)
    for number in range(frames):
        writer.write(np.full((size[1], size[0], 3), 230 * (number % 2), np.uint8))
    writer.release()
    return path


def run(path: Path, out: Path, **options: object) -> VideoReport:
    return predict_video(DarkOrLight(), path, out, **options)  # type: ignore[arg-type]


def frames_of(path: Path) -> tuple[list[np.ndarray], float]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


def test_a_video_becomes_masks_of_its_frames_and_an_overlay_video(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    source = clip(tmp_path / "clip.mp4")
    report = run(source, tmp_path / "out", every=3, progress=lambda done, total: steps.append((done, total)))
    assert tree(tmp_path / "out") == ["clip.overlay.mp4", "clip/000000.png", "clip/000003.png", "clip/000006.png"]
    assert (report.frames, report.kept, report.notes, steps) == (3, 0, (), [(1, 3), (2, 3), (3, 3)])
    for number, label in ((0, 0), (3, 1), (6, 0)):
        with Image.open(report.masks / f"{number:06}.png") as mask:
            assert mask.size == (64, 48)
            assert np.unique(np.array(mask)).tolist() == [label]
    drawn, rate = frames_of(report.overlay)
    assert [frame.shape for frame in drawn] == [(48, 64, 3)] * 3
    assert rate == pytest.approx(10 / 3, abs=0.01)
    assert drawn[1].mean() > drawn[0].mean() + 50


def test_resuming_keeps_masks_and_draws_the_overlay_again(tmp_path: Path) -> None:
    source, out = clip(tmp_path / "clip.avi", codec="MJPG"), tmp_path / "out"
    run(source, out)
    first = frames_of(out / "clip.overlay.mp4")[0]
    (out / "clip.overlay.mp4").unlink()
    (out / "clip/000002.png").unlink()
    (out / ".clip.overlay.unfinished.mp4").write_bytes(b"of a run that was killed")
    report = run(source, out, resume=True)
    assert (report.frames, report.kept) == (7, 6)
    assert tree(out) == ["clip.overlay.mp4", *(f"clip/{number:06}.png" for number in range(7))]
    assert np.array_equal(frames_of(out / "clip.overlay.mp4")[0], first)


def test_masks_have_more_beside_them_if_asked(tmp_path: Path) -> None:
    run(clip(tmp_path / "clip.mp4", frames=2), tmp_path / "out", outputs=OutputOptions(overlays=True, json=True))
    assert "clip/000001.json" in tree(tmp_path / "out")
    assert len(tree(tmp_path / "out")) == 5


def test_what_is_not_a_video_or_has_no_frame_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"gone\.mp4: no such file"):
        run(tmp_path / "gone.mp4", tmp_path / "out")
    whole = clip(tmp_path / "whole.mp4").read_bytes()
    for name, content in (("empty", b""), ("text", b"nonsense" * 99), ("cut", whole[: len(whole) // 2])):
        (tmp_path / f"{name}.mp4").write_bytes(content)
        with pytest.raises(
            VideoError, match=rf"{name}\.mp4: (not a video that FFmpeg can read|a video without a frame)"
        ):
            run(tmp_path / f"{name}.mp4", tmp_path / "out")
    with pytest.raises(VideoError, match="without a frame"):
        run(clip(tmp_path / "none.avi", frames=0, codec="MJPG"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_video_that_is_cut_off_is_segmented_up_to_there_with_a_note(tmp_path: Path) -> None:
    source = clip(tmp_path / "clip.avi", frames=40, codec="MJPG")
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    report = run(source, tmp_path / "out")
    assert 0 < report.frames < 40
    assert f"ends after {report.frames} of" in report.notes[0]


def test_frames_of_several_sizes_are_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Capture:  # as OpenCV 4 reads such a video; OpenCV 5 brings all frames to the size of the first
        def __init__(self, *_: object) -> None:
            self.heights = [48, 48, 32]

        def isOpened(self) -> bool:  # noqa: N802
            return True

        def get(self, _: int) -> float:
            return float("nan")

        def grab(self) -> bool:
            return bool(self.heights)

        def retrieve(self) -> tuple[bool, np.ndarray]:
            return True, np.zeros((self.heights.pop(0), 64, 3), np.uint8)

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    with pytest.raises(VideoError, match=r"frame 2 has 64×32 pixels, the first 64×48; bring all to one size"):
        run(image(tmp_path / "clip.mp4.png").rename(tmp_path / "clip.mp4"), tmp_path / "out")
    assert set(tree(tmp_path / "out")) <= {"clip/000000.png", "clip/000001.png"}


def test_a_frame_that_cannot_be_segmented_is_named(tmp_path: Path) -> None:
    pictures = cv2.imencode(".jpg", np.zeros((16, 13, 3), np.uint8))[1].tobytes()
    (tmp_path / "clip.mjpeg").write_bytes(2 * pictures)
    with pytest.raises(VideoError, match=r"clip\.mjpeg: frame 0: an unlucky width"):
        run(tmp_path / "clip.mjpeg", tmp_path / "out")


def test_results_of_another_video_are_not_replaced(tmp_path: Path) -> None:
    run(clip(tmp_path / "a/clip.mp4"), tmp_path / "out")
    other = clip(tmp_path / "b/clip.mp4", frames=3)
    with pytest.raises(OutputExistsError, match=r"clip\.overlay\.mp4 exists and is not a result of"):
        run(other, tmp_path / "out")
    (tmp_path / "out/clip.overlay.mp4").unlink()
    with pytest.raises(VideoError, match=r"frame 0: .*exists and is the mask of another image, clip\.mp4"):
        run(other, tmp_path / "out")
    assert run(other, tmp_path / "out", outputs=OutputOptions(overwrite=True)).frames == 3


def test_no_more_frames_are_read_than_are_worked_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = [0], [0]
    write = videos.VideoWriter.write

    def read(self):
        for number in range(60):
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            yield number, np.zeros((48, 64, 3), np.uint8)

    def written(self, pixels):
        alive[0] -= 1
        write(self, pixels)

    monkeypatch.setattr(videos.VideoReader, "__iter__", read)
    monkeypatch.setattr(videos.VideoWriter, "write", written)
    assert run(clip(tmp_path / "clip.mp4"), tmp_path / "out").frames == 60
    assert most[0] < 30


def test_videos_are_told_from_images_by_their_suffix(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "a.overlay.mp4"):
        (tmp_path / name).touch()
    photo = image(tmp_path / "photo.jpg")
    found = split_videos([f"{tmp_path}/*.mp4", photo, tmp_path, tmp_path / "b.mp4", "gone.MOV"])
    assert found == ([tmp_path / "a.mp4", tmp_path / "b.mp4", Path("gone.MOV")], [photo, tmp_path])
    with pytest.raises(VideoError, match="no video matches"):
        split_videos([f"{tmp_path}/*.mkv"])
