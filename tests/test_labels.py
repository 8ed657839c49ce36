"""Label sets: the palette of PASCAL VOC, and what is refused as a label set."""

import numpy as np
import pytest

from atrous.label_sets import CAMVID, VOC
from atrous.labels import IGNORE, LabelSet, labels_from_colors, voc_color


def test_voc_palette_is_the_published_one() -> None:
    assert [voc_color(i) for i in (0, 1, 2, 8, 15, 16, 20, 255)] == [
        *((0, 0, 0), (128, 0, 0), (0, 128, 0), (64, 0, 0), (192, 128, 128), (0, 64, 0), (0, 64, 128), (224, 224, 192))
    ]
    assert len({voc_color(i) for i in range(256)}) == 256
    assert (len(VOC), VOC.names[15], VOC.names[20]) == (21, "person", "tvmonitor")
    assert (len(CAMVID), CAMVID.names[3]) == (11, "Road")


def test_colours_of_a_mask_lead_back_to_it() -> None:
    mask = np.array([[0, 3, IGNORE], [10, 1, 2]], np.uint8)
    known = {color: label for label, color in enumerate(CAMVID.colors)}
    again, strangers = labels_from_colors(CAMVID.colorize(mask), known)
    np.testing.assert_array_equal(again, mask)
    assert strangers == {(224, 224, 192)}


@pytest.mark.parametrize(
    ("names", "colors", "says"),
    [
        ((), (), "2 to 65535 classes, not 0"),
        (("dog",), (), r"name the background too: names = \[\"background\", \"dog\"\]"),
        (tuple(map(str, range(65536))), (), "not 65536"),
        (("a", "b", "a"), (), "more than once: a"),
        ((1, 2), (), "must be strings"),
        (("a", "b"), ((1, 2, 3),), "2 class names but 1 colours"),
        (("a", "b"), ((1, 2, 256), (0, 0, 0)), "0 to 255"),
        (("a", "b"), ((1, 2), (0, 0, 0)), r"three numbers from 0 to 255, not \(1, 2\)"),
        (("a", "b"), ("red", (0, 0, 0)), "three numbers from 0 to 255, not 'red'"),
        ("cat", (), "not the single string 'cat'"),
    ],
)
def test_an_invalid_label_set_is_refused(
    names: tuple[str, ...], colors: tuple[tuple[int, int, int], ...], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        LabelSet(names, colors)


def test_a_label_set_survives_json() -> None:
    assert LabelSet.from_dict(CAMVID.to_dict()) == CAMVID
