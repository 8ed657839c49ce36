"""Training: it learns; resuming, workers and parts change no number; frozen layers stay; errors come before work."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import atrous.training.data as data_module
import atrous.training.run_folder as run_folder
import atrous.training.trainer as trainer_module
from atrous.data.files.images import ImageError
from atrous.errors import DatasetError
from atrous.models.base import SegmentationModel
from atrous.models.loading import load
from atrous.training.data import open_data
from atrous.training.recipe import Recipe, RecipeError, check_recipe
from atrous.training.run_folder import ResumeError, SaveError, load_state
from atrous.training.stages import train
from atrous.training.types import MemoryShortageError, NonFiniteLossError, Progress, Stopped

MakeRecipe = Callable[..., Recipe]


def weights(run: Path, name: str = "model") -> dict[str, Tensor]:
    return load_state(run)[0][name]


def assert_equal(some: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    assert some.keys() == others.keys()
    assert [key for key in some if not torch.equal(some[key], others[key])] == []


def losses(recipe: Recipe, run: Path, **options: Any) -> list[float]:
    found: list[float] = []
    train(recipe, run, on_step=lambda now: found.append(now.loss), **options)
    return found


def log(run: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in (run / "log.jsonl").read_text().splitlines()]


class Stop(Exception):  # noqa: N818 - a stand-in for Ctrl-C
    pass


def stop_at(step: int) -> Callable[[Progress], None]:
    def on_step(now: Progress) -> None:
        if now.step == step:
            raise Stop

    return on_step


@pytest.mark.slow
def test_it_learns_to_tell_coloured_squares_apart(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(
        data__val_split="val",
        optimizer__name="adamw",
        optimizer__lr=0.005,
        training__epochs=50,
        training__validate_every=25,
        training__ema=0.95,
        augment__scale=(0.75, 1.5),
    )
    result = train(recipe, tmp_path / "run")
    assert result.mean_iou is not None
    assert result.mean_iou > 0.7  # 0.80 to 0.89 over seeds; calling everything ground gives 0.17
    model = load(result.best)
    assert model.card["metrics"]["mean_iou"] == result.mean_iou
    assert model.card["recipe"]["training"]["epochs"] == 50


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_run_ends_bit_identical_to_an_uninterrupted_one(
    make_recipe: MakeRecipe, tmp_path: Path, optimizer: str
) -> None:
    recipe = make_recipe(
        optimizer__name=optimizer, optimizer__lr=0.01, training__epochs=4, training__ema=0.9, schedule__warmup=2
    )
    whole = losses(recipe, tmp_path / "whole")
    with pytest.raises(Stop):
        train(recipe, tmp_path / "halves", on_step=stop_at(5))  # one step after the state of epoch 2
    resumed = losses(recipe.model_copy(), tmp_path / "halves", resume=True)
    assert resumed == whole[4:]
    for name in ("model", "ema", "optimizer"):
        assert_equal(weights(tmp_path / "whole", name), weights(tmp_path / "halves", name))
    assert_equal(*(load(tmp_path / run / "best").state_dict() for run in ("whole", "halves")))
    steps = [[line["step"] for line in log(tmp_path / run)] for run in ("whole", "halves")]
    assert steps[0] == steps[1]


def test_a_finished_run_resumes_to_its_result(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(data__val_split="val", training__epochs=0.5)
    first = train(recipe, tmp_path / "run")
    assert first.mean_iou is not None
    assert train(recipe, tmp_path / "run", resume=True) == first


def test_workers_change_no_loss(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    none, one = (losses(make_recipe(data__workers=n, training__epochs=1), tmp_path / str(n)) for n in (0, 1))
    assert none == one


def test_parts_of_a_batch_add_up_to_the_batch_without_batch_statistics(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_still(model: SegmentationModel, *_: Any) -> list[nn.Module]:
        return [m for m in model.modules() if isinstance(m, (nn.BatchNorm2d, nn.Dropout))]

    monkeypatch.setattr(trainer_module, "freeze", all_still)
    whole, parts = (
        losses(make_recipe(training__accumulate=n, training__epochs=1.5), tmp_path / str(n)) for n in (1, 2)
    )
    assert whole == pytest.approx(parts, rel=1e-5)
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("until_stride", "norms"), [(0, "frozen"), (0, "all_frozen"), (4, "synchronised")])
def test_frozen_weights_and_statistics_stay_bit_identical_while_the_others_move(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until_stride: int, norms: str
) -> None:
    before: dict[str, Tensor] = {}
    still: set[str] = set()
    build = trainer_module.build_model

    def build_and_keep(*arguments: Any) -> SegmentationModel:
        model = build(*arguments)
        before.update({key: value.clone() for key, value in model.state_dict().items()})
        for name, module in model.named_modules():
            part = name.startswith("backbone") or norms == "all_frozen"
            early = name.startswith(("backbone.net.conv1", "backbone.net.bn1", "backbone.net.layer1"))
            if (early and until_stride) or (part and isinstance(module, nn.BatchNorm2d) and not until_stride):
                still.update(f"{name}.{key}" for key, _ in module.named_parameters(recurse=False))
                still.update(f"{name}.{key}" for key, _ in module.named_buffers(recurse=False))
        return model

    monkeypatch.setattr(trainer_module, "build_model", build_and_keep)
    recipe = make_recipe(
        training__freeze_until_stride=until_stride,
        training__batch_norm=norms,
        training__epochs=1.5,  # norms that start at zero hold back what is before them for a step
        optimizer__name="adamw",
        training__ema=0.9,
    )
    train(recipe, tmp_path / "run")
    assert still
    for name in ("model", "ema"):
        after = weights(tmp_path / "run", name)
        assert {key for key in before if torch.equal(before[key], after[key])} == still


def test_running_statistics_take_the_share_of_a_batch_that_the_recipe_says(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """A share of 1 leaves the statistics of the last batch alone, a tiny one almost those at the beginning."""
    for share in (1.0, 1e-9):
        train(make_recipe(training__epochs=0.5, training__batch_norm_momentum=share), tmp_path / f"{share}")
    still = {key: value for key, value in weights(tmp_path / "1e-09").items() if key.endswith("running_mean")}
    moved = weights(tmp_path / "1.0")
    assert still
    for key, value in still.items():
        assert float(value.abs().max()) < 1e-6 < float(moved[key].abs().max())


def test_gradients_are_clipped_to_the_norm(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []
    step = torch.optim.SGD.step

    def watched(self: torch.optim.SGD, *arguments: Any) -> Any:
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    train(make_recipe(training__epochs=0.5, optimizer__clip_norm=0.01), tmp_path / "clipped")
    train(make_recipe(training__epochs=0.5), tmp_path / "free")
    assert norms[0] == pytest.approx(0.01, rel=1e-3)
    assert norms[1] > 0.02


def test_rates_follow_the_schedule_in_every_group(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[set[float]] = []
    step = torch.optim.SGD.step

    def watched(self: torch.optim.SGD, *arguments: Any) -> Any:
        rates.append({group["lr"] for group in self.param_groups})
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    shown: list[float] = []
    recipe = make_recipe(
        optimizer__lr=0.1, optimizer__backbone_lr=0.01, schedule__power=1, schedule__warmup=2, training__epochs=2
    )
    train(recipe, tmp_path / "run", on_step=lambda now: shown.append(now.lr))
    expected = [0.5, 0.75, 0.5, 0.25]  # (1 − step / 4), after the warm-up's ½ and 1
    assert shown == pytest.approx([0.1 * factor for factor in expected])
    assert [sorted(r) for r in rates] == [pytest.approx([0.01 * f, 0.1 * f]) for f in expected]


def test_a_batch_of_one_trains(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    found = losses(make_recipe(training__batch_size=1, training__epochs=0.25), tmp_path / "run")
    assert len(found) == 2


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_masks_that_ignore_everything_give_no_loss_and_change_no_weight(
    make_recipe: MakeRecipe, squares: Path, tmp_path: Path, precision: str
) -> None:
    for file in (squares / "masks").iterdir():
        with Image.open(file) as mask:
            size = mask.size
        Image.new("L", size, 255).save(file)
    recipe = make_recipe(training__precision=precision, training__epochs=0.5, optimizer__weight_decay=0)
    assert losses(recipe, tmp_path / "run") == [0]
    torch.manual_seed(0)
    fresh = trainer_module.build_model(recipe, open_data(recipe)[0])
    after = weights(tmp_path / "run")
    assert all(torch.equal(p, after[key]) for key, p in fresh.named_parameters())


@pytest.mark.parametrize(("has", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_bfloat16_where_the_device_computes_in_it(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has: bool, precision: str
) -> None:
    monkeypatch.setattr("atrous.training.gradients.computes_bfloat16", lambda _: has)
    lines: list[str] = []
    recipe = make_recipe(training__precision="auto", training__steps=1)
    train(recipe, tmp_path / "run", on_message=lines.append)
    assert any(f"{precision} on cpu" in line for line in lines)


def test_one_process_can_train_in_one_precision_and_then_in_another(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    runs = {}
    for number, precision in enumerate(("bfloat16", "float32", "bfloat16")):
        recipe = make_recipe(training__precision=precision, training__epochs=0.5)
        runs[number] = losses(recipe, tmp_path / str(number))
    assert runs[0] == runs[2] != runs[1]
    assert runs[0] == pytest.approx(runs[1], rel=0.05)


def test_a_folder_that_holds_a_run_is_not_trained_over(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(training__epochs=0.5)
    run = tmp_path / "run"
    with pytest.raises(ResumeError, match="holds no run to resume"):
        train(recipe, run, resume=True)
    train(recipe, run)
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    with pytest.raises(RecipeError, match="already holds a run"):
        train(recipe, run)
    other = make_recipe(training__epochs=0.5, optimizer__lr=0.5, data__workers=1, training__seed=3)
    with pytest.raises(RecipeError, match=r"optimizer\.lr \(0\.05, now 0\.5\), training\.seed \(0, now 3\)$"):
        train(other, run, resume=True)
    assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    (run / "state").rename(run / ".state.old")  # cut off between two renames: still a run
    with pytest.raises(RecipeError, match="already holds a run"):
        train(recipe, run)


def test_a_run_cut_off_between_the_renames_of_its_state_resumes(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(training__epochs=1.5)
    train(recipe, tmp_path / "whole")
    with pytest.raises(Stop):
        train(recipe, tmp_path / "cut", on_step=stop_at(3))
    (tmp_path / "cut/state").rename(tmp_path / "cut/.state.old")
    train(recipe, tmp_path / "cut", resume=True)
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_the_run_writes_what_repeating_it_needs(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    true = run_folder.provenance
    monkeypatch.setattr(run_folder, "provenance", lambda: taken.append(1) or true())
    recipe = make_recipe(data__val_split="val", training__epochs=6)
    seen: list[int] = []
    result = train(recipe, tmp_path / "run", on_validation=lambda step, _: seen.append(step))
    assert taken == [1]  # once, at the start
    assert seen == [2, 4, 6, 8, 10, 12]
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert Recipe.model_validate(facts["recipe"]) == recipe
    assert {"commit", "hardware", "versions", "command"} <= facts.keys()
    card = load(result.last).card
    assert card["provenance"]["versions"] == facts["versions"]
    lines = log(tmp_path / "run")
    assert [line["step"] for line in lines if "loss" in line] == [10, 12]
    assert [line["step"] for line in lines if "mean_iou" in line] == seen
    assert result.mean_iou == max(line["mean_iou"] for line in lines if "mean_iou" in line)


def test_a_non_finite_loss_stops_the_run_with_step_and_images(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(optimizer__lr=1e30, training__epochs=3)
    with pytest.raises(NonFiniteLossError, match=r"the loss is (nan|inf) at step \d, on .*\.png"):
        train(recipe, tmp_path / "run")
    assert all("loss" not in line or line["loss"] < 1e30 for line in log(tmp_path / "run"))


def test_an_unreadable_image_stops_the_run_with_its_name(
    make_recipe: MakeRecipe, squares: Path, tmp_path: Path
) -> None:
    image = squares / "images/3.png"
    image.write_bytes(image.read_bytes()[:-2000])  # its header is whole: the quick check lets it pass
    with pytest.raises(ImageError, match=r"^\S*3\.png"):
        train(make_recipe(data__workers=1), tmp_path / "run")


def test_validation_data_with_other_classes_are_refused(make_recipe: MakeRecipe, squares: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("images", "masks", "splits"):  # and no labels.toml
        (other / name).symlink_to(squares / name)
    recipe = make_recipe(data__val=f"folder:{other}", data__val_split="val")
    with pytest.raises(RecipeError, match=r"data\.val has other classes \(class 0, .*than data\.train \(ground, red"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_dataset_of_ignored_pixels_is_refused(make_recipe: MakeRecipe, squares: Path, tmp_path: Path) -> None:
    for file in (squares / "masks").iterdir():
        with Image.open(file) as mask:
            size = mask.size
        Image.new("L", size, 255).save(file)
    with pytest.raises(RecipeError, match="nothing to learn"):
        losses(make_recipe(training__epochs=2), tmp_path / "run")


def test_the_batch_is_drawn_when_training_diverges(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(
        NonFiniteLossError, match=r"images are drawn in .*diverged-00000\d as the network saw them"
    ) as caught:
        train(make_recipe(optimizer__lr=1e30, training__epochs=3), tmp_path / "run")
    (folder,) = (tmp_path / "run").glob("diverged-*")
    drawn = {path.stem for path in folder.iterdir()}
    assert len(drawn) == 4
    assert all(f"{name}.png" in str(caught.value) for name in drawn)


def test_a_non_finite_gradient_stops_the_run_before_a_weight_changes(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spoilt(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(_: Any, *gradients: Tensor) -> Tensor:
            return gradients[0] * float("inf")

    true = trainer_module.SegmentationLoss.__call__

    def spoilt(*given: Any) -> tuple[Tensor, Tensor]:
        loss, size = true(*given)
        return Spoilt.apply(loss), size

    monkeypatch.setattr(trainer_module.SegmentationLoss, "__call__", spoilt)
    with pytest.raises(NonFiniteLossError, match=r"the norm of the gradient is (nan|inf) at step 1"):
        train(make_recipe(), tmp_path / "run")


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_its_step_and_resumes_from_there(
    make_recipe: MakeRecipe, tmp_path: Path, signal_: int
) -> None:
    recipe = make_recipe(data__workers=1, training__epochs=3, training__validate_every=9)
    whole = losses(recipe, tmp_path / "whole")

    def interrupt(now: Progress) -> None:
        if now.step == 2:
            groups = [os.getpgid(process.pid or 0) for process in multiprocessing.active_children()]
            assert os.getpgrp() not in groups  # what is sent to the run's group does not reach its readers
            os.kill(os.getpid(), signal_)

    with pytest.raises(Stopped, match="stopped after step 3 of 6; --resume continues from there"):
        train(recipe, tmp_path / "run", on_step=interrupt)
    assert not (tmp_path / "run/best").exists()  # there was no validation
    messages: list[str] = []
    assert losses(recipe, tmp_path / "run", resume=True, on_message=messages.append) == whole[3:]
    assert "resuming after step 3" in messages
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "run"))
    messages.clear()
    train(recipe, tmp_path / "run", resume=True, on_message=messages.append)
    assert any("already finished" in message for message in messages)


def test_a_state_is_saved_between_validations_when_it_is_due(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(training__epochs=3, training__validate_every=9, log__save_minutes=0)
    with pytest.raises(Stop):
        train(recipe, tmp_path / "run", on_step=stop_at(4))
    assert load_state(tmp_path / "run")[1]["step"] == 3


def test_a_full_disk_stops_the_run_and_the_last_state_stays(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit on a file's size is the nearest thing to a full disk that a test may ask for."""
    recipe = make_recipe(training__epochs=3, log__save_minutes=0)
    whole = losses(recipe, tmp_path / "whole")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(now: Progress) -> None:
        if now.step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))

    try:
        with pytest.raises(
            SaveError, match=r"step 3 can't be written: .*(File too large|error).*state of step 2 is saved"
        ):
            train(recipe, tmp_path / "run", on_step=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_state(tmp_path / "run")[1]["step"] == 2
    assert not list((tmp_path / "run").glob(".*.new"))  # what was half written takes no room
    assert losses(recipe, tmp_path / "run", resume=True) == whole[2:]


def test_a_folder_that_vanishes_stops_the_run(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    def vanish(now: Progress) -> None:
        if now.step == 2:
            shutil.rmtree(tmp_path / "run")

    with pytest.raises(SaveError, match=r"run was removed or emptied; nothing was saved before"):
        train(make_recipe(training__epochs=4, training__validate_every=9), tmp_path / "run", on_step=vanish)
    assert not (tmp_path / "run").exists()


def test_two_runs_do_not_share_a_folder(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(training__epochs=0.5)

    def intrude(_: Progress) -> None:
        with pytest.raises(RecipeError, match="another process is training in"):
            train(recipe, tmp_path / "run")

    train(recipe, tmp_path / "run", on_step=intrude)


def test_class_weights_are_counted_once_reported_and_saved(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    true = data_module.count_classes
    monkeypatch.setattr(data_module, "count_classes", lambda data: counted.append(len(data)) or true(data))
    recipe = make_recipe(loss__class_weights="auto", training__epochs=3, log__save_minutes=0)
    messages: list[str] = []
    with pytest.raises(Stop):
        train(recipe, tmp_path / "run", on_step=stop_at(3), on_message=messages.append)
    said = next(message for message in messages if message.startswith("class weights: ground 0."))
    messages.clear()
    train(recipe, tmp_path / "run", resume=True, on_message=messages.append)
    assert said in messages
    assert counted == [8]


def test_given_class_weights_must_be_one_per_class(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"loss\.class_weights has 2 weights, 4 classes expected"):
        train(make_recipe(loss__class_weights=[1, 2]), tmp_path / "run")
    weighted = losses(make_recipe(loss__class_weights=[1, 2, 2, 2], training__epochs=0.5), tmp_path / "weighted")
    assert weighted != losses(make_recipe(training__epochs=0.5), tmp_path / "plain")


def test_a_summed_loss_is_the_mean_times_its_pixels(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    (mean,) = losses(make_recipe(training__epochs=0.5), tmp_path / "mean")
    (total,) = losses(make_recipe(training__epochs=0.5, loss__reduction="sum", optimizer__lr=1e-6), tmp_path / "sum")
    pixels = total / mean
    assert pixels == pytest.approx(round(pixels), abs=0.05)
    assert 0.5 * 4 * 65 * 65 < pixels < 4 * 65 * 65 + 0.05


def test_a_batch_that_does_not_fit_is_an_error_with_advice(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer_module.Gradients, "_loss", no_memory)
    with pytest.raises(MemoryShortageError, match=r"4 images of 65×65 do not fit .*training\.accumulate=2"):
        train(make_recipe(), tmp_path / "run")


def test_faulty_data_are_refused_with_the_doctors_messages(
    make_recipe: MakeRecipe, squares: Path, tmp_path: Path
) -> None:
    (squares / "masks/3.png").unlink()
    with pytest.raises(DatasetError, match=r"3\.png"):
        train(make_recipe(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_validation_shows_samples(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    train(make_recipe(data__val_split="val", training__epochs=0.5), tmp_path / "run")
    with Image.open(tmp_path / "run/samples/step-000001.jpg") as sheet:
        assert sheet.size[0] == 2 * 488


def void_masks(squares: Path, *names: str) -> None:
    for name in names:
        file = squares / f"masks/{name}.png"
        with Image.open(file) as mask:
            size = mask.size
        Image.new("L", size, 255).save(file)


def test_a_validation_of_ignored_pixels_is_undefined_and_not_the_best(
    make_recipe: MakeRecipe, squares: Path, tmp_path: Path
) -> None:
    void_masks(squares, "8", "9")
    messages: list[str] = []
    recipe = make_recipe(data__val_split="val", training__patience=1, training__epochs=3)
    result = train(recipe, tmp_path / "run", on_message=messages.append)
    assert (result.mean_iou, result.value) == (None, None)
    assert any("mean IoU undefined: every pixel of the validation images is ignored" in line for line in messages)
    assert not any("nan" in line for line in messages)
    lines = [line for line in log(tmp_path / "run") if "mean_iou" in line]
    assert [(line["mean_iou"], line["validation_loss"]) for line in lines] == [(None, None)] * 3  # nor out of patience
    assert load_state(tmp_path / "run")[1]["best"] == {
        "metric": "mean_iou", "value": None, "mean_iou": None, "step": None, "stale": 0
    }  # fmt: skip
    assert_equal(load(result.best).state_dict(), load(result.last).state_dict())  # the last one, as without validation


@pytest.mark.parametrize("metric", ["mean_iou", "pixel_accuracy", "validation_loss"])
def test_the_best_is_chosen_by_the_metric_that_the_recipe_names(
    make_recipe: MakeRecipe, tmp_path: Path, metric: str
) -> None:
    recipe = make_recipe(data__val_split="val", training__epochs=4, log__best_metric=metric)
    result = train(recipe, tmp_path / "run")
    lines = [line for line in log(tmp_path / "run") if "mean_iou" in line]
    choose = min if metric == "validation_loss" else max
    best = choose(lines, key=lambda line: line[metric])
    assert (result.metric, result.value, result.mean_iou) == (metric, best[metric], best["mean_iou"])
    assert load(result.best).card["metrics"]["step"] == best["step"]


def test_training_stops_early_and_a_resumed_run_stops_at_the_same_step(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(
        data__val_split="val", optimizer__lr=1e-30, training__epochs=9, training__patience=2, log__save_minutes=0
    )  # nothing gets better, except by the statistics of batch norm
    messages: list[str] = []
    whole = losses(recipe, tmp_path / "whole", on_message=messages.append)
    assert len(whole) < 18
    assert any("stopped early after step" in line and "training.patience" in line for line in messages)
    with pytest.raises(Stop):
        train(recipe, tmp_path / "halves", on_step=stop_at(len(whole) - 1))
    assert losses(recipe, tmp_path / "halves", resume=True) == whole[len(whole) - 2 :]
    messages.clear()
    assert losses(recipe, tmp_path / "halves", resume=True, on_message=messages.append) == []
    assert any("already finished" in line for line in messages)


def test_patience_needs_validation_data(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"training\.patience: without validation data"):
        train(make_recipe(training__patience=1), tmp_path / "run")


def test_a_run_is_resumed_with_the_same_best_metric(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    train(make_recipe(data__val_split="val", training__epochs=0.5), tmp_path / "run")
    other = make_recipe(data__val_split="val", training__epochs=0.5, log__best_metric="validation_loss")
    with pytest.raises(RecipeError, match=r"log\.best_metric"):
        train(other, tmp_path / "run", resume=True)


def test_a_validation_says_which_weights_it_is_of(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    messages: list[str] = []
    recipe = make_recipe(data__val_split="val", training__epochs=0.5, training__ema=0.99)
    train(recipe, tmp_path / "run", on_message=messages.append)
    (line,) = [line for line in messages if line.startswith("step 1: mean IoU")]
    assert "averaged weights (EMA), which lag behind the trained ones until about step 890" in line
    assert "validation loss" in line
    assert "training loss" in line
    assert any("--set training.ema= validates and saves the trained ones" in line for line in messages)
    assert [found["weights"] for found in log(tmp_path / "run") if "mean_iou" in found] == ["ema"]


def test_whole_images_train_one_at_a_time(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    whole = {"augment__crop": "whole", "augment__scale": (1.0, 1.0), "augment__flip": False}
    found = losses(make_recipe(**whole, training__batch_size=1, training__epochs=1), tmp_path / "run")
    assert len(found) == 8
    with pytest.raises(RecipeError, match=r"each part of a batch holds one: training\.accumulate = .* = 4"):
        train(make_recipe(**whole), tmp_path / "batch")
    assert len(losses(make_recipe(**whole, training__accumulate=4, training__epochs=1), tmp_path / "parts")) == 2


def test_stages_follow_each_other_and_resume_where_they_were(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    table = make_recipe(
        model__name="fcn32s", model__options={}, model__backbone="test_efficientnet", training__epochs=1.5
    ).model_dump(mode="json")
    table["stages"] = [
        {"name": "coarse"},
        {"name": "middle", "changes": {"model.name": "fcn16s", "optimizer.lr": 0.001}},
        {"name": "fine", "changes": {"model.name": "fcn8s", "training.epochs": 1}},
    ]
    recipe = check_recipe(table, "test")
    out = tmp_path / "run"
    messages: list[str] = []
    with pytest.raises(Stop):
        train(recipe, out, on_step=stop_at_nth(5))  # in the middle of the second stage
    with pytest.raises(RecipeError, match="already holds a run"):
        train(recipe, out)
    result = train(recipe, out, resume=True, on_message=messages.append)
    assert result.best == out / "best"
    assert [message for message in messages if message.startswith("stage ")] == [
        "stage coarse (1 of 3)",
        f"stage middle (2 of 3), from {out / 'stages/coarse/best'}",
        f"stage fine (3 of 3), from {out / 'stages/middle/best'}",
    ]
    assert sum("already finished" in message for message in messages) == 1
    names = [load(folder).name for folder in (out / "stages/coarse/best", out / "stages/middle/best", result.best)]
    assert names == ["fcn32s", "fcn16s", "fcn8s"]
    messages.clear()
    train(recipe, out, resume=True, on_message=messages.append)
    assert sum("already finished" in message for message in messages) == 3


def stop_at_nth(call: int) -> Callable[[Progress], None]:
    seen: list[int] = []

    def on_step(now: Progress) -> None:
        seen.append(now.step)
        if len(seen) == call:
            raise Stop

    return on_step
