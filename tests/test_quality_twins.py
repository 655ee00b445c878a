"""benchmarks.quality: torch's twins have the losses and gradients of ours, and train as ours do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm.losses import mean_squared_error, softmax_cross_entropy
from fastlstm.optim import SGD, Adam, AdamW
from fastlstm.schedules import cosine
from fastlstm.tasks._base import supervision
from fastlstm.tasks._base.batches import Ragged, ShuffledBatches
from fastlstm.tasks._base.networks import PooledNetwork, StepNetwork
from fastlstm.tasks.recognition import transcripts
from fastlstm.tasks.text.network import TextNetwork
from fastlstm.tasks.text.spelling import Spelling
from fastlstm.tasks.text.words import Words
from fastlstm.tasks.translation.network import TranslationBatch, TranslationNetwork
from fastlstm.training import Trainer
from tests.support import Array, assert_close

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
        supervision.cross_entropy,
        lambda rng: (rng.integers(0, 4, LENGTHS.sum()), rng.random(LENGTHS.sum())),
    ),
    # Of 4, 7, 1, 7 and 3 steps; a blank is needed between two alike.
    "ctc": (
        transcripts.ctc,
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
    from fastlstm.tasks.language_model.network import LanguageNetwork

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
    anew = (*batch, np.zeros((9, 3), bool))
    anew[2][0, 1] = True
    begun, _ = twin.loss(anew, state)
    assert begun.item() == pytest.approx(network.loss_and_grads(anew, own, None)[0])
    assert begun.item() != their_loss.item()
    anew[2][4, 1] = True
    with pytest.raises(NotImplementedError):
        twin.loss(anew, state)


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


@pytest.mark.oracle
def test_no_twin_has_dropouts_that_torch_lacks() -> None:
    pytest.importorskip("torch")
    from benchmarks.quality.twins import twin_of
    from fastlstm.tasks.language_model.network import LanguageNetwork

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
    from fastlstm.tasks._base.batches import StreamBatches

    monkeypatch.setattr(kept, "FOLDER", tmp_path)
    monkeypatch.setattr(kept, "EVERY", 4)

    def model() -> LanguageModel:
        return LanguageModel(hidden_size=4, steps=14, batch_size=2, dropout=0.5, random_state=0)

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
    from fastlstm.tasks import SequenceClassifier
    from fastlstm.tasks._base import estimator as base

    rng = np.random.default_rng(0)
    X = [rng.standard_normal((length, 2)) for length in rng.integers(3, 9, 40)]
    y = [int(x[:, 0].mean() > 0) for x in X]

    def fit() -> SequenceClassifier:
        options = {"epochs": 3, "dropout": 0.0, "noise": 0.0, "random_state": 0}
        return SequenceClassifier(8, **options).fit(X, y)

    ours = fit()
    with by_torch():
        assert base.Trainer is TorchTrainer
        theirs = fit()
    assert base.Trainer is Trainer
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
