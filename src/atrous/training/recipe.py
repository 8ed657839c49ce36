"""Recipes: everything that defines a training, as typed TOML."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, get_args, get_origin

from pydantic import Field, ValidationError, field_validator, model_validator

from atrous.errors import InputError
from atrous.files import refuse_newer
from atrous.training.sections import (
    AugmentSection,
    DataSection,
    DistillationSection,
    LogSection,
    LossSection,
    ModelSection,
    OptimizerSection,
    ScheduleSection,
    Section,
    TrainingSection,
)

FORMAT = 1
"""Version of the keys; one that changes its meaning or goes raises it."""


class RecipeError(InputError):
    """A recipe that can't be used; the message lists every mistake with its setting."""


class StageSection(Section):
    """One of several trainings in a row; each starts from the best weights of the one before."""

    name: str
    """Name of its folder, OUT/stages/NAME; the results of the last stage are in OUT itself."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """Settings that differ from the rest of the recipe, such as { "model.name" = "fcn16s", "optimizer.lr" = 1e-12 }. On
    the command line: `--set stages.NAME.optimizer.lr=1e-3`."""

    @field_validator("name")
    @classmethod
    def _of_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[\w.-]+", name):
            raise InputError("a stage's name consists of letters, digits, '_', '.' and '-'")
        return name

    @field_validator("changes")
    @classmethod
    def _flat(cls, changes: dict[str, Any]) -> dict[str, Any]:
        if "stages" in changes or any(key.startswith("stages.") for key in changes):
            raise InputError("a stage can't have stages of its own")
        return flat_changes(changes)


class Recipe(Section):
    """A complete training."""

    description: str = ""
    """One line about what this trains."""
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    augment: AugmentSection = AugmentSection()
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    loss: LossSection = LossSection()
    distillation: DistillationSection = DistillationSection()
    training: TrainingSection = TrainingSection()
    log: LogSection = LogSection()
    stages: list[StageSection] = Field(default_factory=list)
    """Trainings in a row, as [[stages]]; without any, there is one training."""
    format: int = Field(default=FORMAT, ge=1)
    """Version of the recipe's keys: the one that this atrous writes, or an earlier one."""

    @model_validator(mode="after")
    def _stages_valid(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise InputError(f"two stages have the same name: {', '.join(names)}")
        for stage in self.stages:
            self.at_stage(stage)
        return self

    def at_stage(self, stage: StageSection, start_from: str | None = None) -> Recipe:
        """The recipe of one stage, from the weights of another one.

        Raises:
            RecipeError: the stage's changes are not valid.
        """
        table = self.model_dump(mode="json", exclude={"stages"})
        for key, value in stage.changes.items():
            set_value(table, key, value)
        if start_from:
            set_value(table, "model.start_from", start_from)
        return check_recipe(table, f"stage {stage.name}")

    def differences(self, other: Recipe) -> list[str]:
        """The settings that change a run's numbers and differ in another recipe, stages aside, for a message."""
        log = set(LogSection.model_fields) - {"best_metric"}
        left_out: Any = {"format": True, "description": True, "data": {"workers"}, "log": log, "stages": True}
        one, two = (recipe.model_dump(mode="json", exclude=left_out) for recipe in (self, other))
        return [
            f"{name}.{key} ({value!r}, now {two[name][key]!r})"
            for name, section in one.items()
            for key, value in section.items()
            if value != two[name][key]
        ]

    @property
    def input_size(self) -> str:
        """The size of a training image, for messages."""
        crop = self.augment.crop
        if self.augment.function:
            return f"the size of {self.augment.function}"
        return "their own size" if crop == "whole" else f"{crop}×{crop}"


def check_recipe(table: dict[str, Any], source: str = "the recipe", overridden: Sequence[str] = ()) -> Recipe:
    """Validate a recipe given as a table; ``source`` names it in errors, ``overridden`` lists the settings that do not
    come from there.

    Raises:
        RecipeError: it is not valid; the message lists every mistake.
    """
    refuse_newer(table.get("format"), FORMAT, source, RecipeError)
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        messages: dict[str, list[str]] = {}
        for mistake in error.errors():
            # Beyond the setting, the location is pydantic's: a value of several types has a mistake for each.
            place = mistake["loc"][: 3 if mistake["loc"][:1] == ("stages",) else 2]
            found = _unknown(place) if mistake["type"] == "extra_forbidden" else _message(mistake)
            messages.setdefault(".".join(map(str, place)), []).append(found)
        lines = []
        for name, several in messages.items():
            origin = f"{name}{' (by --set)' if name in overridden else ''}: " if name else ""
            lines.append(f"  {origin}{', or: '.join(several)}")
        raise RecipeError(f"{source}:\n" + "\n".join(lines)) from error


def _message(mistake: Any) -> str:
    """Pydantic's message, with the value that it is about."""
    message, value = str(mistake["msg"]), mistake["input"]
    if mistake["type"] == "value_error":  # of a validator here
        return message.removeprefix("Value error, ")
    return message if mistake["type"] == "missing" else f"{message}, not {value!r}"


def _unknown(place: tuple[str | int, ...]) -> str:
    section: Any = Recipe
    for part in place[:-1]:
        if isinstance(part, str):
            annotation = section.model_fields[part].annotation
            section = get_args(annotation)[0] if get_origin(annotation) is list else annotation
    known = list(section.model_fields)
    near = difflib.get_close_matches(str(place[-1]), known, 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"there is no such setting{meant} (this section has: {', '.join(known)})"


def flat_changes(changes: dict[str, Any]) -> dict[str, Any]:
    """Changes by ``section.key``, also where TOML's unquoted dots have made tables of them.

    Raises:
        RecipeError: a table in a section, which could replace a setting or be a part of it.
    """
    found: dict[str, Any] = {}
    for key, value in changes.items():
        if key not in Recipe.model_fields or not isinstance(value, dict):
            found[key] = value
            continue
        for name, inner in value.items():
            if isinstance(inner, dict):
                one = next(iter(inner), "KEY")
                raise RecipeError(
                    f'a stage\'s changes: in quotes, "{key}.{name}" = {{ … }} for all of it, or '
                    f'"{key}.{name}.{one}" = … for one'
                )
            found[f"{key}.{name}"] = inner
    return found


def set_value(table: dict[str, Any], key: str, value: Any) -> None:
    """Set ``section.key`` in a table; None restores the default."""
    *sections, last = key.split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise RecipeError(f"{key}: '{section}' is a value, not a section")
    if value is None:
        table.pop(last, None)
    else:
        table[last] = value
