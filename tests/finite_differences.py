"""Gradients of a scalar function by central differences: the witness of every backward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Fornberg 1988, table 1: weights of f(x + k·step) / step for f'(x), fourth order.
STENCIL = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}


def gradient(
    loss: Callable[[dict[str, Array]], float], arrays: Mapping[str, Array], step: float = 1e-3
) -> dict[str, Array]:
    """d loss / d array for every array of float64, under the same names.

    `loss` gets copies with one element moved; `arrays` stay as they are. The error is about
    step⁴/30 times the fifth derivative, plus 2e-16 · |loss| / step of rounding: with losses and
    derivatives of order 1, some 1e-13. `loss` has to compute in float64 throughout.
    """
    moved = {}
    for name, array in arrays.items():
        if array.dtype != np.float64:
            raise TypeError(f"{name}: expected float64, got {array.dtype}")
        moved[name] = np.array(array, order="C")
    gradients = {name: np.zeros(array.shape) for name, array in moved.items()}
    for name, array in moved.items():
        for index in np.ndindex(array.shape):
            value = array[index]
            total = 0.0
            for offset, weight in STENCIL.items():
                array[index] = value + offset * step
                # A loss may keep or change what it is given: the next one gets fresh copies.
                total += weight * loss({key: other.copy() for key, other in moved.items()})
            array[index] = value
            gradients[name][index] = total / step
    return gradients


def assert_gradients(
    loss: Callable[[dict[str, Array]], float],
    arrays: Mapping[str, Array],
    grads: Mapping[str, Array],
    *,
    tolerance: float = 1e-8,
    step: float = 1e-3,
) -> None:
    """The gradients are those of `loss`, each looked at along one random direction.

    A wrong element shows in that with probability one, for four calls an array: for networks. The
    tolerance is of the largest derivative.
    """
    assert grads.keys() == arrays.keys()
    rng = np.random.default_rng(0)
    directions = {name: rng.standard_normal(array.shape) for name, array in arrays.items()}
    expected = {}
    for name, direction in directions.items():

        def moved(place: dict[str, Array], name: str = name, direction: Array = direction) -> float:
            return loss({**arrays, name: arrays[name] + place["place"] * direction})

        expected[name] = float(gradient(moved, {"place": np.array(0.0)}, step)["place"])
    largest = max(abs(value) for value in expected.values())
    assert largest > 0
    for name, grad in grads.items():
        assert grad.shape == arrays[name].shape, name
        found = float((grad * directions[name]).sum())
        error = abs(found - expected[name]) / largest
        assert error <= tolerance, f"{name}: relative error {error:.3g} > {tolerance:g}"
