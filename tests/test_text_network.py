"""TextNetwork: words to vectors, dropped words, gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm.tasks.text.network import TextNetwork, WordVectors
from fastlstm.tasks.text.spelling import Spelling
from fastlstm.tasks.text.tokenizer import UNKNOWN
from fastlstm.tasks.text.words import Words
from tests.support import assert_same_bits


def some_words(rng: np.random.Generator, *, letters: bool = True) -> Words:
    """Six words at (T, B) = (5, 2), three of them known."""
    spelling = Spelling(["ab", "abc", "bcd", "x"])
    spelt = spelling.matrix(["abc", "abcd", "bcd", "", "xabc", "abcdef"]) if letters else None
    return Words(rng.integers(6, size=(5, 2)), np.array([4, 5, 6, 1, 1, 1], np.int32), spelt)


def network_of(words: Words, **options: Any) -> TextNetwork:
    groups = 0 if words.letters is None else words.letters.shape[1]
    return TextNetwork(
        2, start=np.random.default_rng(0), vocabulary=7, groups=groups, size=3, hidden_size=4,
        bidirectional=True, pooling="attention", **options,
    )  # fmt: skip


def test_the_gradient_of_vectors_is_that_of_finite_differences() -> None:
    rng = np.random.default_rng(0)
    network = network_of(some_words(rng))
    vectors = rng.standard_normal((5, 2, 3)).astype(np.float32)
    d_logits = rng.standard_normal((2, 2)).astype(np.float32)
    logits, d_vectors = network.gradient(vectors, lambda _: d_logits)
    assert_same_bits(logits, network.logits_of(vectors))
    for place in np.ndindex(vectors.shape):
        step = np.zeros_like(vectors)
        step[place] = 1e-2
        change = network.logits_of(vectors + step) - network.logits_of(vectors - step)
        assert d_vectors[place] == pytest.approx((change * d_logits).sum() / 2e-2, abs=1e-4)


@pytest.mark.parametrize("letters", [True, False])
@pytest.mark.parametrize("word_dropout", [0.0, 0.5])
def test_the_gradients_of_a_network_are_those_of_finite_differences(
    letters: bool, word_dropout: float
) -> None:
    words = some_words(np.random.default_rng(1), letters=letters)
    network = network_of(words, word_dropout=word_dropout)
    batch = (words, np.array([5, 3]), (np.array([0, 1]), np.array([1, 0.5], np.float32)))

    def loss() -> float:
        return network.loss_and_grads(batch, None, np.random.default_rng(3))[0]

    _, grads, _ = network.loss_and_grads(batch, None, np.random.default_rng(3))
    assert grads.keys() == network.parameters().keys()
    for name in ["words.own.weight", "words.letters.weight", "reader.head.bias"]:
        for place in np.ndindex(grads[name].shape) if name in grads else ():
            values = []
            for step in (1e-2, -2e-2):
                with network.parameters().editing() as parameters:
                    parameters[name][place] += step
                values.append(loss())
            with network.parameters().editing() as parameters:
                parameters[name][place] += 1e-2
            expected = (values[0] - values[1]) / 2e-2
            assert grads[name][place] == pytest.approx(expected, abs=2e-4), (name, place)


def test_word_dropout_takes_words_for_unknown_and_half_of_them_without_letters() -> None:
    words = WordVectors(6, 2, 3, start=np.random.default_rng(0), word_dropout=0.4)
    with words.parameters().editing() as parameters:
        parameters["own.weight"][...] = np.arange(6)[:, np.newaxis]
        parameters["letters.weight"][...] = 10
    places = np.zeros((100, 50), np.int64)
    batch = Words(places, np.array([5], np.int32), Spelling(["abc", "bcd"]).matrix(["abc"]))
    seen, counts = np.unique(
        words.forward(batch, np.random.default_rng(0))[0][..., 0], return_counts=True
    )
    known, unknown = 5, UNKNOWN
    assert seen.tolist() == [unknown, unknown + 10, known + 10]
    assert counts / places.size == pytest.approx([0.2, 0.2, 0.6], abs=0.03)
    assert (words.forward(batch, None)[0] == words(batch)).all()
    assert (words(batch) == known + 10).all()
