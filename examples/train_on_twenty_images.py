"""From twenty images to a model: make a folder, train, evaluate, predict. Offline, about a minute on two cores.

python examples/train_on_twenty_images.py --out twenty
"""

from __future__ import annotations

import argparse
from pathlib import Path

import atrous
from atrous.evaluation.report import table

from shapes import make_folder  # isort: skip


def main() -> None:
    """Train the recipe for folders from the bundled model, so that no weights are downloaded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("twenty"), help="folder for images, run and masks")
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()

    folder = make_folder(arguments.out / "images-and-masks")
    recipe = atrous.load_recipe(
        "folder_deeplabv3plus_lite0",
        [
            f"data.train=folder:{folder}",
            "data.workers=0",
            "model.start_from=deeplabv3plus_lite0_voc",  # all but the classifier, whose classes are others
            "model.pretrained=false",
            "augment.crop=129",
            "training.batch_size=4",
            "training.precision=float32",
            "training.ema=",  # an average over so few steps would lag behind
            f"training.steps={arguments.steps}",
            f"training.validate_every={arguments.steps}",
            "schedule.warmup=5",
        ],
    )
    result = atrous.train(recipe, arguments.out / "run")
    model = atrous.load(result.best)
    evaluation = atrous.evaluate(model, atrous.open_dataset(f"folder:{folder}", "val"))
    print(table(evaluation))
    image = next((folder / "images").glob("*.png"))
    atrous.predict(model, image).save(arguments.out / "mask.png")
    print(f"a mask of {image} is in {arguments.out / 'mask.png'}")


if __name__ == "__main__":
    main()
