"""A transformer's load and oil temperature, 24 hours ahead: ETTh1, all seven quantities at once.

Errors are of values standardised by the training part, over all forecasts whose 24 hours lie in
the four test months. The forecaster's arguments are its defaults but for the mean, which the
squared error asks for, and the hour of the day, which lowers the error of the validation months
from 0.356 to 0.345. A quarter of what it is given to learn are these months.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas
from numpy.typing import NDArray

from benchmarks.quality import baselines, data
from benchmarks.quality.harness import PLAIN, Outcome, Task, ahead_of, at_most, baseline, close_to
from benchmarks.quality.rivals import rivals, training_of
from fastlstm.tasks import Forecaster

AHEAD, WEEK = 24, 7 * 24
Windows = tuple[NDArray[np.float64], NDArray[np.float64]]


@cache
def read(small: bool) -> dict[str, Windows]:
    """Pasts of a week (n, 168, 7) and futures of a day (n, 24, 7), of each part."""
    hourly = data.etth1()
    values = hourly.standardised()
    bounds = {
        "training": (WEEK, hourly.training_end),
        "validation": (hourly.training_end, hourly.validation_end),
        "test": (hourly.validation_end, hourly.test_end),
    }
    step = 50 if small else 1
    found = {}
    for part, (first, last) in bounds.items():
        past, future = baselines.strided(values, first, last, WEEK, AHEAD)
        found[part] = past[::step], future[::step]
    return found


def errors(forecast: NDArray[np.float64], part: Windows) -> Outcome:
    difference = forecast - part[1]
    return Outcome(float((difference**2).mean()), further={"MAE": float(np.abs(difference).mean())})


def yesterday(small: bool) -> Outcome:
    test = read(small)["test"]
    return errors(test[0][:, -AHEAD:], test)


def mean_day(small: bool) -> Outcome:
    """The mean of the seven days before, hour by hour."""
    test = read(small)["test"]
    return errors(test[0].reshape(-1, 7, AHEAD, 7).mean(axis=1), test)


def ridge(small: bool, *, shared: bool) -> Outcome:
    """A quantity's next 24 values from its own past; the penalty does best on validation.

    One regression for each quantity, or one that is shared by all. From all quantities together
    it does worse (0.36).
    """
    from sklearn.linear_model import Ridge

    def rows(part: str) -> list[Windows]:
        past, future = (x.swapaxes(1, 2) for x in read(small)[part])
        if shared:
            return [(past.reshape(-1, past.shape[2]), future.reshape(-1, AHEAD))]
        return [(past[:, k], future[:, k]) for k in range(past.shape[1])]

    def forecast(models: list[Ridge], part: str) -> NDArray[np.float64]:
        found = [model.predict(past) for model, (past, _) in zip(models, rows(part), strict=True)]
        shape = len(read(small)[part][0]), -1, AHEAD
        whole = found[0].reshape(shape) if shared else np.stack(found, axis=1)
        return whole.swapaxes(1, 2)

    def validated(models: list[Ridge]) -> float:
        return errors(forecast(models, "validation"), read(small)["validation"]).value

    fitted = {
        alpha: [Ridge(alpha=alpha).fit(*pair) for pair in rows("training")] for alpha in PENALTIES
    }
    best = min(PENALTIES, key=lambda alpha: validated(fitted[alpha]))
    found = errors(forecast(fitted[best], "test"), read(small)["test"])
    return Outcome(found.value, further={**found.further, "alpha": best})


PENALTIES = [10.0**k for k in range(5)]
RIDGE = "ridge, one for all quantities"
BASELINES = {
    "yesterday again": baseline(yesterday),
    "mean of seven days": baseline(mean_day),
    RIDGE: baseline(lambda small: ridge(small, shared=True), penalties=PENALTIES, past=WEEK),
    "ridge, one for each quantity": baseline(
        lambda small: ridge(small, shared=False), penalties=PENALTIES, past=WEEK
    ),
}
SETTINGS = {
    "horizon": AHEAD, "lookback": WEEK, "quantiles": None, "calendar": ["hour"],
    "validation_fraction": 0.25,
}  # fmt: skip


@cache
def frames(small: bool) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """Training and validation months; and the test months, with the week before them."""
    hourly = data.etth1()
    whole = pandas.DataFrame(hourly.values, pandas.to_datetime(hourly.times), columns=hourly.names)
    training = whole[: hourly.validation_end]
    test = whole[hourly.validation_end - WEEK : hourly.test_end]
    return (training[-1500:], test[:500]) if small else (training, test)


def fit(forecaster: Forecaster, part: pandas.DataFrame) -> None:
    forecaster.fit(part)


def score(forecaster: Forecaster, part: pandas.DataFrame) -> Outcome:
    figures = forecaster.backtest(part)
    return Outcome(figures["scaled_mse"], further={"MAE": figures["scaled_mae"]})


SYSTEMS = rivals(Forecaster, SETTINGS, frames, fit, score)

TASK = Task(
    name="etth1",
    title="Load of a transformer, 24 hours ahead (ETTh1)",
    metric="mean squared error of the test months",
    higher_is_better=False,
    systems=SYSTEMS | BASELINES,
    bars=[
        at_most(0.35),
        close_to(RIDGE, 0.05, higher_is_better=False, relative=True),
        *ahead_of(PLAIN, "yesterday again", "mean of seven days", higher_is_better=False),
    ],
    training=training_of(Forecaster, SETTINGS, frames, fit),
    published={"LSTM with attention (LSTMa in Zhou et al. 2021)": 0.650},
)
