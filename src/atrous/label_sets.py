"""The classes of published datasets, and what these call them on disk (SPEC §6.2–6.7)."""

from __future__ import annotations

from atrous.labels import LabelSet

VOC = LabelSet(
    (
        *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
        *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
    )
)
"""The 21 classes of PASCAL VOC 2012."""

CAMVID = LabelSet(
    ("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
    (
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)
"""The 11 classes of CamVid in the SegNet split; its void, 11 on disk, is read as 255."""

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

PERSON_PART = LabelSet(("background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs"))
"""The 7 classes of PASCAL-Person-Part."""

PARTS_MERGED = {
    **dict.fromkeys(("head", "leye", "reye", "lear", "rear", "lebrow", "rebrow", "nose", "mouth", "hair"), "head"),
    **dict.fromkeys(("torso", "neck"), "torso"),
    **dict.fromkeys(("luarm", "ruarm"), "upper arms"),
    **dict.fromkeys(("llarm", "rlarm", "lhand", "rhand"), "lower arms"),
    **dict.fromkeys(("luleg", "ruleg"), "upper legs"),
    **dict.fromkeys(("llleg", "rlleg", "lfoot", "rfoot"), "lower legs"),
}
"""The 24 parts of a person in PASCAL-Part, each with its class. The papers do not say where the neck belongs; the usual
merge, this one, takes it for torso.
"""

VOC_IN_COCO = {
    **{"aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle"},
    **{"pottedplant": "potted plant", "sofa": "couch", "tvmonitor": "tv"},
}
"""Those of VOC's classes that COCO calls otherwise."""

CITYSCAPES = LabelSet(
    (
        *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
        *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
    ),
    (
        *((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153)),
        *((250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0)),
        *((0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32)),
    ),
)
"""The 19 classes of Cityscapes by which methods are judged, in the order of their train ids."""

CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""What they are in Cityscapes' own pictures; every other id is judged by nobody."""

ADE20K = LabelSet(
    (
        *("wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet"),
        *("sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water"),
        *("painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk"),
        *("rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box", "column", "signboard"),
        *("chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand"),
        *("path", "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge"),
        *("bookcase", "blind", "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove"),
        *("palm", "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus"),
        *("towel", "light", "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television", "airplane"),
        *("dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet", "poster"),
        *("stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool"),
        *("stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food"),
        *("step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen"),
        *("blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier"),
        *("crt screen", "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag"),
    )
)
"""The 150 classes of ADE20K's scene parsing, each by the first of its names."""
