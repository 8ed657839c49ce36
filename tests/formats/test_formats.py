"""A file of each kind, kept as version 1 wrote it, is read for good. A version 2 gets a folder of its own beside v1."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import atrous
from atrous.errors import AtrousError
from atrous.evaluation.stored import read_evaluation
from atrous.export.proof import Proof
from atrous.inference.prediction_files import PredictionReader
from atrous.models.model_config import read_config
from atrous.training.recipe import Recipe, check_recipe
from atrous.training.recipe_file import load_recipe

V1 = Path(__file__).parent / "v1"


def test_a_model_folder(tmp_path: Path) -> None:
    stored = read_config(V1 / "config.json")
    names = stored["label_set"]["names"]
    model = atrous.create_model(
        stored["architecture"],
        backbone=stored["backbone"],
        label_set=names,
        output_stride=stored["output_stride"],
        **stored["options"],
    ).eval()
    model.save(tmp_path / "model")
    shutil.copy(V1 / "config.json", tmp_path / "model" / "config.json")
    read = atrous.load(tmp_path / "model")
    assert (read.name, read.label_set.names, read.output_stride) == ("deeplabv3plus", ("ground", "road"), 16)
    image = np.full((30, 40, 3), 90, np.uint8)
    assert (atrous.predict(read, image).labels == atrous.predict(model, image).labels).all()


def test_a_recipe() -> None:
    recipe = load_recipe(V1 / "recipe.toml")
    assert (recipe.format, recipe.augment.crop, recipe.training.ema) == (1, 321, 0.99)


def test_every_key_of_a_recipe_as_runs_keep_it() -> None:
    kept = json.loads((V1 / "recipe_of_a_run.json").read_text())
    recipe = check_recipe(kept)
    now = recipe.model_dump(mode="json")
    for section, values in kept.items():
        assert values == now[section] or values.items() <= now[section].items()


def test_an_evaluation() -> None:
    found = read_evaluation(V1 / "evaluation.json")
    assert found.mean_iou == pytest.approx(0.34008, abs=1e-5)
    assert [row.name for row in found.classes] == ["ground", "road"]
    assert len(found.per_image().names) == found.images == 3


def test_class_probabilities() -> None:
    unary = PredictionReader()(V1 / "image.probabilities.npz", (30, 40), 1)
    assert unary.energies.shape == (2, 30, 40)
    assert unary.label_set is not None
    assert unary.label_set.names == ("ground", "road")


def test_a_proof() -> None:
    kept = json.loads((V1 / "model.proof.json").read_text())
    assert kept.pop("format") == 1
    assert set(kept) <= {field.name for field in dataclasses.fields(Proof)}


@pytest.mark.parametrize("kind", ["config.json", "recipe.toml", "evaluation.json", "image.probabilities.npz"])
def test_a_newer_format_is_refused_by_its_number(kind: str, tmp_path: Path) -> None:
    file = tmp_path / kind
    if kind.endswith(".npz"):
        np.savez(file, **{**np.load(V1 / kind), "format": np.array(99)})
    else:
        file.write_text(
            (V1 / kind).read_text().replace('"format": 1', '"format": 99').replace("format = 1", "format = 99")
        )
    readers = {
        "config.json": read_config,
        "recipe.toml": load_recipe,
        "evaluation.json": read_evaluation,
        "image.probabilities.npz": lambda file: PredictionReader()(file, (30, 40), 1),
    }
    newest = 2 if kind == "config.json" else 1  # 2: images of other types than uint8
    with pytest.raises(AtrousError, match=f"has format 99, this atrous reads up to {newest}: upgrade atrous"):
        readers[kind](file)


def test_recipes_without_a_version_are_of_version_1() -> None:
    assert Recipe.model_fields["format"].default == 1
