"""benchmarks.quality: runs are kept and resumed, bars mean what they say, tasks run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.quality import __main__ as command
from benchmarks.quality import data, harness, report
from benchmarks.quality.harness import (
    ELMAN,
    OURS,
    PLAIN,
    TORCH,
    Bar,
    Outcome,
    Summary,
    System,
    Task,
)
from benchmarks.quality.rivals import rivals
from benchmarks.quality.tasks import NAMES, load
from fastlstm.tasks import TextClassifier

# --- runs and their file --------------------------------------------------------------------------


def made_up(calls: list[tuple[str, int]], **options: Any) -> Task:
    """fastlstm has 0.9, 0.91 and 0.92; a plain RNN 0.7 to 0.72; a baseline 0.8."""

    def system(name: str, base: float, **settings: Any) -> System:
        def run(seed: int, _small: bool) -> Outcome:
            calls.append((name, seed))
            return Outcome(base + seed / 100, 1.5, {"seed": seed})

        return System(run, settings)

    systems = {
        OURS: system(OURS, 0.9, hidden_size=options.pop("hidden_size", 64)),
        PLAIN: system(PLAIN, 0.7),
        "bag": harness.baseline(lambda _small: Outcome(0.8)),
    }
    return Task("made_up", "Made up", "accuracy", True, systems, percent=True, **options)


def test_every_run_is_done_once_and_baselines_have_one(tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []
    record = harness.run_missing(made_up(calls), results=tmp_path)
    assert calls == [(name, seed) for name in (OURS, PLAIN) for seed in range(3)]
    assert [(run["system"], run["seed"]) for run in record["runs"]][-1] == ("bag", 0)
    assert record["runs"][1]["value"] == pytest.approx(0.91)
    assert record["runs"][1]["seconds"] == 1.5
    assert record["runs"][1]["further"] == {"seed": 1}
    assert set(record["runs"][0]["where"]) == {"commit", "threads", "processor"}
    assert json.loads((tmp_path / "made_up.json").read_text()) == record
    harness.run_missing(made_up(calls), results=tmp_path)
    assert len(calls) == 6


def test_a_series_that_was_stopped_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []

    def stop(run: dict[str, Any]) -> None:
        if (run["system"], run["seed"]) == (OURS, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harness.run_missing(made_up(calls), results=tmp_path, report=stop)
    assert calls == [(OURS, 0), (OURS, 1)]
    harness.run_missing(made_up(calls), results=tmp_path)
    assert calls == [(OURS, k) for k in range(3)] + [(PLAIN, k) for k in range(3)]


def test_a_changed_setting_makes_the_runs_of_its_system_void(tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []
    harness.run_missing(made_up(calls), results=tmp_path)
    calls.clear()
    record = harness.run_missing(made_up(calls, hidden_size=128), results=tmp_path)
    assert calls == [(OURS, 0), (OURS, 1), (OURS, 2)]
    assert len(record["runs"]) == 7
    calls.clear()
    harness.run_missing(made_up(calls, hidden_size=128, settings={"split": 2}), results=tmp_path)
    assert len(calls) == 6


def test_single_systems_and_seeds_can_be_asked_for(tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []
    harness.run_missing(made_up(calls), systems=[PLAIN], seeds=[5], results=tmp_path)
    assert calls == [(PLAIN, 5)]


def test_a_value_that_is_no_number_is_no_outcome() -> None:
    task = Task("t", "t", "m", True, {OURS: System(lambda _seed, _small: Outcome(math.nan))})
    with pytest.raises(FloatingPointError, match="t: fastlstm, seed 3, gave nan"):
        harness.run_once(task, OURS, 3)


# --- bars -----------------------------------------------------------------------------------------


def test_summaries_have_the_standard_error_of_the_mean() -> None:
    summary = Summary((1.0, 2.0, 4.0), (1.0, 1.0, 1.0))
    assert summary.mean == pytest.approx(7 / 3)
    assert summary.error == pytest.approx(np.std([1, 2, 4], ddof=1) / math.sqrt(3))
    assert Summary((1.0,), (1.0,)).error == 0


@pytest.mark.parametrize(
    ("bar", "ours", "others", "expected"),
    [
        (harness.at_least(0.5), (0.4, 0.6), (), True),
        (harness.at_least(0.51), (0.4, 0.6), (), False),
        (harness.at_most(1.5), (1.5,), (), True),
        (harness.at_most(1.5), (1.51,), (), False),
        # The standard error of two values a apart is a / 2.
        (*harness.ahead_of("b", higher_is_better=True), (0.9, 1.1), (0.79,), True),
        (*harness.ahead_of("b", higher_is_better=True), (0.9, 1.1), (0.81,), False),
        (*harness.ahead_of("b", higher_is_better=False), (0.9, 1.1), (1.21,), True),
        (*harness.ahead_of("b", higher_is_better=False), (0.9, 1.1), (1.19,), False),
        (*harness.ahead_of("b", higher_is_better=True), (1.0,), (), None),
        (harness.close_to("b", 0.01, higher_is_better=False), (1.509,), (1.5,), True),
        (harness.close_to("b", 0.01, higher_is_better=False), (1.511,), (1.5,), False),
        (harness.close_to("b", 0.0, higher_is_better=True), (0.99,), (0.98,), True),
        (harness.close_to("b", 0.0, higher_is_better=True), (0.97,), (0.98,), False),
        (
            harness.close_to("b", 0.05, higher_is_better=False, relative=True),
            (0.33,),
            (0.316,),
            True,
        ),
        (
            harness.close_to("b", 0.05, higher_is_better=False, relative=True),
            (0.34,),
            (0.316,),
            False,
        ),
    ],
)
def test_bars_hold_or_not(
    bar: Bar, ours: tuple[float, ...], others: tuple[float, ...], expected: bool | None
) -> None:
    found = {OURS: Summary(ours, (1.0,) * len(ours))}
    if others:
        found["b"] = Summary(others, (1.0,))
    assert bar.met(found) is expected


def test_a_bar_of_time_looks_at_the_slowest_run() -> None:
    assert harness.within(60).met({OURS: Summary((1.0, 1.0), (59.0, 60.0))}) is True
    assert harness.within(60).met({OURS: Summary((1.0, 1.0), (59.0, 61.0))}) is False


def test_greedy_search_is_compared_in_each_run() -> None:
    from benchmarks.quality.tasks.multi30k import greedy_within

    bar = greedy_within(1.5)
    assert bar.met({}) is None
    for greedy, met in ((31.0, True), (30.0, False)):
        further = ({"greedy": 33.0}, {"greedy": greedy})
        assert bar.met({OURS: Summary((33.0, 32.0), (1.0, 1.0), further)}) is met


# --- what is shown --------------------------------------------------------------------------------


def test_the_table_has_means_published_figures_bars_and_times(tmp_path: Path) -> None:
    task = made_up(
        [],
        bars=[harness.at_least(0.9), harness.at_least(0.95)],
        published={"Someone 1999": 0.85},
    )
    record = harness.run_missing(task, results=tmp_path)
    timing = {"threads": 2, "ours_ms": 1.0, "torch_ms": 1.5, "ratio": 1.5}
    timing |= {"settings": task.settings_of(OURS)}
    record["timings"] = [timing, timing | {"settings": {"hidden_size": 1}, "ratio": 9.0}]
    for run, threads in zip(record["runs"], (2, 1, 2), strict=False):
        run["where"]["threads"] = threads
    text = report.table(task, record)
    assert "91.00 ± 0.58 %" in text
    assert "80.00 %" in text
    assert "published: Someone 1999" in text
    assert "bar: ≥ 0.9: met" in text
    assert "bar: ≥ 0.95: MISSED" in text
    assert text.count("times as long") == 1
    assert not report.all_met(task, record)
    page = report.markdown([(task, record)])
    assert "| Made up | accuracy | **91.00 ± 0.58 %** |  | 71.00 ± 0.58 % | 80.00 % (bag) |" in page
    assert "| **fastlstm** | **91.00 ± 0.58 %** | 3 | 2 | 1, 2 |" in page
    assert "| geometric mean | 2 | | | **1.50** |" in page


def test_every_system_has_its_row_of_points(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    task = made_up([], published={"Someone 1999": 0.85})
    record = harness.run_missing(task, results=tmp_path)
    report.plot(task, record, tmp_path / "made_up.png")
    assert (tmp_path / "made_up.png").read_bytes()[:4] == b"\x89PNG"


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def the_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Task:
    """The command knows one task, the made-up one."""
    task = made_up([], bars=[harness.at_least(0.9)])
    monkeypatch.setattr(command, "NAMES", ["made_up"])
    monkeypatch.setattr(command, "load", lambda _name: task)
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    return task


def test_the_command_runs_shows_and_keeps(
    the_task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.json"
    assert command.main(["made_up", "--results", str(tmp_path), "--json", str(copy)]) == 0
    assert "91.00 ± 0.58 %" in capsys.readouterr().out
    assert copy.read_text() == json.dumps(json.loads(copy.read_text()), indent=1) + "\n"
    assert json.loads(copy.read_text()) == harness.read_results(the_task, tmp_path)


@pytest.mark.usefixtures("the_task")
def test_a_small_run_keeps_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["all", "--small", "--results", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "fastlstm" in out
    assert "bar:" not in out
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("the_task")
def test_a_missed_bar_is_exit_status_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    strict = made_up([], bars=[harness.at_least(0.95)])
    monkeypatch.setattr(command, "load", lambda _name: strict)
    assert command.main(["made_up", "--results", str(tmp_path)]) == 1


@pytest.mark.usefixtures("the_task")
def test_a_system_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match=r"--system: made_up has fastlstm, plain RNN, bag, got GRU"
    ):
        command.main(["made_up", "--system", "GRU", "--results", str(tmp_path)])


def test_without_data_the_command_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.delenv(data.VARIABLE, raising=False)
    arguments = ["japanese_vowels", "--small", "--results", str(tmp_path)]
    assert command.main(arguments) == 2
    assert "FASTLSTM_DATA is not set" in capsys.readouterr().err
    monkeypatch.setenv(data.VARIABLE, str(tmp_path))
    assert command.main(arguments) == 2
    assert "there is no folder" in capsys.readouterr().err


# --- every task -----------------------------------------------------------------------------------


def task_systems() -> list[Any]:
    """Every system of every task, as far as what the tasks import is installed."""
    found = []
    for name in NAMES:
        try:
            task = load(name)
        except ImportError as error:
            skip = pytest.mark.skip(reason=f"{name} needs {error.name}")
            found.append(pytest.param(name, "", marks=skip, id=name))
            continue
        for system in task.systems:
            marks = () if system in (OURS, PLAIN) else pytest.mark.oracle
            found.append(pytest.param(name, system, marks=marks, id=f"{name}-{system}"))
    return found


@pytest.mark.parametrize(("name", "system"), task_systems())
def test_a_slice_of_each_task_runs(name: str, system: str) -> None:
    task = load(name)
    try:
        run = harness.run_once(task, system, 0, small=True)
    except data.NoDataError as error:
        pytest.skip(str(error))
    except ModuleNotFoundError as error:
        pytest.skip(f"needs {error.name}")
    assert math.isfinite(run["value"])
    if task.percent:
        assert 0 <= run["value"] <= 1
    assert OURS not in task.systems or next(iter(task.systems)) == OURS


def test_plain_networks_may_have_settings_of_their_own() -> None:
    """All else is shared, and of a classifier the simple RNN keeps what makes it simple."""
    systems = rivals(
        TextClassifier, {"pooling": "max", "epochs": 5}, *[lambda *_: None] * 3,
        plain={"learning_rate": 0.5, "pooling": "mean"},
    )  # fmt: skip
    found = {
        name: [system.settings[key] for key in ("cell", "learning_rate", "pooling", "epochs")]
        for name, system in systems.items()
    }
    rate = TextClassifier().learning_rate
    assert found == {
        OURS: ["lstm", rate, "max", 5],
        PLAIN: ["rnn", 0.5, "mean", 5],
        TORCH: ["lstm", rate, "max", 5],
        ELMAN: ["rnn", 0.5, "last", 5],
    }


@pytest.mark.parametrize("name", NAMES)
def test_kept_results_belong_to_their_task(name: str) -> None:
    """Results are of systems that there are, and were made as the present settings say."""
    try:
        task = load(name)
    except ImportError as error:
        pytest.skip(f"needs {error.name}")
    record = harness.read_results(task)
    assert record["task"] == name
    assert harness.current_runs(task, record) == record["runs"]
