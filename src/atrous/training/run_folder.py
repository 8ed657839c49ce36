"""The folder of a training run: its log, the last and the best model, and the state from which it can be resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atrous.errors import AtrousError, InputError
from atrous.files import find_folder, replacing_folder, sync_folder
from atrous.models.base import SegmentationModel
from atrous.provenance import provenance
from atrous.training.best import Best
from atrous.training.curves import write_curves
from atrous.training.recipe import Recipe, RecipeError
from atrous.training.validation import Validation

STATE = "state"


class ResumeError(InputError):
    """A run that can't be resumed; the message says why."""


class SaveError(AtrousError, RuntimeError):
    """The run's progress could not be written; the message says which state is still saved."""


class RunFolder:
    """Writes the folder of a run.

    Args:
        recipe: of the run.
        out: the folder; it must exist when anything is written.

    Attributes:
        log: ``OUT/log.jsonl``.
        best: the best validation so far.
        saved_step: the step of the last state that was written.
    """

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.recipe, self.out = recipe, out
        self.log = Log(out)
        self.provenance = provenance()  # now, since the code on disk may change during the run
        self.best = Best(recipe.log.best_metric)
        self.saved_step: int | None = None
        self.saved_at = time.monotonic()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and keep other runs out of it.

        Raises:
            RecipeError: another run is in it.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.out / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RecipeError(f"another process is training in {self.out}; give this one another --out") from None
        try:
            yield
        finally:
            lock.release()

    def begin(self, processes: int) -> None:
        """Write what is needed to repeat the run."""
        self.log.cut(-1)  # of a run that died before it saved anything
        facts = {"recipe": self.recipe.model_dump(mode="json"), "processes": processes, **self.provenance}
        (self.out / "run.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    def is_save_due(self) -> bool:
        """Whether more work is unsaved than the recipe allows."""
        return time.monotonic() - self.saved_at >= 60 * self.recipe.log.save_minutes

    def save_models(self, step: int, model: SegmentationModel, validation: Validation | None, is_best: bool) -> None:
        """Write the model to ``last``, and a line of the log.

        It is also written to ``best`` if it is the best one, or as long as there is none: without a validation, or with
        nothing but ignored pixels in all of them.
        """
        metrics: dict[str, Any] = {"step": step, **(validation.to_dict() if validation else {})}
        self.log.add({"time": round(time.time(), 1), **{k: v for k, v in metrics.items() if k != "absent"}})
        recipe = self.recipe.model_dump(mode="json")
        for folder in ("last", "best") if is_best or self.best.value is None else ("last",):
            model.save(self.out / folder, metrics=metrics, recipe=recipe, provenance=self.provenance)
        write_curves(self.out)

    def save_state(
        self,
        step: int,
        tensors: Mapping[str, dict[str, Tensor]],
        class_weights: Tensor | None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Write what is needed to resume after a step."""
        facts = {
            "step": step,
            "best": self.best.to_dict(),
            "class_weights": class_weights if class_weights is None else [round(float(w), 6) for w in class_weights],
            "recipe": self.recipe.model_dump(mode="json"),
            **(more or {}),
        }
        save_state(self.out, dict(tensors), facts)
        self.saved_step, self.saved_at = step, time.monotonic()

    @contextmanager
    def writing(self, step: int) -> Iterator[None]:
        """Turn what fails on the disk into a :class:`SaveError`."""
        try:
            if not (self.out / "run.json").is_file():
                raise FileNotFoundError(f"the run's folder {self.out} was removed or emptied")
            yield
        except (OSError, SafetensorError) as error:
            saved = (
                "nothing was saved before"
                if self.saved_step is None
                else f"the state of step {self.saved_step} is saved"
            )
            raise SaveError(
                f"step {step} can't be written: {error}; {saved}. Free some space or restore the folder, then --resume"
            ) from error


class Log:
    """``log.jsonl`` of a run: one JSON object a line, each with its step."""

    def __init__(self, out: Path) -> None:
        self.path = out / "log.jsonl"

    def add(self, facts: dict[str, Any]) -> None:
        """Append a line.

        Raises:
            ValueError: a number is not finite, which JSON can't express.
        """
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts, allow_nan=False) + "\n")

    def cut(self, step: int) -> None:
        """Drop the lines after a step; a run resumed from there writes them again."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        kept = [line for line in lines if 0 <= _step_of(line) <= step]
        self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> int:
    """The step of a log line; -1 for one that a crash cut short."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1


def save_state(out: Path, tensors: dict[str, dict[str, Tensor]], facts: dict[str, Any]) -> None:
    """Write groups of tensors and JSON facts as ``OUT/state``; the old state stays until the new one is complete and
    on the disk.

    Raises:
        OSError, SafetensorError: it can't be written; nothing has changed.
    """
    with replacing_folder(out / STATE) as new:  # this fails if the run's folder was removed
        for name, group in tensors.items():
            save_file({k: v.detach().contiguous().cpu() for k, v in group.items()}, new / f"{name}.safetensors")
        (new / "state.json").write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        sync_folder(new)


def find_state(out: Path) -> Path | None:
    """The folder of the last complete state, if there is one; a crash may have left it under another name."""
    return find_folder(out / STATE)


def load_state(out: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read what :func:`save_state` wrote.

    Raises:
        ResumeError: there is no state, or it is damaged.
    """
    folder = find_state(out)
    if folder is None:
        raise ResumeError(f"{out} holds no run to resume (no {STATE}/state.json); start it without --resume")
    file = folder / "state.json"
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        tensors = {}
        for file in sorted(folder.glob("*.safetensors")):
            tensors[file.stem] = load_file(file)
    except (OSError, SafetensorError, ValueError) as error:
        raise ResumeError(
            f"{file} is damaged: {error}; without it the run can't be resumed. Its last model, {out / 'last'}, can "
            f'still be the start of a new run: --set model.start_from="{out / "last"}" and another --out'
        ) from error
    return tensors, facts


def restore_weights(net: nn.Module, tensors: dict[str, Tensor], out: Path) -> None:
    """Load weights that must fit exactly.

    Raises:
        ResumeError: they do not.
    """
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise ResumeError(f"the run in {out} is of another network than its recipe describes: {error}") from error
