"""The picture of docs/forecasting.md: ``python docs/forecasting_picture.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fastlstm.tasks import Forecaster

WEEK = 7 * 24
TARGET = Path(__file__).with_name("forecasting.png")


def main() -> None:
    dates = pd.date_range("2024-01-01", periods=9 * WEEK, freq="h")
    rng = np.random.default_rng(0)
    day = np.sin(2 * np.pi * (dates.hour - 8) / 24)
    load = 100 + 20 * day - 15 * (dates.day_of_week >= 5) + 3 * rng.standard_normal(len(dates))
    load = pd.Series(load, dates, name="load")
    forecaster = Forecaster(
        horizon=24, lookback=WEEK, calendar=["hour", "weekend"], hidden_size=32, epochs=20,
        random_state=0,
    )  # fmt: skip
    forecaster.fit(load[: 8 * WEEK])
    start = 8 * WEEK + 72
    figure = forecaster.plot(load[:start], actual=load[start : start + 24], history=96)
    figure.savefig(TARGET, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main()
