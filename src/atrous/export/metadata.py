"""What an exported file says about itself."""

from __future__ import annotations

import json

from atrous.models.base import SegmentationModel
from atrous.models.saving import describe

TILE = 512
"""Side of the tiles that a program is advised to cut a large image into."""
OVERLAP = 25
"""Percent of a tile that its neighbour shares."""


def metadata(model: SegmentationModel) -> dict[str, str]:
    """The texts that an exported file carries, by key.

    ``atrous`` is the ``config.json`` of the model's folder. The others are those that QGIS's Deepness plugin reads,
    each as JSON.
    """
    deepness = {
        "model_type": "Segmentor",
        "class_names": {str(number): name for number, name in enumerate(model.label_set.names)},
        "resolution": 100,  # centimetres a pixel; a user sets the true one
        "tile_size": TILE,  # what the plugin's code reads; its documentation says tiles_size
        "tiles_size": TILE,
        "tiles_overlap": OVERLAP,
        "seg_thresh": 0.5,
        "seg_small_segment": 0,
    }
    config = json.dumps(describe(model, {}), indent=2, ensure_ascii=False) + "\n"
    return {"atrous": config} | {key: json.dumps(value, ensure_ascii=False) for key, value in deepness.items()}
