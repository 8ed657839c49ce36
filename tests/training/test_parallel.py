"""Two processes train what one would: the same losses, weights and counts, written once; one that dies stops both."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

from atrous.models import load
from atrous.training.parallel import SynchronisedBatchNorm
from atrous.training.recipe import Recipe, StageSection
from atrous.training.stages import train

MakeRecipe = Callable[..., Recipe]
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "atrous", "train"]


def launch(recipe: Recipe, out: Path) -> "subprocess.CompletedProcess[str]":
    file = out.with_suffix(".toml")
    table = recipe.model_dump(mode="json", exclude_none=True, exclude={"format", "description"})
    lines = [f"stages = {toml(table.pop('stages'))}\n"]
    lines += [f"[{name}]\n" + "".join(f"{k} = {toml(v)}\n" for k, v in s.items()) for name, s in table.items()]
    file.write_text("\n".join(lines))
    return subprocess.run([*LAUNCH, file, "--out", out], capture_output=True, text=True, timeout=300)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value)


def lines(run: Path, key: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if key in line]


def test_shared_statistics_of_one_process_are_batch_norm() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        x = torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(0))
        results = []
        for mode in (nullcontext(), SynchronisedBatchNorm()):
            norm, values = nn.BatchNorm2d(5), x.clone().requires_grad_()
            nn.init.uniform_(norm.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(1))
            with mode:
                out = norm(values)
            out.square().mul(torch.arange(4.0)).sum().backward()
            results.append([out, values.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()])
        for plain, shared in zip(*results, strict=True):
            torch.testing.assert_close(plain, shared, rtol=1e-4, atol=1e-5)
    finally:
        dist.destroy_process_group()


NETWORKS = {
    "deeplab_largefov": ({"rate": 2}, 6),
    "deeplabv3plus": ({"channels": 16, "low_level_channels": 8, "rates": [1, 2], "dropout": 0.0}, 2),
}
"""By name their options, and for how many steps two runs of them agree. At the corner of a ReLU the last bit of a sum,
whose order is that of the processes, decides about a gradient. A bare classifier on test_efficientnet has no corners.
DeepLabv3+'s head, which norms pooled maps too, has: at the fourth step, with gradients six times as large, two runs
were 0.7 % apart.
"""


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_two_processes_equal_one(make_recipe: MakeRecipe, squares: Path, tmp_path: Path, network: str) -> None:
    (squares / "splits/train.txt").write_text("\n".join(map(str, range(7))))
    (squares / "splits/val.txt").write_text("7\n8\n9\n")  # three images for two processes
    options, steps = NETWORKS[network]
    recipe = make_recipe(
        model__name=network,
        model__backbone="test_efficientnet",
        model__options=options,
        augment__scale=(1.2, 2.0),  # no padding: whole areas of equal values would sit on the head's corners
        data__val_split="val",
        optimizer__lr=0.005,
        loss__class_weights="auto",
        loss__hard_share=0.5,
        training__steps=steps,
        training__ema=0.9,
        training__accumulate=2,
        log__every=1,
    )
    done = launch(recipe, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best model:") == 1
    assert "2 processes" in done.stderr
    assert "Warning" not in done.stderr
    train(recipe, tmp_path / "one")
    one, two = (lines(tmp_path / run, "loss") for run in ("one", "two"))
    assert [line["step"] for line in two] == list(range(1, steps + 1))
    for key in ("loss", "gradient_norm"):
        assert [line[key] for line in two] == pytest.approx([line[key] for line in one], rel=1e-3)
    for name in ("model", "ema"):
        a, b = (load_file(tmp_path / run / f"state/{name}.safetensors") for run in ("one", "two"))
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=1e-3, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}")
    one, two = (lines(tmp_path / run, "mean_iou") for run in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        assert b["images"] == 3
        assert [c["images"] for c in a["classes"]] == [c["images"] for c in b["classes"]]
        assert a["pixel_accuracy"] == pytest.approx(b["pixel_accuracy"], abs=1e-3)
    assert json.loads((tmp_path / "two/run.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_stages_follow_each_other_in_two_processes(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    stages = [{"name": "first"}, {"name": "second", "changes": {"optimizer.lr": 1e-9}}]
    recipe = make_recipe(data__val_split="val", training__steps=1)
    done = launch(recipe.model_copy(update={"stages": [StageSection(**stage) for stage in stages]}), tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("stage second (2 of 2), from") == done.stdout.count("best model:") == 1
    first, second = (load(tmp_path / f"run/{folder}").state_dict() for folder in ("stages/first/best", "best"))
    weights = [key for key in first if first[key].ndim == 4]
    assert all(torch.allclose(first[key], second[key], rtol=0, atol=1e-6) for key in weights)


@pytest.mark.slow
def test_a_process_that_fails_stops_both_and_prints_its_error(
    make_recipe: MakeRecipe, squares: Path, tmp_path: Path
) -> None:
    (squares / "splits/train.txt").write_text("\n".join(["0"] * 7 + ["7"]))
    image = squares / "images/7.png"
    image.write_bytes(image.read_bytes()[:-2000])  # its header is whole
    done = launch(make_recipe(training__epochs=50), tmp_path / "run")
    assert done.returncode != 0
    assert "7.png" in done.stderr
    assert math.prod(p.exists() for p in (tmp_path / "run/best", tmp_path / "run/last")) == 0
