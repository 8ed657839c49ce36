"""pydensecrf's interface over our CRF, beside pydensecrf2 itself where it is installed (``atrous[bench]``)."""

import logging
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

import atrous.compat.pydensecrf as ours
from atrous.compat.pydensecrf import densecrf, utils
from atrous.errors import InputError

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def theirs() -> ModuleType:
    pytest.importorskip("pydensecrf.densecrf", reason="needs pydensecrf2")
    pytest.importorskip("pydensecrf.utils")
    import pydensecrf

    return pydensecrf


def picture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Two areas with texture."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    area = (x + y // 2 > width * 2 // 3)[..., None] * random.integers(40, 120, 3)
    return (area + random.integers(20, 60, (height, width, 3))).astype(np.uint8)


def energies(classes: int, pixels: int, seed: int) -> Floats:
    return (3 * np.random.default_rng(seed).random((classes, pixels))).astype(np.float32)


def random_calls(module: ModuleType, number: int) -> list[Floats]:
    """What a random sequence of calls gives: the same for every module with pydensecrf's interface."""
    random = np.random.default_rng(number)
    crf, tools = module.densecrf, module.utils
    classes, height, width = int(random.integers(2, 7)), int(random.integers(3, 14)), 4 * int(random.integers(1, 4))
    pixels = height * width
    flat = random.random() < 0.4
    field = crf.DenseCRF(pixels, classes) if flat else crf.DenseCRF2D(width, height, classes)
    if random.random() < 0.9:
        field.setUnaryEnergy(energies(classes, pixels, number))
    image = picture(height, width, number)
    for _ in range(int(random.integers(0, 4))):
        kind = random.integers(3)
        compat = [
            float(random.uniform(0.5, 8)),
            (-random.uniform(0.5, 6, classes)).astype(np.float32),
            random.uniform(-1, 3, (classes, classes)).astype(np.float32),
        ][random.integers(3)]
        normalization = int(random.integers(1, 4))
        if random.random() < 0.2:  # sums over all pixels are larger
            normalization, compat = 0, compat / 300
        options = {"compat": compat, "kernel": int(random.integers(3)), "normalization": normalization}
        deviation = float(random.uniform(1, 30))
        if flat or kind == 2:
            features = tools.create_pairwise_bilateral((deviation, 9.0), (20, 30, 40), image, chdim=2)
            if random.random() < 0.5:
                features = tools.create_pairwise_gaussian((deviation, 3.0), (height, width))
            field.addPairwiseEnergy(features, **options)
        elif kind == 1:
            field.addPairwiseGaussian((deviation, 4.0) if random.random() < 0.5 else deviation, **options)
        else:
            field.addPairwiseBilateral(deviation, (20, 30, 25), image, **options)
    results = [np.array(field.inference(int(random.integers(0, 6))))]
    q, first, second = field.startInference()
    results.append(np.array(q))
    for _ in range(int(random.integers(0, 3))):
        field.stepInference(q, first, second)
        results.append(np.array(q))
    results.append(np.float32(field.klDivergence(q)))
    if random.random() < 0.3:  # a field goes on with other energies
        field.setUnaryEnergy(energies(classes, pixels, number + 1))
        results.append(np.array(field.inference(2)))
    return results


@pytest.mark.parametrize("block", range(10))
def test_two_hundred_random_sequences_of_calls(theirs: ModuleType, block: int) -> None:
    for number in range(20 * block, 20 * block + 20):
        for mine, other in zip(random_calls(ours, number), random_calls(theirs, number), strict=True):
            assert mine.shape == other.shape
            assert mine.dtype == other.dtype
            np.testing.assert_allclose(mine, other, atol=2e-4, rtol=2e-4, err_msg=f"sequence {number}")


@pytest.mark.parametrize("size", [(7, 9), (5, 5), (11, 3)])
def test_padding_pixels_are_repeated_on_request(
    theirs: ModuleType, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, unary = picture(*size, 3) + np.uint8(90), energies(3, size[0] * size[1], 3)

    def inference(module: ModuleType) -> Floats:
        field = module.densecrf.DenseCRF2D(size[1], size[0], 3)
        field.setUnaryEnergy(unary)
        field.addPairwiseGaussian(2, 2)
        field.addPairwiseBilateral(6, 40, image, 5)
        return np.array(field.inference(5))

    right, reference = inference(ours), inference(theirs)
    monkeypatch.setattr(densecrf, "padding_pixels", True)
    assert np.abs(inference(ours) - reference).max() < 1e-4
    assert np.abs(right - reference).max() < 0.1


def test_unaries_and_features_are_theirs(theirs: ModuleType) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (5, 7))
    for count, zero in ((3, True), (4, False)):
        mine, other = (m.utils.unary_from_labels(labels, count, 0.7, zero_unsure=zero) for m in (ours, theirs))
        np.testing.assert_allclose(mine, other, rtol=1e-6)
    p = np.random.default_rng(0).dirichlet(np.ones(3), (5, 7)).transpose(2, 0, 1)
    p[0, 0] = 0
    for options in ({}, {"scale": 0.8}, {"clip": 0.01}, {"scale": 0.5, "clip": None}):
        mine, other = (m.utils.unary_from_softmax(p, **options) for m in (ours, theirs))
        np.testing.assert_allclose(mine, other, rtol=1e-6)
    volume = np.random.default_rng(0).random((2, 4, 5, 6)).astype(np.float32)
    for module in (ours, theirs):
        assert module.utils.create_pairwise_gaussian((1, 2, 3), (4, 5, 6)).shape == (3, 120)
    calls = [((1, 2, 3), (0.1, 0.2), volume, 0), ((1, 2, 3), 0.1, volume[0], -1), ((2, 2), 9, picture(4, 5, 0), 2)]
    for sdims, schan, image, axis in calls:
        mine, other = (m.utils.create_pairwise_bilateral(sdims, schan, image, axis) for m in (ours, theirs))
        np.testing.assert_allclose(mine, other, rtol=1e-6)


def test_old_names_work_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert utils.compute_unary(np.array([[0, 1]]), 2).shape == (2, 2)
        assert utils.softmax_to_unary(np.full((2, 3), 0.5)).shape == (2, 3)
    assert [record.message.split()[0] for record in caplog.records] == [
        "pydensecrf.compute_unary",
        "pydensecrf.softmax_to_unary",
    ]


def readme_step_by_step(module: ModuleType, image: NDArray[np.uint8], probabilities: Floats) -> NDArray[np.int64]:
    """The example of pydensecrf's documentation: annotation to unary, features by hand, one step after another."""
    labels = probabilities.argmax(0)
    field = module.densecrf.DenseCRF(image.shape[1] * image.shape[0], len(probabilities))
    field.setUnaryEnergy(module.utils.unary_from_labels(labels, len(probabilities), 0.7, zero_unsure=False))
    smooth = module.utils.create_pairwise_gaussian(sdims=(3, 3), shape=image.shape[:2])
    options = {"kernel": module.densecrf.DIAG_KERNEL, "normalization": module.densecrf.NORMALIZE_SYMMETRIC}
    field.addPairwiseEnergy(smooth, compat=3, **options)
    alike = module.utils.create_pairwise_bilateral(sdims=(80, 80), schan=(13, 13, 13), img=image, chdim=2)
    field.addPairwiseEnergy(alike, compat=10, **options)
    q, first, second = field.startInference()
    for _ in range(5):
        field.stepInference(q, first, second)
    return np.argmax(q, axis=0).reshape(image.shape[:2])


def deeplab_reproduction(module: ModuleType, image: NDArray[np.uint8], probabilities: Floats) -> NDArray[np.int64]:
    """What reproductions of DeepLab v2 do with the probabilities of a network."""
    classes, height, width = probabilities.shape
    unary = np.ascontiguousarray(module.utils.unary_from_softmax(probabilities))
    field = module.densecrf.DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(unary)
    field.addPairwiseGaussian(sxy=1, compat=3)
    field.addPairwiseBilateral(sxy=67, srgb=3, rgbim=np.ascontiguousarray(image), compat=4)
    return np.array(field.inference(10)).reshape((classes, height, width)).argmax(axis=0)


def weak_supervision(module: ModuleType, image: NDArray[np.uint8], probabilities: Floats) -> NDArray[np.int64]:
    """What methods of weakly supervised segmentation do with hard labels of which some are unsure."""
    height, width = image.shape[:2]
    labels = np.where(probabilities.max(0) < 0.6, 0, probabilities.argmax(0) + 1)
    field = module.densecrf.DenseCRF2D(width, height, len(probabilities))
    field.setUnaryEnergy(module.utils.unary_from_labels(labels, len(probabilities), gt_prob=0.7, zero_unsure=True))
    field.addPairwiseGaussian(sxy=(3, 3), compat=3, kernel=module.densecrf.DIAG_KERNEL)
    field.addPairwiseBilateral(sxy=(50, 50), srgb=(5, 5, 5), rgbim=np.copy(image), compat=10)
    return np.argmax(np.array(field.inference(10)).reshape((-1, height, width)), axis=0)


@pytest.mark.parametrize("script", [readme_step_by_step, deeplab_reproduction, weak_supervision])
def test_public_scripts_run_through_it(theirs: ModuleType, script) -> None:
    image = picture(80, 120, seed=5)
    dim = np.random.default_rng(1).dirichlet(np.ones(4), (5, 6)).transpose(2, 0, 1).astype(np.float32)
    probabilities = np.kron(dim, np.ones((16, 20), np.float32))
    mine, other = script(ours, image, probabilities), script(theirs, image, probabilities)
    assert (mine == other).mean() >= 0.9999
    assert (mine != probabilities.argmax(0)).mean() > 0.02


def test_what_does_not_fit_is_refused_in_words() -> None:
    field = densecrf.DenseCRF2D(5, 4, 3)
    unary = np.zeros((3, 20), np.float32)
    with pytest.raises(InputError, match=r"bad shape for unary energy: expected \(3, 20\), found \(3, 21\)"):
        field.setUnaryEnergy(np.zeros((3, 21)))
    with pytest.raises(InputError, match=r"two axes, not \(3, 4, 5\): its pixels are flat"):
        field.setUnaryEnergy(unary.reshape(3, 4, 5))
    with pytest.raises(InputError, match="u has 1 values that are NaN"):
        field.setUnaryEnergy(np.where(np.arange(60).reshape(3, 20) == 7, np.nan, 0))
    with pytest.raises(InputError, match="rgbim must be uint8"):
        field.addPairwiseBilateral(3, 3, np.zeros((4, 5, 3)), 3)
    with pytest.raises(InputError, match=r"expected \(4, 5, 3\), found \(5, 4, 3\)"):
        field.addPairwiseBilateral(3, 3, np.zeros((5, 4, 3), np.uint8), 3)
    with pytest.raises(InputError, match="create_pairwise_bilateral"):
        field.addPairwiseBilateral(3, 3, np.zeros((4, 5, 1), np.uint8), 3)
    with pytest.raises(InputError, match=r"compat is \(2,\); expected a number, a vector \(3,\)"):
        field.addPairwiseGaussian(3, np.ones(2, np.float32))
    with pytest.raises(InputError, match=r"expected \('\?', 20\), found \(2, 19\)"):
        field.addPairwiseEnergy(np.zeros((2, 19)), 3)
    with pytest.raises(InputError, match="sdims has 1 values"):
        utils.create_pairwise_gaussian((3,), (4, 5))


def test_infinite_energies_rule_a_class_out() -> None:
    field = densecrf.DenseCRF(4, 2)
    field.setUnaryEnergy(np.array([[0, 0, np.inf, np.inf], [np.inf, 1, 1, 0]]))
    field.addPairwiseEnergy(np.arange(4.0)[None], compat=3)
    assert field.inference(5)[:, [0, 2, 3]].tolist() == [[1, 0, 0], [0, 1, 1]]


def test_energies_are_copied() -> None:
    unary = energies(2, 6, 0)
    field = densecrf.DenseCRF(6, 2)
    field.setUnaryEnergy(unary)
    before = field.inference(0)
    unary[:] = 0
    assert np.array_equal(field.inference(0), before)
