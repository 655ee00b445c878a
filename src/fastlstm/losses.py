"""Losses: each returns its value and its gradient in one call, for nothing is shared with a tape.

Values are means, as float, summed in float64. Where a result is not finite (an overflow, a NaN in
the input) it is returned as such, without a warning: the Trainer looks at every loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastlstm import _core
from fastlstm._validate import (
    Array,
    check_array,
    check_floats,
    check_integers,
    check_number,
    check_output,
    check_quantiles,
    check_size,
    compact,
)
from fastlstm.threads import team

# What softmax, its gradient and its loss cost for each logit, in floating-point operations.
_OPERATIONS = 40.0

# What no target is, for it is refused: the target to ignore where none is named.
_NONE = -1

# Rows whose exponentials are made at a time where only log-probabilities are wanted.
_ROWS = 64


def softmax_cross_entropy(
    logits: Array,
    targets: Array,
    *,
    ignore_index: int | None = None,
    weights: Array | None = None,
    label_smoothing: float = 0.0,
    out: Array | None = None,
) -> tuple[float, Array]:
    """Mean of -log softmax(logits)[target] in nats, as ``torch.nn.functional.cross_entropy``.

    Parameters
    ----------
    logits : ndarray (..., V)
        Unnormalised log-probabilities of V classes, of float32 or float64, in any memory layout.
        -inf is a class that cannot be.
    targets : ndarray of integers (...)
        The right classes, each from 0 to V - 1.
    ignore_index : int, optional
        Targets of this value do not count: they are left out of the mean, and their logits are
        neither read for the loss nor given a gradient.
    weights : ndarray (...), optional
        What the loss of each target is multiplied by, >= 0, of the dtype of the logits. The mean
        is still over the number of targets, not over the weights.
    label_smoothing : float
        The part of the target's probability that is spread over all V classes, from 0 to 1
        (Szegedy et al. 2016, "Rethinking the inception architecture for computer vision").
    out : ndarray (..., V), optional
        Where the gradient goes: C-contiguous, of the dtype of the logits, and no part of them.

    Returns
    -------
    loss : float
        Mean over the targets that count. Infinite if one of them has the logit -inf (with
        smoothing: any class), NaN if a row that counts has a NaN, a +inf, or nothing but -inf.
    d_logits : ndarray (..., V)
        (softmax(logits) - onehot(target)) / number of targets that count, where the one is
        smoothed and the row weighted if that is asked for; of the dtype of the logits, and fresh
        or `out`.

    Raises
    ------
    TypeError
        If an argument is no array of the kind stated.
    ValueError
        If the shapes do not fit, or no target counts: the mean over nothing is not a number, and a
        NaN would only come to light later. If a weight is negative or not finite, or the smoothing
        is out of range.
    IndexError
        If a target is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> loss, d_logits = softmax_cross_entropy(np.zeros((1, 4)), np.array([2]))
    >>> round(loss, 6), d_logits
    (1.386294, array([[ 0.25,  0.25, -0.75,  0.25]]))
    """
    logits = check_floats("logits", logits, ("...", "V"))
    classes = logits.shape[-1]
    if classes == 0:
        raise ValueError(f"logits: expected one class at least, got shape {logits.shape}")
    if ignore_index is not None:
        ignore_index = check_size("ignore_index", ignore_index, least=-(2**31))
    targets = check_integers(
        "targets", targets, logits.shape[:-1], least=0, most=classes - 1, also=ignore_index
    ).reshape(-1)
    ignored = _NONE if ignore_index is None else ignore_index
    counted = targets.size - int(np.count_nonzero(targets == ignored))
    if counted == 0:
        raise ValueError("targets: expected at least one that counts, got none")
    smoothing = check_number("label_smoothing", label_smoothing, least=0, most=1)
    weights = _check_weights(weights, logits)
    if out is not None and np.may_share_memory(
        check_output("out", out, logits.dtype, logits.shape), logits
    ):
        raise ValueError("out: expected an array apart from the logits, got a part of them")

    rows = compact(logits).reshape(-1, classes)
    d_rows = np.empty_like(rows) if out is None else out.reshape(rows.shape)
    losses, d_logits = _row_losses(rows, compact(targets), ignored, counted, smoothing, d_rows)
    with np.errstate(all="ignore"):
        if weights is not None:
            losses = np.where(weights > 0, losses * weights, 0)
            d_logits *= weights[:, np.newaxis]
        loss = float(losses.sum()) / counted
    return loss, d_logits.reshape(logits.shape)


def softmax_log_prob(logits: Array, targets: Array) -> Array:
    """log softmax(logits)[target] in nats, for each target apart.

    Parameters
    ----------
    logits : ndarray (..., V)
        Unnormalised log-probabilities of V classes, of float32 or float64, in any memory layout.
    targets : ndarray of integers (...)
        Classes, each from 0 to V - 1.

    Returns
    -------
    ndarray (...)
        float64. What a row that is not finite gives is said at `softmax_cross_entropy`.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `softmax_cross_entropy` does; but there may be no targets at all.

    Examples
    --------
    >>> import numpy as np
    >>> softmax_log_prob(np.zeros((2, 4)), np.array([2, 0])).round(6)
    array([-1.386294, -1.386294])
    """
    logits = check_floats("logits", logits, ("...", "V"))
    classes = logits.shape[-1]
    if classes == 0:
        raise ValueError(f"logits: expected one class at least, got shape {logits.shape}")
    targets = check_integers("targets", targets, logits.shape[:-1], least=0, most=classes - 1)
    rows, chosen = compact(logits).reshape(-1, classes), compact(targets.reshape(-1))
    found, scratch = np.empty(len(rows)), np.empty_like(rows[:_ROWS])
    for part in range(0, len(rows), _ROWS):
        some = slice(part, part + _ROWS)
        spare = scratch[: len(rows[some])]
        found[some] = -_row_losses(rows[some], chosen[some], _NONE, 1, 0.0, spare)[0]
    return found.reshape(targets.shape)


def _row_losses(
    rows: Array, targets: Array, ignored: int, counted: int, smoothing: float, d_rows: Array
) -> tuple[Array, Array]:
    """-log softmax(logits)[target] of each row of logits (N, V), and the gradient of its mean."""
    sums, shifted = np.empty(len(rows)), np.empty(len(rows))
    with team(_OPERATIONS * rows.size, blas=False) as threads:
        _core.cross_entropy(
            d_rows, sums, shifted, rows, targets, ignored, counted, smoothing, threads
        )
    with np.errstate(all="ignore"):
        return np.log(sums) - shifted, d_rows


def _check_weights(weights: Array | None, logits: Array) -> Array | None:
    """Weights of the rows of logits, (rows,)."""
    if weights is None:
        return None
    weights = check_array("weights", weights, logits.dtype, logits.shape[:-1])
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("weights: expected finite numbers >= 0")
    return weights.reshape(-1)


def mean_squared_error(prediction: Array, target: Array) -> tuple[float, Array]:
    """Mean of (prediction - target)² over all elements, as ``torch.nn.functional.mse_loss``.

    Parameters
    ----------
    prediction : ndarray (...)
        Of float32 or float64, in any memory layout.
    target : ndarray (...)
        Of the same shape and dtype.

    Returns
    -------
    loss : float
    d_prediction : ndarray (...)
        2 (prediction - target) / number of elements; fresh.

    Raises
    ------
    TypeError
        If an argument is no array of float32 or float64, or the dtypes differ.
    ValueError
        If the shapes differ, or the arrays are empty.

    Examples
    --------
    >>> import numpy as np
    >>> mean_squared_error(np.array([1.0, 2.0]), np.array([1.0, 5.0]))
    (4.5, array([ 0., -3.]))
    """
    prediction = check_floats("prediction", prediction, ("...",))
    target = check_array("target", target, prediction.dtype, prediction.shape)
    if prediction.size == 0:
        raise ValueError(f"prediction: expected one element at least, got {prediction.shape}")
    with np.errstate(all="ignore"):
        # `out` makes it an array even without axes, and in C order.
        difference = np.empty(prediction.shape, prediction.dtype)
        np.subtract(prediction, target, out=difference)
        loss = float(np.square(difference, dtype=np.float64).mean())
        difference *= 2 / difference.size
    return loss, difference


def quantile_loss(
    prediction: Array, target: Array, quantiles: Sequence[float]
) -> tuple[float, Array]:
    """Mean pinball loss, which is least where the predictions are the target's quantiles.

    For the quantile q and the error e = target - prediction it is max(q·e, (q - 1)·e): Koenker &
    Bassett 1978, "Regression quantiles"; ``sklearn.metrics.mean_pinball_loss`` for each quantile,
    and their mean. With the one quantile 0.5 it is half of the mean absolute error.

    Parameters
    ----------
    prediction : ndarray (..., Q)
        Of each quantile; of float32 or float64, in any memory layout.
    target : ndarray (...)
        Of the same dtype.
    quantiles : sequence of float (Q,)
        Ascending, each between 0 and 1.

    Returns
    -------
    loss : float
        Mean over all targets and quantiles.
    d_prediction : ndarray (..., Q)
        -q where the target is above the prediction, 1 - q where it is below, 0 where they are
        equal, each divided by the number of predictions; fresh. Where one of them is NaN, NaN.

    Raises
    ------
    TypeError
        If an array is none of float32 or float64, the dtypes differ, or a quantile is no number.
    ValueError
        If the shapes do not fit, the arrays are empty, or the quantiles are not ascending and
        between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> quantile_loss(np.array([[1.0, 2.0]]), np.array([4.0]), (0.5, 0.75))
    (1.5, array([[-0.25 , -0.375]]))
    """
    levels = check_quantiles("quantiles", quantiles)
    prediction = check_floats("prediction", prediction, ("...", len(levels)))
    target = check_array("target", target, prediction.dtype, prediction.shape[:-1])
    if prediction.size == 0:
        raise ValueError(f"prediction: expected one element at least, got {prediction.shape}")
    with np.errstate(all="ignore"):
        error = np.subtract(target[..., np.newaxis], prediction, order="C")
        wide = error.astype(np.float64)
        loss = float(np.maximum(levels * wide, (levels - 1) * wide).mean())
        # sign is ±1, 0 or NaN: -q for 1, 1 - q for -1.
        sign = np.sign(error)
        slope = 0.5 * np.abs(sign) * (1 - 2 * levels) - 0.5 * sign
        d_prediction = np.divide(slope, error.size, order="C").astype(prediction.dtype)
    return loss, d_prediction
