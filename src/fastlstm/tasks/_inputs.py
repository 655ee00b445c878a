"""What estimators of numeric sequences take for X: arrays of any lengths, or padded ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastlstm._validate import Array, check_lengths
from fastlstm.tasks._batches import Ragged


def check_sequences(
    X: Any, lengths: Any = None, *, features: int | None = None, dtype: Any = np.float32
) -> Ragged:
    """Return sequences of vectors as one table.

    Parameters
    ----------
    X : list of array_like (T_i, F), or array_like (n, T, F) or (n, T)
        Sequences, each of any length; or padded ones. Numbers of any kind. Without the last axis
        each step is one number.
    lengths : array_like of int (n,), optional
        Steps of each padded sequence; what lies past them is not looked at.
    features : int, optional
        F, where it is known.
    dtype : numpy dtype
        Of the result.

    Raises
    ------
    TypeError
        If X is sparse, or no sequence of numbers.
    ValueError
        If it is empty or has another shape, or a NaN or infinite number is in it.
    """
    if hasattr(X, "toarray"):
        raise TypeError(
            "X: expected sequences, got a sparse matrix; sparse data was passed, but dense data "
            "is required. Use X.toarray() to convert it"
        )
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    if isinstance(X, np.ndarray) and X.dtype != object:
        sequences = _of_padded(X, lengths)
    elif isinstance(X, (str, bytes)) or not isinstance(X, (Sequence, np.ndarray)):
        raise TypeError(f"X: expected a list of arrays, or an array, got a {type(X).__name__}")
    elif len(X) and _is_rectangular(X):
        sequences = _of_padded(_numbers("X", list(X)), lengths)
    elif lengths is not None:
        raise ValueError("lengths: are for padded arrays; a list of arrays has its own")
    else:
        sequences = [_as_steps(f"X[{i}]", _numbers(f"X[{i}]", one)) for i, one in enumerate(X)]
    if not sequences:
        raise ValueError("X: expected at least one sequence, got Found array with 0 sample(s)")
    width = sequences[0].shape[1] if features is None else features
    for i, one in enumerate(sequences):
        if one.shape[1] != width:
            raise ValueError(
                f"X[{i}]: expected {width} features a step, got {one.shape[1]}"
                + (" as in X[0]" if features is None else "")
            )
    if not width:
        raise ValueError("X: expected at least one feature a step, got 0 feature(s)")
    return _finite(Ragged.of(sequences, np.empty((0, width), sequences[0].dtype)), dtype)


def _is_rectangular(X: Any) -> bool:
    """Whether these are rows of plain numbers, and not arrays of their own."""
    return (
        not any(isinstance(one, np.ndarray) for one in X)
        and np.ndim(X[0]) == 1
        and (len({len(one) if hasattr(one, "__len__") else -1 for one in X}) == 1)
    )


def _of_padded(X: Array, lengths: Any) -> list[Array]:
    X = _numbers("X", X)
    if X.ndim == 2:
        X = X[:, :, np.newaxis]
    if X.ndim != 3:
        raise ValueError(
            f"X: expected shape (n, T, F) or (n, T), got {X.shape}. Reshape your data: one "
            "sequence needs an axis for the sequences before it"
        )
    if lengths is None:
        return list(X)
    checked = check_lengths(np.asarray(lengths), len(X), X.shape[1])
    return [one[:length] for one, length in zip(X, checked, strict=True)]


def _as_steps(name: str, array: Array) -> Array:
    """(T, F) of (T, F) or (T,)."""
    if array.ndim == 1:
        return array[:, np.newaxis]
    if array.ndim != 2:
        raise ValueError(f"{name}: expected shape (T, F) or (T,), got {array.shape}")
    return array


def _numbers(name: str, value: Any) -> Array:
    try:
        array = np.asarray(value)
        if array.dtype == object:
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        kind = type(error)
        raise kind(f"{name}: expected numbers: {error}") from None
    if array.dtype.kind == "c":
        raise ValueError(f"{name}: expected real numbers. Complex data not supported")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected numbers, got an array of {array.dtype}")
    return array


def _finite(sequences: Ragged, dtype: Any) -> Ragged:
    with np.errstate(over="ignore"):
        rows = sequences.rows.astype(dtype)
    if not np.isfinite(rows).all():
        row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        which = int(np.searchsorted(np.cumsum(sequences.lengths), row, side="right"))
        found = sequences.rows[row]
        what = "NaN" if np.isnan(found.astype(np.float64)).any() else f"infinity or {found.max():g}"
        raise ValueError(
            f"X: expected finite numbers of {np.dtype(dtype)}, got {what} in sequence {which}"
        )
    return Ragged(rows, sequences.lengths)
