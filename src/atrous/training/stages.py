"""The stages of a recipe, one after the other, each a :class:`~atrous.training.trainer.Run`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from atrous.training.parallel import group_of_processes, is_first_process
from atrous.training.recipe import Recipe, RecipeError
from atrous.training.state import find_state, load_state
from atrous.training.trainer import Run
from atrous.training.types import OnNote, OnStep, OnValidation, Result


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    on_step: OnStep | None = None,
    on_validation: OnValidation | None = None,
    on_note: OnNote | None = None,
) -> Result:
    """Train a model as a recipe says.

    Args:
        recipe: the whole training.
        out: folder of the run: ``best/`` and ``last/`` are model folders, ``state/`` is what resuming needs,
            ``log.jsonl`` has a line for each tenth step and each validation, ``run.json`` what repeating the run needs,
            ``samples/`` images of each validation.
        resume: go on with the run in ``out``; it must have the same recipe.
        on_step: called after each step, in the main process like the others.
        on_validation: called with the step and its evaluation.
        on_note: called with lines that say what is trained, and on what.

    Raises:
        RecipeError: the recipe does not fit the data, or ``out`` holds a run; said before anything is trained.
        DatasetError: the data are not as they should be; likewise.
        ResumeError: nothing to resume, or something else.
        NonFiniteLossError: the training has diverged.
        MemoryShortageError: a batch does not fit.
        SaveError: the disk is full, or the folder is gone; the last whole state is kept.
        Stopped: Ctrl-C or SIGTERM; the state is kept.
    """
    out = Path(out)
    begun = [stage.folder for stage in stages(recipe, out) if find_state(stage.folder)]
    if begun and not resume:
        raise RecipeError(f"{out} already holds a run: go on with it (--resume), or give another folder (--out)")
    if resume and not begun:
        load_state(out)  # says what is missing
    result = None
    with group_of_processes():
        for stage in stages(recipe, out):
            if stage.title and on_note and is_first_process():
                on_note(stage.title)
            saved = load_state(stage.folder) if stage.folder in begun else None
            run = Run(
                stage.recipe,
                stage.folder,
                fresh=not saved,
                on_step=on_step,
                on_validation=on_validation,
                on_note=on_note,
            )
            with run.alone():
                result = run.train(run.restore(*saved) if saved else run.begin())
    assert result is not None
    return result


@dataclass(frozen=True)
class Stage:
    """One training of a recipe: what it asks for, the run's folder; and, of several, its name and a line about it."""

    recipe: Recipe
    folder: Path
    name: str = ""
    title: str = ""


def stages(recipe: Recipe, out: Path) -> list[Stage]:
    """The trainings that a recipe asks for; each begins from the best of the one before."""
    if not recipe.stages:
        return [Stage(recipe, out)]
    found: list[Stage] = []
    for number, stage in enumerate(recipe.stages, 1):
        folder = out if number == len(recipe.stages) else out / "stages" / stage.name
        before = str(found[-1].folder / "best") if found else None
        title = f"stage {stage.name} ({number} of {len(recipe.stages)})" + (f", from {before}" if before else "")
        found.append(Stage(recipe.at_stage(stage, before), folder, stage.name, title))
    return found
