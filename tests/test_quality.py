"""benchmarks.quality: runs are kept and resumed, bars mean what they say, twins are twins."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.quality import __main__ as command
from benchmarks.quality import data, harness, report
from benchmarks.quality.harness import OURS, PLAIN, Bar, Outcome, Summary, System, Task
from benchmarks.quality.lexicon import Lexicon
from benchmarks.quality.tasks import NAMES, load
from fastlstm.losses import mean_squared_error, softmax_cross_entropy
from fastlstm.optim import SGD, Adam, AdamW
from fastlstm.schedules import cosine
from fastlstm.tasks import _classes, _transcripts
from fastlstm.tasks._batches import Ragged, ShuffledBatches
from fastlstm.tasks._networks import PooledNetwork, StepNetwork
from fastlstm.tasks._spelling import Spelling
from fastlstm.tasks._text_network import TextNetwork
from fastlstm.tasks._texts import Words
from fastlstm.tasks._translation_network import TranslationBatch, TranslationNetwork
from fastlstm.training import Trainer
from tests.support import Array, assert_close

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
        (harness.ahead_of("b", higher_is_better=True), (0.9, 1.1), (0.79,), True),
        (harness.ahead_of("b", higher_is_better=True), (0.9, 1.1), (0.81,), False),
        (harness.ahead_of("b", higher_is_better=False), (0.9, 1.1), (1.21,), True),
        (harness.ahead_of("b", higher_is_better=False), (0.9, 1.1), (1.19,), False),
        (harness.ahead_of("b", higher_is_better=True), (1.0,), (), None),
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
    text = report.table(task, record)
    assert "91.00 ± 0.58 %" in text
    assert "80.00 %" in text
    assert "published: Someone 1999" in text
    assert "bar: ≥ 0.9: met" in text
    assert "bar: ≥ 0.95: MISSED" in text
    assert text.count("times as long") == 1
    assert not report.all_met(task, record)
    page = report.markdown([(task, record)])
    assert "| **fastlstm** | **91.00 ± 0.58 %** | 3 | 2 |" in page
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


# --- torch's twins --------------------------------------------------------------------------------

LENGTHS = np.array([4, 7, 1, 7, 3])


def pooled_batch(
    rng: np.random.Generator, *, ids: bool = False, dtype: Any = np.float32
) -> tuple[Array, Array, Array]:
    x = rng.integers(0, 11, (7, 5)) if ids else rng.standard_normal((7, 5, 3), dtype)
    return x, LENGTHS, rng.integers(0, 4, 5)


def pooled(rng: np.random.Generator, pooling: str = "mean", **options: Any) -> PooledNetwork:
    options = {"features": 3, "hidden_size": 5, "dropout": 0.0} | options
    return PooledNetwork(4, pooling=pooling, loss=softmax_cross_entropy, start=rng, **options)


@pytest.mark.oracle
@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
@pytest.mark.parametrize("cell", ["lstm", "rnn"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_twin_has_the_loss_and_the_gradients(
    pooling: str, cell: str, bidirectional: bool
) -> None:
    pytest.importorskip("torch")
    from benchmarks.quality.twins import twin_of

    rng = np.random.default_rng(7)
    ids = bidirectional  # with an embedding as well
    network = pooled(
        rng, pooling, cell=cell, bidirectional=bidirectional, num_layers=2, dtype=np.float64,
        vocabulary=11 if ids else None,
    )  # fmt: skip
    compare_gradients(network, twin_of(network), pooled_batch(rng, ids=ids, dtype=np.float64))


STEP_TARGETS = {
    "errors": (mean_squared_error, lambda rng: rng.standard_normal((LENGTHS.sum(), 4))),
    "classes": (
        _classes.cross_entropy,
        lambda rng: (rng.integers(0, 4, LENGTHS.sum()), rng.random(LENGTHS.sum())),
    ),
    # Of 4, 7, 1, 7 and 3 steps; a blank is needed between two alike.
    "ctc": (
        _transcripts.ctc,
        lambda _rng: (LENGTHS, np.array([1, 1, 2, 3, 1, 3, 3, 2]), np.array([2, 3, 0, 2, 1])),
    ),
}


@pytest.mark.oracle
@pytest.mark.parametrize("kind", STEP_TARGETS)
def test_a_twin_of_steps_has_the_loss_and_the_gradients(kind: str) -> None:
    pytest.importorskip("torch")
    from benchmarks.quality.twins import twin_of

    rng = np.random.default_rng(8)
    loss, draw = STEP_TARGETS[kind]
    options = {"features": 3, "hidden_size": 5, "dtype": np.float64}
    network = StepNetwork(4, loss=loss, start=rng, **options)
    batch = rng.standard_normal((7, 5, 3)), LENGTHS, draw(rng)
    compare_gradients(network, twin_of(network), batch)


@pytest.mark.oracle
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("letters", [False, True])
def test_a_twin_of_texts_has_the_loss_and_the_gradients(weighted: bool, letters: bool) -> None:
    pytest.importorskip("torch")
    from benchmarks.quality.twins import twin_of

    rng = np.random.default_rng(9)
    spelling = Spelling(["ab", "bc", "abc"])
    network = TextNetwork(
        4, pooling="max", start=rng, vocabulary=11, groups=3 if letters else 0, size=3,
        hidden_size=5, dtype=np.float64, word_dropout=0.3,
    )  # fmt: skip
    places, lengths, codes = pooled_batch(rng, ids=True)
    spelt = spelling.matrix(["ab", "abcd", "x"] * 4)[:11] if letters else None
    words = Words(places, np.arange(11, dtype=np.int32), spelt)
    twin = twin_of(network).eval()
    compare_gradients(network, twin, (words, lengths, (codes, rng.random(5) if weighted else None)))


@pytest.mark.oracle
@pytest.mark.parametrize("cell", ["lstm", "rnn"])
@pytest.mark.parametrize(("inputs", "tied"), [(8, False), (7, False), (8, True), (7, True)])
def test_a_twin_of_a_language_network(cell: str, inputs: int, tied: bool) -> None:
    """With an id that can only be read, and never is a target that counts; with carried states."""
    pytest.importorskip("torch")
    from benchmarks.quality.twins import twin_of
    from fastlstm.tasks._language_network import LanguageNetwork

    rng = np.random.default_rng(8)
    network = LanguageNetwork(
        inputs, 7, start=rng, embedding_size=5, hidden_size=5, num_layers=2, cell=cell, tied=tied,
        dtype=np.float64,
    )  # fmt: skip
    batch = rng.integers(0, inputs, (9, 3)), rng.integers(0, inputs, (9, 3))
    twin = twin_of(network)
    compare_gradients(network, twin, batch)
    _, state = twin.loss(batch, None)
    _, _, own = network.loss_and_grads(batch, None, None)
    their_loss, _ = twin.loss(batch, state)
    assert their_loss.item() == pytest.approx(network.loss_and_grads(batch, own, None)[0])


@pytest.mark.oracle
@pytest.mark.parametrize("cell", ["lstm", "rnn"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("attention", ["dot", "general"])
def test_a_twin_of_translation(cell: str, bidirectional: bool, attention: str) -> None:
    pytest.importorskip("torch")
    from benchmarks.quality.twins import twin_of

    rng = np.random.default_rng(7)
    network = TranslationNetwork(
        9, 11, embedding_size=3, hidden_size=6, num_layers=2, bidirectional=bidirectional,
        dropout=0.0, cell=cell, attention=attention, label_smoothing=0.1, start=rng,
        dtype=np.float64,
    )  # fmt: skip
    source, target = (rng.integers(0, count, (7, 5)).astype(np.int32) for count in (9, 11))
    batch = TranslationBatch((source, LENGTHS), (target[:6], np.array([6, 2, 3, 4, 5])))
    compare_gradients(network, twin_of(network), batch)


def test_a_lexicon_finds_which_word_belongs_to_which() -> None:
    sources = ["das haus", "das buch", "ein buch", "das alte haus", "ein alter"]
    targets = ["the house", "the book", "a book", "the old house", "an old one"]
    lexicon = Lexicon(sources, targets, rounds=30)
    assert lexicon.translate("das buch") == "the book"
    assert lexicon.translate("ein haus mit das") == "a house mit the"


def test_greedy_search_is_compared_in_each_run() -> None:
    from benchmarks.quality.tasks.multi30k import greedy_within

    bar = greedy_within(1.5)
    assert bar.met({}) is None
    for greedy, met in ((31.0, True), (30.0, False)):
        further = ({"greedy": 33.0}, {"greedy": greedy})
        assert bar.met({OURS: Summary((33.0, 32.0), (1.0, 1.0), further)}) is met


@pytest.mark.oracle
def test_no_twin_has_dropouts_that_torch_lacks() -> None:
    pytest.importorskip("torch")
    from benchmarks.quality.twins import twin_of
    from fastlstm.tasks._language_network import LanguageNetwork

    for options in ({"locked_dropout": True}, {"weight_dropout": 0.1}):
        network = LanguageNetwork(
            3, 3, start=np.random.default_rng(0), embedding_size=2, hidden_size=2, **options
        )
        with pytest.raises(NotImplementedError):
            twin_of(network)


@pytest.mark.oracle
@pytest.mark.parametrize("torch", [False, True])
def test_a_long_run_that_was_cut_goes_on(
    torch: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the same losses, and with the seconds of both parts."""
    pytest.importorskip("torch")
    from contextlib import nullcontext

    from benchmarks.quality import kept
    from benchmarks.quality.torch_twin import by_torch
    from fastlstm.tasks import LanguageModel
    from fastlstm.tasks._batches import StreamBatches

    monkeypatch.setattr(kept, "FOLDER", tmp_path)
    monkeypatch.setattr(kept, "EVERY", 4)

    def model() -> LanguageModel:
        return LanguageModel(hidden_size=4, steps=14, batch_size=2, random_state=0)

    text, whole = "the cat sat on the mat\n" * 30, model()
    with by_torch() if torch else nullcontext():
        whole.fit(text, validation=text)
        original, calls = StreamBatches.__getitem__, []

        def failing(self: StreamBatches, index: Any) -> Any:
            calls.append(1)
            if len(calls) == 17:
                raise RuntimeError("cut")
            return original(self, index)

        monkeypatch.setattr(StreamBatches, "__getitem__", failing)
        with pytest.raises(RuntimeError, match="cut"):
            kept.fit("a", model(), text, text)
        monkeypatch.setattr(StreamBatches, "__getitem__", original)
        (checkpoint,) = tmp_path.glob("*.checkpoint")
        clock = checkpoint.with_suffix(".json")
        spent = json.loads(clock.read_text())
        clock.write_text(json.dumps(spent | {"before": 1000.0}))
        resumed = model()
        seconds = kept.fit("a", resumed, text, text)
    assert 1000 < seconds < 1100
    assert resumed.history_.losses == whole.history_.losses
    assert resumed.perplexity(text) == whole.perplexity(text)
    assert list(tmp_path.iterdir()) == []


def compare_gradients(network: Any, twin: Any, batch: Any) -> None:
    loss, grads, _ = network.loss_and_grads(batch, None, None)
    their_loss, _ = twin.loss(batch, None)
    their_loss.backward()
    assert their_loss.item() == pytest.approx(loss, rel=1e-12)
    theirs = dict(twin.named_parameters())
    assert set(theirs) == set(grads)
    for name, grad in grads.items():
        assert_close(theirs[name].grad.numpy(), grad, 1e-9, name)
    for name, array in twin.give().items():
        assert_close(array, network.parameters()[name], 0, name)


class Batches(Sequence[Any]):
    """Twelve of them."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: Any) -> Any:
        return pooled_batch(np.random.default_rng([3, index]))


@pytest.mark.oracle
@pytest.mark.parametrize(
    "make",
    [
        lambda p: AdamW(p, 0.05, weight_decay=0.1),
        lambda p: Adam(p, 0.05),
        lambda p: SGD(p, 0.5, momentum=0.9, nesterov=True, weight_decay=0.01),
    ],
    ids=["AdamW", "Adam", "SGD"],
)
def test_torch_trains_as_the_trainer_does(make: Any) -> None:
    """Same losses, same validations, same best weights; clipping and schedule included."""
    pytest.importorskip("torch")
    from benchmarks.quality.torch_twin import TorchTrainer

    held_out = pooled_batch(np.random.default_rng(99))
    found = []
    for kind in (Trainer, TorchTrainer):
        network = pooled(np.random.default_rng(7))

        def validate(network: PooledNetwork = network) -> float:
            return network.loss_and_grads(held_out, None, None)[0]

        trainer = kind(
            network, make(network.parameters()), schedule=cosine(24, warmup=3), max_norm=0.1,
            validate=validate, validate_every=4, patience=3, progress=False,
        )  # fmt: skip
        history = trainer.fit(Batches(), epochs=2)
        found.append((history, network.parameters().state_dict()))
    (ours, weights), (theirs, their_weights) = found
    assert theirs.losses == pytest.approx(ours.losses, rel=1e-4)
    assert [step for step, _ in theirs.validations] == [step for step, _ in ours.validations]
    assert [v for _, v in theirs.validations] == pytest.approx(
        [v for _, v in ours.validations], rel=1e-4
    )
    for name, array in weights.items():
        assert_close(their_weights[name], array, 1e-3, name)


@pytest.mark.oracle
def test_an_estimator_can_be_trained_by_torch_and_its_training_be_captured() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from benchmarks.quality.timing import Side, capture, our_step, torch_step
    from benchmarks.quality.torch_twin import TorchTrainer, by_torch
    from fastlstm.tasks import SequenceClassifier, _estimator

    rng = np.random.default_rng(0)
    X = [rng.standard_normal((length, 2)) for length in rng.integers(3, 9, 40)]
    y = [int(x[:, 0].mean() > 0) for x in X]

    def fit() -> SequenceClassifier:
        options = {"epochs": 3, "dropout": 0.0, "random_state": 0}
        return SequenceClassifier(8, **options).fit(X, y)

    ours = fit()
    with by_torch():
        assert _estimator.Trainer is TorchTrainer
        theirs = fit()
    assert _estimator.Trainer is Trainer
    assert theirs.history_.losses == pytest.approx(ours.history_.losses, rel=1e-3)
    assert_close(theirs.predict_proba(X), ours.predict_proba(X), 1e-3)

    captured = capture(fit)
    assert isinstance(captured.batches, ShuffledBatches)
    side = Side(captured, our_step(captured))
    seconds, loss = side.turn(4)
    assert loss == ours.history_.losses[3]
    assert seconds > 0
    captured = capture(fit)
    assert Side(captured, torch_step(captured)).turn(4)[1] == pytest.approx(loss, rel=1e-4)


def test_ragged_batches_are_what_the_twins_take() -> None:
    """The twins read batches as `Ragged.padded` gives them: time first."""
    ragged = Ragged(np.arange(12.0).reshape(6, 2), np.array([4, 2]))
    padded, lengths = ragged.padded()
    assert padded.shape == (4, 2, 2)
    assert lengths.tolist() == [4, 2]


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
