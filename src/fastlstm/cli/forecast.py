"""``fastlstm forecast``: tables with dates into models, and models into what comes next."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastlstm.cli import plots
from fastlstm.cli.arguments import add_command, real, use_threads, whole
from fastlstm.cli.errors import CommandError
from fastlstm.cli.models import (
    check_picture,
    check_target,
    fit_and_save,
    load_model,
    reason,
    remark,
)
from fastlstm.cli.series import read_frames
from fastlstm.cli.tables import write_rows
from fastlstm.tasks.forecasting.time_index import import_pandas

if TYPE_CHECKING:
    from fastlstm.tasks import Forecaster

KIND = "forecaster"

FILES = """\
FILE is a table with a line of names (.csv, .tsv) or JSON Lines (.jsonl), a row for each date, in
order and without gaps; "-" is stdin.
"""
TRAIN_DESCRIPTION = f"""\
Learn to forecast one or several series: load, sales, traffic, weather.

{FILES}
The end of the series is held out: the model that does best on it is kept. Printed are its errors
there, beside those of the season before, again. Ctrl-C saves the best model so far.
"""
TRAIN_EPILOG = """\
examples:
  fastlstm forecast train load.csv --target load --horizon 24 --out load.safetensors
      hourly load, a day ahead, with a column "date"
  fastlstm forecast train shop.csv --date day --target sales --known-future price \\
      --known-future holiday --horizon 14 --lookback 56 --patch 7 --out sales.safetensors
      daily sales two weeks ahead, from prices and holidays that are known by then
  fastlstm forecast train load.csv --calendar hour --calendar weekend --out load.safetensors
      all columns of numbers together, told the time of day, and whether it is a weekend
"""
PREDICT_DESCRIPTION = """\
Forecast what follows the end of a table, or, without one, the end of what was learnt. Printed is a
row for each date: the forecast of each series, and its other quantiles (load_q0.1, load_q0.9).
"""
PREDICT_EPILOG = """\
examples:
  fastlstm forecast predict load.safetensors > tomorrow.csv
      what follows the training
  fastlstm forecast predict load.safetensors latest.csv --plot tomorrow.png
      what follows the newest values
  fastlstm forecast predict sales.safetensors --future plans.csv --output jsonl
      with the prices and holidays of the days to come
"""
EVALUATE_DESCRIPTION = f"""\
Measure a model on a table: forecasts from every row that has enough rows before it, beside the
season before, again. "scaled" errors are in standard deviations of the training part; coverage is
the part of the values within the interval.

{FILES}"""
EVALUATE_EPILOG = """\
examples:
  fastlstm forecast evaluate load.safetensors march.csv
  fastlstm forecast evaluate load.safetensors march.csv --season 168 --json
"""

# The options of `train`: the argument of Forecaster, its type and default, and what it says.
OPTIONS: dict[str, tuple[str, Any, Any, str]] = {
    "horizon": ("horizon", whole(1), 24, "rows to forecast"),
    "lookback": ("lookback", whole(1), 168, "rows that a forecast is made from"),
    "patch": ("patch_length", whole(1), 24,
              "rows that the LSTM reads as one step: a season, or a part of one"),
    "hidden": ("hidden_size", whole(1), 64, "units of each LSTM layer"),
    "layers": ("num_layers", whole(1), 1, "LSTM layers"),
    "dropout": ("dropout", real(least=0, below=1), 0.2, "against learning the series by heart"),
    "epochs": ("epochs", whole(1), None,
               "passes over the series (default: 8, or more if it is short)"),
    "patience": ("patience", whole(1), None,
                 "stop after so many passes that were no better (default: never)"),
    "batch": ("batch_size", whole(1), 64, "places of the series that a step reads at once"),
    "lr": ("learning_rate", real(above=0), 3e-3, "the highest learning rate"),
    "held-out": ("validation_fraction", real(least=0, below=1), 0.2,
                 "part of the rows, the last ones, that is held out; 0 trains on all"),
}  # fmt: skip


def add_parser(commands: Any) -> None:
    """Add ``forecast`` and its commands to the subparsers of `fastlstm`."""
    forecast = commands.add_parser(
        "forecast",
        help="forecast time series, with intervals",
        description="Time series: learn them, forecast them, measure the forecasts.",
        allow_abbrev=False,
    )
    kinds = forecast.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(kinds)
    _add_predict(kinds)
    _add_evaluate(kinds)


def _add_train(kinds: Any) -> None:
    train = add_command(kinds, "train", "learn series", TRAIN_DESCRIPTION, TRAIN_EPILOG)
    train.add_argument("file", metavar="FILE", help='the series; "-" is stdin')
    train.add_argument("--out", required=True, metavar="MODEL", help="the file to write")
    train.add_argument(
        "--date", default="date", metavar="NAME", help="the column of dates (default: %(default)s)"
    )
    train.add_argument(
        "--target", action="append", metavar="NAME",
        help="a column to forecast; may be given several times (default: all columns of numbers)",
    )  # fmt: skip
    train.add_argument(
        "--known-future", action="append", metavar="NAME",
        help="a column that is known ahead; may be given several times",
    )  # fmt: skip
    train.add_argument(
        "--calendar", action="append", choices=("hour", "day_of_week", "weekend", "day_of_year"),
        help="what of the date the model is told; may be given several times",
    )  # fmt: skip
    train.add_argument(
        "--quantile", action="append", type=real(above=0, below=1), metavar="X",
        help="a quantile to forecast beside the median; may be given several times "
        "(default: 0.1 and 0.9)",
    )  # fmt: skip
    train.add_argument("--mean", action="store_true", help="forecast the mean, without an interval")
    train.add_argument(
        "--mixing", action="store_true", help="let each series' forecast read the others too"
    )
    for name, (_, kind, default, text) in OPTIONS.items():
        metavar = "N" if kind.__name__ == "whole number" else "X"
        train.add_argument(
            f"--{name}", type=kind, default=default, metavar=metavar,
            help=text + ("" if default is None else " (default: %(default)s)"),
        )  # fmt: skip
    _add_season(train)
    train.add_argument(
        "--seed", type=whole(0), default=0, metavar="N",
        help="of all that is random: the same seed learns the same model (default: %(default)s)",
    )  # fmt: skip
    train.set_defaults(run=train_model)


def _add_predict(kinds: Any) -> None:
    predict = add_command(
        kinds, "predict", "forecast what comes next", PREDICT_DESCRIPTION, PREDICT_EPILOG
    )
    predict.add_argument("model", metavar="MODEL", help="what `fastlstm forecast train` wrote")
    predict.add_argument(
        "file", metavar="FILE", nargs="?",
        help="the newest values, as many rows as the lookback or more (default: those learnt)",
    )  # fmt: skip
    predict.add_argument(
        "--future", metavar="FILE",
        help="a table with what is known of the dates to come, for a model with --known-future",
    )  # fmt: skip
    predict.add_argument(
        "--output", choices=("csv", "jsonl"), default="csv",
        help="a table or JSON Lines (default: %(default)s)",
    )  # fmt: skip
    predict.add_argument("--plot", metavar="PNG", help="draw history and forecast to this file")
    predict.set_defaults(run=predict_series)


def _add_evaluate(kinds: Any) -> None:
    evaluate = add_command(
        kinds, "evaluate", "measure a model", EVALUATE_DESCRIPTION, EVALUATE_EPILOG
    )
    evaluate.add_argument("model", metavar="MODEL", help="what `fastlstm forecast train` wrote")
    evaluate.add_argument("file", metavar="FILE", help='the series; "-" is stdin')
    evaluate.add_argument(
        "--stride", type=whole(1), default=1, metavar="N",
        help="rows from one forecast to the next (default: %(default)s)",
    )  # fmt: skip
    _add_season(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print a JSON object")
    evaluate.set_defaults(run=evaluate_model)


def _add_season(command: Any) -> None:
    command.add_argument(
        "--season", type=whole(1), metavar="N",
        help="rows of a season, for the naive forecast to compare with (default: a day of minutes "
        "or hours, a week of days, a year of weeks or months, if the lookback has so many)",
    )  # fmt: skip


# --- commands -------------------------------------------------------------------------------------


def train_model(options: argparse.Namespace) -> int:
    """``fastlstm forecast train``."""
    use_threads(options)
    forecaster_class = _forecaster()
    out = Path(options.out)
    check_target(out, KIND)
    y, X = read_frames(options.file, options.date, options.target, options.known_future or ())
    quantiles = sorted({0.5, *(options.quantile or (0.1, 0.9))})
    forecaster = forecaster_class(
        quantiles=None if options.mean else quantiles,
        calendar=options.calendar or (),
        mixing=options.mixing,
        random_state=options.seed,
        verbose=True,
        **{
            argument: getattr(options, name.replace("-", "_"))
            for name, (argument, *_) in OPTIONS.items()
        },
    )
    season = _season(options.season, forecaster, y.index)
    remark(f"{options.file}: {len(y):,} rows from {y.index[0]} to {y.index[-1]}")
    fit_and_save(forecaster, lambda: forecaster.fit(y, X), out)
    remark(f"the model is in {out}")
    held_out = round(len(y) * options.held_out)
    if held_out:
        rows = held_out + options.lookback
        figures = forecaster.backtest(y[-rows:], None if X is None else X[-rows:], season=season)
        print(f"on the last {held_out} rows, which were held out:\n{_shown(figures)}")
    return 0


def predict_series(options: argparse.Namespace) -> int:
    """``fastlstm forecast predict``."""
    use_threads(options)
    check_picture("--plot", options.plot, plots.FORECAST)
    forecaster = load_model(_forecaster().load, options.model)
    date, targets, known = _columns_of(forecaster)
    y = X = None
    if options.file is not None:
        y, X = read_frames(options.file, date, targets, known)
    if known and options.future is None:
        raise CommandError(f"--future: the model needs {', '.join(known)} of the dates to come")
    if not known and options.future is not None:
        raise CommandError("--future: the model was trained without --known-future")
    if known:
        _, future = read_frames(options.future, date, (), known)
        X = future if X is None else import_pandas().concat([X, future])
    try:
        rows = list(_forecasts(forecaster, date, y, X))
        figure = None if options.plot is None else forecaster.plot(y, X)
    except (TypeError, ValueError) as error:
        raise CommandError(str(error)) from None
    if figure is not None:
        _draw(figure, options.plot)
    if options.output == "jsonl":
        write_rows(rows)
    else:
        writer = csv.DictWriter(sys.stdout, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return 0


def evaluate_model(options: argparse.Namespace) -> int:
    """``fastlstm forecast evaluate``."""
    use_threads(options)
    forecaster = load_model(_forecaster().load, options.model)
    y, X = read_frames(options.file, *_columns_of(forecaster))
    season = _season(options.season, forecaster, y.index)
    try:
        figures = forecaster.backtest(y, X, stride=options.stride, season=season)
    except (TypeError, ValueError) as error:
        raise CommandError(f"{options.file}: {error}") from None
    if options.json:
        print(json.dumps({"season": season, **figures, "windows": int(figures["windows"])}))
    else:
        print(_shown(figures))
    return 0


# --- what they share ------------------------------------------------------------------------------


def _forecaster() -> type[Forecaster]:
    try:
        import_pandas()
        from fastlstm.tasks import Forecaster
    except ImportError as error:
        raise CommandError(str(error)) from None
    return Forecaster


def _columns_of(forecaster: Forecaster) -> tuple[str, list[str], list[str]]:
    """Of the tables that the model was trained on: dates, targets, what is known ahead."""
    date, targets = forecaster.index_name_, forecaster.variables_
    names = [date, *(targets or (None,)), *(forecaster.known_ or ())]
    if not all(isinstance(name, str) for name in names):
        raise CommandError("the model was not trained on a table with dates by this command")
    return str(date), list(targets or ()), list(forecaster.known_ or ())


def _season(given: int | None, forecaster: Forecaster, index: Any) -> int:
    """Rows of a season: as given, or what the frequency of the dates suggests."""
    lookback = forecaster.lookback
    if given is not None:
        if given > lookback:
            raise CommandError(f"--season: expected at most the lookback, {lookback}, got {given}")
        return given
    step = (index[-1] - index[0]).total_seconds() / (len(index) - 1) / 86400  # in days
    season = next((round(p / step) for p in (1, 7, 365.25) if step < 0.75 * p), 1)
    return season if season <= lookback else 1


def _forecasts(
    forecaster: Forecaster, date_column: str, y: Any, X: Any
) -> Iterator[Mapping[str, Any]]:
    """A row for each date."""
    forecast = forecaster.predict(y, X)
    quantiles = None if forecaster.quantiles is None else forecaster.predict_quantiles(y, X)
    for date, values in forecast.iterrows():
        row: dict[str, Any] = {date_column: str(date)}
        for name in forecast.columns:
            row[name] = _rounded(values[name])
            if quantiles is not None:
                row |= {
                    f"{name}_q{q:g}": _rounded(quantiles[name][q][date])
                    for q in forecaster.quantiles or ()
                    if q != 0.5
                }
        yield row


def _rounded(value: float) -> float:
    return float(f"{value:.7g}")


def _shown(figures: Mapping[str, float]) -> str:
    rows: list[Sequence[str]] = [("", "MSE", "MAE", "scaled MSE", "scaled MAE")]
    for title, prefix in (("forecast", ""), ("season before, again", "naive_")):
        names = ("mse", "mae", "scaled_mse", "scaled_mae")
        rows.append((title, *(f"{figures[prefix + name]:.4g}" for name in names)))
    lines = [_line(row) for row in rows]
    if "coverage" in figures:
        lines.append(
            f"interval: {figures['coverage']:.1%} of the values are within, mean width "
            f"{figures['width']:.4g}"
        )
    lines.append(f"{figures['windows']:.0f} forecasts")
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return cells[0].ljust(22) + "".join(cell.rjust(12) for cell in cells[1:])


def _draw(figure: Any, path: str) -> None:
    try:
        plots.save(figure, Path(path), plots.FORECAST)
    except OSError as error:
        raise CommandError(f"--plot {path}: {reason(error)}", status=1) from None
    remark(f"the picture is in {path}")
