"""The state of a run: complete or not there at all, whenever it is cut off; optimizers and logs continue from it."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from atrous.training.optimizer import optimizer_tensors, restore_optimizer
from atrous.training.run_folder import (
    Log,
    ResumeError,
    find_state,
    load_state,
    save_state,
)


def save(out: Path, number: int) -> None:
    save_state(out, {"model": {"w": torch.full((2,), float(number))}}, {"step": number})


def saved(out: Path) -> int:
    tensors, facts = load_state(out)
    assert tensors["model"]["w"].eq(facts["step"]).all()
    return int(facts["step"])


def test_the_newest_state_is_read_and_no_other_stays(tmp_path: Path) -> None:
    for number in (1, 2):
        save(tmp_path, number)
        assert saved(tmp_path) == number
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


class Cut(Exception):  # noqa: N818 - a stand-in for being killed
    pass


@pytest.mark.parametrize(("rename", "kept"), [(0, 1), (1, 2)])
def test_a_crash_at_either_rename_leaves_a_complete_state_that_can_be_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rename: int, kept: int
) -> None:
    save(tmp_path, 1)
    rename_, calls = Path.replace, iter(range(9))

    def replace(path: Path, target: Path) -> Path:
        if next(calls) == rename:
            raise Cut
        return rename_(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(Cut):
            save(tmp_path, 2)
    assert saved(tmp_path) == kept
    with monkeypatch.context() as patch:  # cut off once more, while the next one is being written
        patch.setattr("atrous.training.run_folder.save_file", lambda *_: (_ for _ in ()).throw(Cut()))
        with pytest.raises(Cut):
            save(tmp_path, 3)
    assert saved(tmp_path) == kept
    save(tmp_path, 4)
    assert saved(tmp_path) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_a_first_state_cut_off_during_writing_does_not_count(tmp_path: Path) -> None:
    (tmp_path / ".state.new").mkdir()
    assert find_state(tmp_path) is None
    with pytest.raises(ResumeError, match="holds no run to resume"):
        load_state(tmp_path)
    save(tmp_path, 1)
    assert saved(tmp_path) == 1


@pytest.mark.parametrize("file", ["state.json", "model.safetensors"])
def test_a_damaged_state_is_an_error(tmp_path: Path, file: str) -> None:
    save(tmp_path, 1)
    path = tmp_path / "state" / file
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ResumeError, match="is damaged"):
        load_state(tmp_path)


def test_a_state_that_json_can_not_express_is_not_written(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(ValueError, match="JSON"):
        save_state(tmp_path, {}, {"best": float("nan")})
    assert saved(tmp_path) == 1


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_restored_optimizer_steps_as_the_one_it_came_from(tmp_path: Path, kind: str) -> None:
    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(1)
        net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 3)).to(memory_format=torch.channels_last)
        if kind == "sgd":
            return net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, fused=True)
        return net, torch.optim.AdamW(net.parameters(), lr=0.1, fused=True)

    def step(net: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        net(torch.randn(2, 3, 9, 9)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    def weights(net: nn.Module) -> list[Tensor]:
        return [p.detach().clone() for p in net.parameters()]

    one, first = make()
    for seed in range(3):
        step(one, first, seed)
    save_state(tmp_path, {"model": one.state_dict(), "optimizer": optimizer_tensors(first)}, {})
    step(one, first, 3)
    two, second = make()
    tensors, _ = load_state(tmp_path)
    two.load_state_dict(tensors["model"])
    restore_optimizer(second, tensors["optimizer"])
    step(two, second, 3)
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))


def test_an_optimizer_that_has_not_stepped_is_restored_as_such() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1, momentum=0.9)
    assert optimizer_tensors(optimizer) == {}
    restore_optimizer(optimizer, {})
    assert optimizer.param_groups[0]["momentum"] == 0.9


def test_the_log_is_cut_to_a_step_and_loses_a_broken_line(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.cut(3)  # there is none yet
    for step in (10, 20, 30):
        log.add({"step": step, "loss": 0.5})
    with log.path.open("a") as file:
        file.write('{"step": 1')
    log.cut(20)
    assert [json.loads(line)["step"] for line in log.path.read_text().splitlines()] == [10, 20]
    with pytest.raises(ValueError, match="JSON"):
        log.add({"step": 30, "loss": float("nan")})
