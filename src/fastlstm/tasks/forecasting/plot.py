"""A forecast as a picture. matplotlib is imported only here, and only when it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastlstm._extras import import_extra
from fastlstm._validate import Array
from fastlstm.tasks.forecasting.series import Series
from fastlstm.tasks.forecasting.time_index import continued, import_pandas


def figure(
    history: Series, forecast: Array, levels: Sequence[float] | None, actual: Array | None
) -> Any:
    """Draw history (N, D), forecast (H, D, Q) and what came, a panel for each variable.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import_extra("matplotlib", extra="plot", purpose="pictures of forecasts")
    from matplotlib.figure import Figure

    variables = forecast.shape[1]
    past, future = _places(history, len(forecast))
    drawn = Figure(figsize=(9, max(3.2, 2.2 * variables)), layout="constrained")
    panels = drawn.subplots(variables, sharex=True, squeeze=False)[:, 0]
    middle = 0 if levels is None else list(levels).index(0.5)
    for k, (axes, name) in enumerate(zip(panels, history.columns, strict=True)):
        axes.plot(past, history.values[:, k], color="tab:blue", label="history")
        axes.plot(future, forecast[:, k, middle], color="tab:orange", label="forecast")
        if levels is not None and len(levels) > 1:
            lower, upper = forecast[:, k, 0], forecast[:, k, -1]
            label = f"{levels[0]:g} to {levels[-1]:g}"
            axes.fill_between(
                future, lower, upper, color="tab:orange", alpha=0.25, linewidth=0, label=label
            )
        if actual is not None:
            came = actual[:, k]
            axes.plot(future[: len(came)], came, color="black", linewidth=0.9, label="what came")
        if not (history.flat and history.names is None):
            axes.set_ylabel(str(name))
        axes.margins(x=0.01)
        axes.grid(alpha=0.3)
    panels[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False)
    if history.index is not None:
        drawn.autofmt_xdate()
    return drawn


def _places(history: Series, horizon: int) -> tuple[Array, Array]:
    """Where history and forecast stand on the axis of time: dates, or numbers from the end."""
    if history.index is None:
        return np.arange(-len(history) + 1, 1), np.arange(1, horizon + 1)
    past, future = history.index, continued(history.index, horizon)
    if isinstance(past, import_pandas().PeriodIndex):
        past, future = past.to_timestamp(), future.to_timestamp()
    return past.to_numpy(), future.to_numpy()
