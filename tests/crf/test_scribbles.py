"""Strokes that become labels."""

import heapq

import numpy as np
import pytest

from atrous.crf import DenseCRF, Gaussian, labels_from_scribbles
from atrous.crf.cpu.geodesic import geodesic_distances
from atrous.errors import InputError

RNG = np.random.default_rng(0)
HALVES = np.full((40, 60, 3), 60, np.uint8)
HALVES[:, 30:] = (200, 120, 40)


def strokes(*lines: tuple[int, slice, int]) -> np.ndarray:
    """Horizontal lines: row, columns, class."""
    found = np.full((40, 60), 255, np.uint8)
    for row, columns, label in lines:
        found[row, columns] = label
    return found


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_strokes_reach_the_edge_of_a_colour_and_keep_their_classes(dtype: type) -> None:
    noisy = np.clip(HALVES + RNG.normal(0, 6, HALVES.shape), 0, 255).astype(dtype)
    labels = labels_from_scribbles(noisy, strokes((20, slice(4, 12), 7), (20, slice(50, 55), 3)))
    expected = np.where(np.arange(60) < 30, 7, 3)
    assert labels.dtype == np.uint8
    assert (labels == expected).mean() > 0.99
    assert (labels[20, 4:12] == 7).all()


def test_of_one_class_there_is_nothing_else() -> None:
    assert (labels_from_scribbles(HALVES, strokes((3, slice(0, 9), 4))) == 4).all()


def test_a_network_of_other_classes_tells_strokes_apart() -> None:
    grey = np.full((40, 60, 1), 128, np.uint8)
    probabilities = np.zeros((5, 40, 60), np.float32)
    probabilities[4, :18], probabilities[[1, 2], 18:] = 1, 0.5
    drawn = strokes((5, slice(5, 20), 0), (30, slice(5, 20), 1))
    labels = labels_from_scribbles(grey, drawn, probabilities=probabilities)
    assert (labels == (np.arange(40) >= 18)[:, None]).all()
    crf = DenseCRF([Gaussian(3, 3)], 2)
    assert (labels == labels_from_scribbles(grey, drawn, probabilities=probabilities, crf=crf)).mean() > 0.9


@pytest.mark.parametrize(
    ("image", "scribbles", "probabilities", "words"),
    [
        (HALVES, np.full((40, 60), 255), None, "no strokes"),
        (HALVES, np.zeros((60, 40), np.uint8), None, r"\(40, 60\)"),
        (HALVES, np.zeros((40, 60)), None, "integers"),
        (HALVES, np.full((40, 60), 256), None, "from 256 to 256"),
        (HALVES[..., 0], np.zeros((40, 60), np.uint8), None, "one, image"),
        (HALVES, np.zeros((40, 60), np.uint8), np.zeros((5, 20, 30)), "image's size"),
    ],
)
def test_errors_say_what_was_expected(
    image: np.ndarray, scribbles: np.ndarray, probabilities: np.ndarray | None, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        labels_from_scribbles(image, scribbles, probabilities=probabilities)


def test_distances_are_those_of_shortest_paths() -> None:
    features = RNG.normal(0, 2, (12, 17, 3)).astype(np.float32)
    source = np.zeros((12, 17), bool)
    source[2, 3] = source[9, 15] = True
    (found,) = geodesic_distances(features, [source], 0.5)
    exact = shortest_paths(features, source, 0.5)
    assert (found >= exact - 1e-4).all()
    assert np.isclose(found, exact, rtol=1e-5).mean() > 0.95  # two sweeps miss paths that turn more often


def shortest_paths(features: np.ndarray, source: np.ndarray, per_pixel: float) -> np.ndarray:
    """Dijkstra's."""
    distances = np.where(source, 0.0, np.inf)
    waiting = [(0.0, *map(int, place)) for place in zip(*np.nonzero(source), strict=True)]
    while waiting:
        here, y, x = heapq.heappop(waiting)
        if here > distances[y, x]:
            continue
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
            v, u = y + dy, x + dx
            if 0 <= v < len(distances) and 0 <= u < distances.shape[1]:
                change = ((features[y, x] - features[v, u]) ** 2).sum()
                there = here + np.sqrt(per_pixel**2 * (dy * dy + dx * dx) + change)
                if there < distances[v, u]:
                    distances[v, u] = there
                    heapq.heappush(waiting, (there, v, u))
    return distances
