"""Recipes: the shipped ones are valid; every mistake is reported with its setting."""

import tomllib
from pathlib import Path

import pytest

from atrous.data.sources.registry import SOURCES
from atrous.training.recipe import RecipeError, check_recipe
from atrous.training.recipe_file import load_recipe, shipped

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
RECIPES = sorted(FOLDER.glob("*_*.toml"))
DATA = {"train": "voc:there"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_and_described(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.description
    assert recipe.data.train.partition(":")[0] in SOURCES


def test_there_are_recipes() -> None:
    assert RECIPES


def mistakes(table: dict[str, object]) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        check_recipe(table, "mine.toml")
    first, *rest = str(caught.value).splitlines()
    assert first == "mine.toml:"
    return [line.strip() for line in rest]


def test_an_unknown_key_lists_what_its_section_has() -> None:
    (line,) = mistakes({"data": DATA, "training": {"epoch": 3}})
    assert line.startswith(
        "training.epoch: there is no such setting; did you mean epochs? (this section has: epochs, steps, batch_size"
    )
    (line,) = mistakes({"data": DATA, "trainign": {}})
    assert "did you mean training? (this section has: description, model, data, augment, optimizer, " in line


def test_several_mistakes_are_all_named() -> None:
    lines = mistakes(
        {"training": {"epochs": "many", "batch_size": 0}, "optimizer": {"name": "adam", "lr": float("inf")}}
    )
    places = [line.partition(":")[0] for line in lines]
    assert places == ["optimizer.name", "optimizer.lr", "training.epochs", "training.batch_size"]
    assert "'many'" in lines[2]


@pytest.mark.parametrize(
    ("section", "values", "says"),
    [
        ("model", {"name": "unet"}, "model.name: no model 'unet'; there are: "),
        ("model", {"output_stride": 12}, "model.output_stride: Input should be one of 4, 8, 16, 32, not 12"),
        ("augment", {"scale": [2, 0.5]}, "smallest ≤ largest, not [2.0, 0.5]"),
        ("augment", {"scale": [1]}, "augment.scale: Field required"),
        ("augment", {"scale_set": "1,0.5"}, "augment.scale_set: Input should be a valid list, not '1,0.5'"),
        (
            "augment",
            {"crop": 16},
            "augment.crop: Input should be greater than or equal to 32, not 16, or: Input should be 'whole'",
        ),
        (
            "augment",
            {"flip": "perhaps"},
            "augment.flip: Input should be a valid boolean",
        ),
        ("model", {"options": 1}, "model.options: Input should be a valid dictionary, not 1"),
        (
            "loss",
            {"class_weights": [1, -2]},
            "'none', 'auto' or 'inverse_log', not [1, -2], or: Input should be greater than or equal to 0, not -2",
        ),
        ("training", {"batch_size": 8, "accumulate": 3}, "batch_size 8 does not divide into accumulate = 3"),
        ("training", {"ema": 1.0}, "training.ema: Input should be less than 1, not 1.0"),
        ("training", {"only": "msc."}, "training.only: Input should be a valid list, not 'msc.'"),
        ("training", {"seed": 2**40}, "training.seed"),
        ("data", {"workers": -1}, "data.workers"),
        (
            "augment",
            {"function": "numpy:nothing"},
            "function: 'numpy:nothing': the module numpy has no function",
        ),
        ("augment", {"function": "no_such.module:f"}, "can't import 'no_such.module' (No module named 'no_such')"),
        ("augment", {"function": "flip"}, "augment.function: 'flip' is not of the form module:function"),
        (
            "loss",
            {"name": "hinge"},
            "loss: no loss 'hinge'; there are: boundary, cross_entropy",
        ),
        ("loss", {"name": "no_such:f"}, "can't import 'no_such'"),
        ("loss", {"name": {}}, "at least one loss is needed"),
        ("loss", {"name": {"dice": 0}}, "loss.name: Input should be a valid string"),
        ("loss", {"name": "focal", "options": {"gama": 1}}, "options.gama: focal has no such option; it has: gamma"),
        ("loss", {"name": "boundary", "options": {"a": 1}}, "options.a: boundary has no such option; it has none"),
        (
            "loss",
            {"name": "focal", "options": {"gamma": -1}},
            "options.gamma: Input should be greater",
        ),
        ("loss", {"name": {"dice": 1, "focal": 1}, "options": {"smooth": 1}}, "options.smooth: with several losses"),
        ("loss", {"name": {"dice": 1}, "options": {"dice": 1}}, "options.dice: Input should be a table"),
        ("loss", {"name": "dice", "class_weights": "auto"}, "no loss here takes class weights"),
    ],
)
def test_invalid_values_are_reported_with_the_reason(section: str, values: dict[str, object], says: str) -> None:
    assert says in " ".join(mistakes({"data": DATA} | {section: DATA | values if section == "data" else values}))


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"data": "voc:there"}, "data: Input should be a valid dictionary or instance of DataSection, not 'voc:there'"),
        ({"data": DATA, "model": 1}, "model: Input should be a valid dictionary or instance of ModelSection, not 1"),
        (
            {"data": DATA, "stages": [3]},
            "stages.0: Input should be a valid dictionary or instance of StageSection",
        ),
        ({"data": DATA, "stages": [{"name": "a b"}]}, "stages.0.name: a stage's name consists of letters, digits"),
        (
            {"data": DATA, "stages": [{"name": "a", "changes": {"model": 1}}]},
            "model: Input should be a valid dictionary",
        ),
    ],
)
def test_a_missing_or_malformed_section_is_reported(table: dict[str, object], says: str) -> None:
    assert says in mistakes(table)[-1]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "r.toml"
    path.write_text('[data]\ntrain = "voc:there"\n[training]\nepochs = 5\n')
    return path


def test_overrides_are_toml_values_and_else_strings(file: Path) -> None:
    recipe = load_recipe(
        file,
        [
            "training.epochs=0.5",
            "data.train=folder:my images",
            "augment.scale=[0.75, 1.5]",
            "model.options.separable=true",
            "model.pretrained = false",
            'description="a = b"',
        ],
    )
    assert recipe.training.epochs == 0.5
    assert recipe.data.train == "folder:my images"
    assert recipe.augment.scale == (0.75, 1.5)
    assert recipe.model.options == {"separable": True}
    assert recipe.model.pretrained is False
    assert recipe.description == "a = b"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.epochs", "takes section.key=value"),
        ("=3", "takes section.key=value"),
        ("training..epochs=3", "takes section.key=value"),
        ("training.epochs.more=3", "'epochs' is a value, not a section"),
        ("training.epoch=3", "training.epoch (by --set): there is no such setting; did you mean epochs?"),
        ("training.epochs=three", "not 'three'"),
        (
            "model.output_stride=5",
            "model.output_stride (by --set): Input should be one of 4, 8, 16, 32",
        ),
        ("stages.fine.training.epochs=3", "no such stage; there are: none"),
        ("stages.*.training.epochs=3", "no such stage; there are: none"),
    ],
)
def test_an_invalid_override_is_reported_with_the_reason(file: Path, override: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, [override])
    assert says in str(caught.value)


def test_an_override_without_a_value_is_the_default(file: Path) -> None:
    assert load_recipe(file, ["training.epochs="]).training.epochs == 50
    assert load_recipe(file, ["model.output_stride=8", "model.output_stride="]).model.output_stride is None


STAGED = """
[data]
train = "voc:there"
[[stages]]
name = "a"
[[stages]]
name = "b"
changes = { model.name = "fcn16s", "optimizer.lr" = 0.5, "training.epochs" = 3 }
"""


def lengths(path: Path, *overrides: str) -> list[tuple[int | None, float]]:
    """Steps and epochs of each stage."""
    recipe = load_recipe(path, overrides)
    stages = [recipe.at_stage(stage).training for stage in recipe.stages] or [recipe.training]
    return [(training.steps, training.epochs) for training in stages]


def test_epochs_take_the_place_of_steps_and_the_later_setting_wins(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("[data]\ntrain = 'voc:there'\n[training]\nsteps = 9\n")
    assert lengths(path, "training.epochs=2") == [(None, 2)]
    assert lengths(path, "training.epochs=2", "training.steps=7") == [(7, 2)]
    assert lengths(path, "training.steps=7", "training.epochs=2") == [(None, 2)]
    path.write_text(STAGED.replace('"training.epochs" = 3', '"training.steps" = 3'))
    assert lengths(path, "stages.b.training.epochs=2") == [(None, 50), (None, 2)]
    assert lengths(path, "stages.*.training.epochs=2") == [(None, 2), (None, 2)]
    assert lengths(path, "stages.a.training.epochs=2") == [(None, 2), (3, 50)]


def test_epochs_are_refused_where_steps_elsewhere_are_the_length(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(STAGED.replace('"training.epochs" = 3', '"training.steps" = 3'))
    with pytest.raises(RecipeError, match=r"steps = 3 of a stage is the length; --set stages\.NAME\.training\.epochs="):
        load_recipe(path, ["training.epochs=2"])
    path.write_text(STAGED + "[training]\nsteps = 3\n")
    with pytest.raises(RecipeError, match=r"steps = 3 of the recipe is the length; --set training\.steps= \(no value"):
        load_recipe(path, ["stages.a.training.epochs=2"])
    assert lengths(path, "stages.a.training.epochs=2", "training.steps=")[0] == (None, 2)


def rates(path: Path, *overrides: str) -> list[float]:
    recipe = load_recipe(path, overrides)
    return [recipe.at_stage(stage).optimizer.lr for stage in recipe.stages]


def test_an_override_reaches_one_stage_or_all_and_never_less_than_it_says(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(STAGED)
    assert rates(path) == [0.007, 0.5]
    assert rates(path, "stages.b.optimizer.lr=1") == [0.007, 1]
    assert rates(path, "stages.*.optimizer.lr=1") == [1, 1]
    assert rates(path, "stages.b.optimizer.lr=") == [0.007, 0.007]
    assert rates(path, "optimizer.weight_decay=0", "stages.b.optimizer.lr=") == [0.007, 0.007]
    assert rates(path, "stages.*.optimizer.lr=0.3", "stages.b.optimizer.lr=") == [0.3, 0.3]
    assert rates(path, "stages.*.optimizer.lr=0.3", "stages.*.optimizer.lr=") == [0.007, 0.007]
    recipe = load_recipe(path, ["data.train_split=trainaug"])  # in which the stages do not differ
    assert {recipe.at_stage(stage).data.train_split for stage in recipe.stages} == {"trainaug"}
    assert [recipe.at_stage(stage).model.backbone for stage in recipe.stages] == [recipe.model.backbone] * 2
    for override in ("optimizer.lr=1", "optimizer={}"):
        with pytest.raises(RecipeError, match=r"own, b \(optimizer\.lr = 0\.5\); .*--set stages\.NAME"):
            load_recipe(path, [override])
    for override, says in (
        ("stages.c.optimizer.lr=1", "no such stage; there are: a, b"),
        ("stages.b.optimizer={}", "changed one by one, section.key=value"),
        ("stages.b=5", "changed one by one, section.key=value"),
        ("stages.b.stages.x=5", "a stage can't have stages of its own"),
    ):
        with pytest.raises(RecipeError, match=says):
            load_recipe(path, [override])
    with pytest.raises(RecipeError, match=r"stage b:\n  optimizer\.rate: there is no such setting"):
        load_recipe(path, ["stages.b.optimizer.rate=1"])
    path.write_text(STAGED.replace("model.name", "model.options.rates"))
    with pytest.raises(
        RecipeError, match=r'in quotes, "model\.options" = { … } for all of it, or "model\.options\.rates"'
    ):
        load_recipe(path)
    path.write_text(STAGED.replace("model.name", '"model.options.rates"'))
    options = ["model.name=deeplab_largefov", "model.options={width = 8}"]
    with pytest.raises(RecipeError, match=r"own, b \(model\.options\.rates = 'fcn16s'\)"):
        load_recipe(path, options)
    recipe = load_recipe(path, [options[0], "stages.*.model.options={width = 8}"])
    assert [recipe.at_stage(stage).model.options for stage in recipe.stages] == [{"width": 8}] * 2
    path.write_text(STAGED.replace("changes", "chagnes"))
    with pytest.raises(RecipeError, match=r"stages\.1\.chagnes: there is no such setting; did you mean changes\?"):
        load_recipe(path)


def test_an_unreadable_recipe_is_an_error_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"there is no recipe .*none\.toml"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[data\n")
    with pytest.raises(RecipeError, match=r"bad\.toml can't be read as TOML"):
        load_recipe(tmp_path / "bad.toml")
    with pytest.raises(RecipeError, match="can't be read as TOML"):
        load_recipe(tmp_path)


def test_a_shipped_recipe_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "folder_deeplabv3plus_lite0" in shipped()
    assert load_recipe("folder_deeplabv3plus_lite0") == load_recipe("folder_deeplabv3plus_lite0.toml")
    Path("folder_deeplabv3plus_lite0.toml").write_text('[data]\ntrain = "folder:mine"\n')  # one's own comes first
    assert load_recipe("folder_deeplabv3plus_lite0.toml").data.train == "folder:mine"
    with pytest.raises(RecipeError, match=r"those that come with atrous: .*folder_deeplabv3plus_lite0"):
        load_recipe("folder_deeplabv9")


def test_the_list_of_what_is_bundled_names_shipped_recipes_with_valid_settings() -> None:
    for entry in tomllib.loads((FOLDER.parent / "studies" / "zoo.toml").read_text(encoding="utf-8"))["entry"]:
        recipe = load_recipe(FOLDER / entry["recipe"], entry["gpu"])
        assert recipe.training.epochs > load_recipe(FOLDER / entry["recipe"]).training.epochs


def test_stages_change_the_recipe_and_are_checked_with_it() -> None:
    table = {"data": DATA, "stages": [{"name": "a"}, {"name": "b", "changes": {"optimizer.lr": 0.5}}]}
    recipe = check_recipe(table, "mine.toml")
    first, second = (recipe.at_stage(stage, f"{stage.name}/best") for stage in recipe.stages)
    assert (first.optimizer.lr, second.optimizer.lr) == (0.007, 0.5)
    assert second.model.start_from == "b/best"
    assert first.stages == second.stages == []
    table["stages"][1]["changes"] = {"optimizer.rate": 1}
    assert "stage b:" in str(mistakes_of(table))
    table["stages"][1] = {"name": "a"}
    assert "two stages have the same name" in str(mistakes_of(table))


def mistakes_of(table: dict[str, object]) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        check_recipe(table, "mine.toml")
    return caught.value
