"""The pinball loss: value and gradient beside scikit-learn and torch, its law, and bad input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import mean_pinball_loss

from fastlstm import quantile_loss
from tests.finite_differences import gradient
from tests.support import Array, assert_close, normal

QUANTILES = (0.1, 0.5, 0.95)
ROUNDING = {np.float32: 1e-6, np.float64: 4e-15}

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def draw(leading: tuple[int, ...], dtype: Any = np.float64) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    prediction = normal(rng, (*leading, len(QUANTILES)), dtype)
    return prediction, np.asarray(normal(rng, leading, dtype))


@pytest.mark.parametrize("leading", [(), (1,), (5,), (3, 4), (2, 1, 3)])
@every_dtype
def test_it_is_the_mean_of_scikit_learns_losses(leading: tuple[int, ...], dtype: Any) -> None:
    prediction, target = draw(leading, dtype)
    loss, d_prediction = quantile_loss(prediction, target, QUANTILES)
    assert type(loss) is float
    assert d_prediction.dtype == dtype
    assert d_prediction.shape == prediction.shape
    assert d_prediction.flags.c_contiguous
    losses = [
        mean_pinball_loss(target.ravel(), prediction[..., k].ravel(), alpha=q)
        for k, q in enumerate(QUANTILES)
    ]
    assert abs(loss - np.mean(losses)) <= ROUNDING[dtype]


def test_its_gradient_is_that_of_finite_differences() -> None:
    prediction, target = draw((3, 4))
    _, d_prediction = quantile_loss(prediction, target, QUANTILES)

    def loss(arrays: dict[str, Array]) -> float:
        return quantile_loss(arrays["prediction"], target, QUANTILES)[0]

    expected = gradient(loss, {"prediction": prediction})
    assert_close(d_prediction, expected["prediction"], 1e-6)


@pytest.mark.oracle
@every_dtype
def test_value_and_gradient_are_torchs(dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    prediction, target = draw((13, 7), dtype)
    loss, d_prediction = quantile_loss(prediction, target, QUANTILES)
    theirs = torch.tensor(prediction, requires_grad=True)
    error = torch.tensor(target)[..., None] - theirs
    levels = torch.tensor(QUANTILES, dtype=theirs.dtype)
    expected = torch.maximum(levels * error, (levels - 1) * error).mean()
    expected.backward()
    assert abs(loss - expected.item()) <= ROUNDING[dtype] * expected.item()
    assert_close(d_prediction, theirs.grad.numpy(), ROUNDING[dtype])


@pytest.mark.parametrize("q", [0.05, 0.3, 0.5, 0.9])
def test_it_is_least_at_the_quantile(q: float) -> None:
    """Over all constants, at the sample's quantile: what the loss was made for."""
    sample = np.random.default_rng(0).standard_normal(1001)
    grid = np.linspace(-3, 3, 2001)
    losses = [quantile_loss(np.full((1001, 1), c), sample, (q,))[0] for c in grid]
    assert abs(grid[np.argmin(losses)] - np.quantile(sample, q)) < 0.01


def test_a_prediction_that_is_right_has_neither_loss_nor_gradient() -> None:
    loss, d_prediction = quantile_loss(np.ones((2, 3)), np.ones(2), QUANTILES)
    assert loss == 0
    assert not d_prediction.any()


def test_what_is_not_finite_is_returned() -> None:
    prediction = np.array([[1.0, 1, 1], [math.nan, 1, 1], [math.inf, 1, 1]])
    loss, d_prediction = quantile_loss(prediction, np.zeros(3), QUANTILES)
    assert math.isnan(loss)
    assert np.isnan(d_prediction).tolist() == [[False] * 3, [True, False, False], [False] * 3]
    assert quantile_loss(prediction[2:], np.zeros(1), QUANTILES)[0] == math.inf


def test_inputs_of_any_layout_stay_as_they_are() -> None:
    prediction, target = draw((4, 6))
    kept, kept_target = prediction.copy(), target.copy()
    expected, d_expected = quantile_loss(prediction, target, QUANTILES)
    loss, d_prediction = quantile_loss(
        np.asfortranarray(prediction), np.asfortranarray(target), np.array(QUANTILES)
    )
    assert loss == pytest.approx(expected, rel=1e-14)  # summed in another order
    assert (d_prediction == d_expected).all()
    assert (prediction == kept).all()
    assert (target == kept_target).all()


@pytest.mark.parametrize(
    ("quantiles", "error", "message"),
    [
        ((), ValueError, r"^quantiles: expected one at least"),
        ((0.5, 0.1), ValueError, r"^quantiles: expected them ascending, got \(0\.5, 0\.1\)"),
        ((0.5, 0.5), ValueError, r"^quantiles: expected them ascending"),
        ((0.0, 0.5), ValueError, r"^quantiles\[0\]: expected a finite number > 0"),
        ((0.5, 1.0), ValueError, r"^quantiles\[1\]: .* < 1, got 1"),
        ((math.nan,), ValueError, r"^quantiles\[0\]: "),
        (("a",), TypeError, r"^quantiles\[0\]: expected a number, got 'a'"),
        (0.5, TypeError, r"^quantiles: expected a sequence of numbers, got 0\.5"),
        ("0.5", TypeError, r"^quantiles: expected a sequence of numbers"),
    ],
)
def test_impossible_quantiles_are_refused(
    quantiles: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        quantile_loss(np.ones((2, 1)), np.ones(2), quantiles)


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^prediction: expected shape \(\.\.\., 3\), got \(4, 2\)"
    ):
        quantile_loss(np.ones((4, 2)), np.ones(4), QUANTILES)
    with pytest.raises(ValueError, match=r"^target: expected shape \(4,\), got \(4, 3\)"):
        quantile_loss(np.ones((4, 3)), np.ones((4, 3)), QUANTILES)
    with pytest.raises(TypeError, match=r"^target: expected an array of float64, got float32"):
        quantile_loss(np.ones((4, 3)), np.ones(4, np.float32), QUANTILES)
    with pytest.raises(TypeError, match=r"^prediction: expected an array of float32 or float64"):
        quantile_loss(np.ones((4, 3), int), np.ones(4), QUANTILES)
    with pytest.raises(ValueError, match=r"^prediction: expected one element at least"):
        quantile_loss(np.ones((0, 3)), np.ones(0), QUANTILES)
