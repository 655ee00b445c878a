"""Softmax cross-entropy and the mean squared error: values, gradients, extremes and bad input."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from fastlstm import threads
from fastlstm.losses import mean_squared_error, softmax_cross_entropy, softmax_log_prob
from tests.finite_differences import gradient
from tests.strange import (
    assert_refuses_shapes,
    assert_refuses_what_is_no_such_array,
    assert_takes_any_layout,
)
from tests.support import Array, assert_close, assert_same_bits, normal, relative_error
from tests.test_arrays import Argument

DTYPES = [np.float32, np.float64]
LEADING = [(), (1,), (5,), (3, 4), (2, 1, 3)]
GRADIENT_BOUND = 1e-6
# Of one element: what the dtype can hold of a number of the size of the logits, a few times over.
ROUNDING = {np.float32: 1e-6, np.float64: 4e-15}

every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def draw(leading: tuple[int, ...], classes: int, dtype: Any, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return 3 * normal(rng, (*leading, classes), dtype), rng.integers(0, classes, leading)


def expected_of(logits: Array, targets: Array, counts: Array | None = None) -> tuple[float, Array]:
    """The definition, by SciPy, in float64."""
    wide = logits.astype(np.float64).reshape(-1, logits.shape[-1])
    picked = targets.reshape(-1)
    counts = np.ones(picked.shape, bool) if counts is None else counts.reshape(-1)
    rows = np.flatnonzero(counts)
    gradients = np.zeros(wide.shape)
    gradients[rows] = softmax(wide[rows], axis=1)
    gradients[rows, picked[rows]] -= 1
    loss = -math.fsum(log_softmax(wide[rows], axis=1)[range(len(rows)), picked[rows]]) / len(rows)
    return loss, (gradients / len(rows)).reshape(logits.shape)


# --- softmax cross-entropy -----------------------------------------------------------------------


@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize("classes", [1, 2, 7, 130, 2500])
@every_dtype
def test_cross_entropy_is_its_definition(
    leading: tuple[int, ...], classes: int, dtype: Any
) -> None:
    logits, targets = draw(leading, classes, dtype)
    loss, d_logits = softmax_cross_entropy(logits, np.asarray(targets))
    expected, gradients = expected_of(logits, np.asarray(targets))
    assert type(loss) is float
    assert d_logits.dtype == dtype
    assert d_logits.shape == logits.shape
    assert abs(loss - expected) <= ROUNDING[dtype] * max(1, expected)
    assert_close(d_logits, gradients, ROUNDING[dtype])


@every_dtype
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 9),
    classes=st.sampled_from([1, 3, 31, 32, 100, 1030]),
)
def test_neither_threads_nor_the_order_of_rows_change_a_bit(
    dtype: Any, seed: int, rows: int, classes: int
) -> None:
    logits, targets = draw((rows,), classes, dtype, seed)
    targets[1::3] = -100
    order = np.random.default_rng(seed).permutation(rows)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(threads, "LEAST_WORK", 0)
        patched.setattr(threads, "_num_threads", 1)
        loss, d_logits = softmax_cross_entropy(logits, targets, ignore_index=-100)
        for num_threads in (2, 3, 4):
            patched.setattr(threads, "_num_threads", num_threads)
            other, d_other = softmax_cross_entropy(logits, targets, ignore_index=-100)
            assert other == loss
            assert_same_bits(d_other, d_logits)
            other, d_other = softmax_cross_entropy(logits[order], targets[order], ignore_index=-100)
            assert abs(other - loss) <= 1e-15 * loss * rows
            assert_same_bits(d_other, d_logits[order])
    counts = targets >= 0
    expected, gradients = expected_of(logits, targets, counts)
    assert abs(loss - expected) <= ROUNDING[dtype] * max(1, expected)
    # Of a probability, that is before the one of the target is taken off.
    assert np.abs(d_logits - gradients).max() <= ROUNDING[dtype] / counts.sum()


def test_a_row_of_very_many_classes_does_not_drown_in_its_own_rounding() -> None:
    """One running sum of a million exponentials would be off by 1e-4 or more in float32."""
    logits, targets = draw((2,), 1_000_000, np.float32)
    loss, d_logits = softmax_cross_entropy(logits, targets)
    expected, gradients = expected_of(logits, targets)
    assert abs(loss - expected) < 3e-7
    assert_close(d_logits, gradients, ROUNDING[np.float32])


def test_cross_entropy_takes_no_memory_but_for_the_gradient_and_a_few_numbers_a_row() -> None:
    logits, targets = draw((50,), 10_000, np.float32)
    tracemalloc.start()
    try:
        softmax_cross_entropy(logits, targets)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.02 * logits.nbytes


def test_the_mean_of_many_losses_is_added_in_float64() -> None:
    """400,000 rows in float32: a running sum of that precision would be off by 1e-5 or more."""
    logits, targets = draw((400_000,), 3, np.float32)
    loss, _ = softmax_cross_entropy(logits, targets)
    assert abs(loss - expected_of(logits, targets)[0]) < 1e-7


def test_cross_entropys_gradient_is_that_of_finite_differences() -> None:
    logits, targets = draw((2, 3), 5, np.float64)
    targets[1, 1] = 9

    def loss(arrays: dict[str, Array]) -> float:
        return softmax_cross_entropy(arrays["logits"], targets, ignore_index=9)[0]

    _, d_logits = softmax_cross_entropy(logits, targets, ignore_index=9)
    assert_close(d_logits, gradient(loss, {"logits": logits})["logits"], GRADIENT_BOUND)


@every_dtype
@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-1e4, 1e4))
def test_cross_entropy_does_not_change_when_all_logits_are_shifted(
    dtype: Any, seed: int, shift: float
) -> None:
    # Quarters, which a shift by whole numbers leaves exact: the results have the same bits.
    rng = np.random.default_rng(seed)
    logits = (rng.integers(-40, 40, (4, 6)) / 4).astype(dtype)
    targets = rng.integers(0, 6, 4)
    loss, d_logits = softmax_cross_entropy(logits, targets)
    shifted_loss, shifted = softmax_cross_entropy(logits + dtype(round(shift)), targets)
    assert shifted_loss == loss
    assert_same_bits(shifted, d_logits)


@every_dtype
def test_cross_entropys_gradients_add_up_to_zero_in_each_row(dtype: Any) -> None:
    logits, targets = draw((50,), 20, dtype)
    _, d_logits = softmax_cross_entropy(logits, targets)
    assert np.abs(d_logits.sum(axis=1, dtype=np.float64)).max() < ROUNDING[dtype]


@every_dtype
def test_huge_logits_neither_overflow_nor_underflow(dtype: Any) -> None:
    large = float(np.finfo(dtype).max) / 4
    logits = np.array([[large, 0, -large], [large, 0, -large], [-large] * 3], dtype)
    loss, d_logits = softmax_cross_entropy(logits, np.array([0, 0, 1]))
    assert abs(loss - math.log(3) / 3) < ROUNDING[dtype]
    third = 1 / 9
    expected = np.array([[0, 0, 0], [0, 0, 0], [third, third - 1 / 3, third]])
    assert relative_error(d_logits, expected) < ROUNDING[dtype]


# --- infinities and NaN --------------------------------------------------------------------------

EXTREMES = {
    "-inf beside the target": ([-np.inf, 1, 2], 1),
    "-inf at the target": ([-np.inf, 1, 2], 0),
    "-inf everywhere else": ([-np.inf, 1, -np.inf], 1),
    "-inf everywhere": ([-np.inf] * 3, 1),
    "inf at the target": ([np.inf, 1, 2], 0),
    "inf beside the target": ([np.inf, 1, 2], 1),
    "NaN at the target": ([np.nan, 1, 2], 0),
    "NaN beside the target": ([np.nan, 1, 2], 1),
}


@every_dtype
def test_a_class_that_cannot_be_has_no_gradient(dtype: Any) -> None:
    loss, d_logits = softmax_cross_entropy(np.array([[-np.inf, 0, 0]], dtype), np.array([1]))
    assert abs(loss - math.log(2)) < ROUNDING[dtype]
    assert_same_bits(d_logits, np.array([[0, -0.5, 0.5]], dtype))


@every_dtype
def test_a_target_that_cannot_be_has_an_infinite_loss(dtype: Any) -> None:
    loss, d_logits = softmax_cross_entropy(np.array([[-np.inf, 0, 0]], dtype), np.array([0]))
    assert loss == math.inf
    assert_same_bits(d_logits, np.array([[-1, 0.5, 0.5]], dtype))


@pytest.mark.parametrize("name", [n for n in EXTREMES if "NaN" in n or n.startswith("inf")])
def test_a_nan_reaches_the_loss_and_its_own_row_alone(name: str) -> None:
    row, target = EXTREMES[name]
    logits = np.array([[1.0, 2.0, 3.0], row])
    loss, d_logits = softmax_cross_entropy(logits, np.array([2, target]))
    assert math.isnan(loss)
    assert np.isfinite(d_logits[0]).all()
    assert np.isnan(d_logits[1]).all()


@pytest.mark.oracle
@pytest.mark.parametrize("name", EXTREMES)
@every_dtype
def test_extremes_are_what_they_are_in_torch(name: str, dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    row, target = EXTREMES[name]
    logits = np.array([[1, 2, 3], row], dtype)
    targets = np.array([2, target])
    loss, d_logits = softmax_cross_entropy(logits, targets)
    theirs = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(theirs, torch.tensor(targets))
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), rtol=ROUNDING[dtype])
    np.testing.assert_allclose(d_logits, theirs.grad.numpy(), atol=ROUNDING[dtype], rtol=0)


@pytest.mark.oracle
@pytest.mark.parametrize("ignore_index", [None, -100, 3])
@pytest.mark.parametrize("classes", [2, 50, 1000])
@every_dtype
def test_cross_entropy_equals_torchs(classes: int, ignore_index: int | None, dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    logits, targets = draw((6, 11), classes, dtype, seed=classes)
    targets[2:4] = 0 if ignore_index is None else ignore_index
    loss, d_logits = softmax_cross_entropy(logits, targets, ignore_index=ignore_index)
    theirs = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        theirs.reshape(-1, classes),
        torch.tensor(targets).reshape(-1),
        ignore_index=-100 if ignore_index is None else ignore_index,
    )
    expected.backward()
    assert abs(loss - expected.item()) <= ROUNDING[dtype] * expected.item()
    assert_close(d_logits, theirs.grad.numpy(), 2 * ROUNDING[dtype])


# --- label smoothing ------------------------------------------------------------------------------


def smoothed_of(logits: Array, targets: Array, smoothing: float) -> tuple[float, Array]:
    """The definition: cross-entropy with a distribution, by SciPy, in float64."""
    classes = logits.shape[-1]
    wide, picked = logits.astype(np.float64).reshape(-1, classes), targets.reshape(-1)
    learnt = np.full(wide.shape, smoothing / classes)
    learnt[np.arange(len(wide)), picked] += 1 - smoothing
    loss = -math.fsum((learnt * log_softmax(wide, axis=1)).ravel()) / len(wide)
    return loss, ((softmax(wide, axis=1) - learnt) / len(wide)).reshape(logits.shape)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9, 1.0])
@pytest.mark.parametrize("classes", [1, 2, 7, 8, 9, 130, 2500])
@every_dtype
def test_smoothed_cross_entropy_is_its_definition(
    classes: int, smoothing: float, dtype: Any
) -> None:
    logits, targets = draw((3, 4), classes, dtype)
    loss, d_logits = softmax_cross_entropy(logits, targets, label_smoothing=smoothing)
    expected, gradients = smoothed_of(logits, targets, smoothing)
    assert abs(loss - expected) <= ROUNDING[dtype] * max(1, expected)
    # Of a probability, that is before what is learnt is taken off.
    assert np.abs(d_logits - gradients).max() <= ROUNDING[dtype] / targets.size


def test_no_smoothing_has_the_bits_of_none_at_all() -> None:
    logits, targets = draw((5,), 9, np.float32)
    loss, d_logits = softmax_cross_entropy(logits, targets, label_smoothing=0)
    expected, gradients = softmax_cross_entropy(logits, targets)
    assert loss == expected
    assert_same_bits(d_logits, gradients)


def test_smoothed_gradients_are_finite_differences_and_ignored_targets_have_none() -> None:
    logits, targets = draw((2, 3), 9, np.float64)
    targets[1, 1] = -1

    def run(logits: Array) -> tuple[float, Array]:
        return softmax_cross_entropy(logits, targets, ignore_index=-1, label_smoothing=0.2)

    _, d_logits = run(logits)
    expected = gradient(lambda arrays: run(arrays["logits"])[0], {"logits": logits})["logits"]
    assert_close(d_logits, expected, 1e-11)
    assert not d_logits[1, 1].any()


@pytest.mark.oracle
@pytest.mark.parametrize("smoothing", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("classes", [2, 50, 1003])
@every_dtype
def test_smoothed_cross_entropy_equals_torchs(classes: int, smoothing: float, dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    logits, targets = draw((6, 11), classes, dtype, seed=classes)
    targets[2:4] = -100
    loss, d_logits = softmax_cross_entropy(
        logits, targets, ignore_index=-100, label_smoothing=smoothing
    )
    theirs = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        theirs.reshape(-1, classes), torch.tensor(targets).reshape(-1), label_smoothing=smoothing
    )
    expected.backward()
    assert abs(loss - expected.item()) <= ROUNDING[dtype] * expected.item()
    gradients = theirs.grad.numpy()
    assert np.abs(d_logits - gradients).max() <= ROUNDING[dtype] / (targets >= 0).sum()


@pytest.mark.oracle
@pytest.mark.parametrize("name", EXTREMES)
@every_dtype
def test_smoothed_extremes_are_what_they_are_in_torch(name: str, dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    row, target = EXTREMES[name]
    logits = np.array([[1, 2, 3], row], dtype)
    loss, _ = softmax_cross_entropy(logits, np.array([2, target]), label_smoothing=0.1)
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor([2, target]), label_smoothing=0.1
    )
    np.testing.assert_allclose(loss, expected.item(), rtol=ROUNDING[dtype])


@pytest.mark.parametrize(
    ("smoothing", "error"),
    [
        (-0.1, ValueError),
        (1.1, ValueError),
        (math.nan, ValueError),
        ("a", TypeError),
        (True, TypeError),
    ],
)
def test_label_smoothing_is_a_part(smoothing: Any, error: type[Exception]) -> None:
    logits, targets = draw((4,), 5, np.float32)
    with pytest.raises(error, match=r"^label_smoothing: expected "):
        softmax_cross_entropy(logits, targets, label_smoothing=smoothing)


# --- targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 4, 255])
def test_ignored_targets_do_not_count(ignore_index: int) -> None:
    logits, targets = draw((4, 6), 5, np.float64)
    ignored = np.random.default_rng(1).random((4, 6)) < 0.4
    targets[ignored] = ignore_index
    counts = targets != ignore_index
    loss, d_logits = softmax_cross_entropy(logits, targets, ignore_index=ignore_index)
    alone, d_alone = softmax_cross_entropy(logits[counts], targets[counts])
    assert abs(loss - alone) < 1e-15
    assert_same_bits(d_logits[counts], d_alone)
    assert not d_logits[~counts].any()


def test_logits_of_ignored_targets_are_not_read() -> None:
    logits, targets = draw((5,), 3, np.float32)
    targets[[1, 3]] = -100
    expected = softmax_cross_entropy(logits, targets, ignore_index=-100)
    logits[1], logits[3] = np.nan, np.inf
    loss, d_logits = softmax_cross_entropy(logits, targets, ignore_index=-100)
    assert loss == expected[0]
    assert_same_bits(d_logits, expected[1])


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint64"])
def test_targets_may_be_of_any_integer_dtype(kind: str) -> None:
    logits, targets = draw((4,), 5, np.float32)
    loss, d_logits = softmax_cross_entropy(logits, targets.astype(kind), ignore_index=-100)
    expected = softmax_cross_entropy(logits, targets)
    assert loss == expected[0]
    assert_same_bits(d_logits, expected[1])


@pytest.mark.parametrize("bad", [-1, 5, -100, 2**40])
def test_a_target_out_of_range_is_refused(bad: int) -> None:
    logits, targets = draw((4,), 5, np.float32)
    targets[2] = bad
    with pytest.raises(IndexError, match=rf"^targets: expected values from 0 to 4, got {bad}$"):
        softmax_cross_entropy(logits, targets)
    with pytest.raises(IndexError, match=rf"^targets: .* from 0 to 4 or -7, got {bad}$"):
        softmax_cross_entropy(logits, targets, ignore_index=-7)


def test_a_mean_over_nothing_is_refused() -> None:
    logits, targets = draw((4,), 5, np.float32)
    for bad_logits, bad_targets in (
        (logits, np.full(4, -1)),
        (logits[:0], targets[:0]),
        (np.empty((3, 0, 5)), np.empty((3, 0), int)),
    ):
        with pytest.raises(ValueError, match=r"^targets: expected at least one that counts"):
            softmax_cross_entropy(bad_logits, bad_targets, ignore_index=-1)
    with pytest.raises(ValueError, match=r"^logits: expected one class at least"):
        softmax_cross_entropy(np.empty((4, 0)), targets)


def test_ignore_index_must_be_a_whole_number() -> None:
    logits, targets = draw((4,), 5, np.float32)
    for bad in (1.0, "1", True):
        with pytest.raises(TypeError, match=r"^ignore_index: expected a whole number"):
            softmax_cross_entropy(logits, targets, ignore_index=bad)  # type: ignore[arg-type]


# --- weights and smoothing ------------------------------------------------------------------------


def smoothed_and_weighted(
    logits: Array, targets: Array, weights: Array, smoothing: float
) -> tuple[float, Array]:
    """The definition, by SciPy: cross-entropy with the smoothed one-hot rows."""
    classes = logits.shape[1]
    wanted = (1 - smoothing) * np.eye(classes)[targets] + smoothing / classes
    wide = logits.astype(np.float64)
    losses = -(wanted * log_softmax(wide, axis=1)).sum(axis=1)
    gradients = weights[:, np.newaxis] * (softmax(wide, axis=1) - wanted)
    return math.fsum(losses * weights) / len(logits), gradients / len(logits)


@every_dtype
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_weights_and_smoothing_are_their_definitions(dtype: Any, smoothing: float) -> None:
    logits, targets = draw((9,), 6, dtype)
    weights = np.random.default_rng(1).uniform(0, 3, 9).astype(dtype)
    for given_weights in (weights, None):
        found = softmax_cross_entropy(
            logits, targets, weights=given_weights, label_smoothing=smoothing
        )
        counted = np.ones(9, dtype) if given_weights is None else weights
        loss, d_logits = smoothed_and_weighted(logits, targets, counted, smoothing)
        assert abs(found[0] - loss) <= ROUNDING[dtype] * max(1, loss)
        assert found[1].dtype == dtype
        assert_close(found[1], d_logits, ROUNDING[dtype])


@pytest.mark.oracle
@every_dtype
@pytest.mark.parametrize("ignore_index", [-100, 3])
def test_smoothing_equals_torchs(dtype: Any, ignore_index: int) -> None:
    torch = pytest.importorskip("torch")
    logits, targets = draw((4, 5), 7, dtype)
    targets[1] = ignore_index
    loss, d_logits = softmax_cross_entropy(
        logits, targets, ignore_index=ignore_index, label_smoothing=0.2
    )
    theirs = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        theirs.reshape(-1, 7), torch.tensor(targets).reshape(-1), ignore_index=ignore_index,
        label_smoothing=0.2,
    )  # fmt: skip
    expected.backward()
    assert abs(loss - expected.item()) <= ROUNDING[dtype] * expected.item()
    assert_close(d_logits, theirs.grad.numpy(), 2 * ROUNDING[dtype])
    assert not d_logits[1].any()


def test_whole_weights_are_repetitions() -> None:
    logits, targets = draw((5,), 4, np.float64)
    weights = np.array([2.0, 0.0, 1.0, 3.0, 0.0])
    repeated = np.repeat(np.arange(5), weights.astype(int))
    loss, _ = softmax_cross_entropy(logits, targets, weights=weights, label_smoothing=0.1)
    expected, _ = softmax_cross_entropy(logits[repeated], targets[repeated], label_smoothing=0.1)
    assert abs(loss * 5 - expected * len(repeated)) < 1e-13


def test_a_weight_of_zero_leaves_out_even_what_cannot_be() -> None:
    logits, targets = np.array([[-np.inf, 0, 0], [1, 2, 3]]), np.array([0, 1])
    weights = np.array([0.0, 1.0])
    loss, d_logits = softmax_cross_entropy(logits, targets, weights=weights)
    assert loss == softmax_cross_entropy(logits[1:], targets[1:])[0] / 2
    assert not d_logits[0].any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weights": np.ones(4)}, TypeError, "weights: expected"),
        ({"weights": np.ones(5, np.float32)}, ValueError, "weights: expected shape"),
        ({"weights": np.array([1, 1, 1, -1], np.float32)}, ValueError, "weights: .*>= 0"),
        ({"weights": np.array([1, 1, 1, np.nan], np.float32)}, ValueError, "weights: .*finite"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing: .*<= 1, got 1.5"),
        ({"label_smoothing": -0.1}, ValueError, "label_smoothing: .*>= 0"),
        ({"label_smoothing": "much"}, TypeError, "label_smoothing: expected a number"),
    ],
)
def test_weights_and_smoothings_that_cannot_be(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    logits, targets = draw((4,), 5, np.float32)
    with pytest.raises(error, match=f"^{message}"):
        softmax_cross_entropy(logits, targets, **options)


# --- mean squared error --------------------------------------------------------------------------


@pytest.mark.parametrize("leading", LEADING)
@every_dtype
def test_squared_error_is_its_definition(leading: tuple[int, ...], dtype: Any) -> None:
    rng = np.random.default_rng(0)
    prediction, target = normal(rng, leading, dtype), normal(rng, leading, dtype)
    prediction, target = np.asarray(prediction), np.asarray(target)
    loss, d_prediction = mean_squared_error(prediction, target)
    difference = prediction.astype(float) - target.astype(float)
    assert type(loss) is float
    assert type(d_prediction) is np.ndarray
    assert d_prediction.dtype == dtype
    expected = math.fsum((difference**2).ravel()) / difference.size
    assert abs(loss - expected) <= ROUNDING[dtype] * expected
    assert_close(d_prediction, 2 * difference / difference.size, ROUNDING[dtype])


def test_squared_errors_gradient_is_that_of_finite_differences() -> None:
    rng = np.random.default_rng(0)
    prediction, target = normal(rng, (3, 4)), normal(rng, (3, 4))

    def loss(arrays: dict[str, Array]) -> float:
        return mean_squared_error(arrays["prediction"], target)[0]

    _, d_prediction = mean_squared_error(prediction, target)
    expected = gradient(loss, {"prediction": prediction})
    assert_close(d_prediction, expected["prediction"], GRADIENT_BOUND)


def test_the_mean_of_many_squares_is_added_in_float64() -> None:
    rng = np.random.default_rng(0)
    prediction = rng.random(300_000, np.float32)
    loss, _ = mean_squared_error(prediction, np.zeros_like(prediction))
    expected = math.fsum(np.square(prediction.astype(np.float64))) / prediction.size
    assert abs(loss - expected) < 1e-13


def test_squared_errors_that_are_not_finite_are_returned() -> None:
    one = np.array([1.0, np.inf], np.float32)
    loss, d_prediction = mean_squared_error(one, np.zeros_like(one))
    assert (loss, d_prediction[1]) == (math.inf, math.inf)
    loss, d_prediction = mean_squared_error(one, one)
    assert math.isnan(loss)
    assert math.isnan(d_prediction[1])
    # Squares of float32 beyond its range are within that of the sum.
    assert mean_squared_error(np.full(2, 1e30, np.float32), np.zeros(2, np.float32))[0] > 9e59


def test_a_squared_error_of_nothing_is_refused() -> None:
    for shape in ((0,), (3, 0)):
        with pytest.raises(ValueError, match=r"^prediction: expected one element at least"):
            mean_squared_error(np.empty(shape), np.empty(shape))


@pytest.mark.oracle
@every_dtype
def test_squared_error_equals_torchs(dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    prediction, target = normal(rng, (13, 7), dtype), normal(rng, (13, 7), dtype)
    loss, d_prediction = mean_squared_error(prediction, target)
    theirs = torch.tensor(prediction, requires_grad=True)
    expected = torch.nn.functional.mse_loss(theirs, torch.tensor(target))
    expected.backward()
    assert abs(loss - expected.item()) <= ROUNDING[dtype] * expected.item()
    assert_close(d_prediction, theirs.grad.numpy(), ROUNDING[dtype])


# --- every array argument ------------------------------------------------------------------------


def array_arguments() -> list[Argument]:
    logits, targets = draw((3, 4), 5, np.float32)

    def cross_entropy(*arrays: Any) -> list[Array]:
        loss, d_logits = softmax_cross_entropy(*arrays)
        return [np.array([loss]), d_logits]

    def squared_error(*arrays: Any) -> list[Array]:
        loss, d_prediction = mean_squared_error(*arrays)
        return [np.array([loss]), d_prediction]

    return [
        Argument("logits", "logits", logits, lambda a: cross_entropy(a, targets)),
        Argument("targets", "targets", targets, lambda a: cross_entropy(logits, a)),
        Argument(
            "prediction", "prediction", logits, lambda a: squared_error(a, np.ones((3, 4, 5), "f"))
        ),
        Argument("target", "target", logits, lambda a: squared_error(np.ones((3, 4, 5), "f"), a)),
    ]


every_argument = pytest.mark.parametrize("argument", array_arguments(), ids=str)


@every_argument
def test_any_layout_gives_the_same_bits(argument: Argument, tmp_path: Path) -> None:
    assert_takes_any_layout(argument, tmp_path)


@every_argument
def test_what_is_no_such_array_is_refused(argument: Argument) -> None:
    settles_the_dtype = argument.name in ("logits", "prediction")
    if argument.name == "prediction":
        # Then it is the target that does not fit.
        with pytest.raises(TypeError, match=r"^target: expected an array of float64, got float32"):
            argument.call(argument.good.astype(np.float64))
    assert_refuses_what_is_no_such_array(argument, any_float=settles_the_dtype)


@every_argument
def test_a_shape_that_does_not_fit_is_refused(argument: Argument) -> None:
    if argument.name in ("targets", "target"):
        good = argument.good.shape
        wrong = [(*good, 1), (1, *good), good[1:], (), (good[0] + 1, *good[1:]), (*good[:-1], 0)]
        assert_refuses_shapes(argument, *wrong)
    elif argument.name == "logits":
        assert_refuses_shapes(argument, ())
        for shape in ((3, 4, 5, 1), (4, 5), (3, 3, 5), (5,)):
            with pytest.raises(ValueError, match=r"^targets: expected shape"):
                argument.call(np.ones(shape, np.float32))


def test_inputs_stay_as_they_are() -> None:
    logits, targets = draw((3, 4), 5, np.float32)
    kept, kept_targets = logits.copy(), targets.copy()
    _, d_logits = softmax_cross_entropy(logits, targets, ignore_index=1)
    _, d_prediction = mean_squared_error(logits, logits)
    assert_same_bits(logits, kept)
    assert_same_bits(targets, kept_targets)
    for fresh in (d_logits, d_prediction):
        assert fresh.flags.writeable
        assert not np.shares_memory(fresh, logits)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gradient_goes_where_it_is_asked_to(dtype: type) -> None:
    rng = np.random.default_rng(0)
    logits, targets = rng.standard_normal((4, 3, 7)).astype(dtype), rng.integers(0, 7, (4, 3))
    options = {"label_smoothing": 0.1, "weights": np.ones((4, 3), dtype)}
    loss, expected = softmax_cross_entropy(logits, targets, **options)
    out = np.full((4, 3, 7), np.nan, dtype)
    again, d_logits = softmax_cross_entropy(logits, targets, **options, out=out)
    assert again == loss
    assert_same_bits(d_logits, expected)
    assert_same_bits(out, expected)


def test_a_place_for_the_gradient_that_does_not_fit_is_refused() -> None:
    logits, targets = np.zeros((4, 7), np.float32), np.zeros(4, int)
    with pytest.raises(ValueError, match="out: expected an array apart from the logits"):
        softmax_cross_entropy(logits, targets, out=logits)
    for out in (np.zeros((4, 6), np.float32), np.zeros((4, 7)), np.zeros((7, 4), np.float32).T):
        with pytest.raises((TypeError, ValueError), match="out"):
            softmax_cross_entropy(logits, targets, out=out)


def test_log_probabilities_are_those_of_each_row() -> None:
    rng = np.random.default_rng(0)
    for dtype, tolerance in ((np.float32, 1e-6), (np.float64, 1e-13)):
        logits = (9 * rng.standard_normal((5, 37, 1100))).astype(dtype)
        targets = rng.integers(0, 1100, (5, 37))
        shifted = logits.astype(np.float64)
        shifted -= shifted.max(axis=2, keepdims=True)
        rows = shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True))
        expected = np.take_along_axis(rows, targets[..., np.newaxis], 2)[..., 0]
        found = softmax_log_prob(logits, targets)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    assert softmax_log_prob(np.zeros((0, 4)), np.zeros(0, int)).shape == (0,)


@pytest.mark.parametrize(
    ("logits", "targets", "error"),
    [
        (np.zeros((2, 4)), np.array([0, 4]), IndexError),
        (np.zeros((2, 4)), np.array([0, -1]), IndexError),
        (np.zeros((2, 4)), np.array([0]), ValueError),
        (np.zeros((2, 0)), np.array([0, 0]), ValueError),
        (np.zeros((2, 4)), np.array([0.0, 1.0]), TypeError),
        ([[0.0, 1.0]], np.array([0]), TypeError),
    ],
)
def test_log_probabilities_of_what_does_not_fit(
    logits: object, targets: Array, error: type[Exception]
) -> None:
    with pytest.raises(error):
        softmax_log_prob(logits, targets)  # type: ignore[arg-type]
