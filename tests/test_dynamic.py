"""_dynamic: beside the update rules, written out; and that it helps, and leaves no trace."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fastlstm.tasks import LanguageModel
from fastlstm.tasks._base.batches import StreamBatches
from fastlstm.tasks.language_model.dynamic import root_mean_squares
from fastlstm.tasks.language_model.use import joined
from fastlstm.tasks.language_model.vocabularies import Characters
from tests.support import Array, assert_close, assert_same_bits
from tests.test_language_model import ENGLISH, LEVELS, untrained

RATE, DECAY, WINDOW = 0.3, 0.1, 5


def literally(
    model: LanguageModel, texts: list[str], roots: dict[str, Array] | None = None
) -> tuple[float, dict[str, Array]]:
    """The perplexity, and the weights in the end, by the formulas of Krause et al. 2018."""
    network, vocabulary = model.network_, model.vocabulary_
    first = network.parameters().state_dict()
    mean = 1.0 if roots is None else np.concatenate([r.ravel() for r in roots.values()]).mean()
    total, count = 0.0, 0
    for text in texts:
        ids, state = vocabulary.encode(text), None
        read = np.concatenate(([vocabulary.start], ids[:-1]))
        for at in range(0, len(ids), WINDOW):
            part = read[at : at + WINDOW, None], ids[at : at + WINDOW, None]
            found, after = network.log_prob(*part, state)
            total += found.sum()
            _, grads, _ = network.loss_and_grads(part, state, None)
            with network.parameters().editing() as weights:
                for name, w in weights.items():
                    if roots is None:
                        step, pull = grads[name], np.full(w.shape, DECAY)
                    else:
                        step = grads[name] / (roots[name] + 1e-3)
                        pull = np.minimum(DECAY * roots[name] / mean, 1)
                    w += -RATE * step + pull * (first[name] - w)
            state = after
        total += vocabulary.with_unknown(np.zeros(len(ids)), ids).sum()
        count += len(ids)
    weights = network.parameters().state_dict()
    network.parameters().load_state_dict(first)
    return math.exp(-total / count), weights


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("squares", [False, True])
@pytest.mark.parametrize("options", [{}, {"tied": True, "num_layers": 2}, {"cell": "rnn"}])
def test_weights_follow_the_text_by_the_formulas(
    level: str, squares: bool, options: dict[str, Any]
) -> None:
    model = untrained(level=level, dtype=np.float64, **options)
    texts = ["the dog sat on the 合 cat", "a mat"]
    training = ENGLISH if squares else None
    ids, _ = joined(model.vocabulary_, [ENGLISH])
    windows = StreamBatches(ids, 1, WINDOW)
    roots = root_mean_squares(model.network_, windows) if squares else None
    expected, weights = literally(model, texts, roots)
    found = model.dynamic_perplexity(
        texts, learning_rate=RATE, decay=DECAY, window=WINDOW, training=training, keep=True
    )
    assert found == pytest.approx(expected, rel=1e-9)
    for name, array in model.network_.parameters().items():
        assert_close(array, weights[name], 1e-9, name)


def test_mean_squares_are_those_of_the_gradients_of_all_windows() -> None:
    model = untrained(dtype=np.float64)
    network = model.network_
    ids, _ = joined(model.vocabulary_, [ENGLISH])
    squares: dict[str, list[Array]] = {name: [] for name in network.parameters()}
    state = None
    for batch in StreamBatches(ids, 2, 7):
        _, grads, state = network.loss_and_grads(batch, state, None)
        for name, grad in grads.items():
            squares[name].append(grad**2)
    for name, root in root_mean_squares(network, StreamBatches(ids, 2, 7)).items():
        assert_close(root, np.sqrt(np.mean(squares[name], axis=0)), 1e-12, name)


def test_a_text_that_repeats_itself_is_predicted_better() -> None:
    model = LanguageModel(
        hidden_size=24, steps=100, learning_rate=0.02, batch_size=4, sequence_length=16,
        random_state=0,
    ).fit(ENGLISH * 40)  # fmt: skip
    text = "tam eht no tas tac eht\n" * 20
    plain = model.perplexity(text)
    before = model.network_.parameters().state_dict()
    assert model.dynamic_perplexity(text) < plain / 2
    assert model.dynamic_perplexity(text, learning_rate=0.002, training=ENGLISH * 40) < plain / 2
    assert model.dynamic_perplexity(text, learning_rate=0) == pytest.approx(plain, rel=1e-5)
    for name, array in model.network_.parameters().items():
        assert_same_bits(array, before[name], name)
    assert model.perplexity(text) == plain
    model.dynamic_perplexity(text, keep=True)
    assert model.perplexity(text) < plain / 3


def test_unknown_characters_cost_what_they_cost() -> None:
    model = untrained("ab", dtype=np.float64)
    model.vocabulary_ = Characters("ab", 0.25)
    plain = model.perplexity("合a合")
    assert model.dynamic_perplexity("合a合", learning_rate=0) == pytest.approx(plain, rel=1e-12)


def test_what_breaks_off_leaves_no_trace() -> None:
    model = untrained()
    before = model.network_.parameters().state_dict()
    calls = []

    def breaking(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("no more")
        return type(model.network_).loss_and_grads(model.network_, *arguments)

    model.network_.loss_and_grads = breaking
    with pytest.raises(RuntimeError, match="no more"):
        model.dynamic_perplexity(ENGLISH * 3, learning_rate=1.0, keep=True)
    for name, array in model.network_.parameters().items():
        assert_same_bits(array, before[name], name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1}, "learning_rate"), ({"decay": 2}, "decay"),
        ({"window": 0}, "window"),
        ({"training": ""}, "training"), ({"keep": 1}, "keep"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        untrained().dynamic_perplexity(ENGLISH, **options)
