"""Predicting many files: what is written where, what is never written over, and what is reported."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import atrous
from atrous.data.files.find import FoundImage
from atrous.data.files.images import DecodedImage, ImageError
from atrous.inference import results
from atrous.inference.batch import Report, label_files, predict_files
from atrous.inference.output_names import unique_stems
from atrous.inference.results import OutputOptions
from atrous.inference.segmentation import Segmentation
from atrous.inference.test_time import Inference
from tests.inference.small import DarkOrLight, image, tree


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def label_in(mask: Path) -> int:
    with Image.open(mask) as image:
        (label,) = np.unique(np.array(image)).tolist()
    return int(label)


def run(inputs: list[Path | str], out: Path, **options: object) -> Report:
    progress = options.pop("progress", None)
    outputs = OutputOptions(**{"overlays": True} | options)  # type: ignore[arg-type]
    return predict_files(DarkOrLight(), inputs, out, outputs=outputs, progress=progress)  # type: ignore[arg-type]


def test_a_folder_keeps_its_tree_below_out(tmp_path: Path) -> None:
    image(tmp_path / "in/a.jpg")
    image(tmp_path / "in/sub/b.png", 0)
    report = run([tmp_path / "in"], tmp_path / "out")
    assert tree(tmp_path / "out") == ["a.overlay.jpg", "a.png", "sub/b.overlay.jpg", "sub/b.png"]
    assert [done.mask for done in report.done] == [tmp_path / "out/a.png", tmp_path / "out/sub/b.png"]
    assert [done.fractions for done in report.done] == [{"light": 1.0}, {"dark": 1.0}]
    assert (report.failed, report.notes) == ((), ())
    assert label_in(tmp_path / "out/a.png") == 1
    assert label_in(tmp_path / "out/sub/b.png") == 0


def test_masks_have_the_image_size_and_overlays_its_width(tmp_path: Path) -> None:
    run([image(tmp_path / "a.jpg", size=(300, 77))], tmp_path / "out")
    assert size_of(tmp_path / "out/a.png") == (300, 77)
    width, height = size_of(tmp_path / "out/a.overlay.jpg")
    assert width == 300
    assert height > 77


def test_only_what_was_asked_for_is_written(tmp_path: Path) -> None:
    source = image(tmp_path / "a.jpg")
    run([source], tmp_path / "out", overlays=False)
    assert tree(tmp_path / "out") == ["a.png"]
    run([source], tmp_path / "more", json=True, probabilities=True)
    assert tree(tmp_path / "more") == ["a.json", "a.overlay.jpg", "a.png", "a.probabilities.npz"]


def test_json_says_sizes_and_areas(tmp_path: Path) -> None:
    run([image(tmp_path / "ä.jpg")], tmp_path / "out", json=True)
    assert json.loads((tmp_path / "out/ä.json").read_text("utf-8")) == {
        "image": str(tmp_path / "ä.jpg"),
        "width": 8,
        "height": 6,
        "classes": [{"name": "light", "label": 1, "pixels": 48, "fraction": 1.0}],
        "notes": [],
    }


def test_probabilities_come_with_their_grid(tmp_path: Path) -> None:
    run([image(tmp_path / "a.jpg")], tmp_path / "out", probabilities=True)
    with np.load(tmp_path / "out/a.probabilities.npz") as stored:
        assert stored["probabilities"].shape == (2, 6, 8)
        assert stored["probabilities"].dtype == np.float16
        assert (stored["names"].tolist(), stored["size"].tolist()) == (["dark", "light"], [6, 8])
        assert (float(stored["stride"]), float(stored["offset"])) == (1, 0)


def test_a_broken_file_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    image(tmp_path / "in/a.jpg")
    (tmp_path / "in/b.jpg").write_bytes(b"nonsense")
    image(tmp_path / "in/c.png", size=(13, 4))
    image(tmp_path / "in/d.jpg")
    report = run([tmp_path / "in", tmp_path / "e.jpg"], tmp_path / "out", overlays=False)
    assert tree(tmp_path / "out") == ["a.png", "d.png"]
    assert [(failed.path.name, failed.reason.split(":")[0]) for failed in report.failed] == [
        ("b.jpg", "not an image"),
        ("c.png", "an unlucky width"),
        ("e.jpg", "no such file; check the name"),
    ]


def test_the_order_of_the_report_is_that_of_the_input_and_progress_is_told(tmp_path: Path) -> None:
    names = [f"{i:02}.png" for i in range(20)]
    for name in names:
        image(tmp_path / "in" / name)
    steps: list[tuple[int, int]] = []
    report = run([tmp_path / "in"], tmp_path / "out", progress=lambda done, total: steps.append((done, total)))
    assert [done.path.name for done in report.done] == names
    assert steps == [(i + 1, 20) for i in range(20)]


def test_frames_left_out_are_noted(tmp_path: Path) -> None:
    frame = Image.new("RGB", (8, 6), "white")
    frame.save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (8, 6), "red")])
    report = run([tmp_path / "a.gif"], tmp_path / "out")
    assert report.notes == (f"{tmp_path / 'a.gif'}: animation of 2 frames; only the first is read",)


def test_running_again_writes_over_its_own_results(tmp_path: Path) -> None:
    source = image(tmp_path / "a.png", 255)
    run([source], tmp_path / "out")
    image(source, 0)
    assert run([source], tmp_path / "out").failed == ()
    assert label_in(tmp_path / "out/a.png") == 0


def test_results_of_another_image_are_not_written_over(tmp_path: Path) -> None:
    run([image(tmp_path / "a/x.jpg", 255)], tmp_path / "out")
    report = run([image(tmp_path / "b/x.jpg", 0)], tmp_path / "out")
    assert report.done == ()
    assert "exists and is the mask of another image, x.jpg" in report.failed[0].reason
    assert label_in(tmp_path / "out/x.png") == 1
    assert run([tmp_path / "b/x.jpg"], tmp_path / "out", overwrite=True).failed == ()
    assert label_in(tmp_path / "out/x.png") == 0


@pytest.mark.parametrize("name", ["x.png", "x.json", "x.overlay.jpg"])
def test_a_file_of_somebody_else_is_not_written_over(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("precious")
    report = run([image(tmp_path / "x.jpg")], tmp_path / "out", json=True)
    assert f"{name} exists and is not a result of this image" in report.failed[0].reason
    assert (tmp_path / "out" / name).read_text() == "precious"
    assert tree(tmp_path / "out") == [name]


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_input_is_never_written_over(tmp_path: Path, overwrite: bool) -> None:
    image(tmp_path / "x.png", 77)
    report = run([tmp_path / "x.png"], tmp_path, overwrite=overwrite)
    assert "would replace an input" in report.failed[0].reason
    assert label_in(tmp_path / "x.png") == 77


def test_results_among_the_images_are_not_taken_for_images(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    image(tmp_path / "b.jpg")
    for attempt in range(3):
        report = run([tmp_path], tmp_path)
        assert [done.path.name for done in report.done] == ["a.jpg", "b.jpg"]
        assert report.notes == ((f"4 earlier results below {tmp_path} were not used as input",) if attempt else ())
    with pytest.raises(ImageError, match="only earlier results"):
        run([tmp_path / "a.png"], tmp_path)


def test_the_same_name_in_two_folders_is_told_apart_by_the_folders(tmp_path: Path) -> None:
    inputs = [image(tmp_path / "a/x.jpg", 255), image(tmp_path / "b/x.jpg", 0), image(tmp_path / "c/y.jpg")]
    for _ in range(2):
        report = run(list(inputs), tmp_path / "out", overlays=False)
        assert report.failed == ()
        assert tree(tmp_path / "out") == ["a/x.png", "b/x.png", "y.png"]
        assert label_in(tmp_path / "out/a/x.png") == 1
        assert label_in(tmp_path / "out/b/x.png") == 0
        assert "kept apart in a/, b/" in report.notes[0]


def test_two_folders_with_the_same_names_keep_their_trees_apart(tmp_path: Path) -> None:
    image(tmp_path / "p/one/in/sub/x.jpg")
    image(tmp_path / "p/one/in/only.jpg")
    image(tmp_path / "p/two/in/sub/x.jpg")
    run([tmp_path / "p/one/in", tmp_path / "p/two/in"], tmp_path / "out", overlays=False)
    assert tree(tmp_path / "out") == ["one/in/only.png", "one/in/sub/x.png", "two/in/sub/x.png"]


def test_names_that_differ_only_in_their_ending_keep_it(tmp_path: Path) -> None:
    image(tmp_path / "in/x.jpg", 255)
    image(tmp_path / "in/x.png", 0)
    image(tmp_path / "in/y.png")
    report = run([tmp_path / "in"], tmp_path / "out", overlays=False)
    assert tree(tmp_path / "out") == ["x.jpg.png", "x.png.png", "y.png"]
    assert label_in(tmp_path / "out/x.jpg.png") == 1
    assert "keep it in the name of the mask: x.jpg.png, x.png.png" in report.notes[0]


def test_a_kept_ending_does_not_clash_with_a_name_of_its_own() -> None:
    names = ["x.jpg", "x.png", "x.jpg.tif", "z.jpg"]
    stems, _ = unique_stems([FoundImage(Path("in", name), Path(name), explicit=True) for name in names])
    assert [stem.as_posix() for stem in stems] == ["x.jpg", "x.png", "x.jpg.tif", "z"]


def test_out_that_is_a_file_is_refused(tmp_path: Path) -> None:
    source = image(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg is a file; expected a folder"):
        run([source], source)


def test_a_failed_write_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(results, "write_atomically", full)
    report = run([image(tmp_path / "a.jpg")], tmp_path / "out")
    assert [failed.reason for failed in report.failed] == ["No space left on device"]


def test_the_overlay_of_a_huge_image_is_drawn_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "OVERLAY_SIDE", 200)
    run([image(tmp_path / "a.jpg", size=(1000, 10))], tmp_path / "out")
    assert size_of(tmp_path / "out/a.png") == (1000, 10)
    assert size_of(tmp_path / "out/a.overlay.jpg")[0] == 200


ATTENTION = OutputOptions(overlays=True, attention_maps=True)


def attentive(**more):
    options = {"base_options": {"kernel": 1}, "scales": (1, 0.5)} | more
    return atrous.create_model("attention_to_scale", backbone="mobilenetv2_035", num_classes=3, **options).eval()


def test_attention_maps_are_drawn_and_not_used_as_input_the_next_time(tmp_path):
    model = attentive()
    Image.new("RGB", (70, 50), "red").save(tmp_path / "a.png")
    for _ in range(2):
        report = predict_files(model, [tmp_path], tmp_path, outputs=ATTENTION)
        assert [failed.reason.split(" would")[0] for failed in report.failed] == [f"its result {tmp_path / 'a.png'}"]
    report = predict_files(model, [tmp_path / "a.png"], tmp_path / "out", outputs=ATTENTION)
    assert not report.failed
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"a.png", "a.overlay.jpg", "a.attention.jpg", "a.scale_1.jpg", "a.scale_0.5.jpg"}
    again = predict_files(model, [tmp_path / "out", tmp_path / "a.png"], tmp_path / "out", outputs=ATTENTION)
    assert [done.path.parent for done in again.done] == [tmp_path]
    found = atrous.predict(model, tmp_path / "a.png")
    assert found.attention.shape == (2, 50, 70)
    assert found.scales == (1, 0.5)
    assert np.allclose(found.attention.sum(0), 1, atol=1e-5)
    half = atrous.predict(model, tmp_path / "a.png", precision="bfloat16")
    assert np.allclose(half.attention.sum(0), 1, atol=1e-5)
    assert atrous.predict(model, tmp_path / "a.png", flip=True).attention is None


@pytest.mark.parametrize("size", [(1000, 400), (400, 1000)])
def test_attention_maps_of_a_huge_image_are_drawn_smaller(tmp_path, monkeypatch, size):
    monkeypatch.setattr(results, "OVERLAY_SIDE", 200)
    source = image(tmp_path / "a.jpg", size=size)
    report = predict_files(attentive(), [source], tmp_path / "out", outputs=ATTENTION)
    assert not report.failed
    assert size_of(tmp_path / "out/a.png") == size
    assert max(size_of(tmp_path / "out/a.scale_1.jpg")) == 200
    width, height = size_of(tmp_path / "out/a.attention.jpg")
    assert (width > height) == (size[0] < size[1])  # wide images one below the other, others side by side
    assert max(width, height) < 400  # with captions and a legend


def test_attention_maps_need_a_single_view_with_attention(tmp_path):
    model, source, out = attentive(), image(tmp_path / "a.jpg"), tmp_path / "out"
    with pytest.raises(ValueError, match="for a single view of an image: leave out flip"):
        predict_files(model, [source], out, outputs=ATTENTION, inference=Inference(flip=True))
    model.merge = "average"
    with pytest.raises(ValueError, match=r"its merge is 'average': set it back, model\.merge = 'attention'"):
        predict_files(model, [source], out, outputs=ATTENTION)
    with pytest.raises(ValueError, match="this is attention_to_scale built with merge 'max'"):
        predict_files(attentive(merge="max"), [source], out, outputs=ATTENTION)
    with pytest.raises(ValueError, match="built with merge 'attention'; this is dark_or_light"):
        predict_files(DarkOrLight(), [source], out, outputs=ATTENTION)
    assert not out.exists()


def test_a_mask_names_its_image_in_a_png_text_field(tmp_path: Path) -> None:
    run([image(tmp_path / "ä.jpg")], tmp_path / "out")
    with Image.open(tmp_path / "out/ä.png") as mask:
        assert mask.info["atrous-source"].startswith(r"\xe4.jpg #")


def test_class_probabilities_that_were_not_kept_fail_alone(tmp_path: Path) -> None:
    def label(found: FoundImage, decoded: DecodedImage) -> Segmentation:
        return Segmentation(np.zeros((6, 8), np.uint8), decoded.pixels, DarkOrLight.label_set)

    for outputs, reason in ((OutputOptions(probabilities=True), "were not kept"), (ATTENTION, "has no attention")):
        report = label_files([image(tmp_path / "a.jpg")], tmp_path / "out", label, outputs=outputs)
        assert reason in report.failed[0].reason


@pytest.mark.parametrize("kind", ["link to itself", "link to nothing", "pipe", "device"])
@pytest.mark.parametrize("named", [True, False])
def test_what_is_not_a_regular_file_fails_alone(tmp_path: Path, kind: str, named: bool) -> None:
    good, bad = image(tmp_path / "in/a.png"), tmp_path / "in/b.png"
    if kind == "pipe":
        os.mkfifo(bad)
    else:
        bad.symlink_to({"link to itself": bad.name, "link to nothing": "nowhere", "device": "/dev/zero"}[kind])
    report = predict_files(DarkOrLight(), [good, bad] if named else [tmp_path / "in"], tmp_path / "out")
    assert [done.path for done in report.done] == [good]
    assert [failed.path for failed in report.failed] == [bad]


def test_a_pipe_in_the_place_of_a_result_is_not_read(tmp_path: Path) -> None:
    good = image(tmp_path / "in/a.png")
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out/a.png")
    assert "exists and is not a result" in predict_files(DarkOrLight(), [good], tmp_path / "out").failed[0].reason


def test_a_name_that_is_not_utf_8_is_written_everywhere(tmp_path: Path) -> None:
    good = image(tmp_path / "in/a.png").rename(tmp_path / "in" / os.fsdecode(b"caf\xe9.png"))
    report = predict_files(DarkOrLight(), [good.parent], tmp_path / "out", outputs=OutputOptions(json=True))
    assert not report.failed
    assert json.loads(report.done[0].mask.with_suffix(".json").read_bytes())["image"] == str(good)
