"""The classes of published datasets."""

from __future__ import annotations

from collections.abc import Sequence

from atrous.labels import Color, LabelSet


def _label_set(names: str, colors: Sequence[Color] = ()) -> LabelSet:
    return LabelSet(tuple(names.split(", ")), tuple(colors))


VOC = _label_set(
    "background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, "
    "motorbike, person, pottedplant, sheep, sofa, train, tvmonitor"
)
"""The 21 classes of PASCAL VOC 2012."""

CAMVID = _label_set(
    "Sky, Building, Pole, Road, Pavement, Tree, SignSymbol, Fence, Car, Pedestrian, Bicyclist",
    [
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
    ],
)
"""The 11 classes of CamVid in the split of SegNet."""

NYUD = _label_set(
    "wall, floor, cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, blinds, desk, "
    "shelves, curtain, dresser, pillow, mirror, floor mat, clothes, ceiling, books, refridgerator, television, "
    "paper, towel, shower curtain, box, whiteboard, person, night stand, toilet, sink, lamp, bathtub, bag, "
    "otherstructure, otherfurniture, otherprop"
)
"""The 40 classes of NYUDv2 (Gupta, Arbeláez and Malik, CVPR 2013)."""

SIFT_FLOW = _label_set(
    "awning, balcony, bird, boat, bridge, building, bus, car, cow, crosswalk, desert, door, fence, field, grass, "
    "moon, mountain, person, plant, pole, river, road, rock, sand, sea, sidewalk, sign, sky, staircase, "
    "streetlight, sun, tree, window"
)
"""The 33 semantic classes of SIFT Flow; its test set has no cow, desert or moon."""

GEOMETRIC = _label_set("sky, horizontal, vertical")
"""The 3 geometric classes of SIFT Flow."""

PASCAL_CONTEXT = _label_set(
    "background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, "
    "motorbike, person, pottedplant, sheep, sofa, train, tvmonitor, bag, bed, bench, book, building, cabinet, "
    "ceiling, clothes, computer, cup, door, fence, floor, flower, food, grass, ground, keyboard, light, "
    "mountain, mouse, curtain, platform, sign, plate, road, rock, shelves, sidewalk, sky, snow, bedcloth, track, "
    "tree, truck, wall, water, window, wood"
)
"""The 59 classes of the task of PASCAL-Context, after a background of everything else."""

PERSON_PART = _label_set("background, head, torso, upper arms, lower arms, upper legs, lower legs")
"""The 7 classes of PASCAL-Person-Part."""

CITYSCAPES = _label_set(
    "road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person, "
    "rider, car, truck, bus, train, motorcycle, bicycle",
    [
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ],
)
"""The 19 evaluated classes of Cityscapes, in the order of their train ids."""

ADE20K = _label_set(
    "wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, "
    "door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, "
    "field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, "
    "signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, "
    "stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, "
    "coffee table, toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, "
    "swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, "
    "streetlight, booth, television, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, "
    "bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, "
    "swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, "
    "trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, "
    "vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, "
    "glass, clock, flag"
)
"""The 150 classes of the scene parsing benchmark of ADE20K, each by the first of its names."""
