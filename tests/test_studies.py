"""Every row of every study is a recipe that can be trained."""

import tomllib
from pathlib import Path

import pytest

from atrous.training.recipe import load_recipe

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
STUDIES = sorted((RECIPES / "studies").glob("*.toml"))


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_row_is_a_recipe(file):
    study = tomllib.loads(file.read_text(encoding="utf-8"))
    assert set(study) <= {"title", "paper", "trimap", "data", "row", "claim"}
    names = [row["name"] for row in study["row"]]
    assert len(set(names)) == len(names)
    for claim in study.get("claim", ()):
        compared = [
            name
            for group in claim.get("order", claim.get("gain"))
            for name in [group] * isinstance(group, str) or group
        ]
        assert set(compared) <= set(names)
    for row in study["row"]:
        assert set(row) <= {"name", "set", "gpu", "pictures", "of", "change", "method", "again"}
        assert {row.get("of", names[0]), row.get("again", names[0])} <= set(names)
        for where in study["data"]:
            for settings in (where["set"], [*where["gpu"], *row.get("gpu", [])]):
                load_recipe(RECIPES / where["recipe"], [*settings, *row.get("set", [])])
