"""A dataset that is not there: the error says which files, from whom, how large, laid out how; data.root moves it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from atrous.errors import DatasetError
from atrous.training.data import open_data
from atrous.training.downloads import DOWNLOADS
from atrous.training.recipe import Recipe
from atrous.training.recipe_file import SHIPPED, load_recipe, shipped

MakeRecipe = Callable[..., Recipe]
DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("name", [name for name in shipped() if not name.startswith("folder_")])
def test_a_shipped_recipe_says_where_its_data_come_from(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(name)
    assert re.fullmatch(r"[\w-]+:data/[\w/-]+", recipe.data.train)
    with pytest.raises(DatasetError) as caught:
        open_data(recipe)
    for part in ("data.train: data/", "does not exist", "files: ", "laid out: ", "B", "--set data.root=FOLDER"):
        assert part in str(caught.value)


def test_a_place_of_another_dataset_and_a_missing_split_say_the_same(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"is not a VOC dataset[\s\S]*SegmentationClassAug[\s\S]*data\.root"):
        open_data(make_recipe(data__train=f"voc:{tmp_path}"))
    for folder in ("JPEGImages", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\n")
    with pytest.raises(DatasetError, match=r"has no split 'trainaug'; available splits: train\n.*SBD"):
        open_data(make_recipe(data__train=f"voc:{tmp_path}", data__train_split="trainaug"))


@pytest.mark.parametrize(
    ("val", "expected"), [(None, None), ("voc:there", "voc:here"), ("camvid:elsewhere", "camvid:elsewhere")]
)
def test_the_root_replaces_the_path(make_recipe: MakeRecipe, val: str | None, expected: str | None) -> None:
    recipe = make_recipe(data__train="voc:there", data__root="here", **({"data__val": val} if val else {}))
    assert (recipe.data.train, recipe.data.val, recipe.data.root) == ("voc:here", expected, None)


def test_the_root_is_set_on_the_command_line() -> None:
    recipe = load_recipe("voc_fcn_vgg16_heavy", ["data.root=/my/voc"])
    assert {recipe.at_stage(stage).data.train for stage in recipe.stages} == {"voc:/my/voc"}


def test_the_page_of_the_papers_names_each_papers_recipe() -> None:
    page = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("papers/*.md"))
    assert SHIPPED
    assert [name for name in shipped() if "lite0" not in name and f"`{name}`" not in page] == []
    assert [kind for kind in ("voc", "camvid", "siftflow", "pascalcontext") if kind not in DOWNLOADS] == []
