"""docs/moving.md: every name of ours that it gives to people who come from elsewhere is there."""

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import atrous
import atrous.crf
from atrous.inference.segmentation import Segmentation
from atrous.models.base import SegmentationModel
from atrous.models.registry import ARCHITECTURES
from atrous.training.recipe import Recipe
from tests.commands import unknown_words

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "moving.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("|---")]
OURS = [code for row in ROWS for code in re.findall(r"`([^`]+)`", row.strip(" |").rsplit(" | ", 1)[1])]
OBJECTS = {"atrous": atrous, "model": SegmentationModel, "result": Segmentation, "crf": atrous.DenseCRF}
ATTRIBUTES = [f"model.{name} = " for name in dir(SegmentationModel)]
SETTINGS = [
    code
    for code in OURS
    if re.match(r"\w+\.\w+ = ", code)
    and code.split(".")[0] in Recipe.model_fields
    and not code.startswith(tuple(ATTRIBUTES))
]
COMMANDS = [code for code in OURS if code.startswith("atrous ") or " -m atrous " in code]
CALLS = [code for code in OURS if re.match(r"@?(atrous|model|result|crf)\.", code) and code not in SETTINGS]


def test_the_page_is_read() -> None:
    assert len(SETTINGS) > 15
    assert len(COMMANDS) > 12
    assert len(CALLS) > 30


@pytest.mark.parametrize("code", COMMANDS)
def test_commands_and_their_options_are_there(code: str) -> None:
    assert unknown_words(code) == []


@pytest.mark.parametrize("code", SETTINGS)
def test_settings_are_those_of_recipes(code: str) -> None:
    section, name = code.split(" = ")[0].split(".")
    assert name in Recipe.model_fields[section].annotation.model_fields  # type: ignore[union-attr]


@pytest.mark.parametrize("code", CALLS)
def test_names_and_arguments_are_those_of_the_package(code: str) -> None:
    for node in ast.walk(ast.parse(code.lstrip("@"))):
        if not isinstance(node, ast.Attribute | ast.Call):
            continue
        path = ast.unparse(node.func if isinstance(node, ast.Call) else node)
        if "(" in path or path.split(".")[0] not in OBJECTS:
            continue
        value: Any = OBJECTS[path.split(".")[0]]
        for name in path.split(".")[1:]:
            if value is SegmentationModel and name == "label_set":
                value = atrous.LabelSet
            else:
                known = {**getattr(value, "__dataclass_fields__", {}), **getattr(value, "__annotations__", {})}
                value = getattr(value, name) if hasattr(value, name) else known[name]
        if isinstance(node, ast.Call):
            taken = [None] * len(node.args)
            bound = [None, *taken] if isinstance(OBJECTS[path.split(".")[0]], type) else taken
            inspect.signature(value).bind(*bound, **{word.arg: None for word in node.keywords if word.arg})
            if path == "atrous.create_model":
                options = {word.arg for word in node.keywords} - set(inspect.signature(value).parameters)
                assert options <= set(inspect.signature(ARCHITECTURES[ast.literal_eval(node.args[0])].build).parameters)
