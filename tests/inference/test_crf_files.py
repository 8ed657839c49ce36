import numpy as np
import pytest
from PIL import Image

from atrous.crf import Bilateral, DenseCRF, Gaussian
from atrous.inference.crf_files import PredictionError, refine_files
from atrous.inference.results import OutputOptions
from atrous.labels import LabelSet

CRF = DenseCRF([Gaussian(2, 2), Bilateral(10, 10, 4)], iterations=5)
SIZE = (20, 30)


@pytest.fixture
def image(tmp_path):
    """An image whose right half is bright, in a folder of its own."""
    pixels = np.full((*SIZE, 3), 40, np.uint8)
    pixels[:, 15:] = 200
    file = tmp_path / "images" / "a.png"
    file.parent.mkdir()
    Image.fromarray(pixels).save(file)
    return file


def spotted():
    """Probabilities (2, H, W) of the right half, wrong in some spots."""
    p = np.where(np.arange(30) >= 15, 0.8, 0.2) * np.ones(SIZE)
    p[4:6, 3:5] = 0.7
    p[14:16, 22:25] = 0.3
    return np.stack([1 - p, p]).astype(np.float32)


def refined(image, tmp_path, **options):
    report = refine_files([image], tmp_path / "predictions", tmp_path / "out", CRF, **options)
    assert not report.failed, report.failed
    return np.asarray(Image.open(report.done[0].mask))


def truth():
    return (np.arange(30) >= 15).astype(np.uint8) * np.ones(SIZE, np.uint8)


def save(tmp_path, kind):
    folder = tmp_path / "predictions"
    folder.mkdir()
    p = spotted()
    if kind == "npy":
        np.save(folder / "a.npy", p)
    elif kind == "npz":
        np.savez(folder / "a.npz", p)
    elif kind == "ours":
        np.savez(
            folder / "a.probabilities.npz",
            probabilities=p[:, ::2, ::2].astype(np.float16),
            names=np.array(["left", "right"]),
            size=np.array(SIZE),
            stride=np.array(2.0),
            offset=np.array(0.0),
        )
    elif kind == "png":
        Image.fromarray((p[1] * 255).round().astype(np.uint8)).save(folder / "a.png")
    elif kind == "16 bits":
        Image.fromarray((p[1] * 65535).round().astype(np.uint16)).save(folder / "a.png")


@pytest.mark.parametrize("kind", ["npy", "npz", "ours", "png", "16 bits"])
def test_predictions_of_every_format_are_refined(image, tmp_path, kind):
    save(tmp_path, kind)
    assert np.array_equal(refined(image, tmp_path), truth())


def test_logits_and_hard_labels_are_refined_too(image, tmp_path):
    folder = tmp_path / "predictions"
    folder.mkdir()
    np.save(folder / "a.npy", np.log(spotted()) + 3)
    assert np.array_equal(refined(image, tmp_path, kind="logits"), truth())
    (folder / "a.npy").unlink()
    Image.fromarray(spotted().argmax(0).astype(np.uint8)).save(folder / "a.png")
    assert np.array_equal(refined(image, tmp_path, confidence=0.7, outputs=OutputOptions(overwrite=True)), truth())


def test_names_in_the_file_are_kept(image, tmp_path):
    save(tmp_path, "ours")
    report = refine_files([image], tmp_path / "predictions", tmp_path / "out", CRF)
    assert set(report.done[0].fractions) == {"left", "right"}
    report = refine_files(
        [image], tmp_path / "predictions", tmp_path / "named", CRF, label_set=LabelSet(("dark", "light"))
    )
    assert set(report.done[0].fractions) == {"dark", "light"}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 30, 20), np.float32), "did you swap height and width"),
        (np.zeros((20, 30, 2), np.float32), "put the classes first"),
        (np.zeros((2, 20, 30), np.uint8), "floating"),
        (np.zeros((2, 20, 30), np.float32), "sum to 1"),
        (np.full((2, 20, 30), np.nan, np.float32), "finite"),
    ],
)
def test_wrong_predictions_are_named_and_the_rest_continues(image, tmp_path, array, message):
    save(tmp_path, "npy")
    np.save(tmp_path / "predictions" / "b.npy", array)
    other = image.with_name("b.png")
    other.write_bytes(image.read_bytes())
    third = image.with_name("c.png")
    third.write_bytes(image.read_bytes())
    report = refine_files([image.parent], tmp_path / "predictions", tmp_path / "out", CRF)
    assert [done.path for done in report.done] == [image]
    assert message in report.failed[0].reason
    assert "b.npy" in report.failed[0].reason
    assert "no predictions" in report.failed[1].reason


def test_labels_are_not_taken_for_probabilities_nor_the_other_way_round(image, tmp_path):
    (tmp_path / "predictions").mkdir()
    Image.fromarray(spotted().argmax(0).astype(np.uint8)).save(tmp_path / "predictions" / "a.png")
    report = refine_files([image], tmp_path / "predictions", tmp_path / "out", CRF)
    assert "look like labels, which need --confidence" in report.failed[0].reason
    np.save(tmp_path / "predictions" / "a.npy", spotted())
    report = refine_files([image], tmp_path / "predictions", tmp_path / "out", CRF, confidence=0.7)
    assert "a confidence is for hard labels" in report.failed[0].reason


def test_predictions_are_in_a_folder(image, tmp_path):
    with pytest.raises(PredictionError, match="is not a folder"):
        refine_files([image], tmp_path / "nowhere", tmp_path / "out", CRF)
