"""Learning rate schedules: values of the published policies, and the warm-up."""

import pytest

from atrous.training.schedules import poly, rate_factor, step_down
from atrous.training.sections import ScheduleSection


def test_poly_gives_the_published_figures() -> None:
    assert 0.007 * poly(15000, 30000) == pytest.approx(0.0037512, abs=5e-8)
    assert 2.5e-4 * poly(19999, 20000) == pytest.approx(3.37e-8, abs=5e-11)
    assert poly(0, 10) == 1


def test_power_0_is_constant_and_power_1_a_line() -> None:
    assert [poly(step, 4, 0) for step in range(4)] == [1, 1, 1, 1]
    assert [poly(step, 4, 1) for step in range(4)] == [1, 0.75, 0.5, 0.25]


def test_step_gives_the_published_figures() -> None:
    assert [1e-3 * step_down(step, 2000) for step in (0, 1999, 2000, 4000)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])
    assert step_down(5, 2, 0.5) == 0.25


def test_a_recipe_chooses_its_policy() -> None:
    assert rate_factor(ScheduleSection(), 3, 10) == poly(3, 10)
    assert rate_factor(ScheduleSection(policy="step", step_size=3, gamma=0.5), 7, 10) == 0.25


def test_warm_up_rises_linearly_to_the_policy() -> None:
    constant = ScheduleSection(power=0, warmup=4)
    assert [rate_factor(constant, step, 100) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    assert rate_factor(ScheduleSection(warmup=4), 1, 10) == pytest.approx(0.5 * poly(1, 10))
    assert rate_factor(ScheduleSection(warmup=4), 7, 10) == poly(7, 10)
