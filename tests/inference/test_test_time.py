import numpy as np
import pytest
import torch

import atrous
from atrous.crf import Bilateral, DenseCRF, Gaussian
from atrous.grid import PIXELS, Grid, resample
from atrous.inference.test_time import Inference, with_merge
from atrous.models.base import Output

IMAGE = torch.randint(0, 256, (1, 3, 61, 83), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


class Places:
    """A network whose two logits are the row and the column of its input pixels."""

    grid = Grid(4, 1.5)

    def parameters(self):
        return iter([torch.ones(1)])

    def preprocess(self, image):
        height, width = image.shape[-2:]
        rows = torch.arange(height).view(1, 1, -1, 1).expand(1, 1, height, width)
        columns = torch.arange(width).view(1, 1, 1, -1).expand(1, 1, height, width)
        return torch.cat([rows, columns], 1).float()

    def main_output(self, images):
        size = ((images.shape[-2] - 1) // 4 + 1, (images.shape[-1] - 1) // 4 + 1)
        return Output("main", resample(images, PIXELS, self.grid, size), self.grid)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return atrous.create_model("fcn8s", backbone="mobilenetv2_035", num_classes=5).eval()


@pytest.mark.parametrize("scales", [(1.0,), (0.5,), (0.75, 1.3)])
@pytest.mark.parametrize("flip", [False, True])
def test_logits_of_every_view_sit_at_their_place_in_the_image(scales, flip):
    inference = Inference(scales, flip, "average")
    views = inference.views(Places(), Places().preprocess(IMAGE))
    assert len(views) == len(scales) * (1 + flip)
    for view in views:
        seen = view.sample(PIXELS, PIXELS, (61, 83), 83)[0, :, 8:-8, 8:-8]  # beyond its last position a map is constant
        assert torch.allclose(seen[0], torch.arange(8.0, 53).view(-1, 1).expand(-1, 67), atol=1e-3)
        assert torch.allclose(seen[1], torch.arange(8.0, 75).expand(45, -1), atol=1e-3)


def test_sizes_follow_the_published_rule():
    sizes = []

    class Sizes(Places):
        def main_output(self, images):
            sizes.append(tuple(images.shape[-2:]))
            return super().main_output(images)

    Inference((1.0, 0.75, 0.5)).views(Sizes(), torch.zeros(1, 2, 513, 321))
    assert sizes == [(513, 321), (385, 241), (257, 161)]


@pytest.mark.parametrize(
    ("merge", "expected"),
    [
        ("probabilities", lambda maps: torch.stack([m.softmax(1) for m in maps]).mean(0)),
        ("average", lambda maps: torch.stack(maps).mean(0)),
        ("max", lambda maps: torch.stack(maps).amax(0)),
    ],
)
def test_labels_come_from_the_merged_full_size_maps(model, merge, expected, monkeypatch):
    monkeypatch.setattr("atrous.ops.labelmap.op._STRIP_VALUES", 5 * 83 * 7)  # seven rows at a time
    inference = Inference((0.75, 1.0), True, merge)
    with torch.inference_mode():
        labels, views = inference(model, IMAGE)
        full = expected([view.sample(PIXELS, PIXELS, (61, 83), 83) for view in views])
    assert (labels == full.argmax(1)[0]).float().mean() > 0.999  # rounding ties


def test_a_mirror_image_gives_mirrored_labels(model):
    with torch.inference_mode():
        inference = Inference((1.0, 0.6), True)
        straight, behind = inference(model, IMAGE)[0], inference(model, IMAGE.flip(-1))[0]
    assert (straight == behind.flip(-1)).float().mean() > 0.999


def test_a_crf_without_weight_changes_nothing_and_one_with_weight_smooths(model):
    def boundaries(labels):
        return int((labels[1:] != labels[:-1]).sum())

    with torch.no_grad():
        plain, _ = Inference()(model, IMAGE)
        idle, _ = Inference(crf=DenseCRF([Gaussian(3, 0)]))(model, IMAGE)
        smooth, _ = Inference(crf=DenseCRF([Gaussian(3, 5), Bilateral(20, 50, 5)]))(model, IMAGE)
    assert (idle == plain).float().mean() > 0.999
    assert boundaries(smooth) <= boundaries(plain)


def test_predict_takes_every_part_of_an_inference_and_keeps_probabilities(model):
    image = IMAGE[0].permute(1, 2, 0).numpy()
    found = atrous.predict(model, image, scales=(0.5, 1.0), flip=True, crf=True, keep_probabilities=True)
    assert found.labels.shape == (61, 83)
    assert found.class_probabilities is not None
    assert np.allclose(found.class_probabilities.values.astype(np.float32).sum(0), 1, atol=0.01)


@pytest.mark.parametrize("scales", [(), (1.0, 1.0), (0.0,), (-1.0,), (float("nan"),), (1000.0,), (0.001,)])
def test_scales_that_make_no_sense_are_refused(scales):
    with pytest.raises(ValueError, match="scale"):
        Inference(scales)


def test_an_unknown_merge_is_refused():
    with pytest.raises(ValueError, match="merged by probabilities, average, max, not 'mean'"):
        Inference(merge="mean")


def test_a_merge_applies_to_the_test_time_views_of_a_network_with_one_scale(model):
    flipped = Inference(flip=True)
    assert with_merge(model, flipped, "max") == Inference(flip=True, merge="max")
    with pytest.raises(ValueError, match="merge is one of probabilities, average, max for fcn8s here, not 'attention'"):
        with_merge(model, flipped, "attention")
    with pytest.raises(ValueError, match="nothing to merge: fcn8s runs once per image; add test-time scales or flip"):
        with_merge(model, Inference(), "max")


def test_a_merge_applies_to_a_multi_scale_networks_own_scales():
    several = atrous.create_model("attention_to_scale", backbone="test_resnet", num_classes=2, scales=(1, 0.5))
    for inference in (Inference(), Inference(flip=True)):
        assert with_merge(several, inference, "average") is inference
        assert several.merge == "average"
    assert with_merge(several, Inference(flip=True), "probabilities") == Inference(flip=True)  # only views have it
    assert several.merge == "average"
    with pytest.raises(ValueError, match="merge is one of attention, average, max for attention_to_scale here"):
        with_merge(several, Inference(), "probabilities")
