"""Forecasts of time series, with intervals."""

from fastlstm.tasks.forecasting.forecaster import Forecaster as Forecaster
from fastlstm.tasks.forecasting.measures import Windows as Windows
