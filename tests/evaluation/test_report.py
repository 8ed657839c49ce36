import numpy as np
import pytest

from atrous.evaluation.evaluate import Evaluation
from atrous.evaluation.metrics import ConfusionMatrix
from atrous.evaluation.report import markdown, table
from atrous.labels import LabelSet


@pytest.fixture
def evaluation():
    confusion = ConfusionMatrix(LabelSet(("background", "cat", "cow", "sheep")))
    confusion.matrix[:2, :3] = [[3, 1, 0], [0, 2, 1]]
    confusion.images[:2] = (12, 4)
    return Evaluation("deeplabv3plus", "voc:val", confusion, 12, 6.0, "float32", "cpu")


def test_the_table_shows_metrics_classes_and_missing_classes(evaluation):
    assert table(evaluation, min_images=4) == (
        """\
| metric                                                        |     % |
| ------------------------------------------------------------- | ----: |
| pixel accuracy                                                | 71.43 |
| mean accuracy                                                 | 70.83 |
| mean IoU                                                      | 41.67 |
| frequency-weighted IoU                                        | 64.29 |
| mean IoU over background and the 1 class in at least 4 images | 62.50 |

| class      | images | IoU % | accuracy % |
| ---------- | -----: | ----: | ---------: |
| background |     12 | 75.00 |      75.00 |
| cat        |      4 | 50.00 |      66.67 |
| cow        |      0 |  0.00 |          – |
| sheep      |      0 |     – |          – |

2 of 4 classes do not occur in this split: cow, sheep.
Predicted nevertheless, and counted as IoU 0 in the mean: cow.
Mean IoU over the classes that do occur, as in the FCN paper on SIFT Flow: 62.50 %."""
    )


def test_markdown_says_what_was_evaluated_and_contains_the_same_table(evaluation):
    text = markdown(evaluation)
    assert text.startswith("## deeplabv3plus on voc:val\n\n12 images, each at its own size")
    assert "computed in float32 on cpu in 6.0 s (2.00 images/s)" in text
    assert text.endswith(table(evaluation) + "\n")


def test_nothing_is_said_about_missing_classes_if_every_class_occurs():
    confusion = ConfusionMatrix(LabelSet(("sky", "road")))
    confusion.matrix[:] = np.eye(2)
    text = table(Evaluation("m", "d", confusion, 1, 1.0, "float32", "cpu"))
    assert "do not occur" not in text
    assert "in at least" not in text  # a single image


@pytest.mark.parametrize(("images", "least"), [(5, None), (10, None), (11, 2), (45, 5), (100, 10), (1449, 10)])
def test_the_classes_of_the_second_mean_fit_the_size_of_the_split(images: int, least: int | None):
    confusion = ConfusionMatrix(LabelSet(("sky", "road")))
    confusion.matrix[:] = np.eye(2)
    confusion.images[:] = images
    text = table(Evaluation("m", "d", confusion, images, 1.0, "float32", "cpu"))
    assert ("in at least" in text) == (least is not None)
    assert least is None or f"mean IoU over the 2 classes in at least {least} images" in text
