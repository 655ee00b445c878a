"""Products and sums for the layers, against einsum and exact sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fastlstm import _weights, threads
from fastlstm._products import linear, matmul, scatter_add_rows, sum_rows
from fastlstm.threads import set_num_threads
from tests.support import assert_close, assert_same_bits, normal

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
BOUND = {np.float32: 1e-5, np.float64: 1e-13}


@every_dtype
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 5, 7), (160, 130, 140)])
def test_a_product_is_written_or_added(
    dtype: Any, transpose_a: bool, transpose_b: bool, sizes: tuple[int, int, int]
) -> None:
    rng = np.random.default_rng(0)
    m, n, k = sizes  # the largest ones are work for several threads
    a = normal(rng, (k, m) if transpose_a else (m, k), dtype)
    b = normal(rng, (n, k) if transpose_b else (k, n), dtype)
    formula = f"{'km' if transpose_a else 'mk'},{'nk' if transpose_b else 'kn'}->mn"
    expected = np.einsum(formula, a.astype(np.float64), b.astype(np.float64))
    for count in (1, 2, 3):
        set_num_threads(count)
        fresh = matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)
        assert fresh.dtype == dtype
        assert_close(fresh, expected, BOUND[dtype])
        out = np.full((m, n), np.nan, dtype)
        assert matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b, out=out) is out
        assert_same_bits(out, fresh)
        out = np.ones((m, n), dtype)
        matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b, out=out, accumulate=True)
        assert_close(out, expected + 1, BOUND[dtype])


@every_dtype
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 70, 7), (2, 300, 130), (500, 70, 130)])
def test_a_linear_map_begins_at_its_bias(
    dtype: Any, with_bias: bool, sizes: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From panels, whose threads share them or the rows, or by BLAS."""
    monkeypatch.setattr(threads, "LEAST_WORK", 0)
    rng = np.random.default_rng(0)
    rows, outputs, inputs = sizes
    x, weight = normal(rng, (rows, inputs), dtype), normal(rng, (outputs, inputs), dtype)
    bias = normal(rng, (outputs,), dtype) if with_bias else None
    expected = np.einsum("mk,nk->mn", x.astype(np.float64), weight.astype(np.float64))
    expected += 0 if bias is None else bias
    choices = [None]
    if _weights.is_packed(weight.dtype):
        choices.append(_weights._pack(weight, transposed=True))
    for panels in choices:
        for num_threads in (1, 2, 3, 7):
            set_num_threads(num_threads)
            assert_close(linear(x, weight, bias, panels), expected, BOUND[dtype])
        assert linear(x[:0], weight, bias, panels).shape == (0, outputs)


@every_dtype
def test_a_product_over_nothing_is_zero_and_adds_nothing(dtype: Any) -> None:
    a, b = np.empty((3, 0), dtype), np.empty((0, 4), dtype)
    assert_same_bits(matmul(a, b), np.zeros((3, 4), dtype))
    out = np.full((3, 4), np.nan, dtype)
    assert_same_bits(matmul(a, b, out=out), np.zeros((3, 4), dtype))
    out = np.ones((3, 4), dtype)
    assert_same_bits(matmul(a, b, out=out, accumulate=True), np.ones((3, 4), dtype))
    for rows, columns in ((0, 4), (3, 0), (0, 0)):
        empty = matmul(np.ones((rows, 2), dtype), np.ones((2, columns), dtype))
        assert empty.shape == (rows, columns)


@every_dtype
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (50, 7), (1000, 0)])
def test_rows_are_summed(dtype: Any, shape: tuple[int, int]) -> None:
    a = normal(np.random.default_rng(0), shape, dtype)
    expected = np.array([math.fsum(column) for column in a.T.tolist()])
    assert_close(sum_rows(a), expected, BOUND[dtype])


@every_dtype
def test_a_sum_is_added_to_another_and_the_same_on_any_number_of_threads(
    dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "LEAST_WORK", 0)
    rng = np.random.default_rng(0)
    for shape in ((0, 3), (1, 1), (600, 1), (513, 37)):
        a, before = normal(rng, shape, dtype), normal(rng, shape[1:], dtype)
        set_num_threads(1)
        alone = sum_rows(a)
        for count in (1, 2, 3, 64):
            set_num_threads(count)
            assert_same_bits(sum_rows(a), alone)
            out = before.copy()
            assert sum_rows(a, out=out, accumulate=True) is out
            # Runs of 256 rows are added one by one, so bits may differ from a sum of two.
            assert_close(out, before + a.sum(0), BOUND[dtype])
            assert_same_bits(sum_rows(a, out=out), alone)


def test_a_sum_of_very_many_rows_does_not_drown_in_its_own_rounding() -> None:
    a = np.full((200_000, 3), 0.1, np.float32)
    expected = np.full(3, 200_000 * float(np.float32(0.1)))
    assert_close(sum_rows(a), expected, 1e-5)  # one running sum is off by 1e-3


@every_dtype
def test_rows_are_added_to_where_their_ids_say(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    ids, rows = rng.integers(0, 5, 40), normal(rng, (40, 3), dtype)
    out = normal(rng, (6, 3), dtype)
    expected = out.copy()
    for n, row in zip(ids, rows, strict=True):  # in the same order: the bits are the same
        expected[n] += row
    scatter_add_rows(out, ids, rows)
    assert_same_bits(out, expected)
    scatter_add_rows(out, ids[:0], rows[:0])
    assert_same_bits(out, expected)
