"""Learning-rate schedules: their ends and middles, their shapes, torch's, and bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm.schedules import Schedule, constant, cosine, exponential, linear

falls = pytest.mark.parametrize("make", [cosine, linear])


def factors(schedule: Schedule, steps: int) -> list[float]:
    return [schedule(step) for step in range(steps)]


def test_constant_is_one() -> None:
    assert factors(constant(), 5) == [1.0] * 5
    assert constant()(10**9) == 1.0


def test_cosine_is_the_formula() -> None:
    """η = η_min + (η_max - η_min)(1 + cos(π T_cur / T))/2: Loshchilov & Hutter 2017, eq. 5."""
    schedule = cosine(8, final=0.2)
    for step in range(9):
        assert schedule(step) == pytest.approx(0.2 + 0.4 * (1 + math.cos(math.pi * step / 8)))
    assert schedule(0) == 1.0
    assert schedule(4) == pytest.approx(0.6)
    assert schedule(8) == schedule(9) == schedule(10**6) == 0.2


def test_linear_falls_by_equal_amounts() -> None:
    assert factors(linear(4), 6) == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert factors(linear(4, final=0.5), 6) == [1.0, 0.875, 0.75, 0.625, 0.5, 0.5]


def test_exponential_falls_at_every_so_many_steps() -> None:
    assert factors(exponential(0.5, 3), 10) == [1.0] * 3 + [0.5] * 3 + [0.25] * 3 + [0.125]
    assert factors(exponential(1.0, 1), 3) == [1.0] * 3
    assert exponential(0.9, 1)(10**6) == 0.0


@falls
def test_the_warm_up_rises_by_equal_amounts_and_the_fall_takes_what_is_left(make: Any) -> None:
    schedule, plain = make(10, warmup=4, final=0.1), make(6, final=0.1)
    np.testing.assert_allclose(factors(schedule, 4), [0.2, 0.4, 0.6, 0.8])
    assert [schedule(4 + step) for step in range(8)] == factors(plain, 8)
    assert schedule(4) == 1.0


@falls
@given(data=st.data(), total=st.integers(1, 200), final=st.floats(0, 1))
def test_a_schedule_rises_to_one_then_falls_to_its_end(
    make: Any, data: st.DataObject, total: int, final: float
) -> None:
    warmup = data.draw(st.integers(0, total - 1))
    values = np.array(factors(make(total, warmup=warmup, final=final), total + 3))
    assert (np.diff(values[: warmup + 1]) > 0).all()
    assert (np.diff(values[warmup:]) <= 0).all()
    assert values[warmup] == values.max() == 1
    assert values[0] > 0
    assert (values[total:] == final).all()
    assert values[warmup:].min() >= final * (1 - 1e-15)


@falls
def test_a_schedule_is_pure(make: Any) -> None:
    schedule = make(20, warmup=5)
    once = factors(schedule, 25)
    backwards = [schedule(step) for step in reversed(range(25))]
    assert backwards[::-1] == once
    assert schedule(np.int64(7)) == once[7]


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [
        (cosine(12, final=0.25), lambda o, s: s.CosineAnnealingLR(o, 12, eta_min=0.5)),
        (linear(12, final=0.25), lambda o, s: s.LinearLR(o, 1.0, 0.25, total_iters=12)),
        (exponential(0.8, 3), lambda o, s: s.StepLR(o, 3, gamma=0.8)),
        (exponential(0.8, 1), lambda o, s: s.ExponentialLR(o, gamma=0.8)),
    ],
)
def test_rates_are_those_of_torch(schedule: Schedule, theirs: Callable[..., Any]) -> None:
    torch = pytest.importorskip("torch")
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = theirs(optimiser, torch.optim.lr_scheduler)
    for step in range(13):
        assert 2 * schedule(step) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-12)
        optimiser.step()
        scheduler.step()


@falls
def test_bad_arguments_are_refused_by_name(make: Any) -> None:
    for bad in (0, -1):
        with pytest.raises(ValueError, match=r"^total_steps: expected a whole number >= 1"):
            make(bad)
    with pytest.raises(TypeError, match=r"^total_steps: expected a whole number"):
        make(10.0)
    with pytest.raises(ValueError, match=r"^warmup: expected a whole number >= 0"):
        make(10, warmup=-1)
    for too_many in (10, 11):
        with pytest.raises(
            ValueError, match=rf"^warmup: expected less than total_steps=10, got {too_many}"
        ):
            make(10, warmup=too_many)
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"^final: expected a finite number >= 0 and <= 1"):
            make(10, final=bad)
    with pytest.raises(TypeError, match=r"^final: expected a number"):
        make(10, final="0")


def test_bad_arguments_of_exponential_are_refused_by_name() -> None:
    for bad in (0.0, -0.5, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"^gamma: expected a finite number > 0 and <= 1"):
            exponential(bad, 3)
    with pytest.raises(TypeError, match=r"^gamma: expected a number"):
        exponential(None, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^every: expected a whole number >= 1"):
        exponential(0.5, 0)
    with pytest.raises(TypeError, match=r"^every: expected a whole number"):
        exponential(0.5, 2.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", [constant(), cosine(5), linear(5), exponential(0.5, 2)])
def test_a_step_is_a_whole_number_from_zero_on(schedule: Schedule) -> None:
    with pytest.raises(ValueError, match=r"^step: expected a whole number >= 0, got -1"):
        schedule(-1)
    with pytest.raises(TypeError, match=r"^step: expected a whole number"):
        schedule(1.5)  # type: ignore[arg-type]
