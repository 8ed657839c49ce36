"""The dense CRF: beside brute force, on all it accepts, and what it refuses."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.crf import PUBLISHED, Bilateral, Custom, DenseCRF, Gaussian
from atrous.crf.mean_field import Normalization
from atrous.crf.pairwise import Kernel
from atrous.errors import InputError, InputTypeError

KERNELS: list[Kernel] = [Gaussian(sxy=2, weight=2), Bilateral(sxy=6, srgb=30, weight=3)]


def make_image(height: int = 10, width: int = 12, channels: int = 3) -> NDArray[np.uint8]:
    """Two areas with a slanted edge, and some texture."""
    y, x = np.mgrid[:height, :width]
    left = x < width / 2 + (y - height / 2) / 3
    rng = np.random.default_rng(1)
    return (np.where(left, 60, 170)[..., None] + rng.integers(0, 25, (height, width, channels))).astype(np.uint8)


def energies(classes: int = 3, height: int = 10, width: int = 12) -> NDArray[np.float32]:
    """Random ones that lean to one class on the left, to another on the right and to the last below."""
    unary = 2 * np.random.default_rng(2).random((classes, height, width), dtype=np.float32)
    unary[0, :, : width // 2] -= 1
    unary[1 % classes, :, width // 2 :] -= 1
    unary[-1, -height // 3 :] -= 1.5
    return unary


def brute_force(crf: DenseCRF, image: NDArray[np.uint8], unary: NDArray[np.float32]) -> Tensor:
    """The mean field with every pair of pixels, O(N²), in double precision."""
    u = torch.from_numpy(unary).double().flatten(1).T
    sums = []
    for i, kernel in enumerate(crf.kernels):
        features = kernel.features(torch.from_numpy(image).float(), unary.shape[1:], crf.order).double()
        k = torch.exp(-torch.cdist(features, features).square() / 2)
        n = k.sum(1)
        left = {"symmetric": n**-0.5, "after": 1 / n}.get(crf.normalization, torch.ones_like(n))
        right = {"symmetric": n**-0.5, "before": 1 / n}.get(crf.normalization, torch.ones_like(n))
        compatibility = -torch.eye(u.shape[1], dtype=torch.float64)  # Potts, up to a constant
        if str(i) in crf.compatibilities:
            compatibility = crf.compatibilities[str(i)].detach().double()
        sums.append((left[:, None] * k * right, crf.weights[i].detach().double(), compatibility))
    q = (-u).softmax(1)
    for _ in range(crf.iterations):
        penalties = sum(weight * (k @ q @ compatibility.T) for k, weight, compatibility in sums)
        q = (-u - penalties).softmax(1)
    return q.T.reshape(unary.shape)


def assert_close(q: NDArray[np.float32], expected: Tensor) -> None:
    """The lattice is an approximation, a few percent off in each message."""
    assert np.abs(q - expected.numpy()).mean() < 0.02
    assert (q.argmax(0) == expected.numpy().argmax(0)).mean() > 0.97


@pytest.mark.parametrize("normalization", ["symmetric", "before", "after"])
def test_it_is_close_to_brute_force(normalization: Normalization) -> None:
    crf = DenseCRF(KERNELS, 5, normalization=normalization)
    q, expected = crf(make_image(), energies()), brute_force(crf, make_image(), energies())
    assert_close(q, expected)


def test_weights_and_compatibilities_mean_what_they_do_to_brute_force() -> None:
    penalties = [[0, 1, 0.2], [1, 0, 2], [0.3, 1, 0]]
    kernels = [Gaussian(2, [1, 2, 3]), Bilateral((6, 4), (30, 20, 40), 2.5, penalties)]
    crf = DenseCRF(kernels, 5)
    q, expected = crf(make_image(), energies()), brute_force(crf, make_image(), energies())
    assert_close(q, expected)
    potts = DenseCRF(KERNELS)(make_image(), energies())
    spelled_out = [Gaussian(2, [2, 2, 2]), Bilateral(6, 30, 3, 1 - np.eye(3))]
    assert np.allclose(DenseCRF(spelled_out)(make_image(), energies()), potts, atol=1e-5)


def test_without_kernels_or_weights_it_is_the_softmax() -> None:
    expected = torch.from_numpy(-energies()).softmax(0).numpy()
    for crf in (DenseCRF([]), DenseCRF([Gaussian(3, 0), Bilateral(80, 13, 0)]), DenseCRF(KERNELS, iterations=0)):
        assert np.allclose(crf(make_image(), energies()), expected, atol=1e-6)


def test_equal_energies_stay_equal() -> None:
    q = DenseCRF(KERNELS)(make_image(), np.ones((4, 10, 12), np.float32))
    assert np.allclose(q, 0.25, atol=1e-6)


def test_one_pixel_drifts_towards_its_best_class() -> None:
    unary = np.array([1.0, 0.8], np.float32).reshape(2, 1, 1)
    q = DenseCRF([Gaussian(3, 1.0)], 3)(None, unary)
    expected = torch.tensor([-1.0, -0.8]).softmax(0)
    for _ in range(3):
        expected = (torch.tensor([-1.0, -0.8]) + expected).softmax(0)
    assert np.allclose(q[:, 0, 0], expected, atol=1e-5)


def test_a_batch_is_what_its_images_are_alone() -> None:
    images = np.stack([make_image(), 255 - make_image()[::-1]])
    unaries = np.stack([energies(), energies()[::-1]])
    crf = DenseCRF(KERNELS)
    alone = np.stack([crf(image, unary) for image, unary in zip(images, unaries, strict=True)])
    assert np.array_equal(crf(images, unaries), alone)
    labels = crf.labels(images, unaries)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, alone.argmax(1))


@pytest.mark.parametrize("trainable", [False, True])  # compiled, and plain torch
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_pixels_keep_the_classes_that_are_given_and_others_follow(trainable: bool, dtype: Any) -> None:
    crf = DenseCRF(KERNELS, iterations=8, trainable=trainable)
    image, unary = make_image(), np.zeros((3, 10, 12), dtype)
    strokes = np.full((10, 12), 255)
    strokes[4, 1:3], strokes[5, 9:11] = 2, 0
    q = crf(image, unary, fixed=strokes)
    assert q.dtype == dtype
    assert (q[2, 4, 1:3] == 1).all()
    assert (q[0, 5, 9:11] == 1).all()
    labels = crf.labels(image, unary, fixed=torch.from_numpy(strokes))
    assert (labels[:, :4] == 2).mean() > 0.9
    assert (labels[:, 9:] == 0).mean() > 0.9
    two = crf.labels(np.stack([image] * 2), np.stack([unary] * 2), fixed=np.stack([strokes, np.full((10, 12), 1)]))
    assert np.array_equal(two[0], labels)
    assert (two[1] == 1).all()


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        (np.zeros((12, 10), int), r"fixed must be integers \(10, 12\), not torch.int64 \(12, 10\)"),
        (np.zeros((10, 12)), "fixed must be integers"),
        (np.full((10, 12), 3), "fixed has the class 3; there are 0 to 2, and 255 for none"),
    ],
)
def test_fixed_classes_that_do_not_fit_are_errors(fixed: NDArray[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DenseCRF(KERNELS).labels(make_image(), energies(), fixed=fixed)


def test_numpy_or_torch_in_is_numpy_or_torch_out() -> None:
    crf = DenseCRF(KERNELS)
    q = crf(make_image(), energies())
    assert isinstance(q, np.ndarray)
    assert q.dtype == np.float32
    tensor = crf(torch.from_numpy(make_image()), torch.from_numpy(energies()))
    assert isinstance(tensor, Tensor)
    assert not tensor.requires_grad
    assert np.array_equal(tensor.numpy(), q)
    assert crf(make_image().astype(np.float32), energies().astype(np.float64)).dtype == np.float64
    assert isinstance(crf.labels(make_image(), torch.from_numpy(energies())), Tensor)
    assert np.array_equal(crf(np.asfortranarray(make_image()), np.asfortranarray(energies())), q)


def test_the_order_of_axes_changes_only_the_approximation() -> None:
    first, second = (DenseCRF(KERNELS, order=order)(make_image(), energies()) for order in ("xy", "yx"))
    assert 0 < np.abs(first - second).mean() < 0.01
    turned = DenseCRF(KERNELS, order="yx")(make_image().transpose(1, 0, 2), energies().transpose(0, 2, 1))
    assert np.allclose(turned.transpose(0, 2, 1), first, atol=1e-5)


def test_widths_are_given_x_first() -> None:
    wide = DenseCRF([Gaussian((50, 0.1), 4)])
    striped = np.zeros((2, 6, 40), np.float32)
    striped[0, ::2] = striped[1, 1::2] = 2  # every other row: each agrees with itself, not with its neighbours
    assert np.array_equal(wide(None, striped).argmax(0)[:, 0], [1, 0, 1, 0, 1, 0])
    noisy = striped.copy()
    noisy[:, :, 7] = noisy[::-1, :, 7]
    assert np.array_equal(wide.labels(None, noisy), wide.labels(None, striped))


def test_any_channels_and_a_kernel_of_ones_own() -> None:
    image = make_image(channels=4)
    depth = Custom(lambda image: image[..., 3:] / 10, weight=1)
    q = DenseCRF([Gaussian(3, 3), Bilateral(6, (30, 30, 30, 5), 3), depth])(image, energies())
    assert np.allclose(q.sum(0), 1, atol=1e-5)
    same = Custom(lambda image: torch.cat([Bilateral(6, 30, 3).features(image, (10, 12), "xy")], 1).view(10, 12, 6), 3)
    assert np.allclose(DenseCRF([same])(image, energies()), DenseCRF([Bilateral(6, 30, 3)])(image, energies()))


def test_a_video_is_an_image_with_three_axes() -> None:
    video = np.stack([make_image(6, 7)] * 4)
    unary = np.stack([energies(3, 6, 7)] * 4, axis=1) + np.random.default_rng(0).random((3, 4, 6, 7), np.float32)
    crf = DenseCRF([Gaussian((2, 2, 4), 2), Bilateral((6, 6, 4), 30, 3)], spatial_dims=3)
    q = crf(video, unary)
    assert q.shape == unary.shape
    assert_close(q, brute_force(crf, video, unary))
    assert np.array_equal(crf(video[None], unary[None])[0], q)


def test_tracking_shows_the_free_energy_fall_and_stops_early() -> None:
    crf = DenseCRF(KERNELS)
    tracked = crf.track(make_image(), energies())
    assert len(tracked.free_energies) == 11
    assert all(later <= earlier + 1e-3 for earlier, later in pairwise(tracked.free_energies))
    assert np.allclose(tracked.q, crf(make_image(), energies()), atol=1e-5)
    stopped = DenseCRF(KERNELS, 100, tolerance=1e-3)
    assert len(stopped.track(make_image(), energies()).free_energies) < 60
    assert np.abs(stopped(make_image(), energies()) - DenseCRF(KERNELS, 100)(make_image(), energies())).max() < 0.02


def test_published_sets_are_found_by_name() -> None:
    crf = DenseCRF.published("deeplab_v2_resnet101")
    assert crf.kernels == (Gaussian(1, 3), Bilateral(67, 3, 4))
    assert crf.iterations == 10
    assert all(DenseCRF.published(name).iterations in (5, 10) for name in PUBLISHED)
    with pytest.raises(ValueError, match="available are deeplab_largefov, "):
        DenseCRF.published("deeplab")


@pytest.mark.parametrize(
    ("image", "unary", "message"),
    [
        (make_image(12, 10), energies(), "did you swap height and width"),
        (make_image(5, 6), energies(), "resize the unary"),
        (make_image(), energies().transpose(1, 2, 0), "as if its classes came last"),
        (make_image().transpose(2, 0, 1), energies(), "channels come last"),
        (make_image()[..., 0], energies(), "plus a channel axis"),
        (make_image()[None], energies(), "image has shape"),
        (make_image(), energies()[0], "must be"),
        (make_image(), energies()[:, :0], "at least one"),
        (make_image(), energies().argmax(0)[None], "unary_from_labels"),
        (make_image(), np.where(energies() > 1.9, np.nan, energies()), "must be finite: .* the first at"),
        (np.full((10, 12, 3), np.inf, np.float32), energies(), "image must be finite"),
        (make_image().astype(np.int64), energies(), "uint8 or floating"),
        (None, energies(), "not None"),
        (make_image(), energies()[:1], "two classes or more"),
        (make_image(), energies() * np.float32(1e37), "unary must be at most 1e\\+30"),
        (make_image(), energies().astype(np.float64) * 1e300, "unary must be at most 1e\\+30"),
        (make_image(), energies() + np.float32(3e38), "unary must be at most 1e\\+30"),
        (make_image() * np.float32(1e36), energies(), "image must be at most 1e\\+30"),
    ],
)
def test_what_does_not_fit_is_said(image: NDArray[np.uint8], unary: NDArray[np.float32], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenseCRF(KERNELS)(image, unary)


def test_probabilities_for_energies_and_small_colours_are_warned_of() -> None:
    probabilities = torch.from_numpy(-energies()).softmax(0).numpy()
    with pytest.warns(UserWarning, match="unary_from_probabilities"):
        DenseCRF(KERNELS)(make_image(), probabilities)
    with pytest.warns(UserWarning, match="0–255"):
        DenseCRF(KERNELS)(make_image().astype(np.float32) / 255, energies())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda: Gaussian(0, 3), "above 0"),
        (lambda: Bilateral(80, -1, 3), "above 0"),
        (lambda: Bilateral((80, float("nan")), 3, 3), "above 0"),
        (lambda: DenseCRF(KERNELS, -1), "iterations"),
        (lambda: DenseCRF(KERNELS, normalization="both"), "not one of symmetric"),  # type: ignore[arg-type]
        (lambda: DenseCRF([Gaussian(3, [[1, 2], [3, 4]])]), "one for each class"),
        (lambda: DenseCRF([Gaussian(3, 3, [1, 2])]), "must be square"),
        (lambda: DenseCRF([Gaussian(3, float("inf"))]), "finite"),
        (lambda: DenseCRF([Gaussian(3, [1, 2])])(None, energies()), "3 classes, .* for 2"),
        (lambda: DenseCRF([Gaussian((1, 2, 3), 1)])(None, energies()), "3 values; the image has 2"),
        (lambda: DenseCRF([Gaussian(1e-9, 1)])(None, energies()), "too small for the image"),
        (lambda: DenseCRF(KERNELS, tolerance=0), "tolerance"),
        (lambda: DenseCRF(KERNELS, 2.5), "iterations must be a whole number"),  # type: ignore[arg-type]
        (lambda: DenseCRF(KERNELS, "3"), "iterations must be a whole number"),  # type: ignore[arg-type]
        (lambda: DenseCRF(KERNELS, spatial_dims=2.5), "spatial_dims must be a whole number"),  # type: ignore[arg-type]
        (lambda: DenseCRF([Gaussian(3, 3e38)]), "at most 1e\\+30"),
        (lambda: DenseCRF([Gaussian(3, -3e38)]), "at most 1e\\+30"),
        (lambda: DenseCRF([Gaussian(3, 3, [[0, 3e38], [3e38, 0]])]), "at most 1e\\+30"),
        (lambda: DenseCRF([Gaussian(3, 1e16, np.full((3, 3), 1e16))])(None, energies()), "penalties .* at most"),
        (lambda: DenseCRF([Gaussian(3, "strong")]), "must be one number"),  # type: ignore[arg-type]
        (lambda: DenseCRF([Gaussian("wide", 3)]), "sxy must be"),  # type: ignore[arg-type]
    ],
)
def test_settings_out_of_range_are_errors(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        arguments()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_a_weight_that_training_ruined_is_an_error(value: float) -> None:
    crf = DenseCRF(KERNELS)
    with torch.no_grad():
        crf.weights[1].fill_(value)
    with pytest.raises(InputError, match="weights of a kernel must be"):
        crf(make_image(), energies())


@pytest.mark.parametrize("kernels", [Gaussian(3, 3), "ab", [Gaussian(3, 3), None]])
def test_what_is_not_a_list_of_kernels_is_an_error(kernels: Any) -> None:
    with pytest.raises(InputTypeError, match="kernels must be a list"):
        DenseCRF(kernels)


@pytest.mark.parametrize("unary", [energies().tolist(), energies().astype(complex), energies().astype(object)])
def test_a_unary_that_is_not_an_array_of_real_numbers_is_an_error(unary: Any) -> None:
    with pytest.raises(InputTypeError, match="real numbers"):
        DenseCRF(KERNELS)(make_image(), unary)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("trainable", [False, True])
def test_half_precisions_are_computed_in_float32(dtype: torch.dtype, trainable: bool) -> None:
    crf, unary = DenseCRF(KERNELS, trainable=trainable), torch.from_numpy(energies()).to(dtype)
    image = torch.from_numpy(make_image())
    assert torch.equal(crf(image, unary), crf(image, unary.float()).to(dtype))
    assert torch.equal(crf.labels(image, unary), crf.labels(image, unary.float()))
    assert torch.equal(crf.track(image, unary).q, crf.track(image, unary.float()).q.to(dtype))


@pytest.mark.parametrize("dtype", [">f4", np.longdouble])
def test_arrays_of_other_byte_orders_and_long_doubles_are_read(dtype: Any) -> None:
    expected = DenseCRF(KERNELS)(make_image(), energies())
    assert np.array_equal(DenseCRF(KERNELS)(make_image(), energies().astype(dtype)).astype(np.float32), expected)


def test_energies_up_to_the_limit_decide_alone() -> None:
    unary = np.float32(1e29) * energies()
    assert np.array_equal(DenseCRF(KERNELS).labels(make_image(), unary), unary.argmin(0))
