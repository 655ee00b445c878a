"""Forecasts from many places of a series, and what they are measured by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastlstm._validate import Array
from fastlstm.tasks._base.batches import in_chunks
from fastlstm.tasks.forecasting.data import Table
from fastlstm.tasks.forecasting.network import ForecastNetwork

# Sequences that are predicted at once: windows times variables.
_AT_ONCE = 2048


def windows_at_once(variables: int) -> int:
    """How many windows of so many variables are predicted at once."""
    return max(1, _AT_ONCE // variables)


@dataclass(frozen=True)
class Windows:
    """Forecasts from many places of a series, and what came; of `Forecaster.predict_windows`.

    Attributes
    ----------
    starts : ndarray of int64 (n,)
        The row of the series with which each forecast begins.
    prediction, target : ndarray of float64 (n, horizon, D)
    quantiles : ndarray of float64 (n, horizon, D, Q), or None
    """

    starts: Array
    prediction: Array
    target: Array
    quantiles: Array | None


def mean_loss(network: ForecastNetwork, table: Table, starts: Array) -> float:
    """The loss of all windows that begin at these rows."""
    total = 0.0
    for part in in_chunks(len(starts), windows_at_once(table.variables)):
        window, known, target = table.batch(starts[part])
        total += network.loss(network(window, known), target)[0] * len(target)
    return total / len(starts)


def r2(windows: Windows) -> float:
    """R², the mean over variables, as ``sklearn.metrics.r2_score`` of all windows' steps."""
    target = windows.target
    squares = ((windows.prediction - target) ** 2).sum(axis=(0, 1))
    total = ((target - target.mean(axis=(0, 1))) ** 2).sum(axis=(0, 1))
    # Of a variable that never changes it is 1 if it is met, else 0.
    ratio = np.where(total > 0, squares / np.where(total > 0, total, 1), squares > 0)
    return float(1 - ratio.mean())


def figures_of(
    windows: Windows, values: Array, deviation: Array, season: int | None
) -> dict[str, float]:
    """What `Forecaster.backtest` returns.

    Parameters
    ----------
    windows : Windows
    values : ndarray (N, D)
        The series that they lie in.
    deviation : ndarray (D,)
        Of the training part.
    season : int, optional
        Rows of a season.
    """
    figures = {"windows": float(len(windows.starts))}
    figures |= _errors(windows.prediction - windows.target, deviation)
    if windows.quantiles is not None:
        lower, upper = windows.quantiles[..., 0], windows.quantiles[..., -1]
        inside = (lower <= windows.target) & (windows.target <= upper)
        figures |= {"coverage": float(inside.mean()), "width": float((upper - lower).mean())}
    if season is not None:
        before = np.arange(windows.target.shape[1]) % season - season
        naive = values[windows.starts[:, np.newaxis] + before]
        errors = _errors(naive - windows.target, deviation)
        figures |= {f"naive_{name}": value for name, value in errors.items()}
    return figures


def _errors(error: Array, deviation: Array) -> dict[str, float]:
    scaled = error / deviation
    return {
        "mse": float((error**2).mean()),
        "mae": float(np.abs(error).mean()),
        "scaled_mse": float((scaled**2).mean()),
        "scaled_mae": float(np.abs(scaled).mean()),
    }
