"""`fastlstm forecast`: tables with dates become a model, which continues them."""

from __future__ import annotations

import csv
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fastlstm.cli import forecast, main
from fastlstm.tasks import Forecaster

ROWS = 300
SMALL = ["--horizon", "6", "--lookback", "24", "--patch", "6", "--hidden", "6", "--epochs", "1"]


def table(rows: int = ROWS) -> pd.DataFrame:
    """Seasons of 24 hours: load, which follows the price, and oil."""
    rng = np.random.default_rng(0)
    dates = pd.date_range("2024-01-01", periods=rows, freq="h")
    price = rng.integers(1, 4, rows)
    load = 50 + 10 * np.sin(2 * np.pi * np.arange(rows) / 24) - 3 * price
    load += rng.standard_normal(rows)
    frame = pd.DataFrame({"load": load, "oil": 20 - 0.1 * load, "price": price}).round(3)
    frame.insert(0, "date", dates)
    return frame.assign(note="as usual")


class Desk:
    """A folder with tables, and the command run in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.model = folder / "model.safetensors"
        self.csv = self.write("load.csv", table())
        self.out = self.err = ""

    def write(self, name: str, frame: pd.DataFrame) -> Path:
        path = self.folder / name
        if path.suffix == ".jsonl":
            frame.assign(date=frame["date"].astype(str)).to_json(path, orient="records", lines=True)
        else:
            frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
        return path

    def run(self, *arguments: object) -> int:
        status = main(["forecast", *map(str, arguments)])
        self.out, self.err = self._capsys.readouterr()
        return status

    def train(self, *arguments: object) -> int:
        return self.run("train", *(arguments or [self.csv]), "--out", self.model, *SMALL)

    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.out)))

    def assert_fails(self, message: str) -> None:
        """The last command said one line on stderr, and nothing on stdout."""
        assert re.search(message, self.err), self.err
        assert self.err.startswith("fastlstm: error: ")
        assert self.err.count("\n") == 1, self.err
        assert self.out == ""


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def trained_on(factory: pytest.TempPathFactory, *arguments: str) -> Path:
    folder = factory.mktemp("trained")
    path, model = folder / "load.csv", folder / "model.safetensors"
    table().to_csv(path, index=False)
    assert main(["forecast", "train", str(path), "--out", str(model), *SMALL, *arguments]) == 0
    return model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_on(tmp_path_factory, "--target", "load", "--target", "oil")


@pytest.fixture(scope="module")
def informed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_on(
        tmp_path_factory, "--target", "load", "--known-future", "price", "--calendar", "hour"
    )


# --- train ----------------------------------------------------------------------------------------


def test_train_writes_a_model_and_prints_its_errors_on_what_was_held_out(desk: Desk) -> None:
    assert desk.train() == 0
    assert "load.csv: 300 rows from 2024-01-01 00:00:00 to 2024-01-13 11:00:00" in desk.err
    lines = desk.out.splitlines()
    assert lines[0] == "on the last 60 rows, which were held out:"
    assert lines[-1] == "55 forecasts"
    forecaster = Forecaster.load(desk.model)
    assert forecaster.variables_ == ("load", "oil", "price")  # all numbers
    y = table().set_index("date")[["load", "oil", "price"]]
    figures = forecaster.backtest(y[-84:], season=24)
    naive = [figures[f"naive_{k}"] for k in ("mse", "mae", "scaled_mse", "scaled_mae")]
    assert re.split(r"\s{2,}", lines[3])[1:] == [f"{value:.4g}" for value in naive]
    assert float(re.split(r"\s{2,}", lines[2])[1]) == pytest.approx(figures["mse"], rel=1e-3)
    assert f"{figures['coverage']:.1%} of the values are within" in desk.out


def test_the_same_seed_learns_the_same_model(desk: Desk) -> None:
    contents = []
    for seed in (1, 1, 2):
        assert desk.train(desk.csv, "--seed", seed) == 0
        contents.append(desk.model.read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_defaults_are_those_of_the_estimator() -> None:
    parameters = inspect.signature(Forecaster).parameters
    for argument, _, default, _ in forecast.OPTIONS.values():
        assert default == parameters[argument].default, argument


def test_options_reach_the_estimator(desk: Desk) -> None:
    options = [
        "--target", "oil", "--quantile", "0.25", "--quantile", "0.75", "--calendar", "weekend",
        "--calendar", "hour", "--mixing", "--layers", "2", "--dropout", "0.1", "--batch", "16",
        "--lr", "0.01", "--held-out", "0.3", "--patience", "4",
    ]  # fmt: skip
    assert desk.train(desk.csv, *options) == 0
    params = Forecaster.load(desk.model).get_params()
    expected = {
        "horizon": 6, "lookback": 24, "patch_length": 6, "hidden_size": 6, "epochs": 1,
        "quantiles": (0.25, 0.5, 0.75), "calendar": ("weekend", "hour"), "mixing": True,
        "num_layers": 2, "dropout": 0.1, "batch_size": 16, "learning_rate": 0.01,
        "validation_fraction": 0.3, "patience": 4, "random_state": 0,
    }  # fmt: skip
    assert {name: params[name] for name in expected} == expected


def test_nothing_held_out_and_the_mean_alone(desk: Desk) -> None:
    assert desk.train(desk.csv, "--held-out", 0, "--mean") == 0
    assert desk.out == ""
    assert Forecaster.load(desk.model).quantiles is None
    assert desk.run("predict", desk.model) == 0
    assert list(desk.rows()[0]) == ["date", "load", "oil", "price"]


@pytest.mark.parametrize("name", ["load.tsv", "load.jsonl"])
def test_tables_of_other_kinds(desk: Desk, trained: Path, name: str) -> None:
    other = desk.write(name, table())
    assert desk.run("predict", trained, other) == 0
    expected = desk.out
    assert desk.run("predict", trained, desk.csv) == 0
    assert desk.out == expected


def replaced(row: int, column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: object})
        frame.loc[row, column] = value
        return frame

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced(7, "load", ""), r"load.csv: row 8: expected a number in column 'load', got noth"),
        (replaced(7, "load", "n/a"), r"load.csv: row 8: expected a number in column .* got 'n/a'"),
        (replaced(7, "load", "nan"), r"load.csv: row 8: expected a number in column .* got 'nan'"),
        (replaced(7, "date", "soon"), r"load.csv: column 'date' has no dates: "),
        (lambda frame: frame[::-1], r"load.csv: expected an index that ascends, got 2024-01-13 10"),
        (lambda frame: frame.iloc[[0, *range(300)]], r"got 2024-01-01 00:00:00 twice, in row 1"),
        (lambda frame: frame.drop(9), r"load.csv: no frequency fits its dates: in row 9, 2024-01-"),
        (lambda frame: frame.rename(columns={"date": "day"}), r"row 1 has no column 'date'"),
        (lambda frame: frame[["date", "note"]], r"load.csv: its first row has no number to fore"),
        (lambda frame: frame[:25], r"y: 25 rows are too few: lookback 24 and horizon 6 need 30"),
        (lambda frame: frame[:0], r"load.csv: has no rows"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_learnt(
    desk: Desk, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    desk.write("load.csv", change(table()))
    assert desk.train() == 2
    last = desk.err.splitlines()[-1]
    assert re.search(message, last), last
    assert last.startswith("fastlstm: error: ")
    assert not desk.model.exists()


def test_arguments_that_cannot_be(desk: Desk) -> None:
    for arguments, message in [
        (["--target", "gas"], r"row 1 has no column 'gas'; it has date, load, oil, price, note"),
        (["--target", "note"], r"row 1: expected a number in column 'note', got 'as usual'"),
        (["--target", "load", "--known-future", "load"], r"each column can be only one of them"),
        (["--target", "load", "--season", "25"], r"--season: expected at most the lookback, 24"),
    ]:
        assert desk.train(desk.csv, *arguments) == 2
        desk.assert_fails(message)
    with pytest.raises(SystemExit):
        desk.train(desk.csv, "--quantile", "1.5")


def test_no_file_of_somebody_else_is_overwritten(desk: Desk) -> None:
    desk.model.write_text("my diary")
    assert desk.train() == 2
    desk.assert_fails(r"it is not overwritten, choose another --out")
    assert desk.model.read_text() == "my diary"
    assert desk.run("train", desk.folder / "none.csv", "--out", desk.folder / "m") == 2
    desk.assert_fails(r"none.csv: no such file")


def test_ctrl_c_saves_the_best_model_so_far(desk: Desk) -> None:
    command = [
        sys.executable, "-m", "fastlstm", "forecast", "train", desk.csv, "--out", desk.model,
        *SMALL[:-2], "--epochs", "100000",
    ]  # fmt: skip
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    seen = ""
    while "%|" not in seen:  # the bar has been drawn: training has begun
        seen += process.stderr.read(1)
        assert process.poll() is None, seen
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert f"interrupted; the best model so far is in {desk.model}" in err
    assert np.isfinite(Forecaster.load(desk.model).predict()).all(axis=None)


# --- predict --------------------------------------------------------------------------------------


def test_predict_continues_the_dates(desk: Desk, trained: Path) -> None:
    assert desk.run("predict", trained) == 0
    rows = desk.rows()
    assert [row["date"] for row in rows] == [f"2024-01-13 {hour}:00:00" for hour in range(12, 18)]
    names = ["load", "load_q0.1", "load_q0.9", "oil", "oil_q0.1", "oil_q0.9"]
    assert list(rows[0]) == ["date", *names]
    expected = Forecaster.load(trained).predict_quantiles()
    for row, (_, values) in zip(rows, expected.iterrows(), strict=True):
        found = [float(row[name]) for name in names]
        order = [(name, q) for name in ("load", "oil") for q in (0.5, 0.1, 0.9)]
        assert found == pytest.approx([values[pair] for pair in order], rel=1e-6)
    assert desk.err == ""


def test_predict_from_a_history_as_csv_or_json_lines(desk: Desk, trained: Path) -> None:
    history = desk.write("new.csv", table(200)[["date", "oil", "load"]])  # in another order
    assert desk.run("predict", trained, history) == 0
    rows = desk.rows()
    assert rows[0]["date"] == "2024-01-09 08:00:00"
    assert desk.run("predict", trained, history, "--output", "jsonl") == 0
    objects = [json.loads(line) for line in desk.out.splitlines()]
    assert [{k: str(v) for k, v in row.items()} for row in objects] == rows


def test_predict_reads_a_pipe(desk: Desk, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    piped = io.TextIOWrapper(io.BytesIO(table(100).to_csv(index=False).encode()))
    monkeypatch.setattr(sys, "stdin", piped)
    assert desk.run("predict", trained, "-") == 0
    assert desk.rows()[0]["date"] == "2024-01-05 04:00:00"


def test_predict_with_what_is_known_of_the_future(desk: Desk, informed: Path) -> None:
    whole = table(ROWS + 6)
    future = desk.write("future.csv", whole[-6:][["date", "price"]])
    assert desk.run("predict", informed, "--future", future) == 0
    expected = desk.out
    assert desk.run("predict", informed, desk.csv, "--future", future) == 0
    assert desk.out == expected
    for arguments, message in [
        ([], r"--future: the model needs price of the dates to come"),
        (["--future", desk.write("short.csv", whole[-6:-1][["date", "price"]])],
         r"X: expected 6 rows, of which 6 follow the end of y, got 5"),
        (["--future", desk.write("late.csv", table(ROWS + 7)[-6:][["date", "price"]])],
         r"X: expected the index of y .*: 2024-01-13 12:00:00 in row 0, got 2024-01-13 13:00:00"),
        (["--future", desk.write("other.csv", whole[-6:][["date", "oil"]])],
         r"other.csv: row 1 has no column 'price'"),
    ]:  # fmt: skip
        assert desk.run("predict", informed, *arguments) == 2
        desk.assert_fails(message)


def test_predict_says_what_is_wrong(desk: Desk, trained: Path) -> None:
    for arguments, message in [
        ([desk.folder / "none"], r"none: no such file"),
        ([desk.csv], r"load.csv: no file of fastlstm's"),
        ([trained, desk.write("short.csv", table(10))], r"y: expected 24 rows at least, the look"),
        ([trained, desk.write("none.csv", table()[["date", "load"]])], r"has no column 'oil'"),
        ([trained, "--future", desk.csv], r"--future: the model was trained without"),
        ([trained, "--plot", desk.csv], r"--plot .*load.csv: exists and is no forecast of fast"),
        ([trained, "--plot", desk.folder / "a" / "b.png"], r"--plot .*: there is no folder"),
    ]:
        assert desk.run("predict", *arguments) == 2
        desk.assert_fails(message)


def test_who_lacks_pandas_reads_how_to_get_it(
    desk: Desk, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert desk.run("predict", trained) == 2
    desk.assert_fails(r"need pandas: pip install 'fastlstm\[forecast\]'")


def test_a_model_without_a_table_is_refused(desk: Desk) -> None:
    options: dict[str, Any] = {"horizon": 2, "lookback": 4, "hidden_size": 2, "epochs": 1}
    Forecaster(**options).fit(np.arange(40.0)).save(desk.model)
    assert desk.run("predict", desk.model) == 2
    desk.assert_fails(r"the model was not trained on a table with dates")


def test_predict_draws_and_replaces_its_own_pictures_alone(desk: Desk, trained: Path) -> None:
    picture = desk.folder / "forecast.png"
    for _ in range(2):
        assert desk.run("predict", trained, "--plot", picture) == 0
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert len(desk.rows()) == 6


# --- evaluate -------------------------------------------------------------------------------------


def test_evaluate_prints_errors_beside_the_naive_ones(desk: Desk, informed: Path) -> None:
    assert desk.run("evaluate", informed, desk.csv, "--json") == 0
    figures = json.loads(desk.out)
    frame = table().set_index("date")
    expected = Forecaster.load(informed).backtest(frame[["load"]], frame[["price"]], season=24)
    assert figures == pytest.approx({"season": 24, **expected})
    assert desk.run("evaluate", informed, desk.csv, "--season", "12", "--stride", "10") == 0
    assert desk.out.splitlines()[-1] == "28 forecasts"
    assert "% of the values are within, mean width" in desk.out


@pytest.mark.parametrize(
    ("freq", "lookback", "season"),
    [("h", 168, 24), ("h", 12, 1), ("15min", 168, 96), ("D", 168, 7), ("B", 30, 5), ("W", 60, 52),
     ("MS", 24, 12), ("QS", 24, 4), ("YS", 24, 1)],
)  # fmt: skip
def test_the_season_is_seen_from_the_dates(freq: str, lookback: int, season: int) -> None:
    index = pd.date_range("2020-01-01", periods=101, freq=freq)
    assert forecast._season(None, Forecaster(lookback=lookback), index) == season
