"""inputs: what estimators of numeric sequences take for X, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import pytest
import scipy.sparse

from fastlstm.tasks._base.inputs import check_sequences
from tests.support import assert_same_bits

RAGGED = [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]], [[7.0, 8.0], [9.0, 10.0], [11.0, 12.0]]]
PADDED = np.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], np.float64)


def as_lists(X: Any, lengths: Any = None, **options: Any) -> list[Any]:
    return [one.tolist() for one in check_sequences(X, lengths, **options)]


class Container:
    """Something that is an array to NumPy alone."""

    def __init__(self, array: Any) -> None:
        self.array = np.asarray(array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self.array, dtype, copy=copy)


@pytest.mark.parametrize(
    "X",
    [
        RAGGED,
        tuple(RAGGED),
        [np.array(one) for one in RAGGED],
        [np.array(one, np.float32)[:, ::-1][:, ::-1] for one in RAGGED],
        [np.array(one, np.int8) for one in RAGGED],
        [np.array(one, object) for one in RAGGED],
        [pandas.DataFrame(one) for one in RAGGED],
        [np.array(RAGGED[0], int), np.array(RAGGED[1], np.float16), RAGGED[2]],
        np.fromiter((np.array(one) for one in RAGGED), dtype=object),
    ],
)
def test_a_list_of_sequences(X: Any) -> None:
    assert as_lists(X) == RAGGED


@pytest.mark.parametrize(
    "X", [PADDED, PADDED.astype(np.uint8), PADDED.astype(object), Container(PADDED), list(PADDED)]
)
def test_padded_sequences(X: Any) -> None:
    assert as_lists(X) == PADDED.tolist()


@pytest.mark.parametrize(
    "X",
    [
        np.array([[1, 2, 3], [4, 5, 6]]),
        [[1, 2, 3], [4, 5, 6]],
        pandas.DataFrame([[1, 2, 3], [4, 5, 6]], columns=["a", "b", "c"]),
        Container([[1, 2, 3], [4, 5, 6]]),
    ],
)
def test_without_the_last_axis_a_step_is_one_number(X: Any) -> None:
    assert as_lists(X) == [[[1], [2], [3]], [[4], [5], [6]]]


def test_univariate_sequences_of_any_lengths() -> None:
    assert as_lists([[1, 2], np.array([3.0]), [True, False, True]]) == [
        [[1], [2]], [[3]], [[1], [0], [1]],
    ]  # fmt: skip


@pytest.mark.parametrize("lengths", [[1, 2], np.array([1, 2], np.uint8), pandas.Series([1, 2])])
def test_what_lies_past_an_end_is_not_looked_at(lengths: Any) -> None:
    X = PADDED.copy()
    X[0, 1] = np.nan
    assert as_lists(X, lengths) == [[[1, 2]], [[5, 6], [7, 8]]]


def test_sequences_without_a_step() -> None:
    assert as_lists([RAGGED[0], [], np.empty((0, 2))]) == [RAGGED[0], [], []]
    assert as_lists([[], [[1, 2]]]) == [[], [[1, 2]]]
    assert as_lists([[]]) == [[]]
    assert as_lists(PADDED, [0, 0]) == [[], []]
    assert as_lists([[], np.empty((0, 3))], features=3) == [[], []]
    assert as_lists(np.empty((2, 0))) == [[], []]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_result_is_a_copy_of_the_dtype_asked_for(dtype: Any) -> None:
    X = [np.array(one, dtype) for one in RAGGED]
    table = check_sequences(X, dtype=dtype)
    assert table.rows.dtype == dtype
    assert table.lengths.tolist() == [2, 1, 3]
    table.rows[...] = 0
    assert_same_bits(X[0], np.array(RAGGED[0], dtype))


def test_float64_keeps_what_float32_would_round() -> None:
    times = [[1.7e9, 1.7e9 + 1]]
    assert as_lists(times, dtype=np.float64) == [[[1.7e9], [1.7e9 + 1]]]


NAN, INFINITE = [[1.0, 2.0], [np.nan, 4.0]], [[-np.inf, 1.0]]


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ([], ValueError, r"X: expected at least one sequence"),
        (np.empty((0, 3, 2)), ValueError, r"X: expected at least one sequence"),
        ([1, 2, 3], ValueError, r"X\[0\]: expected shape \(T, F\) or \(T,\), got \(\)"),
        (np.arange(3), ValueError, r"X: expected shape \(n, T, F\) or \(n, T\), got \(3,\)"),
        (np.array(3), ValueError, r"X: expected shape .* got \(\)"),
        (np.ones((1, 2, 3, 4)), ValueError, r"X: expected shape .* got \(1, 2, 3, 4\)"),
        ([PADDED], ValueError, r"X\[0\]: expected shape \(T, F\) or \(T,\), got \(2, 2, 2\)"),
        ([RAGGED[0], [[1.0]]], ValueError, r"X\[1\]: expected 2 features a step, as .*, got 1"),
        ([np.empty((3, 0))], ValueError, r"X: expected at least one feature a step"),
        (np.empty((2, 3, 0)), ValueError, r"X: expected at least one feature a step"),
        ([RAGGED[0], NAN], ValueError, r"X: expected finite numbers .* got NaN in sequence 1"),
        ([[], INFINITE], ValueError, r"X: expected finite numbers .* infinity.* in sequence 1"),
        ([[1e39]], ValueError, r"X: expected finite numbers of float32, got infinity or 1e\+39"),
        ([[[1, 2], [3]]], ValueError, r"X\[0\]: expected numbers"),
        ("sequence", TypeError, r"X: expected a list of arrays, or an array, got a str"),
        (b"bytes", TypeError, r"X: expected a list of arrays, or an array, got a bytes"),
        (["ab", "cd"], TypeError, r"X\[0\]: expected numbers, got an array of <U2"),
        ([["1", "2"]], TypeError, r"X\[0\]: expected numbers, got an array of <U1"),
        (np.array([["1", "2"]], object), TypeError, r"X: expected numbers: a string is none"),
        ([[{}, {}]], TypeError, r"X\[0\]: expected numbers"),
        ([[1j]], ValueError, r"X\[0\]: expected real numbers"),
        ([[np.datetime64("2020-01-01")]], TypeError, r"X\[0\]: expected numbers, got an array of"),
        (None, TypeError, r"X: expected a list of arrays, or an array, got a NoneType"),
        ({0: [1]}, TypeError, r"X: expected a list of arrays, or an array, got a dict"),
        (iter(RAGGED), TypeError, r"X: expected a list of arrays, or an array, got a list_iter"),
        (scipy.sparse.csr_matrix(np.eye(2)), TypeError, r"X: .*sparse"),
        (scipy.sparse.csr_array(np.eye(2)), TypeError, r"X: .*sparse"),
        ([scipy.sparse.csr_array(np.eye(2))], ValueError, r"X\[0\]: expected numbers"),
        (np.ma.masked_array(PADDED), TypeError, r"X: .* masked array \(fill it first\)"),
        ([np.ma.masked_array([1.0])], TypeError, r"X\[0\]: .* masked array"),
    ],
)
def test_what_is_no_sequences(X: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        check_sequences(X)


def test_features_that_are_known_are_expected() -> None:
    assert as_lists(RAGGED, features=2) == RAGGED
    with pytest.raises(ValueError, match=r"^X\[0\]: expected 3 features a step, got 2"):
        check_sequences(RAGGED, features=3)
    with pytest.raises(ValueError, match=r"^X\[0\]: expected 2 features a step, got 1"):
        check_sequences([[1, 2, 3]], features=2)


@pytest.mark.parametrize(
    ("X", "lengths", "error", "message"),
    [
        (RAGGED, [2, 1, 3], ValueError, "are for padded arrays"),
        (PADDED, [1], ValueError, r"expected shape \(2,\), got \(1,\)"),
        (PADDED, [], ValueError, r"expected shape \(2,\), got \(0,\)"),
        (PADDED, [1, 3], ValueError, "expected values from 0 to 2, got 3"),
        (PADDED, [-1, 1], ValueError, "expected values from 0 to 2, got -1"),
        (PADDED, [1.0, 2.0], TypeError, "expected an array of integers, got float64"),
        (PADDED, ["1", "2"], TypeError, "expected an array of integers"),
        (PADDED, 2, ValueError, r"expected shape \(2,\), got \(\)"),
    ],
)
def test_lengths_that_do_not_fit(
    X: Any, lengths: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^lengths: {message}"):
        check_sequences(X, lengths)
