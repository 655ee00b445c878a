"""All gradients of the general cell against central differences of its own forward, in float64."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from tests.finite_differences import gradient
from tests.support import Array, normal
from tests.variant_problems import (
    ACTIVATIONS,
    FACTORS,
    HIDDEN,
    Choice,
    Problem,
    describe,
    every_pair,
    pairs_of,
    plain_but,
    problem_of,
)

TOLERANCE = 1e-6
STEP = 1e-5  # so short that a kink is hardly ever within reach; rounding leaves ten digits
DRAWS = 3  # problems tried until one has no kink within reach

CHOICES = every_pair()
SINGLE = [plain_but(**{name: value}) for name, values in FACTORS.items() for value in values[1:]]
ALL_AT_ONCE = [
    plain_but(
        f=f, g=g, h=h, proj_size=2, peepholes=True, clip=1.5, input_forget=input_forget,
        layer_norm=True, bias=bias, zoneout=(0.2, 0.3), recurrent_dropout=0.4, weight_dropout=0.3,
        input_dropout=0.3, layers="dropout", direction="bidirectional", ends=ends,
    )
    for f, g, h, input_forget, bias, ends in (
        ("sigmoid", "tanh", "tanh", False, True, "lengths"),
        (("hard_sigmoid", 0.3, 0.4), ("elu", 0.6), "softsign", True, False, "mask"),
    )
]  # fmt: skip


def slopes(problem: Problem, directions: dict[str, Array], step: float) -> dict[str, Array]:
    """Of the loss, when one whole array moves in its direction."""

    def moved(distances: dict[str, Array]) -> float:
        arrays = problem.arrays
        return problem.loss({n: arrays[n] + distances[n] * directions[n] for n in arrays})

    return gradient(moved, {name: np.zeros(()) for name in problem.arrays}, step)


def elements(problem: Problem, directions: dict[str, Array], step: float) -> dict[str, Array]:
    """Of the loss, when one element of an array moves."""
    del directions
    return gradient(problem.loss, problem.arrays, step)


def wrong(actual: Array, expected: Array, scale: float) -> bool:
    return not bool((np.abs(actual - expected) <= TOLERANCE * scale).all())


def assert_gradients(choice: Choice, measure: Any) -> None:
    """... unless a kink is within reach, which differences of another step tell: then again."""
    for seed in range(DRAWS):
        problem = problem_of(choice, seed)
        rng = np.random.default_rng(seed)
        directions = {name: normal(rng, array.shape) for name, array in problem.arrays.items()}
        measured, wrongs = measure(problem, directions, STEP), []
        for name, gradient_ in problem.gradients().items():
            actual, scale = gradient_, float(np.abs(gradient_).max())
            if measure is slopes:
                # A sum may cancel, so the error is measured by what it would be if nothing did.
                actual = (gradient_ * directions[name]).sum()
                scale = float(np.abs(gradient_ * directions[name]).sum())
            if wrong(actual, measured[name], scale + 1e-4):
                wrongs.append((name, actual, measured[name], scale))
        if not wrongs:
            return
        nearer = measure(problem, directions, STEP / 10)
        for name, actual, expected, scale in wrongs:
            kink = wrong(expected, nearer[name], 100 * scale + 1e-2)
            assert kink, f"{name} of {describe(choice)}: {actual}, not {expected}"
    pytest.fail(f"{describe(choice)}: no problem without a kink within reach")


@pytest.mark.parametrize("choice", CHOICES, ids=describe)
def test_gradients_in_random_directions_where_any_two_options_meet(choice: Choice) -> None:
    assert_gradients(choice, slopes)


@pytest.mark.parametrize("choice", [*SINGLE, *ALL_AT_ONCE], ids=describe)
def test_gradients_element_by_element(choice: Choice) -> None:
    assert_gradients(choice, elements)


def test_the_choices_have_every_pair_of_options() -> None:
    met = set().union(*(pairs_of(choice) for choice in CHOICES))
    for (a, values_a), (b, values_b) in combinations(FACTORS.items(), 2):
        for u, v in product(values_a, values_b):
            assert ((a, repr(u)), (b, repr(v))) in met


def test_hardly_any_gradient_is_zero() -> None:
    """... or comparing it would say nothing. Those of f's rows are without effect, if coupled."""
    assert {repr(a) for a in ACTIVATIONS} == {repr(a) for a in FACTORS["f"]}
    zero = checked = 0
    for choice in CHOICES:
        for array in problem_of(choice, 0).gradients().values():
            if choice["input_forget"] and array.shape[0] == 4 * HIDDEN:
                array = np.delete(array, slice(HIDDEN, 2 * HIDDEN), axis=0)
            checked += 1
            zero += not np.abs(array).max() > 1e-4
    assert zero <= checked / 50, (zero, checked)
