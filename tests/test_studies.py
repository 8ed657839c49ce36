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


def test_claims_are_held_against_what_another_seed_changes(monkeypatch):
    monkeypatch.syspath_prepend(RECIPES.parent / "scripts")
    from claims import verdicts

    def judged(all_pixels, near):
        frequent = {"mean_iou": all_pixels}
        return {
            "mean_iou": all_pixels,
            "mean_iou_of_frequent_classes": frequent,
            "trimap": [{"width": 1, "mean_iou": near}],
        }

    facts = {"a": judged(0.50, 0.2), "a again": judged(0.51, 0.2), "b": judged(0.505, 0.2), "c": judged(0.6, 0.4)}
    study = {
        "row": [{"name": "a"}, {"name": "a again", "again": "a"}, {"name": "b"}, {"name": "c"}],
        "claim": [
            {"says": "c is best", "order": [["a", "b"], "c"]},
            {"says": "b beats c", "order": ["c", "b"]},
            {"says": "b beats a", "order": ["a", "b"]},
            {"says": "most at boundaries", "gain": ["a", "c"]},
            {"says": "not run yet", "order": ["a", "d"]},
        ],
    }
    assert verdicts(study, facts).splitlines()[2:] == [
        "- c is best: holds (50.00, 50.50 < 60.00).",
        "- b beats c: does not hold (60.00 ≮ 50.50).",
        "- b beats a: undecided (50.00 < 50.50: less than another seed changes, 1.00).",
        "- most at boundaries: holds (all pixels +10.00, within 1 px +20.00).",
    ]
