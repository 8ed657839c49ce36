"""The page of a study, from the facts of its rows, which are kept as JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atrous.evaluation.report import aligned, percent
from atrous.evaluation.sweep import COUNTED_AT
from studies.claims import verdicts
from studies.results import RESULTS, ROOT, Result, Section, bullets, write_page
from studies.study import Data, Study, evaluation_file, read_json, read_log, recipe_of, run_folder

Facts = dict[str, dict[str, Any]]
"""Facts of rows by the row's name."""
METRICS = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou")
LEFT_OUT = ("confusion", "heads", "absent", "seconds")
"""Parts of an evaluation that are not kept."""


def write_study(study: Study) -> str:
    """Update a study's JSON and page with the runs on this machine; rows that ran elsewhere are kept.

    Returns:
        The page.

    Raises:
        FileNotFoundError: no row was evaluated, here or elsewhere.
    """
    target = RESULTS / "studies" / study.name
    kept, page = target.with_suffix(".json"), target.with_suffix(".md")
    facts = read_json(kept) if kept.exists() else {}
    for data in study.data:
        rows = facts.get(data.name, {}) | dict(_evaluated(study, data))
        facts[data.name] = {row.name: rows[row.name] for row in study.rows if row.name in rows}
    if not any(facts.values()):
        raise FileNotFoundError(f"no row of {study.name} was evaluated: neither in {ROOT / 'runs'} nor in {kept}")
    earlier = page.read_text(encoding="utf-8") if page.exists() else ""
    sections = {data.name: _section(study, data, facts[data.name], _part(earlier, data.name)) for data in study.data}
    intro = Section(text=study.paper.strip())
    text = Result(study.title, f"python -m studies {study.name}", (), {"": intro, **sections}).markdown()
    write_page(target, text, facts)
    return text


def _evaluated(study: Study, data: Data) -> Iterator[tuple[str, dict[str, Any]]]:
    """The facts of each row that was evaluated here."""
    for row in study.rows:
        file = evaluation_file(study, data, row.name)
        if file.exists():
            run = run_folder(study, data, row.trained_as)
            facts = json.loads(file.read_text(encoding="utf-8"), parse_float=lambda digits: round(float(digits), 6))
            facts = {key: value for key, value in facts.items() if key not in LEFT_OUT}
            recipe = recipe_of(run).model_dump(mode="json", exclude={"description", "log", "stages"})
            began = read_json(run / "run.json")
            trained = {key: began[key] for key in ("commit", "hardware", "versions")}
            yield row.name, facts | {"recipe": recipe, "trained": trained, "curve": [] if row.network else _curve(run)}


def _curve(run: Path) -> list[tuple[int, float, float]]:
    """At each validation of a run: the step, the mean loss since the previous one, and mean IoU."""
    losses: list[float] = []
    points: list[tuple[int, float, float]] = []
    for line in read_log(run):
        if "loss" in line:
            losses.append(line["loss"])
        if line.get("mean_iou") is not None:
            points.append((line["step"], round(float(np.mean(losses)), 6), round(line["mean_iou"], 6)))
            losses = []
    return points


def _part(page: str, heading: str) -> str:
    """The text under a heading of an earlier page."""
    _, _, rest = page.partition(f"\n## {heading}\n")
    return rest.partition("\n## ")[0].strip()


def _section(study: Study, data: Data, facts: Facts, earlier: str) -> Section:
    """The section of a dataset: its budget, its origin, the table and the claims."""
    again = f"`python -m studies {study.name} --data {data.name}`"
    if not facts:
        return Section(data.name, earlier or f"Not run yet: {again}.")
    first = next(iter(facts.values()))
    evaluated = dict.fromkeys(_place(found["provenance"]) for found in facts.values())
    trained = dict.fromkeys(
        _place(found["trained"] if "trained" in found else found["provenance"]) for found in facts.values()
    )
    seed = first["recipe"]["training"]["seed"]
    origin = [
        *_budgets(facts),
        f"Recipe `recipes/{data.recipe}`, seed {seed} unless the row has another.",
        _places(list(trained), list(evaluated)),
        f"Command: {again} (on a GPU, with the full budget).",
    ]
    how = f"""{first["images"]} images of {first["data"]}, each at its native size, in one confusion matrix; in %.
"frequent" is the mean IoU over the classes (and background) in at least {_min_images(first)} of them; "madds" are the
multiply-adds and "ms" the time (float32, fastest of a few) from a {COUNTED_AT} × {COUNTED_AT} image to coarse
logits; "min" are minutes of training. Timed on a machine with other work beside it."""
    below = [part for part in (verdicts(study, facts), _curves(facts)) if part]
    return Section(data.name, f"{how}\n\n{bullets(origin)}", _table(study, data, facts), "\n\n".join(below))


def _min_images(found: Mapping[str, Any]) -> int:
    number: int = found["mean_iou_of_frequent_classes"]["min_images"]
    return number


def _table(study: Study, data: Data, facts: Facts) -> list[list[str]]:
    """A line for each row: the paper's mean IoU, metrics and costs."""
    published = {row.name: f"{row.paper:.2f}" for row in study.rows if row.paper is not None}
    paper = ["mean IoU in the paper"] if published else []
    header = ["network", *paper, "pixel acc.", "mean acc.", "mean IoU", "f.w. IoU", "frequent", *data.classes]
    header += [f"≤ {width} px" for width in study.trimap]
    lines = [[*header, "params", "10⁹ madds", "ms", "min"]]
    for row, found in facts.items():
        numbers = [percent(float("nan") if number is None else number) for number in _metrics(study, data, found)]
        minutes = "" if found["minutes"] is None else f"{found['minutes']:.0f}"
        costs = [f"{found['multiply_adds'] / 1e9:.2f}", f"{found['milliseconds']:.0f}", minutes]
        paper = [published.get(row, "–")] if published else []
        lines.append([row, *paper, *numbers, f"{found['parameters'] / 1e6:.2f} M", *costs])
    return lines


def _metrics(study: Study, data: Data, found: Mapping[str, Any]) -> list[float | None]:
    """The metrics of a row, from 0 to 1."""
    ious = {entry["name"]: entry["iou"] for entry in found["classes"]}
    bands = {band["width"]: band["mean_iou"] for band in found["trimap"]}
    overall = [found[key] for key in METRICS] + [found["mean_iou_of_frequent_classes"]["mean_iou"]]
    return overall + [ious[name] for name in data.classes] + [bands[width] for width in study.trimap]


def _places(trained: list[str], evaluated: list[str]) -> str:
    if trained == evaluated:
        return f"Trained, evaluated and timed on {'; '.join(trained)}."
    return f"Trained on {'; '.join(trained)}; evaluated and timed on {'; '.join(evaluated)}."


def _place(provenance: Mapping[str, Any]) -> str:
    return f"{provenance['hardware']}, commit {provenance['commit']}"


def _budgets(facts: Facts) -> list[str]:
    """A line for each budget, with its rows where they differ."""
    rows: dict[str, list[str]] = {}
    for row, found in facts.items():
        rows.setdefault(_budget(found["recipe"]), []).append(row)
    if len(rows) == 1:
        return [f"Budget of each row: {next(iter(rows))}."]
    return [f"Budget of {'; '.join(names)}: {budget}." for budget, names in rows.items()]


def _budget(recipe: Mapping[str, Any]) -> str:
    training = recipe["training"]
    epochs = f"{training['epochs']:g} epoch{'' if training['epochs'] == 1 else 's'}"
    length = epochs if training["steps"] is None else f"{training['steps']} steps"
    return (
        f"{length} over {recipe['data']['train_split']}, batch {training['batch_size']}, "
        f"crop {recipe['augment']['crop']}, backbone {recipe['model']['backbone']}"
    )


def _curves(facts: Facts) -> str:
    """Loss and mean IoU over the training of each row that was validated more than once."""
    lines = [["network", "step", "loss", "mean IoU"]]
    for row, found in facts.items():
        points = found["curve"] if len(found["curve"]) > 1 else []
        lines += [[row, str(step), f"{loss:.3f}", percent(mean_iou)] for step, loss, mean_iou in points]
    return aligned(lines) if len(lines) > 1 else ""
