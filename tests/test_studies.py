"""Every row of every study is a recipe that can be trained."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest

from atrous.training.recipe import check_recipe
from atrous.training.recipe_file import load_recipe

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
        assert set(row) <= {"name", "set", "gpu", "paper", "images", "of", "change", "again"}
        assert row.get("of", names[0]) in names[: names.index(row["name"]) or 1]  # its network is trained before
        assert row.get("again", names[0]) in names
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


def test_a_page_keeps_what_was_run_elsewhere(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(RECIPES.parent / "scripts")
    import study_page

    monkeypatch.setattr(study_page, "ROOT", tmp_path)
    monkeypatch.setattr(study_page, "RESULTS", tmp_path / "results")
    study = {
        "title": "Which",
        "paper": "It says so.",
        "data": [{"name": name, "recipe": "r.toml", "classes": ["sky"]} for name in ("here", "there", "nowhere")],
        "row": [{"name": "a", "paper": 62.3}, {"name": "b"}, {"name": "a in bands", "of": "a", "change": {}}],
    }
    page = tmp_path / "results" / "which.md"
    with pytest.raises(FileNotFoundError, match="no row of which was judged"):
        study_page.write("which", study)
    page.parent.mkdir()
    page.write_text("# Which\n\n## there\n\nof long ago\n\n## gone\n\nof no data\n")

    def run(row, mean_iou, epochs=50):
        folder = study_page.run_folder("which", study["data"][0], row)
        folder.mkdir(parents=True, exist_ok=True)
        recipe = check_recipe({"data": {"train": "folder:x"}, "training": {"epochs": epochs}}, "test").model_dump(
            mode="json"
        )
        place = {"commit": "0123", "hardware": "a GPU", "versions": {}}
        (folder / "run.json").write_text(json.dumps({"recipe": recipe, **place}))
        log = [
            {"step": 1, "loss": 2.0},
            {"step": 1, "mean_iou": 0.1},
            {"step": 2, "loss": 1.0},
            {"mean_iou": 0.2, "step": 2},
        ]
        (folder / "log.jsonl").write_text("\n".join(json.dumps(line) for line in log))
        scores = dict.fromkeys(("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou"), mean_iou)
        facts = {
            "mean_iou_of_frequent_classes": {"mean_iou": mean_iou, "min_images": 10},
            "trimap": [],
            "images": 3,
        }
        facts |= {
            "classes": [{"name": "sky", "iou": mean_iou}],
            "data": "folder:val",
            "confusion": [[1]],
            "minutes": 2.0,
        }
        facts |= {"multiply_adds": 2e9, "milliseconds": 5.0, "parameters": 1_000_000}
        facts |= {"provenance": {"hardware": "a machine", "commit": "abc"}}
        (folder / "judged.json").write_text(json.dumps(scores | facts))

    run("a", 0.25)
    run("a in bands", 0.375)
    text = study_page.write("which", study)
    kept = (
        "62.30 |      25.00 |",
        "| 37.50 |",
        "| 1.000 |",
        "of long ago",
        "Not run yet: `python scripts/study.py which --data nowh",
    )
    assert all(said in text for said in kept)
    assert "of no data" not in text
    shutil.rmtree(tmp_path / "runs")  # a fresh clone has the page and its JSON
    assert "Budget of each row: 50 epochs over train" in text
    run("b", 0.5, epochs=3)
    text = study_page.write("which", study)
    assert [line.split("|")[1].strip() for line in text.splitlines() if "1.00 M" in line] == ["a", "b", "a in bands"]
    assert "Trained on a GPU, commit 0123; judged and timed on a machine, commit abc." in text
    assert "Budget of a; a in bands: 50 epochs" in text
    assert "Budget of b: 3 epochs" in text
    assert text + "\n" == page.read_text()
    assert "confusion" not in page.with_suffix(".json").read_text()
