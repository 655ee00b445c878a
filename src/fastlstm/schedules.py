"""Learning-rate schedules: functions from the step, counted from 0, to a factor of the rate.

They are pure: the same step gives the same factor, so a resumed run needs nothing but the step's
number.

>>> schedule = cosine(109, warmup=9)
>>> [round(schedule(step), 3) for step in (0, 8, 9, 59, 109, 110)]
[0.1, 0.9, 1.0, 0.5, 0.0, 0.0]
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fastlstm._validate import check_number, check_size

Schedule = Callable[[int], float]


def constant() -> Schedule:
    """1 at every step."""

    def factor(step: int) -> float:
        check_size("step", step, least=0)
        return 1.0

    return factor


def cosine(total_steps: int, *, warmup: int = 0, final: float = 0.0) -> Schedule:
    """From 1 to `final` along half a cosine (Loshchilov & Hutter 2017), without restarts.

    Parameters
    ----------
    total_steps : int
        The step at which `final` is reached; it stays there.
    warmup : int
        Steps before the fall, in which the factor rises by equal amounts, from 1 / (warmup + 1)
        at step 0 on; it is 1 at step `warmup`.
    final : float
        The last factor, from 0 to 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is no number, or out of range; `warmup` must be less than `total_steps`.
    """
    return _fall(total_steps, warmup, final, lambda at: (1 + math.cos(math.pi * at)) / 2)


def linear(total_steps: int, *, warmup: int = 0, final: float = 0.0) -> Schedule:
    """From 1 to `final` along a straight line.

    Parameters and exceptions are those of `cosine`.
    """
    return _fall(total_steps, warmup, final, lambda at: 1 - at)


def exponential(gamma: float, every: int) -> Schedule:
    """Multiplied by `gamma` after every `every` steps: gamma ** (step // every).

    Parameters
    ----------
    gamma : float
        Greater than 0, at most 1.
    every : int
        Steps from one fall to the next.

    Raises
    ------
    TypeError, ValueError
        If an argument is no number, or out of range.
    """
    gamma = check_number("gamma", gamma, above=0.0, most=1.0)
    every = check_size("every", every)

    def factor(step: int) -> float:
        return gamma ** (check_size("step", step, least=0) // every)

    return factor


def _fall(total_steps: int, warmup: int, final: float, shape: Callable[[float], float]) -> Schedule:
    """Rise to 1 in `warmup` steps, then follow `shape`, which falls from 1 at 0 to 0 at 1."""
    total_steps = check_size("total_steps", total_steps)
    warmup = check_size("warmup", warmup, least=0)
    final = check_number("final", final, least=0.0, most=1.0)
    if warmup >= total_steps:
        raise ValueError(f"warmup: expected less than total_steps={total_steps}, got {warmup}")

    def factor(step: int) -> float:
        step = check_size("step", step, least=0)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if step >= total_steps:
            return final
        return final + (1 - final) * shape((step - warmup) / (total_steps - warmup))

    return factor
