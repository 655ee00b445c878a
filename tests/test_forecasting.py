"""Forecaster: forecasts, intervals and windows, with pandas and without, several series, files."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import mean_pinball_loss, r2_score

from fastlstm.storage import FormatError
from fastlstm.tasks import Forecaster
from tests.support import Array, assert_same_bits

QUICK: dict[str, Any] = {
    "horizon": 6, "lookback": 24, "patch_length": 6, "hidden_size": 6, "epochs": 2,
    "batch_size": 32, "random_state": 0,
}  # fmt: skip


def waves(rows: int = 260, variables: int = 2) -> Array:
    """Seasons of 12 rows, each variable's of its own size and phase, and noise."""
    rng = np.random.default_rng(0)
    t, k = np.arange(rows)[:, np.newaxis], np.arange(variables)
    clean = 100 * k + 10.0**k * np.sin(2 * np.pi * t / 12 + k)
    return clean + 0.1 * 10.0**k * rng.standard_normal((rows, variables))


def frame_of(values: Array) -> pd.DataFrame:
    dates = pd.date_range("2024-01-01", periods=len(values), freq="h", name="date")
    return pd.DataFrame(values, dates, columns=["load", "oil"][: values.shape[1]])


def known_of(rows: int) -> Array:
    return np.random.default_rng(1).integers(0, 2, (rows, 1)).astype(float)


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    return Forecaster(**QUICK).fit(waves())


@pytest.fixture(scope="module")
def dated() -> Forecaster:
    return Forecaster(**QUICK, calendar=("hour",)).fit(frame_of(waves()))


# --- forecasts ------------------------------------------------------------------------------------


def test_seasons_are_learnt_in_the_units_of_the_series() -> None:
    y = waves(700)
    forecaster = Forecaster(**QUICK | {"epochs": 25, "learning_rate": 0.02}).fit(y[:600])
    figures = forecaster.backtest(y[600 - 24 :], season=12)
    assert figures["windows"] == 95
    # The noise has a deviation of 0.1 where the seasons have one of 0.7.
    assert figures["scaled_mse"] < 1.3 * 0.1**2 / 0.5
    assert figures["scaled_mse"] < 0.7 * figures["naive_scaled_mse"]
    assert 0.65 < figures["coverage"] < 0.92
    assert forecaster.score(y[600 - 24 :]) > 0.97


def test_what_is_known_of_the_future_is_used() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(0, 2, (600, 1)).astype(float)
    y = 5 * X[:, 0] + 0.1 * rng.standard_normal(600)
    forecaster = Forecaster(**QUICK | {"epochs": 15, "learning_rate": 0.02, "quantiles": None}).fit(
        y[:500], X[:500]
    )
    assert forecaster.score(y[476:], X[476:]) > 0.95
    X[500:506, 0] = [1, 1, 0, 0, 1, 0]
    forecast = forecaster.predict(X=X[500:506])
    assert np.abs(forecast - 5 * X[500:506, 0]).max() < 1
    assert_same_bits(forecaster.predict(y[:500], X[:506]), forecast)


def test_without_a_history_it_goes_on_from_the_training(fitted: Forecaster) -> None:
    y = waves()
    assert fitted.predict().shape == (6, 2)
    assert fitted.predict().dtype == np.float64
    assert_same_bits(fitted.predict(), fitted.predict(y))
    assert_same_bits(fitted.predict(), fitted.predict(y[-24:].astype(object).astype(float)))
    assert (fitted.predict() != fitted.predict(y[:-1])).all()


def test_windows_are_the_forecasts_from_each_row(fitted: Forecaster) -> None:
    y = waves()
    windows = fitted.predict_windows(y, stride=50)
    assert windows.starts.tolist() == [24, 74, 124, 174, 224]
    assert windows.quantiles is not None
    for start, prediction, target, quantiles in zip(
        windows.starts, windows.prediction, windows.target, windows.quantiles, strict=True
    ):
        assert_same_bits(target, y[start : start + 6])
        np.testing.assert_allclose(prediction, fitted.predict(y[:start]), rtol=1e-6)
        np.testing.assert_allclose(quantiles, fitted.predict_quantiles(y[:start]), rtol=1e-6)


def test_quantiles_do_not_cross_and_the_outermost_are_the_interval(fitted: Forecaster) -> None:
    y = waves()
    quantiles = fitted.predict_quantiles(y)
    assert quantiles.shape == (6, 2, 3)
    lower, upper = fitted.predict_interval(y)
    assert_same_bits(lower, quantiles[..., 0])
    assert_same_bits(upper, quantiles[..., 2])
    assert_same_bits(fitted.predict(y), quantiles[..., 1])
    # Even where the network's own cross.
    network = fitted.network_
    before = network.parameters().state_dict()
    try:
        rng = np.random.default_rng(0)
        shaken = {k: v + rng.standard_normal(v.shape, np.float32) for k, v in before.items()}
        network.parameters().load_state_dict(shaken)
        windows = fitted.predict_windows(y).quantiles
        assert windows is not None
        assert (np.diff(windows, axis=-1) >= 0).all()
        assert (np.diff(fitted.predict_quantiles(y), axis=-1) >= 0).all()
    finally:
        network.parameters().load_state_dict(before)


def test_units_do_not_matter() -> None:
    """A law: what is learnt of a·y + b is a times the forecast of y, plus b."""
    y = waves(200)
    one, two = (Forecaster(**QUICK).fit(series) for series in (y, 1000 + 3 * y))
    np.testing.assert_allclose(two.predict(), 1000 + 3 * one.predict(), rtol=1e-4)
    for ours, theirs in zip(two.predict_interval(), one.predict_interval(), strict=True):
        np.testing.assert_allclose(ours, 1000 + 3 * theirs, rtol=1e-4)
    assert two.score(1000 + 3 * y) == pytest.approx(one.score(y), rel=1e-4)


def test_one_seed_gives_one_forecaster() -> None:
    one, two = (Forecaster(**QUICK).fit(waves(120)) for _ in range(2))
    assert_same_bits(one.predict(), two.predict())
    other = Forecaster(**QUICK | {"random_state": 1}).fit(waves(120))
    assert (other.predict() != one.predict()).any()


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "rnn", "num_layers": 2}, {"mixing": True}, {"quantiles": None},
        {"quantiles": [0.5]}, {"patch_length": 100}, {"lookback": 1, "horizon": 1},
        {"validation_fraction": 0, "patience": None},
    ],
    ids=str,
)  # fmt: skip
def test_options_in_all_ways(options: dict[str, Any], tmp_path: Path) -> None:
    forecaster = Forecaster(**QUICK | {"epochs": 1} | options).fit(waves(120))
    forecast = forecaster.predict()
    assert forecast.shape == (forecaster.horizon, 2)
    forecaster.save(tmp_path / "model")
    assert_same_bits(Forecaster.load(tmp_path / "model").predict(), forecast)


def test_what_is_held_out_is_the_end_and_neither_seen_nor_scaled_by() -> None:
    y = waves(200, 1)
    changed = y.copy()
    changed[160:] = 1000  # the held-out fifth
    options = QUICK | {"patience": None, "epochs": 1}
    one, two = (Forecaster(**options).fit(series) for series in (y, changed))
    assert_same_bits(one.predict(y), two.predict(y))
    assert one.history_.validations != two.history_.validations
    changed = y.copy()
    changed[159:] = 1000
    assert (Forecaster(**options).fit(changed).predict(y) != one.predict(y)).all()


def test_ctrl_c_leaves_a_forecaster_that_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastlstm.tasks.forecasting import data

    count = 0
    batch = data.Table.batch

    def interrupted(self: Any, starts: Array) -> Any:
        nonlocal count
        count += 1
        if count == 12:
            signal.raise_signal(signal.SIGINT)
        return batch(self, starts)

    monkeypatch.setattr(data.Table, "batch", interrupted)
    forecaster = Forecaster(**QUICK | {"epochs": 50})
    with pytest.raises(KeyboardInterrupt):
        forecaster.fit(waves())
    monkeypatch.undo()
    assert np.isfinite(forecaster.predict()).all()
    assert len(forecaster.history_.losses) < 50


# --- measures -------------------------------------------------------------------------------------


def test_figures_are_those_of_scikit_learn_and_their_definitions(fitted: Forecaster) -> None:
    y = waves()
    windows = fitted.predict_windows(y, stride=3)
    figures = fitted.backtest(y, stride=3, season=12)
    error = windows.prediction - windows.target
    deviation = y[:208].std(axis=0)  # of the first four fifths
    assert figures["windows"] == len(windows.starts)
    assert figures["mse"] == pytest.approx(np.square(error).mean())
    assert figures["mae"] == pytest.approx(np.abs(error).mean())
    assert figures["scaled_mse"] == pytest.approx(np.square(error / deviation).mean())
    assert figures["scaled_mae"] == pytest.approx(np.abs(error / deviation).mean())
    naive = np.stack([y[start - 12 : start - 6] for start in windows.starts])
    assert figures["naive_mse"] == pytest.approx(np.square(naive - windows.target).mean())
    assert windows.quantiles is not None
    lower, upper = windows.quantiles[..., 0], windows.quantiles[..., 2]
    inside = (windows.target >= lower) & (windows.target <= upper)
    assert figures["coverage"] == inside.mean()
    assert figures["width"] == pytest.approx((upper - lower).mean())
    every = fitted.predict_windows(y)
    r2 = r2_score(every.target.reshape(-1, 2), every.prediction.reshape(-1, 2))
    assert fitted.score(y) == pytest.approx(r2)


def test_a_season_longer_than_the_horizon_or_shorter_is_repeated(fitted: Forecaster) -> None:
    y = waves()
    windows = fitted.predict_windows(y)
    for season, rows in ((4, [0, 1, 2, 3, 0, 1]), (24, range(6))):
        naive = np.stack([y[start - season :][list(rows)] for start in windows.starts])
        expected = np.abs(naive - windows.target).mean()
        assert fitted.backtest(y, season=season)["naive_mae"] == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"^season: expected a whole number <= 24, got 25"):
        fitted.backtest(y, season=25)


def test_training_lowers_the_pinball_loss() -> None:
    y = waves(300, 1)
    forecaster = Forecaster(**QUICK | {"epochs": 20, "learning_rate": 0.02}).fit(y[:250])
    windows = forecaster.predict_windows(y[226:])
    assert windows.quantiles is not None
    for k, q in enumerate((0.1, 0.5, 0.9)):
        ours = mean_pinball_loss(windows.target.ravel(), windows.quantiles[..., k].ravel(), alpha=q)
        constant = np.full(windows.target.size, np.quantile(y[:250], q))
        assert ours < 0.5 * mean_pinball_loss(windows.target.ravel(), constant, alpha=q)


# --- pandas ---------------------------------------------------------------------------------------


def test_a_frame_comes_back_with_its_dates_going_on(dated: Forecaster) -> None:
    y = frame_of(waves())
    forecast = dated.predict()
    assert list(forecast.columns) == ["load", "oil"]
    after = pd.date_range("2024-01-01", periods=266, freq="h", name="date")[260:]
    pd.testing.assert_index_equal(forecast.index, after, exact="equiv")
    pd.testing.assert_frame_equal(dated.predict(y), forecast)
    pd.testing.assert_frame_equal(dated.predict(y[-30:]), forecast)
    lower, upper = dated.predict_interval(y)
    assert ((lower <= forecast) & (forecast <= upper)).all(axis=None)
    quantiles = dated.predict_quantiles(y)
    pd.testing.assert_series_equal(quantiles["oil"][0.9], upper["oil"], check_names=False)


def test_a_series_comes_back_as_one() -> None:
    y = frame_of(waves())["load"]
    forecaster = Forecaster(**QUICK).fit(y)
    forecast = forecaster.predict(y)
    assert isinstance(forecast, pd.Series)
    assert forecast.name == "load"
    assert forecaster.predict_quantiles(y).columns.tolist() == [0.1, 0.5, 0.9]
    assert forecaster.predict(y.to_numpy()).shape == (6,)
    np.testing.assert_array_equal(forecaster.predict(y.to_numpy()), forecast)


def test_calendar_features_say_what_no_lookback_can() -> None:
    """Rows are high on weekends; a lookback of four hours does not see the week."""
    dates = pd.date_range("2024-01-01", periods=24 * 60, freq="h")
    y = pd.Series(np.where(dates.day_of_week >= 5, 1.0, 0.0), dates)
    options = QUICK | {"lookback": 4, "epochs": 5, "learning_rate": 0.02, "quantiles": None}
    without = Forecaster(**options).fit(y[:1200])
    told = Forecaster(**options, calendar=["weekend"]).fit(y[:1200])
    assert told.backtest(y[1196:])["mse"] < 0.3 * without.backtest(y[1196:])["mse"]


def test_known_inputs_are_matched_by_their_dates() -> None:
    y = frame_of(waves())
    dates = pd.date_range("2024-01-01", periods=266, freq="h")
    X = pd.DataFrame({"promotion": known_of(266)[:, 0]}, dates)
    forecaster = Forecaster(**QUICK, calendar=("hour", "weekend")).fit(y, X[:260])
    forecast = forecaster.predict(X=X[260:])
    pd.testing.assert_frame_equal(forecaster.predict(y, X), forecast)
    np.testing.assert_array_equal(forecaster.predict(y, X.to_numpy()), forecast)
    for wrong, message in [
        (X[:260], r"^X: expected 266 rows, of which 6 follow the end of y, got 260"),
        (X.shift(1, freq="h"), r"^X: expected the index of y and what follows it: 2024-01-01 00"),
        (X.rename(columns={"promotion": "price"}), r"^X: expected the columns \['promotion'\]"),
        (pd.concat([X, X.add_suffix("2")], axis=1), r"^X: expected 1 columns, as in fit, got 2"),
        (None, r"^X: expected 1 known inputs, as in fit, got None"),
    ]:
        with pytest.raises(ValueError, match=message):
            forecaster.predict(y, wrong)
    with pytest.raises(ValueError, match=r"^X: expected 6 rows, of which 6 follow"):
        forecaster.predict(X=X)
    with pytest.raises(ValueError, match=r"^X: expected 260 rows, as y has, got 266"):
        Forecaster(**QUICK).fit(y, X)


# --- several series -------------------------------------------------------------------------------


def test_several_series_of_different_sizes_are_learnt_together() -> None:
    large, small = waves(400, 1)[:, 0], 1e6 + 1e5 * waves(300, 1)[40:, 0]
    options = QUICK | {"epochs": 8, "hidden_size": 12}
    forecaster = Forecaster(**options).fit([large, small])
    forecasts = forecaster.predict()
    assert [one.shape for one in forecasts] == [(6,), (6,)]
    t = np.arange(6)
    assert np.abs(forecasts[0] - np.sin(2 * np.pi * (t + 400) / 12)).max() < 0.4
    expected = 1e6 + 1e5 * np.sin(2 * np.pi * (t + 300) / 12)
    assert np.abs(forecasts[1] - expected).max() < 0.4e5
    # A series that was not seen, and of another size again.
    other = 1000 * waves(200, 1)[:, 0]
    assert np.abs(forecaster.predict(other) / 1000 - np.sin(2 * np.pi * (t + 200) / 12)).max() < 0.4
    assert len(forecaster.predict([other])) == 1
    assert forecaster.score(other) > 0.9


def test_each_of_several_has_its_dates_and_known_inputs(tmp_path: Path) -> None:
    y = [frame_of(waves()), frame_of(waves(200)).shift(5, freq="D")]
    X = [known_of(260), known_of(200)]
    forecaster = Forecaster(**QUICK | {"epochs": 1}).fit(y, X)
    after = [known_of(6), known_of(6)]
    forecasts = forecaster.predict(X=after)
    assert forecasts[1].index[0] == y[1].index[-1] + pd.Timedelta("1h")
    forecaster.save(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model").predict(X=after)
    for one, two in zip(loaded, forecasts, strict=True):
        pd.testing.assert_frame_equal(one, two)
    with pytest.raises(ValueError, match=r"^X: expected a list of 2, as y is, got 1"):
        forecaster.predict(X=after[:1])
    with pytest.raises(ValueError, match=r"^X: expected a list of 2, as y is, got a ndarray"):
        forecaster.predict(X=after[0])
    with pytest.raises(ValueError, match=r"^y: expected one series to draw, got several"):
        forecaster.plot(X=after)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "X", "message"),
    [
        (np.full(260, np.nan), None, r"^y: expected finite numbers, got nan in row 0"),
        (
            waves(36),
            None,
            r"^y: 36 rows are too few: lookback 24 and horizon 6 need 30 to train on",
        ),
        (waves(5), None, r"^y: 5 rows are too few"),
        ([], None, r"^y: expected a row and a variable at least"),
        ([waves(100), waves(10)], None, r"^y\[1\]: 10 rows are too few"),
        ([waves(100), waves(100, 1)], None, r"^y\[1\]: expected 2 variables, got 1"),
        (waves(100), np.ones((99, 1)), r"^X: expected 100 rows, as y has, got 99"),
        (waves(100), np.full((100, 1), np.inf), r"^X: expected finite numbers, got inf"),
        (1e308 * np.sign(waves(100)), None, r"^y: expected smaller numbers, got 1e\+308"),
    ],
)
def test_series_that_cannot_be_learnt_are_refused(y: Any, X: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Forecaster(**QUICK).fit(y, X)


def test_histories_that_do_not_fit_are_refused(fitted: Forecaster, dated: Forecaster) -> None:
    with pytest.raises(ValueError, match=r"^y: expected 24 rows at least, the lookback, got 23"):
        fitted.predict(waves(23))
    with pytest.raises(ValueError, match=r"^y: expected 2 variables, got 1"):
        fitted.predict(waves(30, 1))
    with pytest.raises(ValueError, match=r"^y: 29 rows are too few"):
        fitted.predict_windows(waves(29))
    with pytest.raises(ValueError, match=r"^X: expected 0 columns, as in fit, got 1"):
        fitted.predict(waves(), known_of(266))
    with pytest.raises(ValueError, match=r"^y: expected the columns \['load', 'oil'\], got \['oi"):
        dated.predict(frame_of(waves())[["oil", "load"]])
    with pytest.raises(ValueError, match=r"^calendar: needs y with dates"):
        dated.predict(waves())
    with pytest.raises(ValueError, match=r"^y: expected numbers like those of .*, got 1e\+300"):
        fitted.predict(np.full((30, 2), 1e300))
    with pytest.raises(ValueError, match=r"^actual: expected 2 variables, got 1"):
        fitted.plot(actual=np.ones(6))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"horizon": 0}, ValueError, r"^horizon: expected a whole number >= 1"),
        ({"lookback": 2.5}, TypeError, r"^lookback: expected a whole number"),
        ({"patch_length": 0}, ValueError, r"^patch_length"),
        ({"quantiles": (0.1, 0.9)}, ValueError, r"^quantiles: expected 0.5 among them"),
        ({"quantiles": (0.5, 0.1)}, ValueError, r"^quantiles: expected them ascending"),
        ({"quantiles": 0.5}, TypeError, r"^quantiles"),
        ({"calendar": "hour"}, TypeError, r"^calendar: expected a sequence of names, got 'hour'"),
        ({"calendar": ["moon"]}, ValueError, r"^calendar: expected some of hour, .* got 'moon'"),
        ({"calendar": ["hour"]}, ValueError, r"^calendar: needs y with dates"),
        ({"mixing": 1}, TypeError, r"^mixing: expected True or False"),
        ({"cell": "gru"}, ValueError, r"^cell: expected one of lstm, rnn, got 'gru'"),
        ({"validation_fraction": 1}, ValueError, r"^validation_fraction"),
        ({"validation_fraction": 0.01}, ValueError, r"holds 3 out, where 6 are the least"),
        ({"hidden_size": 0}, ValueError, r"^hidden_size"),
        ({"dropout": 1.5}, ValueError, r"^(p|dropout): "),
        ({"epochs": 0}, ValueError, r"^epochs"),
    ],
)
def test_impossible_arguments_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Forecaster(**QUICK | options).fit(waves())


def test_a_series_that_never_changes_stays_as_it_is() -> None:
    y = np.column_stack([np.full(120, 0.1), waves(120, 1)[:, 0]])
    forecaster = Forecaster(**QUICK, mixing=True).fit(y)
    forecast = forecaster.predict()
    assert np.isfinite(forecast).all()
    assert np.abs(forecast[:, 0] - 0.1).max() < 0.5
    assert np.isfinite(forecaster.score(y))


def test_what_is_not_fitted_says_so() -> None:
    for call in (
        lambda f: f.predict(), lambda f: f.predict_quantiles(), lambda f: f.predict_interval(),
        lambda f: f.score(waves()), lambda f: f.backtest(waves()), lambda f: f.plot(),
        lambda f: f.save("nowhere"),
    ):  # fmt: skip
        with pytest.raises(NotFittedError, match="Forecaster instance is not fitted yet"):
            call(Forecaster())


def test_without_quantiles_there_is_no_interval() -> None:
    forecaster = Forecaster(**QUICK | {"quantiles": None, "epochs": 1}).fit(waves(120))
    for call in (forecaster.predict_quantiles, forecaster.predict_interval):
        with pytest.raises(ValueError, match=r"^quantiles: are None, so only the mean"):
            call()
    assert forecaster.predict_windows(waves(40)).quantiles is None
    assert "coverage" not in forecaster.backtest(waves(40))


# --- scikit-learn, files, pictures ----------------------------------------------------------------


def test_it_is_cloned_with_its_arguments(fitted: Forecaster) -> None:
    copied = clone(fitted)
    assert copied.get_params() == fitted.get_params()
    assert not hasattr(copied, "network_")
    assert copied.set_params(horizon=3).horizon == 3


def test_a_file_gives_back_the_same_forecasts(dated: Forecaster, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    dated.save(path)
    loaded = Forecaster.load(path)
    assert loaded.get_params() == dated.get_params()
    pd.testing.assert_frame_equal(loaded.predict(), dated.predict())
    y = frame_of(waves(300))
    assert loaded.backtest(y) == dated.backtest(y)
    with pytest.raises(ValueError, match=r"^y: expected the columns"):
        loaded.predict(frame_of(waves()).rename(columns={"oil": "coal"}))
    from fastlstm.tasks import SequenceClassifier

    with pytest.raises(FormatError, match="expected a file of kind 'sequence-classifier'"):
        SequenceClassifier.load(path)


def test_who_lacks_a_package_reads_how_to_get_it(
    fitted: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"need matplotlib: pip install 'fastlstm\[plot\]'"):
        fitted.plot()
    frame = frame_of(waves())
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"need pandas: pip install 'fastlstm\[forecast\]'"):
        fitted.predict(frame)
    assert fitted.predict(waves()).shape == (6, 2)  # without any


def test_pictures_have_a_panel_for_each_variable(
    fitted: Forecaster, dated: Forecaster, tmp_path: Path
) -> None:
    for forecaster, history in ((fitted, 18), (dated, 10)):
        figure = forecaster.plot(
            actual=waves(264)[260:], history=None if forecaster is fitted else 10
        )
        axes = figure.axes
        assert len(axes) == 2
        past, ahead, came = axes[0].lines
        assert (len(past.get_xdata()), len(ahead.get_xdata())) == (history, 6)
        assert len(came.get_xdata()) == 4
        np.testing.assert_array_equal(ahead.get_ydata(), np.asarray(forecaster.predict())[:, 0])
        assert len(axes[0].collections) == 1  # the interval
        figure.savefig(tmp_path / "forecast.png")
    assert axes[1].get_ylabel() == "oil"
