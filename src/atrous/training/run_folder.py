"""What a run keeps on disk: the log, the last and the best model, and the state that resuming needs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from atrous.evaluation.evaluate import Evaluation
from atrous.models.base import SegmentationModel
from atrous.provenance import provenance
from atrous.training.recipe import Recipe
from atrous.training.state import Log, SaveError, save_state


def told(evaluation: Evaluation) -> dict[str, Any]:
    """What a run tells of a validation."""
    return {key: value for key, value in evaluation.to_dict().items() if key not in ("confusion", "model")}


class Keeper:
    """Writes a run's folder.

    Args:
        recipe: of the run.
        out: the folder; it is there when anything is written.

    Attributes:
        log: ``OUT/log.jsonl``.
        best: mean IoU of the best model so far.
        kept: the step of the last state that was written.
    """

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.recipe, self.out = recipe, out
        self.log = Log(out)
        self.provenance = provenance()  # now, since the code on disk may change while the run goes on
        self.best: float | None = None
        self.kept: int | None = None
        self.kept_at = time.monotonic()

    def begin(self, processes: int) -> None:
        """Write what repeating the run needs."""
        self.log.cut(-1)  # of a run that died before it kept anything
        facts = {"recipe": self.recipe.model_dump(mode="json"), "processes": processes, **self.provenance}
        (self.out / "run.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    def is_time(self) -> bool:
        """Whether more work than the recipe allows would be lost now."""
        return time.monotonic() - self.kept_at >= 60 * self.recipe.log.save_minutes

    def keep_models(self, step: int, model: SegmentationModel, evaluation: Evaluation | None) -> None:
        """Write the last model, and the best one if it is that, and a line of the log."""
        metrics: dict[str, Any] = {"step": step, **(told(evaluation) if evaluation else {})}
        mean_iou = metrics.get("mean_iou") or 0.0
        better = evaluation is None or self.best is None or mean_iou > self.best
        if evaluation and better:
            self.best = mean_iou
        self.log.add({"time": round(time.time(), 1), **{k: v for k, v in metrics.items() if k != "absent"}})
        recipe = self.recipe.model_dump(mode="json")
        for folder in ("last", "best") if better else ("last",):
            model.save(self.out / folder, metrics=metrics, recipe=recipe, provenance=self.provenance)

    def keep_state(self, step: int, tensors: Mapping[str, dict[str, Tensor]], class_weights: Tensor | None) -> None:
        """Write what resuming after a step needs."""
        facts = {
            "step": step,
            "best": self.best,
            "class_weights": class_weights if class_weights is None else [round(float(w), 6) for w in class_weights],
            "recipe": self.recipe.model_dump(mode="json"),
        }
        save_state(self.out, dict(tensors), facts)
        self.kept, self.kept_at = step, time.monotonic()

    @contextmanager
    def writing(self, step: int) -> Iterator[None]:
        """Put what goes wrong on the disk into words."""
        try:
            if not (self.out / "run.json").is_file():
                raise FileNotFoundError(f"the folder of the run, {self.out}, is gone, or was emptied")
            yield
        except (OSError, SafetensorError) as error:
            kept = "nothing was kept before" if self.kept is None else f"the state of step {self.kept} is kept"
            raise SaveError(
                f"step {step} can't be written: {error}; {kept}. Make room or mend the folder, then --resume"
            ) from error
