"""What estimators of numeric sequences take for X: arrays of any lengths, or padded ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastlstm._validate import Array, check_lengths
from fastlstm.tasks._base.batches import Ragged


def check_sequences(
    X: Any, lengths: Any = None, *, features: int | None = None, dtype: Any = np.float32
) -> Ragged:
    """Return sequences of vectors as one table.

    Parameters
    ----------
    X : list of array_like (T_i, F) or (T_i,), or array_like (n, T, F) or (n, T)
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
    elif not isinstance(X, (Sequence, np.ndarray)) and hasattr(X, "__array__"):
        X = np.asarray(X)
    if isinstance(X, np.ndarray) and (X.dtype != object or X.ndim != 1):
        sequences = _of_padded(X, lengths)
    elif isinstance(X, (str, bytes)) or not isinstance(X, (Sequence, np.ndarray)):
        raise TypeError(f"X: expected a list of arrays, or an array, got a {type(X).__name__}")
    elif lengths is not None:
        raise ValueError("lengths: are for padded arrays; a list of arrays has its own")
    else:
        sequences = [_as_steps(f"X[{i}]", _numbers(f"X[{i}]", one)) for i, one in enumerate(X)]
    if not sequences:
        raise ValueError("X: expected at least one sequence, got Found array with 0 sample(s)")
    sequences, width = _of_one_width(sequences, features)
    return _finite(Ragged.of(sequences, np.empty((0, width), sequences[0].dtype)), dtype)


def _of_one_width(sequences: list[Array], features: int | None) -> tuple[list[Array], int]:
    """Sequences (T_i, F), and F; an empty list, (0,), is a sequence without a step."""
    ragged = [one for one in sequences if one.ndim == 2]
    width = features if features is not None else ragged[0].shape[1] if ragged else 1
    for i, one in enumerate(sequences):
        if one.ndim == 2 and one.shape[1] != width:
            expected = f"{width} features a step" + ("" if features else ", as the first one has")
            raise ValueError(f"X[{i}]: expected {expected}, got {one.shape[1]}")
    if not width:
        raise ValueError("X: expected at least one feature a step, got 0 feature(s)")
    return [one if one.ndim == 2 else one.reshape(0, width) for one in sequences], width


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
    given = np.asarray(lengths)
    if not given.size:  # of no dtype that was meant
        given = given.astype(np.int64)
    checked = check_lengths(given, len(X), X.shape[1])
    return [one[:length] for one, length in zip(X, checked, strict=True)]


def _as_steps(name: str, array: Array) -> Array:
    """(T, F) of (T, F) or (T,); nothing at all stays (0,)."""
    if array.ndim == 1:
        return array[:, np.newaxis] if len(array) else array
    if array.ndim != 2:
        raise ValueError(
            f"{name}: expected shape (T, F) or (T,), got {array.shape}. Reshape your data: X holds "
            "several sequences"
        )
    return array


def _numbers(name: str, value: Any) -> Array:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected numbers, got a masked array (fill it first)")
    try:
        array = np.asarray(value)
        if array.dtype == object:
            if any(isinstance(item, (str, bytes)) for item in array.flat):
                raise TypeError("a string is none")  # NumPy would read a number in it
            array = array.astype(np.float64)
    except TypeError as error:
        raise TypeError(f"{name}: expected numbers: {error}") from None
    except ValueError as error:
        raise ValueError(f"{name}: expected numbers: {error}") from None
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
