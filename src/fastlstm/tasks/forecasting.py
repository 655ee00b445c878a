"""Forecasts of time series: the estimator, its windows and what they are measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from fastlstm._validate import Array, check_flag, check_number, check_quantiles, check_size
from fastlstm.losses import mean_squared_error, quantile_loss
from fastlstm.tasks import _forecast_plot
from fastlstm.tasks._batches import in_chunks
from fastlstm.tasks._estimator import Estimator
from fastlstm.tasks._forecast_data import Layout, Scale, Table, check_calendar, window_starts
from fastlstm.tasks._forecast_measures import Windows, figures_of, r2
from fastlstm.tasks._forecast_network import ForecastNetwork
from fastlstm.tasks._networks import Start
from fastlstm.tasks._series import Series, check_many, check_series
from fastlstm.tasks._time_index import index_from_json, index_to_json

# Windows that are predicted at once.
_AT_ONCE = 256


class Forecaster(Estimator):
    """Forecasts of one or several time series, all steps of the horizon at once, with intervals.

    The network is a linear map of the last values and an LSTM that learns what that leaves; each
    variable is forecast by itself, by the same network, relative to its last value. Series are
    standardised inside, by the mean and the deviation of their training part.

    Parameters
    ----------
    horizon : int
        Steps to forecast (H).
    lookback : int
        Steps that a forecast is made from (L).
    quantiles : sequence of float, or None
        Which quantiles are forecast, ascending, 0.5 among them: the median is what `predict`
        returns, and the outermost ones are the interval. They are learnt by the pinball loss. With
        None the mean is forecast instead, by the squared error, and there is no interval.
    calendar : sequence of {"hour", "day_of_week", "weekend", "day_of_year"}
        What of the dates the network is told, where the series have dates.
    mixing : bool
        Let each variable's forecast read the other variables too. It is worth a trial where one
        runs ahead of another; where they do not, the network overfits sooner.
    patch_length : int
        Values that the LSTM reads as one step: a season, or a part of one. The newest value is the
        end of the last step; what of the lookback fills no step reaches the linear map alone.
    hidden_size : int
        Units of each layer.
    num_layers : int
    dropout : float
        Between layers and of the output.
    cell : {"lstm", "rnn"}
        "rnn" is the plain recurrent network, for comparison.
    epochs : int
        The most passes over the windows of the training part.
    batch_size : int
        Windows in a step of training; each holds all variables.
    learning_rate : float
        Its height; it rises to it in the first twentieth of the steps and falls along a cosine.
    weight_decay : float
        As ``torch.optim.AdamW`` has it.
    max_norm : float
        Gradients of a larger global norm are scaled down to it.
    validation_fraction : float
        Part of each series, its end, that is held out; the weights with the lowest loss on it are
        kept. 0 trains on all, for all epochs.
    patience : int, optional
        Stop after so many epochs without a new lowest loss.
    random_state : int, RandomState or None
        Of weights, batches and dropout.
    verbose : bool
        Show progress on stderr.

    Attributes
    ----------
    history_ : History
        Losses of the steps, and validations.

    Examples
    --------
    >>> import numpy as np
    >>> t = np.arange(600)
    >>> y = 10 + np.sin(2 * np.pi * t / 24) + 0.1 * np.random.default_rng(0).standard_normal(600)
    >>> forecaster = Forecaster(12, lookback=48, epochs=5, random_state=0).fit(y[:588])
    >>> forecaster.predict().shape
    (12,)
    >>> bool(np.abs(forecaster.predict() - y[588:]).mean() < 0.2)
    True
    """

    _kind = "forecaster"

    def __init__(
        self,
        horizon: int = 24,
        *,
        lookback: int = 168,
        quantiles: Sequence[float] | None = (0.1, 0.5, 0.9),
        calendar: Sequence[str] = (),
        mixing: bool = False,
        patch_length: int = 24,
        hidden_size: int = 64,
        num_layers: int = 1,
        dropout: float = 0.2,
        cell: str = "lstm",
        epochs: int = 8,
        batch_size: int = 64,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        max_norm: float = 1.0,
        validation_fraction: float = 0.2,
        patience: int | None = 3,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self.horizon = horizon
        self.lookback = lookback
        self.quantiles = quantiles
        self.calendar = calendar
        self.mixing = mixing
        self.patch_length = patch_length
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.cell = cell
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.max_norm = max_norm
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.verbose = verbose

    # --- training ---------------------------------------------------------------------------------

    def fit(self, y: Any, X: Any = None) -> Self:
        """Train.

        Parameters
        ----------
        y : array_like (N,) or (N, D), pandas Series or DataFrame, or a list of several
            One series, or a list of arrays or pandas objects: several with the same variables,
            each of which is then standardised by itself.
        X : array_like (N, K) or pandas object, or a list of such, optional
            Inputs that are known ahead (prices set, holidays, a weather forecast), row by row with
            y; a forecast will ask for their future.

        Raises
        ------
        TypeError, ValueError
            If an argument is not possible; a series has a gap (NaN) or is too short for a window
            of lookback and horizon, its rows are not in order, or those of X are others.
        KeyboardInterrupt
            After Ctrl-C; the forecaster is then at the best weights so far.
        """
        self._check_params()
        series, several = check_many("y", y)
        self._several = several
        self._layout = Layout.of(series, several, X, check_calendar(self.calendar))
        known = self._layout.known_of_all(series, several, X)
        fraction = check_number("validation_fraction", self.validation_fraction, least=0, below=1)
        parts = [
            window_starts(
                f"y[{k}]" if several else "y",
                len(one), self.lookback, self.horizon, fraction,
            )
            for k, one in enumerate(series)
        ]  # fmt: skip
        self._scales = [
            Scale.of("y", one.values[:end]) for one, (_, _, end) in zip(series, parts, strict=True)
        ]
        self._known_scale = Scale.of(
            "X", np.concatenate([k[:end] for k, (_, _, end) in zip(known, parts, strict=True)])
        )
        self._tails = [one.tail(self.lookback) for one in series]
        self._known_tails = [one[len(one) - self.lookback :] for one in known]
        table = Table(
            np.concatenate([s.apply(y.values) for s, y in zip(self._scales, series, strict=True)]),
            self._known_scale.apply(np.concatenate(known)),
            self.lookback,
            self.horizon,
        )
        offsets = np.cumsum([0, *map(len, series[:-1])])
        training, validation = (
            np.concatenate([part[k] + offset for part, offset in zip(parts, offsets, strict=True)])
            for k in (0, 1)
        )
        seed = self._new_seed()
        network = self._network(np.random.default_rng(seed))
        self._train(
            network,
            lambda which: table.batch(training[which]),
            len(training),
            seed=seed,
            validate=(lambda: _mean_loss(network, table, validation)) if len(validation) else None,
        )
        return self

    def _check_params(self) -> None:
        """What the layers and the Trainer do not check, before any work."""
        check_size("horizon", self.horizon)
        check_size("lookback", self.lookback)
        check_size("patch_length", self.patch_length)
        check_flag("mixing", self.mixing)
        check_calendar(self.calendar)
        if self.quantiles is not None:
            levels = check_quantiles("quantiles", self.quantiles)
            if 0.5 not in levels:
                raise ValueError(
                    f"quantiles: expected 0.5 among them, for it is the forecast, got {levels}"
                )

    def _network(self, start: Start) -> ForecastNetwork:
        levels = None if self.quantiles is None else tuple(self.quantiles)

        def loss(prediction: Array, target: Array) -> tuple[float, Array]:
            if levels is None:
                return mean_squared_error(prediction, target[..., np.newaxis])
            return quantile_loss(prediction, target, levels)

        return ForecastNetwork(
            variables=self._layout.variables,
            known=self._layout.known,
            lookback=self.lookback,
            horizon=self.horizon,
            outputs=1 if levels is None else len(levels),
            patch=min(self.patch_length, self.lookback),
            mixing=self.mixing,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            dropout=self.dropout,
            cell=self.cell,
            loss=loss,
            start=start,
        )

    # --- forecasts --------------------------------------------------------------------------------

    def predict(self, y: Any = None, X: Any = None) -> Any:
        """Forecast what follows a history: the median, or with ``quantiles=None`` the mean.

        Parameters
        ----------
        y : as for `fit`, optional
            The history, of `lookback` rows or more; by default that of `fit`.
        X : as for `fit`, optional
            Of all rows of y and the `horizon` after them; without y, of these alone.

        Returns
        -------
        ndarray (horizon, D), or (horizon,) for y (N,)
            Of float64. For a pandas object one of its kind, whose dates go on; for several series
            a list.

        Raises
        ------
        TypeError, ValueError
            As for `fit`.
        sklearn.exceptions.NotFittedError
            If it is not fitted.
        """
        ahead, several = self._ahead(y, X)
        middle = self._middle()
        return _answer([one.wrap(values[..., middle]) for one, values in ahead], several)

    def predict_quantiles(self, y: Any = None, X: Any = None) -> Any:
        """Forecast all quantiles; they do not cross.

        Where the network's own cross, they are sorted, which only lowers their loss (Chernozhukov
        et al. 2010, "Quantile and probability curves without crossing").

        Returns
        -------
        ndarray (horizon, D, Q), or (horizon, Q) for y (N,)
            Of pandas objects a DataFrame with a column for each variable and quantile. Otherwise
            as `predict`.
        """
        self._check_has_quantiles()
        ahead, several = self._ahead(y, X)
        levels = self._levels()
        return _answer([one.wrap_quantiles(values, levels) for one, values in ahead], several)

    def predict_interval(self, y: Any = None, X: Any = None) -> tuple[Any, Any]:
        """Forecast the outermost quantiles: ``lower, upper``, each in the form of `predict`.

        With ``quantiles=(0.1, 0.5, 0.9)`` four of five values should fall between them.
        """
        self._check_has_quantiles()
        ahead, several = self._ahead(y, X)
        lower, upper = ([one.wrap(values[..., k]) for one, values in ahead] for k in (0, -1))
        return _answer(lower, several), _answer(upper, several)

    def predict_windows(self, y: Any, X: Any = None, *, stride: int = 1) -> Windows:
        """Forecast from every row of a series that has `lookback` rows before it.

        Parameters
        ----------
        y : one series, as for `fit`
        X : as for `fit`, optional
            Of the rows of y.
        stride : int
            Rows from one forecast's beginning to the next one's.

        Returns
        -------
        Windows
            Of all forecasts whose `horizon` lies within y.

        Raises
        ------
        TypeError, ValueError
            As for `fit`.
        """
        self._check_is_fitted()
        stride = check_size("stride", stride)
        series = check_series("y", y)
        starts, _, _ = window_starts("y", len(series), self.lookback, self.horizon, 0)
        starts = starts[::stride]
        (known,) = self._layout.known_of_all([series], False, X)
        scale = self._scale_of(series)
        table = Table(
            scale.apply(series.values), self._known_scale.apply(known), self.lookback, self.horizon
        )
        parts = []
        for part in in_chunks(len(starts), _AT_ONCE):
            window, inputs, _ = table.batch(starts[part])
            parts.append(scale.undo(self.network_(window, inputs)))
        forecast = np.sort(np.concatenate(parts), axis=-1)
        return Windows(
            starts,
            forecast[..., self._middle()],
            series.values[starts[:, np.newaxis] + np.arange(self.horizon)],
            None if self.quantiles is None else forecast,
        )

    def _ahead(self, y: Any, X: Any) -> tuple[list[tuple[Series, Array]], bool]:
        """Each series with its forecast (H, D, Q), and whether they came as a list of several."""
        self._check_is_fitted()
        horizon = self.horizon
        if y is None:
            series, several, scales = self._tails, self._several, self._scales
            after = self._layout.known_of_all(
                series, several, X, since=self.lookback, ahead=horizon
            )
            known = [np.concatenate(pair) for pair in zip(self._known_tails, after, strict=True)]
        else:
            series, several = check_many("y", y)
            for k, one in enumerate(series):
                if len(one) < self.lookback:
                    name = f"y[{k}]" if several else "y"
                    raise ValueError(
                        f"{name}: expected {self.lookback} rows at least, the lookback, "
                        f"got {len(one)}"
                    )
            known = self._layout.known_of_all(series, several, X, ahead=horizon)
            scales = [self._scale_of(one) for one in series]
        found = []
        for one, inputs, scale in zip(series, known, scales, strict=True):
            window = scale.apply(one.values[-self.lookback :])[np.newaxis]
            around = self._known_scale.apply(inputs[-self.lookback - horizon :])[np.newaxis]
            forecast = self.network_(window, around if around.shape[2] else None)
            found.append((one, np.sort(scale.undo(forecast)[0], axis=-1)))
        return found, several

    def _scale_of(self, series: Series) -> Scale:
        """That of training; if several series were learnt, the series' own."""
        return Scale.of("y", series.values) if self._several else self._scales[0]

    # --- how good they are ------------------------------------------------------------------------

    def score(self, y: Any, X: Any = None) -> float:
        """R² of all forecasts within a series (`predict_windows`), the mean over its variables.

        1 is perfect, 0 as good as the mean of what came: ``sklearn.metrics.r2_score``.
        """
        return r2(self.predict_windows(y, X))

    def backtest(
        self, y: Any, X: Any = None, *, stride: int = 1, season: int | None = None
    ) -> dict[str, float]:
        """Errors of all forecasts within a series, beside those of the seasonal naive forecast.

        Parameters
        ----------
        y, X, stride
            As for `predict_windows`.
        season : int, optional
            Rows of a season, at most `lookback`. The naive forecast is the season before, again.

        Returns
        -------
        dict of str to float
            "windows": how many; "mse" and "mae", mean squared and absolute error over windows,
            steps and variables; "scaled_mse" and "scaled_mae", the same in deviations of the
            training part, as figures on standardised data are. With quantiles "coverage", the part
            of the values within the interval, and "width", the interval's mean one. With `season`
            "naive_mse", "naive_mae", "naive_scaled_mse" and "naive_scaled_mae".
        """
        if season is not None:
            season = check_size("season", season, most=self.lookback)
        windows = self.predict_windows(y, X, stride=stride)
        series = check_series("y", y)
        return figures_of(windows, series.values, self._scale_of(series).deviation, season)

    def plot(
        self, y: Any = None, X: Any = None, *, actual: Any = None, history: int | None = None
    ) -> Any:
        """Draw the end of a history and its forecast, with the interval, a panel for each variable.

        Parameters
        ----------
        y, X
            As for `predict`, but one series.
        actual : array_like (n,) or (n, D), or pandas object, optional
            What came: drawn beside the forecast.
        history : int, optional
            Rows of the history to draw, by default three times the horizon.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        if history is not None:
            history = check_size("history", history)
        ahead, several = self._ahead(y, X)
        if several:
            raise ValueError("y: expected one series to draw, got several")
        came = None if actual is None else check_series("actual", actual)
        if came is not None and came.values.shape[1] != self._layout.variables:
            raise ValueError(
                f"actual: expected {self._layout.variables} variables, got {came.values.shape[1]}"
            )
        ((series, values),) = ahead
        return _forecast_plot.figure(
            series.tail(min(len(series), history or 3 * self.horizon)),
            values,
            None if self.quantiles is None else self._levels(),
            None if came is None else came.values[: self.horizon],
        )

    # --- checks -----------------------------------------------------------------------------------

    def _levels(self) -> tuple[float, ...]:
        return tuple(self.quantiles or ())

    def _middle(self) -> int:
        return self._levels().index(0.5) if self.quantiles is not None else 0

    def _check_has_quantiles(self) -> None:
        if self.quantiles is None:
            raise ValueError("quantiles: are None, so only the mean is forecast: use predict")

    # --- files ------------------------------------------------------------------------------------

    def _fitted(self) -> tuple[dict[str, Any], dict[str, Array]]:
        header = self._layout.to_json() | {
            "several": self._several,
            "flat": [one.flat for one in self._tails],
            "index": [index_to_json(one.index) for one in self._tails],
        }
        arrays = {
            "history": np.stack([one.values for one in self._tails]),
            "history_known": np.stack(self._known_tails),
            "mean": np.stack([scale.mean for scale in self._scales]),
            "deviation": np.stack([scale.deviation for scale in self._scales]),
            "known_mean": self._known_scale.mean,
            "known_deviation": self._known_scale.deviation,
        }
        return header, arrays

    def _restore(
        self, fitted: Mapping[str, Any], arrays: Mapping[str, Array], network: Mapping[str, Array]
    ) -> None:
        if self.quantiles is not None:
            self.quantiles = tuple(self.quantiles)
        self.calendar = tuple(self.calendar)
        self._check_params()
        history, known = arrays["history"], arrays["history_known"]
        count, lookback, variables = history.shape
        self._layout = layout = Layout.from_json(fitted, variables, self.calendar)
        expected = {
            "history": (count, self.lookback, variables),
            "history_known": (count, self.lookback, layout.known),
            "mean": (count, variables),
            "deviation": (count, variables),
            "known_mean": (layout.known,),
            "known_deviation": (layout.known,),
        }
        for name, shape in expected.items():
            array = arrays[name]
            if array.shape != shape or array.dtype != np.float64 or not np.isfinite(array).all():
                raise ValueError(f"{name}: expected finite float64 of shape {shape}")
        self._several = check_flag("several", fitted["several"])
        flat, indices = fitted["flat"], fitted["index"]
        if count < 1 or len(flat) != count or len(indices) != count:
            raise ValueError(f"history: expected {len(flat)} series, got {count}")
        self._tails = [
            Series(values, index_from_json(index, lookback), layout.names, check_flag("flat", f))
            for values, index, f in zip(history, indices, flat, strict=True)
        ]
        self._known_tails = list(known)
        self._scales = [
            Scale(*pair) for pair in zip(arrays["mean"], arrays["deviation"], strict=True)
        ]
        self._known_scale = Scale(arrays["known_mean"], arrays["known_deviation"])
        self.network_ = self._network(network)


def _mean_loss(network: ForecastNetwork, table: Table, starts: Array) -> float:
    """The loss of all windows that begin at these rows."""
    total = 0.0
    for part in in_chunks(len(starts), _AT_ONCE):
        window, known, target = table.batch(starts[part])
        total += network.loss(network(window, known), target)[0] * len(target)
    return total / len(starts)


def _answer(answers: list[Any], several: bool) -> Any:
    return answers if several else answers[0]
