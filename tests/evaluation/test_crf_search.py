import numpy as np
import pytest
import torch
from torch import nn

from atrous.crf.search import COARSE, search
from atrous.crf.settings import Settings, stored_crf, stored_settings
from atrous.data.dataset import Sample
from atrous.evaluation.crf_search import search_crf
from atrous.grid import Grid
from atrous.labels import LabelSet
from atrous.models.base import Output

LABELS = LabelSet(("background", "thing"))


def test_the_search_ends_near_the_best_place():
    def score(settings):
        best = {"weight": 4.0, "sxy": 60.0, "srgb": 7.0}
        return -sum(abs(np.log(getattr(settings, name) / value)) for name, value in best.items())

    found, tried = search(score)
    assert score(found) == max(tried.values())
    assert len(tried) <= 27 + 2 * 6
    assert found.weight == pytest.approx(4, rel=0.25)
    assert found.sxy == pytest.approx(60, rel=0.25)
    assert found.srgb == pytest.approx(7, rel=0.25)


def test_what_is_not_searched_stays():
    found, tried = search(lambda settings: -settings.weight, Settings(smoothness=0, iterations=2))
    assert {(s.smoothness, s.iterations) for s in tried} == {(0, 2)}
    assert found.weight < COARSE["weight"][0]


class Blurred(nn.Module):
    """A model that sees the red channel only at every eighth pixel, and not sure of it."""

    name, label_set = "blurred", LABELS

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def preprocess(self, images):
        return images.float()

    def main_output(self, images):
        red = images[:, :1, ::8, ::8] / 128 - 1
        return Output("main", torch.cat([-red, red], 1), Grid(8, 0))


class Discs:
    """Bright discs on a dark ground."""

    name, label_set = "discs:val", LABELS

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        y, x = np.mgrid[:64, :72]
        mask = ((y - 25 - index) ** 2 + (x - 30 - 2 * index) ** 2 < 300).astype(np.uint8)
        noise = np.random.default_rng(index).integers(0, 20, (64, 72, 3))
        return Sample((mask[..., None] * 200 + noise).astype(np.uint8), mask, f"{index}.png")


def test_a_model_that_is_vague_about_boundaries_gains_and_the_card_says_so(monkeypatch):
    monkeypatch.setattr("atrous.evaluation.crf_search.search", lambda score, start: search_few(score, start))
    tries = []
    found = search_crf(Blurred(), Discs(4), images=2, on_try=lambda settings, mean_iou: tries.append(mean_iou))
    assert found.images == (2, 2)
    assert found.helps
    assert found.held_out_with.mean_iou > found.held_out_without.mean_iou
    assert found.held_out_with.near_boundaries > found.held_out_without.near_boundaries
    assert len(tries) == len(found.tried) == 2
    assert "helps on held-out images" in found.text()
    card = {"crf": found.to_card()}
    assert stored_settings(card) == found.settings
    assert stored_crf(card).iterations == found.settings.iterations


def search_few(score, start):
    tried = {settings: score(settings) for settings in (Settings(weight=0, smoothness=0), Settings(6, 20, 30, 1, 3, 5))}
    return max(tried, key=tried.get), tried


def test_one_image_is_too_few():
    with pytest.raises(ValueError, match="needs some to search on and others held out"):
        search_crf(Blurred(), Discs(1))


def test_classes_must_be_the_models_and_a_search_needs_images():
    class Others(Discs):
        label_set = LabelSet(("ground", "sky", "sea"))

    with pytest.raises(ValueError, match="classes must be the same"):
        search_crf(Blurred(), Others(4))
    with pytest.raises(ValueError, match="1 image or more, not 0"):
        search_crf(Blurred(), Discs(4), images=0)


def test_without_a_tuning_the_crf_has_the_published_numbers():
    assert stored_settings({}) is None
    assert stored_crf({}).kernels[1].srgb == 3
