"""Beside pydensecrf2, the reference implementation; skipped where it is not installed (``pip install pydensecrf2``)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from atrous.crf import Bilateral, DenseCRF, Gaussian, unary_from_labels, unary_from_probabilities

densecrf = pytest.importorskip("pydensecrf.densecrf")
utils = pytest.importorskip("pydensecrf.utils")

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def reference(crf: DenseCRF, image: Pixels, unary: Floats) -> Floats:
    """What pydensecrf computes through its 2-D interface, with a CRF's parameters."""
    classes, height, width = unary.shape
    normalization = {
        "symmetric": densecrf.NORMALIZE_SYMMETRIC,
        "before": densecrf.NORMALIZE_BEFORE,
        "after": densecrf.NORMALIZE_AFTER,
        "none": densecrf.NO_NORMALIZATION,
    }[crf.normalization]
    field = densecrf.DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(np.ascontiguousarray(unary.reshape(classes, -1)))
    for i, kernel in enumerate(crf.kernels):
        weight = crf.weights[i].detach().numpy()
        compat = float(weight) if weight.ndim == 0 else -weight  # a vector is an energy there, and not a reward
        if str(i) in crf.compatibilities:
            compat = np.ascontiguousarray(weight * crf.compatibilities[str(i)].detach().numpy())
        options = {"compat": compat, "normalization": normalization}
        if isinstance(kernel, Gaussian):
            field.addPairwiseGaussian(sxy=kernel.sxy, **options)
        else:
            field.addPairwiseBilateral(sxy=kernel.sxy, srgb=kernel.srgb, rgbim=np.ascontiguousarray(image), **options)
    return np.array(field.inference(crf.iterations)).reshape(unary.shape)


def scene(height: int, width: int, classes: int, seed: int) -> tuple[Pixels, Floats]:
    """An image of soft areas with texture, and the probabilities of a network that sees them dimly."""
    generator = torch.Generator().manual_seed(seed)

    def smooth(channels: int, cells: int) -> torch.Tensor:
        coarse = torch.randn(1, channels, cells, cells, generator=generator)
        return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]

    scores = 3 * smooth(classes, 5)
    colours = torch.rand(classes, 3, generator=generator)[scores.argmax(0)] * 200
    image = colours + 15 * smooth(3, 12).movedim(0, 2) + 4 * torch.randn(height, width, 3, generator=generator) + 25
    noisy = (scores + smooth(classes, 14)).softmax(0)
    return image.clamp(0, 255).byte().numpy(), unary_from_probabilities(noisy.numpy())


def assert_equal(crf: DenseCRF, image: Pixels, unary: Floats) -> None:
    """Labels equal on 99.99 % of the pixels, probabilities within 10⁻⁴."""
    ours, theirs = crf(image, unary), reference(crf, image, unary)
    assert np.abs(ours - theirs).max() < 1e-4
    assert (ours.argmax(0) != theirs.argmax(0)).mean() <= 1e-4


SETS = {
    "readme": DenseCRF.published("pydensecrf_readme"),
    "resnet101": DenseCRF.published("deeplab_v2_resnet101"),
    "largefov": DenseCRF.published("deeplab_largefov"),
    "defaults": DenseCRF.published("deeplab_program_defaults"),
    "axes": DenseCRF([Gaussian((2, 4), 3), Bilateral((40, 60), (10, 13, 20), 6)]),
    "before": DenseCRF([Gaussian(3, 3), Bilateral(60, 10, 4)], normalization="before"),
    "none": DenseCRF([Gaussian(3, 0.03), Bilateral(30, 10, 0.002)], normalization="none"),
}


@pytest.mark.parametrize("name", SETS)
def test_parameter_sets(name: str) -> None:
    image, unary = scene(60, 84, 5, seed=3)
    assert_equal(SETS[name], image, unary)


def test_odd_sizes_and_label_compatibilities() -> None:
    image, unary = scene(37, 53, 19, seed=4)
    rng = np.random.default_rng(0)
    assert_equal(DenseCRF([Gaussian(3, rng.random(19) * 3), Bilateral(30, 13, rng.random(19) * 5)], 5), image, unary)
    penalties = 1 - np.eye(19) + 0.3 * rng.random((19, 19))
    penalties = (penalties + penalties.T) / 2
    assert_equal(DenseCRF([Gaussian(3, 2, penalties), Bilateral(30, 13, 3)], 5), image, unary)


def test_labels_with_confidence() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (20, 30))
    for zero_unsure, classes in ((True, 3), (False, 4)):
        theirs = utils.unary_from_labels(labels, classes, 0.7, zero_unsure)
        ours = unary_from_labels(labels, classes, confidence=0.7, zero_unsure=zero_unsure)
        assert np.allclose(ours.reshape(classes, -1), theirs, atol=1e-6)


def test_as_close_to_brute_force_as_the_reference() -> None:
    """In KL(exact‖lattice), summed over 64×48 images; ours differs from the reference's by rounding only."""
    divergences = np.zeros(2)
    for seed in range(3):
        image, unary = scene(48, 64, 4, seed)
        crf = DenseCRF([Gaussian(3, 3), Bilateral(40, 13, 5)])
        exact = brute_force(crf, image, unary)
        for i, q in enumerate((crf(image, unary), reference(crf, image, unary))):
            divergences[i] += (exact * (np.log(exact + 1e-12) - np.log(q + 1e-12))).sum()
    assert divergences[0] <= divergences[1] * 1.001
    assert divergences[0] / (3 * 48 * 64) < 0.1


def brute_force(crf: DenseCRF, image: Pixels, unary: Floats) -> NDArray[np.float64]:
    u = torch.from_numpy(unary).double().flatten(1).T
    filters = []
    for kernel, weight in zip(crf.kernels, crf.weights, strict=True):
        features = kernel.features(torch.from_numpy(image).float(), unary.shape[1:], crf.order).double()
        k = torch.exp(-torch.cdist(features, features).square() / 2)
        n = k.sum(1).rsqrt()
        filters.append(weight.double() * n[:, None] * k * n)
    q = (-u).softmax(1)
    for _ in range(crf.iterations):
        q = (sum(filters) @ q - u).softmax(1)
    return q.T.reshape(unary.shape).numpy()


@pytest.mark.shared
@pytest.mark.parametrize("number", [1, 2])
def test_published_results_pixel_for_pixel(shared: Path, number: int) -> None:
    """The outputs published with pydensecrf, of its example with features in the order y, x, r, g, b."""
    folder = shared / "reference" / "crf"
    image, scribbles, expected = (
        np.array(Image.open(folder / f"{kind}{number}.png").convert("RGB")) for kind in ("im", "anno", "out")
    )
    colours, labels = np.unique(scribbles.reshape(-1, 3), axis=0, return_inverse=True)
    assert (colours[0] == 0).all()  # unsure
    unary = unary_from_labels(labels.reshape(image.shape[:2]), len(colours) - 1, confidence=0.7, zero_unsure=True)
    crf = DenseCRF([Gaussian(sxy=3, weight=3), Bilateral(sxy=80, srgb=13, weight=10)], iterations=5, order="yx")
    assert np.array_equal(colours[1:][crf.labels(image, unary)], expected)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("name", ["readme", "resnet101", "largefov", "defaults"])
def test_twenty_images(shared: Path, name: str) -> None:
    root = shared / "data" / "VOCdevkit" / "VOC2012"
    masks = sorted((root / "SegmentationClass").glob("*.png"))[::30][:20]
    assert len(masks) == 20
    for mask in masks:
        truth = torch.from_numpy(np.array(Image.open(mask))[::2, ::2].astype(np.int64) % 255)
        # The reference adds black pixels in the corner up to a multiple of four, whose lattice corners others feel.
        truth = truth[:, : truth.shape[1] // 4 * 4]
        image = np.array(Image.open(root / "JPEGImages" / f"{mask.stem}.jpg").convert("RGB"))[::2, ::2]
        image = image[:, : truth.shape[1]].copy()
        onehot = torch.nn.functional.one_hot(truth, 21).movedim(2, 0)[None].float()
        dim = torch.nn.functional.avg_pool2d(onehot, 13, stride=1, padding=6, count_include_pad=False)[0]
        noise = torch.randn(21, *truth.shape, generator=torch.Generator().manual_seed(0))
        unary = unary_from_probabilities((5 * dim + 0.5 * noise).softmax(0).numpy())
        assert_equal(SETS[name], image, unary)
