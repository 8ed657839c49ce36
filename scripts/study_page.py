"""What was judged of a study's rows, kept as JSON beside the page, and the page itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from claims import verdicts

from atrous.evaluation.report import aligned, percent
from atrous.evaluation.sweep import COUNTED_AT
from atrous.files import write_atomically
from atrous.training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "studies"
Table = dict[str, Any]
Facts = dict[str, dict[str, Table]]
"""By the name of the data and that of the row."""


def run_folder(study: str, where: Table, row: str) -> Path:
    """Where the run of one row on some data stands."""
    name: str = where["name"]
    return ROOT / "runs" / "studies" / study / name / row.replace("/", "-").replace(" ", "_")


def base_folder(study: str, where: Table, row: Table) -> Path:
    """Where the run stands whose network a row is about."""
    return run_folder(study, where, str(row.get("of", row["name"])))


def recipe_of(run: Path) -> Recipe:
    """What a run was trained by."""
    return Recipe.model_validate(json.loads((run / "run.json").read_text(encoding="utf-8"))["recipe"])


def write(name: str, study: Table) -> str:
    """Bring a study's JSON and page up to date with the runs that are here; what was run elsewhere stays.

    Returns:
        The page.

    Raises:
        FileNotFoundError: nothing was judged, here or elsewhere.
    """
    kept = RESULTS / f"{name}.json"
    facts: Facts = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for where in study["data"]:
        rows = facts.get(where["name"], {}) | dict(_judged(name, where, study))
        facts[where["name"]] = {row["name"]: rows[row["name"]] for row in study["row"] if row["name"] in rows}
    if not any(facts.values()):
        raise FileNotFoundError(f"no row of {name} was judged: neither in {ROOT / 'runs'} nor in {kept}")
    page = kept.with_suffix(".md")
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    parts = [f"# {study['title']}\n", study["paper"].strip()]
    for where in study["data"]:
        parts.append(_section(name, where, study, facts[where["name"]], _part(before, where["name"])))
    text = "\n".join(parts)
    write_atomically(kept, _lines(facts).encode())
    write_atomically(page, (text + "\n").encode())
    return text


def _lines(facts: Facts) -> str:
    """JSON with a line for each row, so that a change can be read."""
    data = [
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f"{json.dumps(row, ensure_ascii=False)}: {json.dumps(found)}" for row, found in rows.items())
        + "\n}"
        for name, rows in facts.items()
    ]
    return "{\n" + ",\n".join(data) + "\n}\n"


def _judged(name: str, where: Table, study: Table) -> Iterator[tuple[str, Table]]:
    for row in study["row"]:
        target = run_folder(name, where, row["name"]) / "judged.json"
        if target.exists():
            run = base_folder(name, where, row)
            facts = json.loads(target.read_text(encoding="utf-8"), parse_float=lambda digits: round(float(digits), 6))
            left_out = ("confusion", "further", "absent", "seconds")
            facts = {key: value for key, value in facts.items() if key not in left_out}
            recipe = recipe_of(run).model_dump(mode="json", exclude={"description", "log", "stages"})
            began = json.loads((run / "run.json").read_text(encoding="utf-8"))
            trained = {key: began[key] for key in ("commit", "hardware", "versions")}
            curve = _curve(run) if "of" not in row else []
            yield row["name"], facts | {"recipe": recipe, "trained": trained, "curve": curve}


def _curve(run: Path) -> list[tuple[int, float, float]]:
    """At each validation of a run: the step, the mean loss since the one before, and mean IoU."""
    losses: list[float] = []
    points: list[tuple[int, float, float]] = []
    for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        if "loss" in told:
            losses.append(told["loss"])
        if told.get("mean_iou") is not None:
            points.append((told["step"], round(float(np.mean(losses)), 6), round(told["mean_iou"], 6)))
            losses = []
    return points


def _part(page: str, heading: str) -> str:
    """What an earlier page says under a heading."""
    _, found, rest = page.partition(f"\n## {heading}\n")
    return found + rest.partition("\n## ")[0].rstrip() if found else ""


def _section(name: str, where: Table, study: Table, facts: Mapping[str, Table], before: str) -> str:
    """The table of one data set, with the budget and where it was computed."""
    again = f"`python scripts/study.py {name} --data {where['name']}`"
    if not facts:
        return before or f"\n## {where['name']}\n\nNot run yet: {again}."
    four = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou")
    bands = [str(width) for width in study.get("trimap", ())]
    lines = [["network", "pixel acc.", "mean acc.", "mean IoU", "f.w. IU", "frequent", *where["classes"]]]
    lines[0] += [*(f"≤ {width} px" for width in bands), "params", "10⁹ madds", "ms", "min"]
    published = {row["name"]: f"{row['paper']:.2f}" for row in study["row"] if "paper" in row}
    if published:
        lines[0].insert(1, "the paper's mean IoU")
    for row, found in facts.items():
        ious = {entry["name"]: entry["iou"] for entry in found["classes"]}
        near = {str(band["width"]): band["mean_iou"] for band in found["trimap"]}
        numbers = [found[key] for key in four] + [found["mean_iou_of_frequent_classes"]["mean_iou"]]
        numbers += [ious[name] for name in where["classes"]] + [near[width] for width in bands]
        shown = [percent(float("nan") if n is None else n) for n in numbers]
        minutes = "" if found["minutes"] is None else f"{found['minutes']:.0f}"
        costs = [f"{found['multiply_adds'] / 1e9:.2f}", f"{found['milliseconds']:.0f}", minutes]
        theirs = [published.get(row, "–")] if published else []
        lines.append([row, *theirs, *shown, f"{found['parameters'] / 1e6:.2f} M", *costs])
    first = next(iter(facts.values()))
    frequent = first["mean_iou_of_frequent_classes"]["min_images"]
    recipe = Recipe.model_validate(first["recipe"])
    judged = dict.fromkeys(_place(found["provenance"]) for found in facts.values())
    trained = dict.fromkeys(_place(found.get("trained", found["provenance"])) for found in facts.values())
    return (
        f"""
## {where["name"]}

{first["images"]} images of {first["data"]}, each at its own size, in one confusion matrix; in %.
"frequent" is the mean IoU over the classes (and background) in at least {frequent} of them; "madds" are multiply-adds
and "ms" the time (float32, the best of a few tries) from an image of {COUNTED_AT} × {COUNTED_AT} to scores at network
resolution; "min" are minutes of training. Times were taken on a machine with other work beside it.

{_budgets(facts)}
- Recipe `recipes/{where["recipe"]}`, seed {recipe.training.seed} where a row does not say another.
- Trained on {"; ".join(trained)}; judged and timed on {"; ".join(judged)}.
- Again, and with the whole budget where there is a GPU: {again}.

{aligned(lines)}

{verdicts(study, facts)}
{_curves(facts)}""".rstrip()
        + "\n"
    )


def _place(provenance: Mapping[str, Any]) -> str:
    return f"{provenance['hardware']}, commit {provenance['commit']}"


def _budgets(facts: Mapping[str, Table]) -> str:
    """A line for each budget: which rows had it, where not all did."""
    rows: dict[str, list[str]] = {}
    for row, found in facts.items():
        recipe = Recipe.model_validate(found["recipe"])
        training = recipe.training
        epochs = f"{training.epochs:g} epoch{'' if training.epochs == 1 else 's'}"
        length = epochs if training.steps is None else f"{training.steps} steps"
        rows.setdefault(
            f"{length} over {recipe.data.train_split}, batch {training.batch_size}, crop {recipe.augment.crop}, "
            f"backbone {recipe.model.backbone}",
            [],
        ).append(row)
    if len(rows) == 1:
        return f"- Budget of each row: {next(iter(rows))}."
    return "\n".join(f"- Budget of {'; '.join(names)}: {budget}." for budget, names in rows.items())


def _curves(facts: Mapping[str, Table]) -> str:
    """How each row learned, where it was validated more than once."""
    lines = [["network", "step", "loss", "mean IoU"]]
    for row, found in facts.items():
        points = found["curve"] if len(found["curve"]) > 1 else []
        lines += [[row, str(step), f"{loss:.3f}", percent(mean_iou)] for step, loss, mean_iou in points]
    return f"\n{aligned(lines)}" if len(lines) > 1 else ""
