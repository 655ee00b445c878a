"""The shim over SciPy's BLAS: the width of its integers, and the products of every kind."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import scipy.linalg.cython_blas

from fastlstm import _core
from fastlstm._core import blas
from tests.support import normal

DTYPES = [np.float32, np.float64]
TOLERANCES = {np.float32: 2e-7, np.float64: 4e-16}  # about two roundings


@pytest.mark.parametrize(
    ("signature", "wide"),
    [
        # The wheels on PyPI: Cython writes plain types, with typedefs spelled out or not.
        ("void (char *, char *, int *, int *, int *, float *, float *, int *)", False),
        ("void (char *, char *, int *, int *, __pyx_t_5scipy_6linalg_11cython_blas_s *)", False),
        # Builds for ILP64.
        ("void (char *, char *, int64_t *, int64_t *, int64_t *, double *, double *)", True),
        ("void (char *, npy_int64 *, npy_int64 *, double *)", True),
        ("void (char *, __pyx_t_5scipy_6linalg_11cython_blas_int64_t *, double *)", True),
        ("void (char *, long *, long *, double *)", True),
        ("void (char *, long long *, double *)", True),
    ],
)
def test_a_signature_tells_the_width_of_its_integers(signature: str, wide: bool) -> None:
    assert blas.signature_is_wide(signature) is wide


@pytest.mark.parametrize("signature", ["void (char *, blas_integer *)", "void (void)"])
def test_a_signature_without_a_known_integer_is_refused(signature: str) -> None:
    with pytest.raises(ImportError, match="signature unknown"):
        blas.signature_is_wide(signature)


def test_the_width_is_that_of_this_scipy() -> None:
    """A capsule's repr shows its name, which is the C signature."""
    capsule = repr(scipy.linalg.cython_blas.__pyx_capi__["dgemm"])
    assert (64 if "int64" in capsule or "long" in capsule else 32) == blas.INTEGER_BITS
    assert blas.INTEGER_BITS == _core.BLAS_INTEGER_BITS


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("transpose_a", "transpose_b", "accumulate"), [*product((False, True), repeat=3)]
)
def test_products_of_every_kind(
    dtype: type, transpose_a: bool, transpose_b: bool, accumulate: bool
) -> None:
    """One row goes through gemv, more through gemm."""
    rng = np.random.default_rng(0)
    for m, n, k, threads in product((1, 2, 7), (1, 3, 16), (1, 5, 33), (1, 2, 9)):
        a = normal(rng, (k, m) if transpose_a else (m, k), dtype)
        b = normal(rng, (n, k) if transpose_b else (k, n), dtype)
        out = normal(rng, (m, n), dtype)
        wide_a, wide_b = a.astype(np.longdouble), b.astype(np.longdouble)
        expected = (wide_a.T if transpose_a else wide_a) @ (wide_b.T if transpose_b else wide_b)
        if accumulate:
            expected += out
        else:
            out[...] = np.nan
        # A sum may cancel: errors are measured by the sizes of its terms.
        terms = np.abs(wide_a).max() * np.abs(wide_b).max() * k + 1
        _core.matmul(out, a, b, transpose_a, transpose_b, accumulate, threads, False)
        error = float(np.abs(out - expected).max()) / float(terms)
        assert error <= TOLERANCES[dtype], f"{m} x {n} x {k}, {threads} threads"
