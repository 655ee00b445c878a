"""Forecasts of time series: the estimator, its windows and what they are measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from fastlstm._validate import Array, check_flag, check_quantiles, check_size
from fastlstm.tasks._base.batches import in_chunks
from fastlstm.tasks._base.estimator import Estimator
from fastlstm.tasks._base.networks import Start
from fastlstm.tasks.forecasting import plot
from fastlstm.tasks.forecasting.data import Layout, Table, check_calendar, window_starts
from fastlstm.tasks.forecasting.measures import Windows, figures_of, mean_loss, r2, windows_at_once
from fastlstm.tasks.forecasting.memory import Memory
from fastlstm.tasks.forecasting.network import ForecastNetwork
from fastlstm.tasks.forecasting.series import Series, check_many, check_series

# Of a training that is not told how long it is.
_EPOCHS, _STEPS = 8, 1000


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
    epochs : int, optional
        Passes over the windows of the training part; by default 8, or more where they are so few
        that 8 make less than 1000 steps.
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
        Stop after so many epochs without a new lowest loss; by default after all.
    random_state : int, RandomState or None
        Of weights, batches and dropout.
    verbose : bool
        Show progress on stderr.

    Attributes
    ----------
    variables_, known_ : tuple, or None
        Names of the columns of y and X, where pandas objects had them.
    index_name_ : str, or None
        Of the index of y.
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

    horizon: int
    lookback: int
    quantiles: Sequence[float] | None
    calendar: Sequence[str]
    mixing: bool
    patch_length: int
    hidden_size: int
    num_layers: int
    dropout: float
    cell: str

    _memory: Memory

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
        epochs: int | None = None,
        batch_size: int = 64,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        max_norm: float = 1.0,
        validation_fraction: float = 0.2,
        patience: int | None = None,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self._keep(locals())

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

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If an argument is not possible; a series has a gap (NaN) or is too short for a window
            of lookback and horizon, its rows are not in order, or those of X are others. What was
            fitted before is left as it was.
        KeyboardInterrupt
            After Ctrl-C; the forecaster then has the best weights so far and can be used.
        """
        self._check_params()
        self._check_training()
        series, several = check_many("y", y)
        with self._as_before_if_refused():
            self._learn(series, several, X)
        return self

    def _learn(self, series: Sequence[Series], several: bool, X: Any) -> None:
        """Take up what prediction needs, and train."""
        layout = Layout.of(series, several, X, check_calendar(self.calendar))
        known = layout.known_of_all(series, several, X)
        parts = window_starts(
            series, several, self.lookback, self.horizon, self.validation_fraction
        )
        rows = [part.rows for part in parts]
        self._memory = memory = Memory.of(
            layout, several, series, known, training=rows, lookback=self.lookback
        )
        scaled = [
            scale.apply("y", one.values) for scale, one in zip(memory.scales, series, strict=True)
        ]
        table = Table(
            np.concatenate(scaled),
            memory.known_scale.apply("X", np.concatenate(known)),
            self.lookback,
            self.horizon,
        )
        training = np.concatenate([part.training for part in parts])
        validation = np.concatenate([part.validation for part in parts])
        seed = self._new_seed()
        network = self._network(np.random.default_rng(seed))
        per_epoch = -(-len(training) // self.batch_size)
        self._train(
            network,
            lambda which: table.batch(training[which]),
            len(training),
            seed=seed,
            validate=(lambda: mean_loss(network, table, validation)) if len(validation) else None,
            epochs=self.epochs or max(_EPOCHS, -(-_STEPS // per_epoch)),
        )

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
        return ForecastNetwork(
            variables=self._memory.layout.variables,
            known=self._memory.layout.known,
            lookback=self.lookback,
            horizon=self.horizon,
            quantiles=None if self.quantiles is None else tuple(self.quantiles),
            patch=min(self.patch_length, self.lookback),
            mixing=self.mixing,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            dropout=self.dropout,
            cell=self.cell,
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
        (part,) = window_starts([series], False, self.lookback, self.horizon, 0)
        starts = part.training[::stride]
        (known,) = self._memory.layout.known_of_all([series], False, X)
        scale = self._memory.scale_of(series)
        known = self._memory.known_scale.apply("X", known)
        table = Table(scale.apply("y", series.values), known, self.lookback, self.horizon)
        found = []
        for chunk in in_chunks(len(starts), windows_at_once(series.values.shape[1])):
            window, inputs, _ = table.batch(starts[chunk])
            found.append(scale.undo(self.network_(window, inputs)))
        forecast = np.sort(np.concatenate(found), axis=-1)
        return Windows(
            starts,
            forecast[..., self._middle()],
            series.values[starts[:, np.newaxis] + np.arange(self.horizon)],
            None if self.quantiles is None else forecast,
        )

    def _ahead(self, y: Any, X: Any) -> tuple[list[tuple[Series, Array]], bool]:
        """Each series with its forecast (H, D, Q), and whether they came as a list of several."""
        self._check_is_fitted()
        memory, horizon = self._memory, self.horizon
        if y is None:
            series, several, scales = memory.tails(), memory.several, memory.scales
            after = memory.layout.known_of_all(
                series, several, X, since=self.lookback, ahead=horizon
            )
            known = [np.concatenate(pair) for pair in zip(memory.known, after, strict=True)]
        else:
            series, several = check_many("y", y)
            for k, one in enumerate(series):
                if len(one) < self.lookback:
                    raise ValueError(
                        f"y{f'[{k}]' if several else ''}: expected {self.lookback} rows at least, "
                        f"the lookback, got {len(one)}"
                    )
            known = memory.layout.known_of_all(series, several, X, ahead=horizon)
            scales = [memory.scale_of(one) for one in series]
        pairs = list(zip(scales, series, strict=True))
        windows = np.stack([scale.apply("y", one.values[-self.lookback :]) for scale, one in pairs])
        around = memory.known_scale.apply(
            "X", np.stack([inputs[-self.lookback - horizon :] for inputs in known])
        )
        found = []
        for chunk in in_chunks(len(series), windows_at_once(memory.layout.variables)):
            inputs = around[chunk] if memory.layout.known else None
            found.append(self.network_(windows[chunk], inputs))
        answers = [
            (one, np.sort(scale.undo(forecast), axis=-1))
            for (scale, one), forecast in zip(pairs, np.concatenate(found), strict=True)
        ]
        return answers, several

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
        return figures_of(windows, series.values, self._memory.scale_of(series).deviation, season)

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
        if came is not None:
            self._memory.layout.check("actual", came)
        ((series, values),) = ahead
        return plot.figure(
            series.tail(min(len(series), history or 3 * self.horizon)),
            values,
            None if self.quantiles is None else self._levels(),
            None if came is None else came.values[: self.horizon],
        )

    # --- what it was fitted on, and checks --------------------------------------------------------

    @property
    def variables_(self) -> tuple[Any, ...] | None:
        self._check_is_fitted()
        return self._memory.layout.names

    @property
    def known_(self) -> tuple[Any, ...] | None:
        self._check_is_fitted()
        return self._memory.layout.column_names

    @property
    def index_name_(self) -> str | None:
        self._check_is_fitted()
        return self._memory.index_name()

    def _levels(self) -> tuple[float, ...]:
        return tuple(self.quantiles or ())

    def _middle(self) -> int:
        return self._levels().index(0.5) if self.quantiles is not None else 0

    def _check_has_quantiles(self) -> None:
        if self.quantiles is None:
            raise ValueError("quantiles: are None, so only the mean is forecast: use predict")

    # --- files ------------------------------------------------------------------------------------

    def _fitted(self) -> tuple[dict[str, Any], dict[str, Array]]:
        return self._memory.to_file()

    def _restore(
        self, fitted: Mapping[str, Any], arrays: Mapping[str, Array], network: Mapping[str, Array]
    ) -> None:
        if self.quantiles is not None:
            self.quantiles = tuple(self.quantiles)
        self.calendar = tuple(self.calendar)
        self._check_params()
        self._memory = Memory.from_file(
            fitted, arrays, lookback=self.lookback, calendar=self.calendar
        )
        self.network_ = self._network(network)


def _answer(answers: list[Any], several: bool) -> Any:
    return answers if several else answers[0]
