"""Every row of every study is a recipe that can be trained; claims are checked against the noise of seeds."""

import importlib
import json
import pkgutil
import shutil
import sys

import pytest

import benchmarks
import studies
from atrous.errors import InputError
from atrous.training.recipe import check_recipe
from atrous.training.recipe_file import load_recipe, shipped
from benchmarks._compare import Comparison, write_comparisons
from benchmarks._images import make_images
from studies import page, results
from studies import study as study_module
from studies.__main__ import main
from studies.claims import verdicts
from studies.page import write_study
from studies.results import Result, Section, origin_of, read
from studies.rows import Part, check, run
from studies.study import RECIPES, Study, load_study, names, run_folder

PEERS = {"albumentations", "pydensecrf", "segmentation_models_pytorch", "torchmetrics"}
"""Libraries that only benchmarks need."""
MODULES = [
    module.name
    for package in (studies, benchmarks)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]
DATA = {"name": "here", "recipe": "r.toml", "classes": ["sky"]}


def make_study(rows, claims=(), data=(DATA,)) -> Study:
    return Study(name="which", title="Which", paper="It says so.", data=list(data), row=rows, claim=list(claims))


@pytest.mark.parametrize("name", names())
def test_every_row_is_a_recipe(name):
    study = load_study(name)
    rows = [row.name for row in study.rows]
    assert len(set(rows)) == len(rows)
    assert all(claim.compared <= set(rows) for claim in study.claims)
    for number, row in enumerate(study.rows):
        assert row.network is None or row.network in rows[:number]  # its network is trained before
        assert row.repeats is None or row.repeats in rows
        for data in study.data:
            for settings in ([*data.set, *row.set], [*data.gpu, *row.set, *row.gpu]):
                load_recipe(RECIPES / data.recipe, settings)


def test_the_folder_that_is_shipped_as_recipes_contains_nothing_else():
    files = [file for file in RECIPES.rglob("*") if file.is_file()]
    assert all(load_recipe(file).description for file in files)
    assert sorted(file.stem for file in files) == sorted(shipped())


def test_an_unknown_study_is_refused():
    with pytest.raises(InputError, match=r"no study 'nothing'; studies: attention, .*fcn_skips"):
        load_study("nothing")


def test_the_list_names_every_study(capsys):
    main(list_=True)
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()] == names()


def test_claims_are_held_against_what_another_seed_changes():
    def evaluated(all_pixels, near):
        frequent = {"mean_iou": all_pixels}
        return {
            "mean_iou": all_pixels,
            "mean_iou_of_frequent_classes": frequent,
            "trimap": [{"width": 1, "mean_iou": near}],
        }

    facts = {
        "a": evaluated(0.50, 0.2),
        "a again": evaluated(0.51, 0.2),
        "b": evaluated(0.505, 0.2),
        "c": evaluated(0.6, 0.4),
        "a in bands": evaluated(0.504, 0.2),
    }
    rows = [{"name": "a"}, {"name": "a again", "repeats": "a"}, {"name": "b"}, {"name": "c"}]
    study = make_study(
        [*rows, {"name": "a in bands", "network": "a"}],
        [
            {"statement": "c is best", "order": [["a", "b"], "c"]},
            {"statement": "b beats c", "order": ["c", "b"]},
            {"statement": "b beats a", "order": ["a", "b"]},
            {"statement": "bands help the same network", "order": ["a", "a in bands"]},
            {"statement": "most at boundaries", "gain": ["a", "c"]},
            {"statement": "not run yet", "order": ["a", "d"]},
        ],
    )
    assert verdicts(study, facts).splitlines()[2:] == [
        "- c is best: holds (50.00, 50.50 < 60.00).",
        "- b beats c: does not hold (60.00 ≮ 50.50).",
        "- b beats a: undecided (50.00 < 50.50: within the difference between seeds, 1.00).",
        "- bands help the same network: holds (50.00 < 50.40).",
        "- most at boundaries: holds (all pixels +10.00, within 1 px +20.00).",
    ]


@pytest.fixture
def room(monkeypatch, tmp_path):
    """A repository of its own for runs and results."""
    monkeypatch.setattr(study_module, "ROOT", tmp_path)
    monkeypatch.setattr(page, "RESULTS", tmp_path / "results")
    return tmp_path


def write_run(study, row, mean_iou, epochs=50):
    """A finished and evaluated run of a row."""
    folder = run_folder(study, study.data[0], row)
    folder.mkdir(parents=True, exist_ok=True)
    table = {"data": {"train": "folder:x"}, "training": {"epochs": epochs}}
    recipe = check_recipe(table, "test").model_dump(mode="json")
    place = {"commit": "0123", "hardware": "a GPU", "versions": {}}
    (folder / "run.json").write_text(json.dumps({"recipe": recipe, **place}))
    log = [
        {"step": 1, "loss": 2.0},
        {"step": 1, "mean_iou": 0.1},
        {"step": 2, "loss": 1.0},
        {"mean_iou": 0.2, "step": 2},
    ]
    (folder / "log.jsonl").write_text("\n".join(json.dumps(line) for line in log))
    facts = dict.fromkeys(("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou"), mean_iou) | {
        "mean_iou_of_frequent_classes": {"mean_iou": mean_iou, "min_images": 10},
        "trimap": [],
        "images": 3,
        "classes": [{"name": "sky", "iou": mean_iou}],
        "data": "folder:val",
        "confusion": [[1]],
        "minutes": 2.0,
        "multiply_adds": 2e9,
        "milliseconds": 5.0,
        "parameters": 1_000_000,
        "provenance": {"hardware": "a machine", "commit": "abc"},
    }
    (folder / "evaluation.json").write_text(json.dumps(facts))


def test_a_page_keeps_what_was_run_elsewhere(room):
    study = make_study(
        [{"name": "a", "paper": 62.3}, {"name": "b"}, {"name": "a in bands", "network": "a"}],
        data=[DATA | {"name": name} for name in ("here", "there", "nowhere")],
    )
    file = room / "results" / "studies" / "which.md"
    with pytest.raises(FileNotFoundError, match="no row of which was evaluated"):
        write_study(study)
    file.parent.mkdir(parents=True)
    file.write_text("# Which\n\n## there\n\nof long ago\n\n## gone\n\nof no data\n")
    write_run(study, "a", 0.25)
    write_run(study, "a in bands", 0.375)
    text = write_study(study)
    kept = (
        "62.30 |      25.00 |",
        "| 37.50 |",
        "| 1.000 |",
        "of long ago",
        "Not run yet: `python -m studies which --data nowh",
    )
    assert all(part in text for part in kept)
    assert "of no data" not in text
    shutil.rmtree(room / "runs")  # a fresh clone has the page and its JSON
    assert "Budget of each row: 50 epochs over train" in text
    write_run(study, "b", 0.5, epochs=3)
    text = write_study(study)
    assert [line.split("|")[1].strip() for line in text.splitlines() if "1.00 M" in line] == ["a", "b", "a in bands"]
    assert "Trained on a GPU, commit 0123; evaluated and timed on a machine, commit abc." in text
    assert "Budget of a; a in bands: 50 epochs" in text
    assert "Budget of b: 3 epochs" in text
    assert text == file.read_text()
    assert write_study(study) == text
    assert "confusion" not in file.with_suffix(".json").read_text()


def test_rows_begun_with_another_recipe_or_without_their_network_are_refused(room, monkeypatch):
    study = make_study([{"name": "a"}, {"name": "a in bands", "network": "a"}])
    recipe = check_recipe({"data": {"train": "folder:x"}, "training": {"epochs": 7}}, "test")
    monkeypatch.setattr("studies.rows.recipe_for", lambda data, row: recipe)
    check(study, study.data[0], study.rows)
    with pytest.raises(InputError, match="evaluates the network of --row 'a', not trained yet"):
        check(study, study.data[0], study.rows[1:])
    write_run(study, "a", 0.25)
    with pytest.raises(InputError, match=r"trained with another recipe: .*epochs"):
        check(study, study.data[0], study.rows)
    run(study, study.data[0], study.rows[0], Part.all)  # done: nothing happens


SMALL = [
    "data.val_split=train",
    "data.workers=0",
    "model.backbone=test_efficientnet",
    "model.pretrained=false",
    "model.options.channels=16",
    "augment.crop=65",
    "training.precision=float32",
    "training.batch_size=2",
    "training.steps=2",
]


@pytest.mark.slow
def test_a_study_trains_evaluates_and_shows_its_rows(room, monkeypatch, capsys):
    make_images(room / "data", 4)
    data = DATA | {"recipe": "folder_deeplabv3plus_lite0.toml", "classes": ["class 0"]}
    settings = [f"data.train=folder:{room / 'data'}", *SMALL]
    claim = {"statement": "coarser is faster", "order": ["a", "a at stride 32"]}
    study = make_study(
        [{"name": "a"}, {"name": "a at stride 32", "network": "a", "attributes": {"output_stride": 32}, "images": 2}],
        [claim],
        [data | {"set": settings, "gpu": settings}],
    ).model_copy(update={"trimap": (3,)})
    monkeypatch.setattr("studies.__main__.load_study", lambda name: study)
    monkeypatch.setattr("studies.samples.ROOT", room)
    main("which", part=Part.train)
    assert not list(room.rglob("evaluation.json"))
    main("which", part=Part.evaluate)
    page_text = (room / "results" / "studies" / "which.md").read_text()
    assert page_text in capsys.readouterr().out
    assert "Budget of each row: 2 steps over train, batch 2, crop 65, backbone test_efficientnet." in page_text
    assert "- coarser is faster: " in page_text
    assert len(list(room.rglob("images/*.png"))) == 4


def test_a_result_is_a_page_and_its_facts_and_keeps_the_sections_of_earlier_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--data", "a b"])
    command = results.command_line("studies.x")
    assert command == "python -m studies.x --data 'a b'"
    origin = origin_of(command, seed=3, commit="0123")
    first = Section("First", "Read so.", [["name", "ms"], ["a", "5"]], "- a note", {"a": 0.005}, origin)
    Result("Speed", command, ["A note."], {"first": first}).write(tmp_path / "speed")
    Result("Speed", command, ["A note."], {"second": Section("Second", "None.")}).write(tmp_path / "speed")
    text = (tmp_path / "speed.md").read_text()
    assert text.startswith(f"# Speed\n\nGenerated by `{command}`; do not edit.\n\n- A note.\n\n## First\n\nRead so.\n")
    assert "commit 0123 (+: with uncommitted changes), seed 3." in text
    assert text.endswith("## Second\n\nNone.\n")
    assert read(tmp_path / "speed.json").markdown() == text


@pytest.mark.parametrize("name", MODULES)
def test_every_module_of_studies_and_benchmarks_can_be_imported(name, monkeypatch):
    for variable in ("NO_ALBUMENTATIONS_UPDATE", "HF_HUB_OFFLINE"):  # they are set on import, and put back here
        monkeypatch.setenv(variable, "1")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in PEERS:
            raise
        pytest.skip(f"needs {error.name}")


def test_committed_pages_are_written_from_their_facts():
    files = [file for file in results.RESULTS.rglob("*.json") if file.with_suffix("").name not in names()]
    assert len(files) > 8
    for file in files:
        assert read(file).markdown() == file.with_suffix(".md").read_text(encoding="utf-8"), file


@pytest.mark.parametrize(
    "name", [file.stem for file in (results.RESULTS / "studies").glob("*.json") if file.stem in names()]
)
def test_committed_pages_of_studies_are_written_from_their_facts(name, room):
    for kind in ("json", "md"):
        copy = room / "results" / "studies" / f"{name}.{kind}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(results.RESULTS / "studies" / copy.name, copy)
    assert write_study(load_study(name)) == (results.RESULTS / "studies" / f"{name}.md").read_text(encoding="utf-8")


def test_a_comparison_is_a_row_and_its_facts(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks._compare.FOLDER", tmp_path)
    row = Comparison("work", "peer", [0.001, 0.002, 0.001], [0.01, 0.01, 0.01], target=11, floor=0.0005)
    write_comparisons("speed", "Speed", [row], seed=0, notes=["A note."])
    text = (tmp_path / "speed.md").read_text()
    assert "10.0× (5.0–10.0) | ≥ 11×: MISSED | 0.5 ms (best: 2.0× of it) |" in text
    assert "Generated by `python -m benchmarks.speed" in text
    facts = json.loads((tmp_path / "speed.json").read_text())["sections"]["comparisons"]
    assert facts["facts"][0]["median_ratio"] == pytest.approx(10)
    assert facts["origin"]["seed"] == 0
