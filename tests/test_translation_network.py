"""The network of the translator: gradients, and saying step by step what was said at once."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from fastlstm import _core
from fastlstm.losses import softmax_cross_entropy
from fastlstm.tasks.translation.network import (
    Hypotheses,
    TranslationBatch,
    TranslationNetwork,
    log_softmax,
)
from tests.finite_differences import assert_gradients
from tests.support import Array, assert_close, assert_same_bits

SOURCES, TARGETS = 7, 6
SOURCE_LENGTHS, TARGET_LENGTHS = np.array([4, 1, 3]), np.array([3, 2, 5])  # with begin and end

needs_kernels = pytest.mark.skipif(
    not _core.VECTOR[4],
    reason=f"instruction set {_core.ISA} has no packed kernels, and BLAS promises no bits",
)


def make(start: Any = 1, **options: Any) -> TranslationNetwork:
    settings = {
        "embedding_size": 3, "hidden_size": 4, "num_layers": 1, "bidirectional": True,
        "dropout": 0.0, "cell": "lstm", "attention": "general", "label_smoothing": 0.0,
        "dtype": np.float64,
    }  # fmt: skip
    start = np.random.default_rng(start) if isinstance(start, int) else start
    return TranslationNetwork(SOURCES, TARGETS, start=start, **{**settings, **options})


def ids(which: Array | None = None, *, past: int = 0) -> tuple[Array, Array, Array, Array]:
    """Padded sources and targets, and their lengths: of some sentences, or all."""
    rng = np.random.default_rng(2)
    which = np.arange(3) if which is None else which
    source = rng.integers(0, SOURCES, (4, 3))
    target = rng.integers(0, TARGETS, (5, 3))
    source[np.arange(4)[:, np.newaxis] >= SOURCE_LENGTHS] = past
    target[np.arange(5)[:, np.newaxis] >= TARGET_LENGTHS] = past
    source, target = source[:, which], target[:, which]
    lengths = SOURCE_LENGTHS[which], TARGET_LENGTHS[which]
    return source[: lengths[0].max()], lengths[0], target[: lengths[1].max()], lengths[1]


def batch(which: Array | None = None, *, past: int = 0) -> TranslationBatch:
    source, source_lengths, target, target_lengths = ids(which, past=past)
    return TranslationBatch((source, source_lengths), (target, target_lengths))


@pytest.mark.parametrize(
    ("cell", "attention", "bidirectional", "num_layers"),
    [
        *itertools.product(["lstm", "rnn"], ["general"], [True, False], [1, 2]),
        ("lstm", "dot", True, 1),
        ("lstm", "additive", True, 1),
    ],
)
def test_gradients_are_finite_differences(
    cell: str, attention: str, bidirectional: bool, num_layers: int
) -> None:
    network = make(
        cell=cell, attention=attention, bidirectional=bidirectional, num_layers=num_layers,
        label_smoothing=0.1,
    )  # fmt: skip
    before = network.parameters().state_dict()

    def loss(arrays: dict[str, Array]) -> float:
        network.parameters().load_state_dict(arrays)
        return network.loss_and_grads(batch(), None, None)[0]

    _, grads, state = network.loss_and_grads(batch(), None, None)
    assert state is None
    assert_gradients(loss, before, grads)


def test_gradients_with_dropout_are_finite_differences_too() -> None:
    network = make(dropout=0.4, num_layers=2)
    before = network.parameters().state_dict()

    def run() -> tuple[float, dict[str, Array], None]:
        return network.loss_and_grads(batch(), None, np.random.default_rng(5))

    def loss(arrays: dict[str, Array]) -> float:
        network.parameters().load_state_dict(arrays)
        return run()[0]

    assert_gradients(loss, before, run()[1])


def test_the_loss_is_that_of_the_log_probabilities() -> None:
    network = make()
    loss, _, _ = network.loss_and_grads(batch(), None, np.random.default_rng(0))
    log_probs = network.log_probs(batch())
    assert log_probs.shape == (TARGET_LENGTHS.sum() - 3,)
    assert loss == pytest.approx(-log_probs.mean(), rel=1e-13)


def test_padding_is_not_read() -> None:
    network = make(dtype=np.float32)
    loss, grads, _ = network.loss_and_grads(batch(), None, None)
    other, other_grads, _ = network.loss_and_grads(batch(past=3), None, None)
    assert other == loss
    for name, grad in grads.items():
        assert_same_bits(other_grads[name], grad, name)


@needs_kernels
@pytest.mark.parametrize("attention", ["dot", "general", "additive"])
@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_a_sentence_has_the_same_bits_in_any_batch(attention: str, cell: str) -> None:
    network = make(attention=attention, cell=cell, dtype=np.float32, hidden_size=40)
    together = np.split(network.log_probs(batch()), np.cumsum(TARGET_LENGTHS - 1)[:-1])
    for b in range(3):
        alone = network.log_probs(batch(np.array([b])))
        assert_same_bits(alone, together[b], f"sentence {b}")


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_steps_say_what_is_said_at_once(beam_size: int, cell: str) -> None:
    """Each hypothesis reads another sentence's target, and none of them all of it."""
    network = make(cell=cell, bidirectional=False)
    source, source_lengths, target, _ = ids()
    hypotheses = Hypotheses(network, *network.read(source, source_lengths), beam_size=beam_size)
    orders = np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1]])[:beam_size]
    steps = [hypotheses.step(target[t][orders]) for t in range(4)]
    for k, b in np.ndindex(beam_size, 3):
        own = target[:, orders[k, b]][:, np.newaxis]
        pair = (source[: source_lengths[b], b : b + 1], source_lengths[b : b + 1])
        for t, proposed in enumerate(steps):
            said = np.concatenate([own[: t + 1], own[:1]])
            expected = [
                network.log_probs(TranslationBatch(pair, (_ended(said, last), np.array([t + 2]))))
                for last in range(TARGETS)
            ]
            assert_close(proposed[k, b], np.array(expected)[:, -1], 1e-12)
            assert np.exp(proposed[k, b]).sum() == pytest.approx(1)


def _ended(said: Array, last: int) -> Array:
    said = said.copy()
    said[-1] = last
    return said


def test_selected_hypotheses_go_on_from_their_parents() -> None:
    network = make()
    source, lengths, target, _ = ids()
    first = np.array([target[0], (target[0] + 1) % TARGETS])
    second = target[1][np.newaxis].repeat(2, axis=0)
    hypotheses = Hypotheses(network, *network.read(source, lengths), beam_size=2)
    hypotheses.step(first)
    parents, sentences = np.array([[1, 0], [1, 1]]), np.array([2, 0])
    hypotheses.select(parents, sentences)
    found = hypotheses.step(second[:, sentences])

    for k, b in np.ndindex(2, 2):
        whole = Hypotheses(network, *network.read(source, lengths), beam_size=2)
        whole.step(np.broadcast_to(first[parents[k, b]], (2, 3)))
        expected = whole.step(second)
        assert_close(found[k, b], expected[0, sentences[b]], 1e-14)


@pytest.mark.parametrize("options", [{}, {"bidirectional": False}, {"cell": "rnn"}])
def test_a_network_begins_with_the_arrays_of_another(options: dict[str, Any]) -> None:
    network = make(**options)
    arrays = network.parameters().state_dict()
    assert_same_bits(make(arrays, **options).log_probs(batch()), network.log_probs(batch()))
    for name in arrays:
        with pytest.raises(ValueError, match="arrays"):
            make({k: a for k, a in arrays.items() if k != name}, **options)


def test_two_directions_need_an_even_number_of_units() -> None:
    with pytest.raises(ValueError, match=r"^hidden_size: expected an even number.* got 5"):
        make(hidden_size=5)
    assert make(hidden_size=5, bidirectional=False).decoder.features == 5


def test_log_softmax_is_what_cross_entropy_takes() -> None:
    logits = 5 * np.random.default_rng(0).standard_normal((4, 3, 9))
    targets = np.random.default_rng(1).integers(0, 9, (4, 3))
    expected, _ = softmax_cross_entropy(logits, targets)
    picked = np.take_along_axis(log_softmax(logits.copy()), targets[..., np.newaxis], axis=2)
    assert -picked.mean() == pytest.approx(expected, rel=1e-13)
