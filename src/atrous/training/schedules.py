"""Learning rate schedules as pure functions of the step, so that resuming needs no state."""

from __future__ import annotations

from atrous.training.sections import ScheduleSection


def rate_factor(schedule: ScheduleSection, step: int, steps: int) -> float:
    """The factor on the base learning rate at a step in 0 … ``steps`` − 1: the recipe's policy times its warm-up."""
    policy = (
        poly(step, steps, schedule.power)
        if schedule.policy == "poly"
        else step_down(step, schedule.step_size, schedule.gamma)
    )
    return policy * warm_up(step, schedule.warmup)


def poly(step: int, steps: int, power: float = 0.9) -> float:
    """``(1 − step / steps) ^ power`` (arXiv 1606.00915, §4.1), 0.9 in the DeepLab papers."""
    return float((1 - step / steps) ** power)


def step_down(step: int, size: int, gamma: float = 0.1) -> float:
    """``gamma ^ (step // size)`` (arXiv 1412.7062, §5: a tenth after every 2000 steps)."""
    return float(gamma ** (step // size))


def warm_up(step: int, warmup: int) -> float:
    """A linear rise over the first ``warmup`` steps, then 1."""
    return min(1.0, (step + 1) / warmup) if warmup else 1.0
