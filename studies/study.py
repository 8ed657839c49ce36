"""A study: datasets × rows of settings, and the paper's claims about them, from a file of ``studies/ablations``."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field

from atrous.errors import InputError
from atrous.training.recipe import Recipe
from atrous.training.recipe_file import load_recipe
from studies.results import ROOT

ABLATIONS = ROOT / "studies" / "ablations"
RECIPES = ROOT / "recipes"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Table):
    """A dataset of a study."""

    name: str
    recipe: str
    """File in ``recipes/`` that every row starts from."""
    set: list[str] = []
    """Settings on a CPU."""
    gpu: list[str] = []
    """Settings on a GPU, instead of ``set``."""
    classes: list[str]
    """Classes whose IoU is shown."""


class Row(_Table):
    """A network of a study."""

    name: str
    set: list[str] = []
    """Settings of this row."""
    gpu: list[str] = []
    """Further settings on a GPU."""
    paper: float | None = None
    """Mean IoU in the paper, in percent."""
    images: int | None = None
    """Evaluate on so many images only."""
    network: str | None = None
    """Row whose trained network this row evaluates, with other attributes; nothing is trained."""
    attributes: dict[str, Any] = {}
    """Attributes that are set on that network."""
    repeats: str | None = None
    """Row that this one repeats with another seed."""

    @property
    def trained_as(self) -> str:
        """The row whose training made this row's network."""
        return self.network or self.name


class Claim(_Table):
    """A claim of the paper."""

    statement: str
    order: list[str | list[str]] = []
    """Rows from worst to best; a list holds rows that are not compared with each other."""
    gain: tuple[str, str] | None = None
    """Two rows: the second gains most along boundaries."""

    @property
    def groups(self) -> list[list[str]]:
        """``order``, each step as a list of rows."""
        return [[step] if isinstance(step, str) else step for step in self.order]

    @property
    def compared(self) -> set[str]:
        """The rows that the claim is about."""
        return {name for step in self.groups for name in step} | set(self.gain or ())


class Study(_Table):
    """A study."""

    name: str
    title: str
    paper: str
    """The paper's own figures, and how this study differs."""
    trimap: tuple[int, ...] = ()
    """Widths of the bands along boundaries, in pixels."""
    data: list[Data]
    rows: list[Row] = Field(alias="row")
    claims: list[Claim] = Field(default=[], alias="claim")


Chosen = TypeVar("Chosen", Data, Row)


def names() -> list[str]:
    """The names of all studies."""
    return sorted(file.stem for file in ABLATIONS.glob("*.toml"))


def load_study(name: str) -> Study:
    """Read a study.

    Raises:
        InputError: there is no study of this name.
    """
    if name not in names():
        raise InputError(f"there is no study {name!r}; studies: {', '.join(names())}")
    table = tomllib.loads((ABLATIONS / f"{name}.toml").read_text(encoding="utf-8"))
    return Study.model_validate(table | {"name": name})


def choose(tables: Sequence[Chosen], chosen: Sequence[str] | None, option: str) -> list[Chosen]:
    """The tables of these names, or all.

    Raises:
        InputError: a name is unknown.
    """
    known = [table.name for table in tables]
    if unknown := [name for name in chosen or () if name not in known]:
        raise InputError(f"{option}: unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return [table for table in tables if table.name in (chosen or known)]


def run_folder(study: Study, data: Data, row: str) -> Path:
    """The run folder of a row on a dataset."""
    return ROOT / "runs" / "studies" / study.name / data.name / row.replace("/", "-").replace(" ", "_")


def evaluation_file(study: Study, data: Data, row: str) -> Path:
    """The file with the metrics of a row."""
    return run_folder(study, data, row) / "evaluation.json"


def recipe_for(data: Data, row: Row) -> Recipe:
    """The recipe of a row on this machine."""
    gpu = torch.cuda.is_available()
    settings = [*(data.gpu if gpu else data.set), *row.set, *(row.gpu if gpu else [])]
    return load_recipe(RECIPES / data.recipe, settings)


def recipe_of(run: Path) -> Recipe:
    """The recipe that a run was trained with."""
    return Recipe.model_validate(read_json(run / "run.json")["recipe"])


def read_json(file: Path) -> dict[str, Any]:
    """The contents of a JSON file."""
    contents: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return contents


def read_log(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
