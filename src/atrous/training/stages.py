"""Training a recipe: its stages one after the other, each with a :class:`~atrous.training.trainer.Trainer`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from atrous.data.augment import Augment
from atrous.data.dataset import Dataset
from atrous.training.parallel import is_first_process, process_group
from atrous.training.recipe import Recipe, RecipeError
from atrous.training.run_folder import find_state, load_state
from atrous.training.trainer import Trainer
from atrous.training.types import OnMessage, OnStep, OnValidation, Result


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    train_data: Dataset | None = None,
    val_data: Dataset | None = None,
    augmentation: Augment | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
    on_validation: OnValidation | None = None,
    on_message: OnMessage | None = None,
) -> Result:
    """Train a model from a recipe. ::

        from atrous.training.recipe_file import load_recipe

        recipe = load_recipe("folder_deeplabv3plus_lite0", ["data.train=folder:my-images"])
        result = train(recipe, "runs/mine")
        model = atrous.load(result.best)

    Args:
        recipe: the complete training.
        out: folder of the run: ``best/`` and ``last/`` are model folders, ``state/`` holds what resuming needs,
            ``log.jsonl`` has a line for every tenth step and each validation, ``run.json`` holds what repeating the run
            needs, ``samples/`` predictions on images after each validation, ``curves.csv`` and ``curves.png`` losses
            and metrics.
        train_data: any dataset with ``__len__``, ``__getitem__`` (a :class:`atrous.data.dataset.Sample`) and
            ``label_set``, in place of ``data.train``.
        val_data: likewise, in place of ``data.val``; without both, your own training data have no validation.
        augmentation: called with a sample and a numpy Generator, returns the sample that is trained on, in place of the
            recipe's section ``augment``. Within a batch, samples must have the same size.
        resume: continue the run in ``out``; it must have the same recipe.
        on_step: called after each step; like the others, in the main process only.
        on_validation: called with the step and its :class:`~atrous.training.validation.Validation`.
        on_message: called with lines about what is trained, and on what.

    Raises:
        RecipeError: the recipe does not fit the data, or ``out`` already holds a run; raised before any training.
        DatasetError: the data can't be used as they are; raised before any training.
        ResumeError: there is no run to resume, or its state does not fit.
        NonFiniteLossError: the training has diverged.
        MemoryShortageError: a batch does not fit into memory.
        SaveError: the disk is full, or the folder was removed; the last complete state stays.
        Stopped: Ctrl-C or SIGTERM; the state is saved.

    Example:
        >>> import atrous, numpy as np
        >>> pairs = [(np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8))] * 4
        >>> data = atrous.wrap(pairs, ("ground", "sky"))
        >>> recipe = atrous.training.check_recipe({
        ...     "model": {"name": "deeplabv3", "backbone": "test_resnet", "pretrained": False},
        ...     "augment": {"crop": 33},
        ...     "training": {"steps": 1, "batch_size": 2},
        ...     "data": {"workers": 0},
        ... })
        >>> atrous.train(recipe, "runs/example", train_data=data, val_data=data).best.name
        'best'
    """
    out = Path(out)
    begun = [stage.folder for stage in stages(recipe, out) if find_state(stage.folder)]
    if begun and not resume:
        raise RecipeError(f"{out} already holds a run: continue it (--resume), or give another folder (--out)")
    if resume and not begun:
        load_state(out)  # raises the error
    result = None
    with process_group():
        for stage in stages(recipe, out):
            if stage.title and on_message and is_first_process():
                on_message(stage.title)
            saved = load_state(stage.folder) if stage.folder in begun else None
            trainer = Trainer(
                stage.recipe,
                stage.folder,
                train_data=train_data,
                val_data=val_data,
                augmentation=augmentation,
                saved=saved[1] if saved else None,
                on_step=on_step,
                on_validation=on_validation,
                on_message=on_message,
            )
            with trainer.exclusive():
                result = trainer.train(trainer.restore(*saved) if saved else trainer.begin())
    assert result is not None
    return result


@dataclass(frozen=True)
class Stage:
    """One training of a recipe.

    Args:
        recipe: of this training.
        folder: of its run.
        name: of the stage; empty if the recipe has no stages.
        title: a line about it, likewise.
    """

    recipe: Recipe
    folder: Path
    name: str = ""
    title: str = ""


def stages(recipe: Recipe, out: Path) -> list[Stage]:
    """The trainings of a recipe; each starts from the best model of the one before."""
    if not recipe.stages:
        return [Stage(recipe, out)]
    found: list[Stage] = []
    for number, stage in enumerate(recipe.stages, 1):
        folder = out if number == len(recipe.stages) else out / "stages" / stage.name
        before = str(found[-1].folder / "best") if found else None
        title = f"stage {stage.name} ({number} of {len(recipe.stages)})" + (f", from {before}" if before else "")
        found.append(Stage(recipe.at_stage(stage, before), folder, stage.name, title))
    return found
