import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from atrous.data.dataset import Sample
from atrous.data.extras import Extras
from atrous.evaluation.evaluate import evaluate
from atrous.grid import Grid
from atrous.inference.test_time import Inference
from atrous.labels import LabelSet
from atrous.models.base import Output

LABELS = LabelSet(("background", "cat", "dog", "cow"))


class Notes(list):
    """A list that the copies of a model share."""

    def __deepcopy__(self, _):
        return self


class Reader(nn.Module):
    """A model that reads the class off the red channel, at every other pixel."""

    name = "reader"
    backbone = SimpleNamespace(in_channels=3)
    preprocessing = SimpleNamespace(dtype="uint8", ranges=())

    def __init__(self, labels=LABELS):
        super().__init__()
        self.label_set = labels
        self.classes = nn.Parameter(torch.arange(float(len(labels))))
        self.frozen = nn.BatchNorm2d(3).eval()
        self.seen = Notes()

    def preprocess(self, images):
        assert images.dtype == torch.uint8
        return images.float()

    def main_output(self, images):
        assert not self.training
        assert not torch.is_grad_enabled()
        assert images.is_contiguous(memory_format=torch.channels_last)
        self.seen.append((tuple(images.shape), torch.is_autocast_enabled(images.device.type)))
        red = images[:, :1, ::2, ::2]
        return Output("main", -(red - self.classes.view(1, -1, 1, 1)).abs(), Grid(2, 0))


class Blocks:
    """Images of several sizes whose red channel is the mask, in blocks that every other pixel shows."""

    name, label_set, extras = "blocks:val", LABELS, Extras()

    def __init__(self, sizes=((5, 7), (1, 1), (9, 3))):
        self.sizes, self.threads = sizes, set()

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        self.threads.add(threading.current_thread())
        height, width = self.sizes[index]
        mask = np.zeros((height, width), np.uint8)
        mask[height // 2 :] = 1 + index % 2
        return Sample(np.stack([mask] * 3, axis=-1), mask, f"{index}.png")


def test_each_image_is_evaluated_at_its_own_size():
    model, data = Reader(), Blocks()
    result = evaluate(model, data)
    assert [shape for shape, _ in model.seen] == [(1, 3, 5, 7), (1, 3, 1, 1), (1, 3, 9, 3)]
    assert result.images == 3
    assert result.confusion.matrix.sum() == 5 * 7 + 1 + 9 * 3
    assert result.confusion.images.tolist() == [2, 2, 1, 0]
    assert result.metrics.absent == ("cow",)


def test_a_model_that_reads_the_ground_truth_has_accuracy_one():
    result = evaluate(Reader(), Blocks(((8, 8), (16, 5))))
    assert result.metrics.pixel_accuracy == 1


def test_images_are_read_in_the_background_and_in_order():
    data, calls = Blocks(), []
    evaluate(Reader(), data, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert threading.main_thread() not in data.threads
    assert not any(thread.is_alive() for thread in data.threads)


def test_every_module_gets_its_mode_back():
    model = Reader().train()
    model.frozen.eval()
    evaluate(model, Blocks())
    assert model.training
    assert not model.frozen.training


@pytest.mark.parametrize(("precision", "autocast"), [("float32", False), ("bfloat16", True)])
def test_precision_switches_autocast(precision, autocast):
    model = Reader()
    result = evaluate(model, Blocks(), precision=precision, device="cpu")
    assert {state for _, state in model.seen} == {autocast}
    assert (result.precision, result.device) == (precision, "cpu")


def test_an_image_that_cannot_be_read_stops_with_its_error():
    class Broken(Blocks):
        def __getitem__(self, index):
            if index == 1:
                raise ValueError("photos/1.png is not an image")
            return super().__getitem__(index)

    with pytest.raises(ValueError, match=r"photos/1\.png is not an image"):
        evaluate(Reader(), Broken())


def test_other_classes_than_the_models_are_refused():
    data = Blocks()
    with pytest.raises(ValueError, match=r"the model has 3 classes .* the data have 4 "):
        evaluate(Reader(LabelSet.numbered(3)), data)
    with pytest.raises(ValueError, match="same order"):
        evaluate(Reader(LabelSet(("background", "dog", "cat", "cow"))), data)
    assert evaluate(Reader(LabelSet.numbered(4)), data).label_set == LABELS  # numbers stand for any names
    data.label_set = LabelSet.numbered(4)
    with pytest.raises(ValueError, match=r"write labels\.toml with names = \[\.\.\.\] in its folder"):
        evaluate(Reader(LABELS), data)


def test_an_empty_dataset_is_refused():
    with pytest.raises(ValueError, match="no image to evaluate in blocks:val"):
        evaluate(Reader(), Blocks(()))


def test_the_result_can_be_written_as_json():
    result = evaluate(Reader(), Blocks())
    written = json.loads(json.dumps(result.to_dict(min_images=1), allow_nan=False))
    assert written["model"] == "reader"
    assert written["data"] == "blocks:val"
    assert written["confusion"] == result.confusion.matrix.tolist()
    assert written["mean_iou"] == pytest.approx(result.metrics.mean_iou)
    assert written["classes"][3] == {"name": "cow", "images": 0, "iou": None, "accuracy": None}
    assert written["absent"] == list(result.metrics.absent)
    assert written["mean_iou_of_frequent_classes"]["classes"][0] == "background"


def test_a_built_architecture_is_evaluated():
    from atrous.models import create_model

    model = create_model("deeplabv3plus", backbone="tf_efficientnet_lite0", num_classes=4)
    result = evaluate(model, Blocks(((33, 41), (20, 65))))
    assert result.model == "deeplabv3plus"
    assert result.confusion.matrix.sum() == 33 * 41 + 20 * 65


def test_bands_are_counted_beside_the_whole():
    result = evaluate(Reader(), Blocks(((8, 8),)), trimap=(1, 3))
    assert result.confusion.matrix.sum() == 64
    assert {width: band.matrix.sum() for width, band in result.trimap.items()} == {1: 16, 3: 48}
    assert [entry["width"] for entry in result.to_dict()["trimap"]] == [1, 3]


def test_a_band_needs_a_width():
    with pytest.raises(ValueError, match="1 or more pixels"):
        evaluate(Reader(), Blocks(), trimap=(0,))


def test_an_inference_of_several_views_is_evaluated_as_a_whole():
    model = Reader()
    result = evaluate(model, Blocks(((8, 8),)), inference=Inference((1.0, 2.0), flip=True))
    assert len(model.seen) == 4
    assert result.metrics.pixel_accuracy == 1


def test_a_network_of_several_heads_runs_once_per_image(monkeypatch):
    from atrous.models import create_model

    shapes = LabelSet(("flat", "round"))

    class TwoMasks(Blocks):
        extras = Extras(masks={"shape": SimpleNamespace(form=SimpleNamespace(label_set=shapes))})

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return Sample(sample.image, sample.mask, sample.name, {"shape": sample.mask % 2})

    model = create_model("fcn32s", backbone="test_resnet", num_classes=4, heads={"shape": 2})
    for parameter in model.score_fr.parameters():
        nn.init.normal_(parameter)
    data, runs = TwoMasks(((33, 41), (20, 65))), []
    model.backbone.register_forward_hook(lambda *_: runs.append(1))
    result = evaluate(model, data)
    assert len(runs) == 2
    assert (result.confusion.matrix == evaluate(model, Blocks(data.sizes)).confusion.matrix).all()
    assert result.heads["shape"].matrix.sum() == 33 * 41 + 20 * 65
    assert result.to_dict()["heads"]["shape"]["pixel_accuracy"] == result.heads["shape"].metrics().pixel_accuracy
    runs.clear()
    evaluate(model, data, inference=Inference((0.75, 1.0), flip=True))
    assert len(runs) == 2 * 4
