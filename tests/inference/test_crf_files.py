import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from atrous.crf import Bilateral, DenseCRF, Gaussian
from atrous.data.files.exif import turn, turn_array
from atrous.inference.crf_files import refine_files
from atrous.inference.prediction_files import PredictionError
from atrous.inference.results import OutputOptions
from atrous.labels import LabelSet, encode_mask

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


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def header(shape):
    """An .npy file that has only a header."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def bomb():
    """Ten kilobytes that unpack to zeros for ever."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header((2, 20000, 30000)) + bytes(1 << 20))
    return buffer.getvalue()


def encrypted():
    data = bytearray(npz(a=spotted()))
    data[6] |= 1
    data[data.find(b"PK\1\2") + 8] |= 1
    return bytes(data)


def not_numpy():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return buffer.getvalue()


def png(array, mode=None):
    buffer = io.BytesIO()
    Image.fromarray(array).convert(mode).save(buffer, "PNG") if mode else Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def flipped(data, place):
    damaged = bytearray(data)
    damaged[place] ^= 1
    return bytes(damaged)


OURS = {
    "probabilities": spotted()[:, ::2, ::2].astype(np.float16),
    "names": np.array(["left", "right"]),
    "size": np.array(SIZE),
    "stride": np.array(2.0),
    "offset": np.array(0.0),
}
GREY = png((spotted()[1] * 255).round().astype(np.uint8))
DAMAGED = {
    "npz cut short": npz(**OURS)[:300],
    "npz empty": b"",
    "npz text": b"hello",
    "npz bomb": bomb(),
    "npz encrypted": encrypted(),
    "npz of another program": not_numpy(),
    "npz of two arrays": npz(a=spotted(), b=spotted()),
    "npy empty": b"",
    "npy cut short": npy(spotted())[:500],
    "npy of objects": npy(np.array([{}]), allow_pickle=True),
    "npy huge": header((2, 200000, 300000)),
    "npy negative": header((-1, *SIZE)),
    "npy complex": npy(spotted().astype(complex)),
    "npy of one class": npy(np.ones((1, *SIZE), np.float32)),
    "npy of 300 classes": npy(np.full((300, *SIZE), 1 / 300, np.float32)),
    "npy flat": npy(spotted().reshape(-1)),
    "npy overflowing": npy(spotted().astype(np.float64) * 1e300),
    "png empty": b"",
    "png cut short": GREY[:-30],
    "png flipped": flipped(GREY, 50),
    "png of colours": png(np.zeros((*SIZE, 3), np.uint8)),
    "png that is a text": b"hello",
    **{f"npz without {key}": npz(**{k: v for k, v in OURS.items() if k != key}) for key in OURS},
    **{
        f"npz with {key} {value!r:.20}": npz(**OURS | {key: np.array(value)})
        for key, values in {
            "probabilities": ("x", [1.0, 2.0], np.zeros((2, 0, 0)), np.zeros((2, 3, 3), int)),
            "names": ("x", ["a", "b", "c"], [1, 2], ["a", "a"]),
            "size": ("x", [20], [30, 20], [np.nan, 3]),
            "stride": ("x", 0.0, -1.0, np.nan, [1.0, 2.0]),
            "offset": ("x", np.inf, np.nan, [1.0, 2.0]),
        }.items()
        for value in values
    },
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_fails_alone_and_is_named(image, tmp_path, kind):
    folder = tmp_path / "predictions"
    folder.mkdir()
    (folder / f"a.{kind[:3]}").write_bytes(DAMAGED[kind])
    other = image.with_name("b.png")
    other.write_bytes(image.read_bytes())
    np.save(folder / "b.npy", spotted())
    report = refine_files([image.parent], folder, tmp_path / "out", CRF)
    assert [done.path for done in report.done] == [other]
    assert f"a.{kind[:3]}: " in report.failed[0].reason


def test_a_pipe_is_not_read(image, tmp_path):
    (tmp_path / "predictions").mkdir()
    os.mkfifo(tmp_path / "predictions" / "a.npy")
    report = refine_files([image], tmp_path / "predictions", tmp_path / "out", CRF)
    assert "no predictions" in report.failed[0].reason


WITH_IGNORED = np.where(np.arange(30) < 3, 255, truth()).astype(np.uint8)


@pytest.mark.parametrize(
    "data",
    [
        encode_mask(WITH_IGNORED, LabelSet.numbered(2)),
        encode_mask(truth(), LabelSet.numbered(2)),
        png(WITH_IGNORED),
        png(WITH_IGNORED.astype(np.uint16)),
        png(truth() > 0),
    ],
)
def test_label_pngs_are_not_taken_for_probabilities(image, tmp_path, data):
    folder = tmp_path / "predictions"
    folder.mkdir()
    (folder / "a.png").write_bytes(data)
    report = refine_files([image], folder, tmp_path / "out", CRF)
    assert "look like labels, which need --confidence" in report.failed[0].reason
    assert np.array_equal(refined(image, tmp_path, confidence=0.7), truth())


def test_a_grey_palette_is_one_of_probabilities(image, tmp_path):
    folder = tmp_path / "predictions"
    folder.mkdir()
    grey = Image.fromarray((spotted()[1] * 255).round().astype(np.uint8), "P")
    grey.putpalette([value for value in range(256) for _ in range(3)])
    grey.save(folder / "a.png")
    assert np.array_equal(refined(image, tmp_path), truth())


def test_as_many_names_as_classes(image, tmp_path):
    save(tmp_path, "npy")
    names = LabelSet(("a", "b", "c"))
    np.save(tmp_path / "predictions" / "a.npy", np.full((4, *SIZE), 0.25, np.float32))
    report = refine_files([image], tmp_path / "predictions", tmp_path / "out", CRF, label_set=names)
    assert "contains 4 classes, but 3 names: a, b, c" in report.failed[0].reason


@pytest.mark.parametrize("orientation", range(1, 9))
def test_arrays_are_turned_as_images_are(orientation):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 5), dtype=np.uint8)
    assert np.array_equal(turn_array(pixels[None], orientation)[0], turn(pixels, orientation))


def turned_image(folder, orientation):
    """An image whose upright right half is bright, stored as EXIF ``orientation`` says; and its stored pixels' values.

    It is the inverse of turning: of 6 and 8 each undoes the other.
    """
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    stored = turn_array(truth(), inverse)
    exif = Image.Exif()
    exif[0x0112] = orientation
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.repeat((40 + 160 * stored)[..., None], 3, axis=2)).save(folder / "a.jpg", quality=95, exif=exif)
    return folder / "a.jpg", lambda values: turn_array(values, inverse)


@pytest.mark.parametrize("kind", ["npy", "png"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_size_shows_whether_predictions_were_made_on_the_stored_pixels(tmp_path, orientation, kind):
    image, stored = turned_image(tmp_path / "turned", orientation)
    (tmp_path / "predictions").mkdir()
    for upright in (True, False):
        values = spotted() if upright else stored(spotted())
        if kind == "npy":
            np.save(tmp_path / "predictions" / "a.npy", values)
        else:
            (tmp_path / "predictions" / "a.png").write_bytes(png((values[1] * 255).round().astype(np.uint8)))
        assert np.array_equal(refined(image, tmp_path), truth())
        report = refine_files([image], tmp_path / "predictions", tmp_path / "out", CRF)
        assert any("turned upright" in note for note in report.notes) is not upright


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_what_size_cannot_show_is_asked_for(tmp_path, orientation):
    image, stored = turned_image(tmp_path / "turned", orientation)
    (tmp_path / "predictions").mkdir()
    np.save(tmp_path / "predictions" / "a.npy", spotted())
    report = refine_files([image], tmp_path / "predictions", tmp_path / "out", CRF)
    assert "--orientation stored" in report.failed[0].reason
    assert np.array_equal(refined(image, tmp_path, orientation="upright"), truth())
    np.save(tmp_path / "predictions" / "a.npy", stored(spotted()))
    assert np.array_equal(refined(image, tmp_path, orientation="stored"), truth())


def test_a_declaration_that_the_size_contradicts_is_an_error(tmp_path):
    image, stored = turned_image(tmp_path / "turned", 6)
    (tmp_path / "predictions").mkdir()
    np.save(tmp_path / "predictions" / "a.npy", stored(spotted()))
    report = refine_files([image], tmp_path / "predictions", tmp_path / "out", CRF, orientation="upright")
    assert "not as declared (--orientation upright)" in report.failed[0].reason


def test_our_own_predictions_are_always_upright(tmp_path):
    image, _ = turned_image(tmp_path / "turned", 3)
    save(tmp_path, "ours")
    assert np.array_equal(refined(image, tmp_path), truth())
