"""The next day of a transformer, hour by hour, with intervals; beside the day before, again.

    python examples/forecasting.py

Where FASTLSTM_DATA names a folder with ETTh1 (ett/ETTh1.csv), that is learnt: load and oil
temperature of a transformer (Zhou et al. 2021). Else a series is made here.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd

from fastlstm.tasks import Forecaster

DAY, WEEK, MONTH = 24, 7 * 24, 30 * 24


def transformer(folder: Path) -> pd.DataFrame:
    frame = pd.read_csv(folder / "ETTh1.csv", parse_dates=["date"], index_col="date")
    return frame[: 20 * MONTH]


def made_up(months: int) -> pd.DataFrame:
    """Load by the hour and the day of the week, and the oil that it heats."""
    dates = pd.date_range("2024-01-01", periods=months * MONTH, freq="h", name="date")
    rng = np.random.default_rng(0)
    wave = np.sin(2 * np.pi * (dates.hour - 8) / DAY)
    load = 10 + 3 * wave - 2 * (dates.day_of_week >= 5) + rng.standard_normal(len(dates))
    oil = pd.Series(load).ewm(halflife=6).mean() + 0.3 * rng.standard_normal(len(dates))
    return pd.DataFrame({"load": load, "oil": oil.to_numpy()}, dates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a short series, in seconds")
    parser.add_argument("--plot", metavar="PNG", help="draw the last forecast to this file")
    arguments = parser.parse_args()
    data = os.environ.get("FASTLSTM_DATA")
    y = transformer(Path(data, "ett")) if data else made_up(3 if arguments.small else 8)
    if arguments.small:
        y = y[-3 * MONTH :]
    end = len(y) * 4 // 5  # the rest is neither trained nor validated on

    forecaster = Forecaster(
        DAY, lookback=WEEK, calendar=["hour"], epochs=2 if arguments.small else None,
        random_state=0, verbose=True,
    )  # fmt: skip
    forecaster.fit(y[:end])

    figures = forecaster.backtest(y[end - WEEK :], season=DAY)
    print(f"{figures['windows']:.0f} forecasts of {DAY} hours")
    for name in ("scaled_mse", "scaled_mae"):
        print(f"{name}: {figures[name]:.3f}, the day before {figures[f'naive_{name}']:.3f}")
    print(f"within the interval: {figures['coverage']:.1%}")

    lower, upper = forecaster.predict_interval(y)
    middle = forecaster.predict(y)
    name = y.columns[-1]
    for date in middle.index[::6]:
        low, value, high = (part.loc[date, name] for part in (lower, middle, upper))
        print(f"{date}  {name} {value:.2f}  ({low:.2f} to {high:.2f})")
    if arguments.plot:
        forecaster.plot(y[:-DAY], actual=y[-DAY:]).savefig(arguments.plot)


if __name__ == "__main__":
    main()
