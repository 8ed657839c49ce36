"""The command line: its surface is frozen, errors are one message, results are on stdout."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from atrous.cli import app
from atrous.grid import Grid
from atrous.labels import LabelSet, encode_mask
from atrous.models import loading as zoo

SURFACE = {
    "demo": "--device --model --out",
    "predict": (
        "--attention-maps --crf --device --flip --json --merge --model --no-overlay --out --output-stride --overwrite "
        "--precision --probabilities --scales INPUT"
    ),
    "evaluate": (
        "--crf --data --device --flip --json --merge --model --output-stride --plot --precision --scales "
        "--split --trimap"
    ),
    "train": "--dry-run --out --resume --set RECIPE",
    "models": "",
    "crf refine": (
        "--classes --confidence --iterations --kind --no-overlay --out --overwrite --predictions --published "
        "--smoothness --smoothness-sxy --srgb --sxy --weight INPUT"
    ),
    "crf tune": "--data --device --flip --images --json --merge --model --out --scales --split",
    "convert to-pytorch": "--layout --model --out --overwrite",
    "convert caffe": "--as --classes --data --inputs --out --overwrite --rates --scales FILE",
    "convert classifier": "--as --out --overwrite FILE",
    "convert pytorch": "--as --classes --data --inputs --layout --out --overwrite --rates --scales FILE",
    "convert tensorflow": "--as --classes --data --out --overwrite --rates PREFIX",
    "convert tflite-arrays": "--classes --data --out --overwrite FILE",
    "data check": "--fix --json --split SPEC",
    "data convert": "--link --out --split SPEC",
    "data stats": "--json --sheet --split SPEC",
}
"""Every command with its arguments and options; a change here is a line in CHANGELOG."""


class ByChannel(nn.Module):
    label_set = LabelSet(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    name = "by_channel"
    output_stride = 1
    backbone = SimpleNamespace(in_channels=3)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.card: dict[str, Any] = {}

    def preprocess(self, images: Tensor) -> Tensor:
        return images.float() / 255

    def coarse_logits(self, images: Tensor) -> tuple[Tensor, Grid]:
        return images, Grid(1, 0)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces every model by one that goes by color; lists what was asked for."""
    names: list[str] = []

    def load(name: str) -> ByChannel:
        names.append(name)
        return ByChannel()

    monkeypatch.setattr(zoo, "load", load)
    return names


def atrous(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def red_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), "red").save(path)
    return path


def commands(command: Any, name: str = "") -> dict[str, str]:
    if hasattr(command, "commands"):
        found = [commands(sub, f"{name} {key}".strip()) for key, sub in command.commands.items()]
        return {key: value for part in found for key, value in part.items()}
    words = [p.opts[0] if p.opts[0].startswith("-") else p.metavar for p in command.params if p.name != "help"]
    return {name: " ".join(sorted(words))}


def test_commands_and_options_are_frozen() -> None:
    assert commands(typer.main.get_command(app)) == SURFACE


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys, atrous.cli; print([m for m in ('torch', 'timm', 'cv2', 'matplotlib', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("command", ["", *SURFACE])
def test_every_command_has_help(command: str) -> None:
    result = atrous(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_version() -> None:
    assert atrous("--version").stdout.startswith("atrous ")


def test_predict_writes_and_says_what_it_found(tmp_path: Path, loaded: list[str]) -> None:
    image = red_image(tmp_path / "in/a.png")
    result = atrous("predict", image, "--out", tmp_path / "out", "--json", "--probabilities")
    assert result.exit_code == 0, result.output
    assert loaded == [zoo.DEFAULT]
    assert f"{image} → {tmp_path / 'out/a.png'}: red 100%" in result.stdout
    assert "1 image in" in result.stdout
    assert result.stderr == ""
    endings = {".json", ".overlay.jpg", ".png", ".probabilities.npz"}
    assert {path.name.removeprefix("a") for path in (tmp_path / "out").iterdir()} == endings


def test_predict_passes_its_options_on(tmp_path: Path, loaded: list[str]) -> None:
    image = red_image(tmp_path / "a.png")
    options = ["--model", "mine", "--device", "cpu", "--output-stride", 8, "--precision", "bfloat16", "--no-overlay"]
    assert atrous("predict", image, "--out", tmp_path / "out", *options).exit_code == 0
    assert loaded == ["mine"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_a_broken_image_is_exit_code_1_after_the_others(tmp_path: Path, loaded: list[str]) -> None:
    red_image(tmp_path / "in/b.png")
    (tmp_path / "in/a.jpg").write_bytes(b"")
    result = atrous("predict", tmp_path / "in", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert f"failed: {tmp_path / 'in/a.jpg'}: an empty file" in result.stderr
    assert "1 of 2 images" in result.stdout
    assert (tmp_path / "out/b.png").is_file()


def test_many_images_are_not_listed_one_by_one(tmp_path: Path, loaded: list[str]) -> None:
    for i in range(25):
        red_image(tmp_path / f"in/{i}.png")
    result = atrous("predict", tmp_path / "in", "--out", tmp_path / "out", "--no-overlay")
    assert result.stdout.count("→") == 20
    assert "… and 5 more" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "no/*.jpg", "--out", "o", "--model", "fake"], "no/*.jpg: no image matches this pattern"),
        (
            ["predict", "x.jpg", "--out", "o", "--device", "toaster"],
            "no device 'toaster' on this machine; there are: cpu",
        ),
        (["evaluate", "--model", "fake", "--data", "nothing"], "'nothing' is not a dataset"),
        (["train", "no.toml", "--out", "o"], "there is no recipe no.toml"),
        (["data", "check", "folder:no"], "the folder no does not exist"),
    ],
)
def test_an_expected_error_is_one_message_and_exit_code_2(
    arguments: list[str], words: str, loaded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = atrous(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("atrous: ")
    assert words in result.stderr
    assert result.stdout == ""


def test_an_unknown_model_is_an_expected_error(tmp_path: Path) -> None:
    result = atrous("predict", "x.jpg", "--out", tmp_path, "--model", "no-such-model")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no model 'no-such-model'" in result.stderr


@pytest.mark.parametrize("bug", [RuntimeError("a bug"), ValueError("from elsewhere")])
def test_a_bug_keeps_its_traceback(bug: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise bug

    monkeypatch.setattr(zoo, "load", fail)
    assert atrous("predict", "x.jpg", "--out", tmp_path).exception is bug


def test_ctrl_c_is_exit_code_130_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo, "load", interrupt)
    result = atrous("predict", "x.jpg", "--out", tmp_path)
    assert (result.exit_code, result.output) == (130, "")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two images, red left of blue; the second mask says green instead of blue."""
    folder = tmp_path / "data"
    (folder / "masks").mkdir(parents=True)
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, :4, 0] = image[:, 4:, 2] = 255
    for name, right in (("a", 2), ("b", 1)):
        (folder / "images").mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"images/{name}.png")
        mask = np.repeat([[0, right]], 4, axis=1).repeat(4, axis=0).astype(np.uint8)
        (folder / f"masks/{name}.png").write_bytes(encode_mask(mask, ByChannel.label_set))
    (folder / "labels.toml").write_text('names = ["red", "green", "blue"]')
    return folder


def test_evaluate_prints_a_table_and_writes_json(dataset: Path, loaded: list[str], tmp_path: Path) -> None:
    options = ["--data", f"folder:{dataset}", "--split", "all", "--json", tmp_path / "scores.json"]
    result = atrous("evaluate", "--model", "fake", *options)
    assert result.exit_code == 0, result.output
    assert "pixel accuracy" in result.stdout
    assert "75.00" in result.stdout
    assert json.loads((tmp_path / "scores.json").read_text())["pixel_accuracy"] == pytest.approx(0.75)


def test_data_check_prints_tables_and_findings(dataset: Path, tmp_path: Path) -> None:
    facts = tmp_path / "new/facts.json"
    result = atrous("data", "check", f"folder:{dataset}", "--split", "all", "--json", facts)
    assert result.exit_code == 0, result.output
    assert "folder:all: 2 of 2 pairs are good, 8×4 to 8×4 pixels" in result.stdout
    assert "red     50.00 %  in 2 images" in result.stdout
    assert result.stdout.endswith("healthy: 1 note\n")  # the images are the same
    assert json.loads(facts.read_text())["healthy"]
    (dataset / "images/a.png").write_bytes(b"broken")
    result = atrous("data", "check", f"folder:{dataset}", "--split", "all", "--json", facts)
    assert result.exit_code == 1
    assert "a.png: not an image" in result.stdout
    assert "1 of 2 pairs" in result.stdout
    assert json.loads(facts.read_text())["findings"][0]["kind"] == "unreadable-image"


def test_data_check_fix_judges_the_copy(dataset: Path, tmp_path: Path) -> None:
    (dataset / "images/a.png").write_bytes(b"broken")
    options = ["--split", "all", "--fix", tmp_path / "copy", "--json", tmp_path / "facts.json"]
    result = atrous("data", "check", f"folder:{dataset}", *options)
    assert result.exit_code == 0, result.output
    assert "folder:all: 1 of 1 pairs are good" in result.stdout
    assert json.loads((tmp_path / "facts.json").read_text())["mended"]["splits"] == {"all": 1}
    assert atrous("data", "check", f"folder:{dataset}", *options).exit_code == 2  # the copy is there already


def test_data_stats_prints_weights_and_draws_a_sheet(dataset: Path, tmp_path: Path) -> None:
    options = ["--split", "all", "--json", tmp_path / "stats.json", "--sheet", tmp_path / "sheet.png"]
    result = atrous("data", "stats", f"folder:{dataset}", *options)
    assert result.exit_code == 0, result.output
    assert "sizes: 8×4 to 8×4" in result.stdout
    classes = json.loads((tmp_path / "stats.json").read_text())["classes"]
    assert (classes[0]["name"], classes[0]["pixels"], classes[0]["median_frequency"]) == ("red", 32, 1)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 640
    (dataset / "masks/a.png").write_bytes(b"broken")
    result = atrous("data", "stats", f"folder:{dataset}", "--split", "all")
    assert result.exit_code == 1
    assert "a.png: not a readable" in result.stderr
    assert "1 images" in result.stdout


@pytest.mark.parametrize("command", ["check", "stats"])
def test_a_json_file_that_cannot_be_written_is_said_before_the_work(
    command: str, dataset: Path, tmp_path: Path
) -> None:
    result = atrous("data", command, f"folder:{dataset}", "--json", tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert str(tmp_path) in result.stderr


def test_train_hands_the_checked_recipe_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from atrous.training import stages, types

    recipe = tmp_path / "r.toml"
    recipe.write_text('[data]\ntrain = "folder:x"\n')
    calls: list[tuple[Any, ...]] = []

    def train(recipe: Any, out: Path, *, resume: bool, on_step: Any, on_validation: Any, on_message: Any) -> Any:
        calls.append((recipe.training.epochs, out, resume))
        on_message("40 steps of 8 images")
        on_step(types.Progress(1, 2, 0.5, 0.01, 1.0, 3.0, 0.1))
        on_validation(1, SimpleNamespace(metrics=SimpleNamespace(mean_iou=0.5)))
        return types.Result(out / "best", out / "last", 0.5)

    monkeypatch.setattr(stages, "train", train)
    result = atrous("train", recipe, "--out", tmp_path / "run", "--set", "training.epochs=3", "--resume")
    assert result.exit_code == 0, result.output
    assert calls == [(3, tmp_path / "run", True)]
    assert f"best model: {tmp_path / 'run/best'}, mean IoU 50.00 %" in result.stdout
    assert "step 1: mean IoU 50.00 %" in result.stderr
    assert "40 steps of 8 images" in result.stderr


def test_a_stopped_training_says_where_and_is_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from atrous.training import stages, types

    def train(*_: Any, **__: Any) -> Any:
        raise types.Stopped("stopped after step 3 of 6; --resume continues from there")

    monkeypatch.setattr(stages, "train", train)
    (tmp_path / "r.toml").write_text('[data]\ntrain = "folder:x"\n')
    result = atrous("train", tmp_path / "r.toml", "--out", tmp_path / "run")
    assert result.exit_code == 130
    assert "stopped after step 3 of 6" in result.stderr


def test_a_dry_run_tells_shapes_memory_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from atrous.training import dry_run as dry_run_module

    def dry_run(_: Any, out: Path, on_message: Any) -> Any:
        on_message("40 steps of 8 images")
        shapes = {"batch": (8, 3, 65, 65), "main": (8, 4, 17, 17)}
        yield dry_run_module.DryRun(shapes, {"weights": 4_000_000}, None, 1.5, 2.0, 60, out / "dry-run.jpg")

    monkeypatch.setattr(dry_run_module, "dry_run", dry_run)
    (tmp_path / "r.toml").write_text('[data]\ntrain = "folder:x"\n')
    result = atrous("train", tmp_path / "r.toml", "--out", tmp_path / "run", "--dry-run")
    assert result.exit_code == 0, result.output
    for said in ("40 steps", "main: 8 × 4 × 17 × 17", "weights 4 MB", "60 of them: about 2 min", "dry-run.jpg"):
        assert said in result.stdout


def test_models_lists_architectures_and_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "BUNDLE", tmp_path)
    assert "bundled models: none" in atrous("models").stdout
    (tmp_path / "small").mkdir()
    card = {
        "architecture": "deeplabv3plus",
        "backbone": "b",
        "label_set": {"names": ["x", "y"]},
        "metrics": {"data": "voc:val", "mean_iou": 0.5},
    }
    (tmp_path / "small/config.json").write_text(json.dumps(card))
    (tmp_path / "small/model.safetensors").write_bytes(bytes(2_000_000))
    said = atrous("models").stdout
    assert "deeplabv3plus" in said
    assert "small: deeplabv3plus on b, 2.0 MB\n  classes: x, y\n  mean iou on voc:val: 50.00 %" in said


def test_demo_says_what_it_found_and_what_to_try(tmp_path: Path, loaded: list[str]) -> None:
    result = atrous("demo", "--out", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    assert "grace_hopper.jpg: " in result.stdout
    assert "atrous predict YOUR_PHOTO.jpg --out masks" in result.stdout
    assert (tmp_path / "demo/grace_hopper.side_by_side.jpg").is_file()


def test_predict_looks_several_times_and_a_crf_is_noted_when_it_was_not_tuned(
    loaded: list[str], tmp_path: Path
) -> None:
    image = red_image(tmp_path / "image.png")
    result = atrous(
        "predict", image, "--model", "fake", "--out", tmp_path / "out", "--scales", "0.5,1", "--flip", "--crf"
    )
    assert result.exit_code == 0, result.output
    assert "red 100%" in result.stdout
    assert "no CRF was tuned" in result.stderr
    result = atrous("predict", image, "--model", "fake", "--out", tmp_path / "out", "--scales", "half")
    assert result.exit_code == 2
    assert "--scales takes factors" in result.stderr


def test_crf_refine_takes_predictions_of_any_program(tmp_path: Path) -> None:
    image = red_image(tmp_path / "image.png")
    (tmp_path / "theirs").mkdir()
    np.save(tmp_path / "theirs" / "image.npy", np.full((2, 6, 8), 0.5, np.float32) + np.float32([[[0.2]], [[-0.2]]]))
    (tmp_path / "names.txt").write_text("ground\nthing\n")
    options = (
        "--predictions",
        tmp_path / "theirs",
        "--classes",
        tmp_path / "names.txt",
        "--published",
        "deeplab_largefov",
    )
    result = atrous("crf", "refine", image, "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert "ground 100%" in result.stdout
    np.save(tmp_path / "theirs" / "image.npy", np.zeros((2, 8, 6), np.float32))
    result = atrous("crf", "refine", image, "--out", tmp_path / "out", *options)
    assert result.exit_code == 1
    assert "did you swap height and width?" in result.stderr


def test_crf_refine_takes_a_published_set_or_numbers(tmp_path: Path) -> None:
    image = red_image(tmp_path / "image.png")
    options = ("--predictions", tmp_path, "--published", "deeplab_largefov", "--sxy", 5)
    result = atrous("crf", "refine", image, "--out", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert "leave out sxy" in result.stderr


def test_crf_tune_says_whether_it_helps(
    dataset: Path, loaded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atrous.crf.tune.COARSE", {"weight": (0.0,), "sxy": (5.0,), "srgb": (5.0,)})
    monkeypatch.setattr("atrous.crf.tune.FINER", ())
    file = tmp_path / "tuned.json"
    result = atrous("crf", "tune", "--model", "fake", "--data", f"folder:{dataset}", "--split", "train", "--json", file)
    assert result.exit_code == 0, result.output
    assert "others, with CRF" in result.stdout
    assert json.loads(file.read_text())["settings"]["weight"] == 0
    out = tmp_path / "tuned"
    options = ("--model", "fake", "--data", f"folder:{dataset}", "--split", "train", "--out", out)
    result = atrous("crf", "tune", *options)
    assert f"{out} was not written" in result.stdout
    assert not out.exists()
    out.mkdir()
    result = atrous("crf", "tune", *options)
    assert result.exit_code == 2
    assert "a new folder" in result.stderr
