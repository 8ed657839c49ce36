"""Recipes as TOML files, with overrides from the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atrous.training.recipe import Recipe, RecipeError, check_recipe, flat_changes, set_value

_PACKAGE = Path(__file__).resolve().parent.parent
SHIPPED = next((f for f in (_PACKAGE / "recipes", _PACKAGE.parent.parent / "recipes") if f.is_dir()), None)
"""The recipes that come with atrous: inside an installed package, or beside ``src`` in a checkout."""
EPOCHS, STEPS = "training.epochs", "training.steps"
"""A training's length: steps where there are any, else epochs. Who sets epochs wants them, whatever the recipe says."""


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: a TOML file, or the name of a recipe that comes with atrous (``folder_deeplabv3plus_lite0``).
        overrides: changes as ``section.key=value``; values are TOML, or strings if they are not valid TOML; no
            value restores the default. ``stages.NAME.section.key=value`` changes one stage,
            ``stages.*.section.key=value`` all. ``training.epochs`` takes the place of ``training.steps``.

    Raises:
        RecipeError: the file can't be read, or it or an override is not valid.

    Example:
        >>> import atrous
        >>> changes = ["data.train=folder:my-images", "training.epochs=5"]
        >>> recipe = atrous.load_recipe("folder_deeplabv3plus_lite0", changes)
        >>> recipe.training.epochs
        5.0
    """
    path = _locate(Path(path))
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"there is no recipe {path}; those that come with atrous: {', '.join(shipped())}") from error
    except (OSError, RecursionError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} can't be read as TOML: {error}") from error
    for override in overrides:
        _apply(table, override)
    overridden = [override.partition("=")[0].strip() for override in overrides]
    recipe = check_recipe(table, str(path), overridden)
    _check_length(recipe, overridden)
    return recipe


def _check_length(recipe: Recipe, overridden: Sequence[str]) -> None:
    """Reject an override of epochs where steps of another part of the recipe stay the length."""
    for place, key in enumerate(overridden):
        if not key.endswith(EPOCHS) or key.replace(EPOCHS, STEPS) in overridden[place:]:
            continue
        name = key.removeprefix("stages.").removesuffix(EPOCHS).rstrip(".")
        parts = [recipe.at_stage(stage) for stage in recipe.stages if name in ("", "*", stage.name)] or [recipe]
        if steps := [part.training.steps for part in parts if part.training.steps is not None]:
            remedy = (
                f"--set {STEPS}= (no value) removes it"
                if name
                else f"--set stages.NAME.{EPOCHS}=EPOCHS changes one stage, --set 'stages.*.{EPOCHS}=EPOCHS' all"
            )
            owner = "the recipe" if name else "a stage"
            raise RecipeError(f"--set {key}: {STEPS} = {steps[0]} of {owner} is the length; {remedy}")


def shipped() -> list[str]:
    """Names of the recipes that come with atrous."""
    return sorted(p.stem for p in SHIPPED.glob("*_*.toml")) if SHIPPED else []


def _locate(path: Path) -> Path:
    if SHIPPED and not path.exists() and path.name in (path.stem, f"{path.stem}.toml") and path.stem in shipped():
        return SHIPPED / f"{path.stem}.toml"
    return path


def _apply(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    key, text = ".".join(part.strip() for part in key.split(".")), text.strip()
    if not equals or not all(key.split(".")):
        raise RecipeError(f"--set takes section.key=value, not '{override}'")
    try:
        value = tomllib.loads(f"value = {text}")["value"] if text else None
    except (RecursionError, tomllib.TOMLDecodeError):
        value = text
    if key.startswith("stages."):
        _apply_to_stages(table, key.removeprefix("stages."), value)
        return
    changes = [(name, k, v) for name, change in _stages(table).items() for k, v in change.items()]
    if own := [f"{name} ({k} = {v!r})" for name, k, v in changes if _within(k, key) or _within(key, k)]:
        meant = f"{key}={text}" if "." in key else f"{key}.KEY=VALUE"
        raise RecipeError(
            f"--set {key}: stages have their own, {', '.join(own)}; be specific: "
            f"--set stages.NAME.{meant} for one, --set 'stages.*.{meant}' for all"
        )
    _apply_to_all(table, key, value)


def _apply_to_all(table: dict[str, Any], key: str, value: Any) -> None:
    set_value(table, key, value)
    if key == EPOCHS and value is not None:
        set_value(table, STEPS, None)


def _apply_to_stages(table: dict[str, Any], key: str, value: Any) -> None:
    """Change ``NAME.section.key``, or ``*.section.key``: in every stage, and in the recipe itself. No value
    removes a stage's own.
    """
    stages = _stages(table)
    name = max((name for name in ("*", *stages) if key == name or key.startswith(f"{name}.")), key=len, default=None)
    if name is None or not stages:
        raise RecipeError(f"--set stages.{key}: no such stage; there are: {', '.join(stages) or 'none'}")
    key = key[len(name) + 1 :]
    if "." not in key:
        raise RecipeError(f"--set stages.{name}.{key}: a stage's settings are changed one by one, section.key=value")
    for change in stages.values() if name == "*" else [stages[name]]:
        for own in [own for own in change if _within(own, key)]:
            del change[own]
        if value is not None:
            change[key] = value
        if key == EPOCHS and value is not None:
            change.pop(STEPS, None)
    if name == "*":
        _apply_to_all(table, key, value)


def _stages(table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each stage of an unchecked table changes, by its name."""
    try:
        for stage in table.get("stages", []):
            stage["changes"] = flat_changes(stage.get("changes", {}))
        return {stage["name"]: stage["changes"] for stage in table.get("stages", [])}
    except (TypeError, KeyError, AttributeError):
        return {}  # reported when the recipe is checked


def _within(one: str, other: str) -> bool:
    """Whether a setting is another one, or a part of it."""
    return f"{one}.".startswith(f"{other}.")
