"""The classes of NYUDv2, SIFT Flow and PASCAL-Context (SPEC §6.2–6.4)."""

from __future__ import annotations

from atrous.labels import VOC, LabelSet

NYUD = LabelSet(
    (
        *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture"),
        *("counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes"),
        *("ceiling", "books", "refridgerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard"),
        *("person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture"),
        "otherprop",
    )
)
"""The 40 classes of NYUDv2 (Gupta, Arbeláez and Malik, CVPR 2013)."""

SIFT_FLOW = LabelSet(
    (
        *("awning", "balcony", "bird", "boat", "bridge", "building", "bus", "car", "cow", "crosswalk", "desert"),
        *("door", "fence", "field", "grass", "moon", "mountain", "person", "plant", "pole", "river", "road", "rock"),
        *("sand", "sea", "sidewalk", "sign", "sky", "staircase", "streetlight", "sun", "tree", "window"),
    )
)
"""The 33 semantic classes of SIFT Flow; its test set has no cow, desert or moon."""

GEOMETRIC = LabelSet(("sky", "horizontal", "vertical"))
"""The 3 geometric classes of SIFT Flow."""

CONTEXT_NUMBERS = {
    **{"aeroplane": 2, "bicycle": 23, "bird": 25, "boat": 31, "bottle": 34, "bus": 45, "car": 59, "cat": 65},
    **{"chair": 72, "cow": 98, "diningtable": 397, "dog": 113, "horse": 207, "motorbike": 258, "person": 284},
    **{"pottedplant": 308, "sheep": 347, "sofa": 368, "train": 416, "tvmonitor": 427, "bag": 9, "bed": 18},
    **{"bench": 22, "book": 33, "building": 44, "cabinet": 46, "ceiling": 68, "clothes": 80, "computer": 85},
    **{"cup": 104, "door": 115, "fence": 144, "floor": 158, "flower": 159, "food": 162, "grass": 187, "ground": 189},
    **{"keyboard": 220, "light": 232, "mountain": 259, "mouse": 260, "curtain": 105, "platform": 296, "sign": 355},
    **{"plate": 295, "road": 324, "rock": 326, "shelves": 349, "sidewalk": 354, "sky": 360, "snow": 366},
    **{"bedcloth": 19, "track": 415, "tree": 420, "truck": 424, "wall": 440, "water": 445, "window": 454, "wood": 458},
}
"""The 59 classes of PASCAL-Context's task in their order, each with its number among the 459 that were annotated, where
three have another name: diningtable is table, bedcloth bedclothes, and clothes cloth.
"""
CONTEXT_ANNOTATED = 459

PASCAL_CONTEXT = LabelSet((VOC.names[0], *CONTEXT_NUMBERS))
"""Those 59, behind a background of everything else."""
