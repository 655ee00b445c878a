"""The measurements measure what they say: baselines, comparisons and verdicts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from benchmarks.quality import adding
from benchmarks.quality.ngram import CODE_POINTS, KneserNey, WittenBell
from benchmarks.regressions import LEAST_DIFFERENCE, RATIO, Comparison
from tests import finite_differences
from tests.support import assert_close

TRAINING = "the cat sat on the mat and the rat ate the bat; a hat, a tat"
HELD_OUT = "the bat hates the zany cat"  # with a z and a y, which are unknown


# --- n-grams -------------------------------------------------------------------------------------


def plain_witten_bell(word: str, context: str) -> float:
    """p(word | context) as the formula has it, counting in TRAINING anew each time."""
    places = [k for k in range(len(TRAINING)) if TRAINING[:k].endswith(context)]
    counts = Counter(TRAINING[k] for k in places)
    shorter = plain_witten_bell(word, context[1:]) if context else 1 / (len(set(TRAINING)) + 1)
    if not counts:
        return shorter
    return (counts[word] + len(counts) * shorter) / (counts.total() + len(counts))


def test_ngrams_of_all_orders_follow_the_formula() -> None:
    for n, actual in enumerate(WittenBell(TRAINING, 5).probabilities(HELD_OUT), start=1):
        expected = [
            plain_witten_bell(word, HELD_OUT[max(0, k - n + 1) : k])
            for k, word in enumerate(HELD_OUT)
        ]
        assert_close(actual, np.array(expected), 1e-12, f"order {n}")


def test_ngrams_are_a_distribution_over_all_of_unicode() -> None:
    model = WittenBell(TRAINING, 4)
    known = sorted(set(TRAINING))
    for context in ("the", "zzz", "ha"):
        for n in range(1, 5):
            p = [list(model.probabilities(context + c))[n - 1][-1] for c in [*known, "z"]]
            assert sum(p) == pytest.approx(1, abs=1e-12)
    bits = model.bits_per_character("z")[0]
    each = 2.0**-bits
    p_unknown = next(model.probabilities("z"))[0]
    assert each * (CODE_POINTS - len(known)) == pytest.approx(p_unknown)


@pytest.mark.oracle
def test_ngrams_equal_those_of_nltk() -> None:
    lm = pytest.importorskip("nltk.lm")
    util = pytest.importorskip("nltk.util")
    order = 5
    theirs = lm.WittenBellInterpolated(order)
    theirs.fit([util.everygrams(TRAINING, max_len=order)], vocabulary_text=list(TRAINING))
    # nltk does not smooth single characters: it gets ours, and all above them is its own.
    theirs.estimator.unigram_score = lambda word: plain_witten_bell(word, "")
    text = HELD_OUT.replace("z", "").replace("y", "")
    expected = [
        theirs.score(word, tuple(text[max(0, k - order + 1) : k])) for k, word in enumerate(text)
    ]
    *_, actual = WittenBell(TRAINING, order).probabilities(text)
    assert_close(actual, np.array(expected), 1e-12)


SENTENCES = [
    "the cat sat on the mat .", "the dog sat on a cat .", "a dog ate the mat .", "the cat ran .",
    "on the mat the dog ran .", "a cat ate .",
]  # fmt: skip


def test_kneser_ney_is_a_distribution_over_the_vocabulary() -> None:
    words = " ".join(SENTENCES).split()
    for model in (KneserNey(words, 4, boundary="."), KneserNey(words, 4, discount=0.6)):
        for context in ("the cat", "mat . the", "ran ran ran", "."):
            before = context.split()
            for n in range(4):
                p = [list(model.probabilities([*before, w]))[n][-1] for w in sorted(set(words))]
                assert sum(p) == pytest.approx(1, abs=1e-12)
                assert min(p) > 0


def test_with_a_boundary_the_order_of_sentences_does_not_matter() -> None:
    held_out = [*SENTENCES[1].split(), *SENTENCES[5].split()[::-1], "cat"]
    expected = KneserNey(" ".join(SENTENCES).split(), 5, boundary=".").perplexities(held_out)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(SENTENCES))
        words = " ".join(SENTENCES[k] for k in order).split()
        found = KneserNey(words, 5, boundary=".").perplexities(held_out)
        assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.oracle
def test_kneser_ney_equals_that_of_nltk() -> None:
    lm = pytest.importorskip("nltk.lm")
    util = pytest.importorskip("nltk.util")
    order, discount = 4, 0.75
    theirs = lm.KneserNeyInterpolated(order, discount)
    theirs.fit([util.everygrams(TRAINING, max_len=order)], vocabulary_text=list(TRAINING))
    text = HELD_OUT.replace("z", "").replace("y", "")
    model = KneserNey(list(TRAINING), order, discount=discount)
    # nltk does not smooth the lowest order: it gets ours, and all above is its own.
    alone = {w: float(next(model.probabilities([w]))[0]) for w in set(TRAINING)}
    theirs.estimator.unigram_score = alone.__getitem__
    expected = [
        theirs.score(word, tuple(text[max(0, k - order + 1) : k])) for k, word in enumerate(text)
    ]
    *_, actual = model.probabilities(list(text))
    assert_close(actual, np.array(expected), 1e-12)


def test_a_word_that_was_never_seen_is_named() -> None:
    with pytest.raises(ValueError, match="the training text has no 'zebra'"):
        KneserNey(["a", "b"], 2).perplexities(["a", "zebra"])
    with pytest.raises(ValueError, match=r"boundary: '\.' does not occur"):
        KneserNey(["a", "b"], 2, boundary=".")


# --- the adding problem ---------------------------------------------------------------------------


def test_adding_sequences_have_a_mark_in_each_half_and_their_sum_as_target() -> None:
    x, target = adding.draw(np.random.default_rng(0), 30, 200)
    values, marks = x[..., 0], x[..., 1]
    assert (marks[:15].sum(axis=0) == 1).all()
    assert (marks[15:].sum(axis=0) == 1).all()
    assert set(np.unique(marks)) == {0, 1}
    expected = [values[:, b][marks[:, b] == 1].sum() for b in range(200)]
    assert_close(target[:, 0], np.array(expected), 1e-6)


def test_saying_1_has_the_stated_error() -> None:
    _, target = adding.draw(np.random.default_rng(1), 10, 100_000)
    assert np.mean((target - 1) ** 2) == pytest.approx(adding.BASELINE, rel=0.02)


@pytest.mark.parametrize("network", adding.NETWORKS)
def test_gradients_of_the_adder(network: str) -> None:
    model = adding.Adder(network, 3, 6, seed=0, dtype=np.float64)
    x, target = (a.astype(np.float64) for a in adding.draw(np.random.default_rng(0), 6, 4))
    rng = np.random.default_rng(0)
    _, grads, _ = model.loss_and_grads((x, target), None, rng)

    def loss(parameters: dict[str, Any]) -> float:
        model.parameters().load_state_dict(parameters)
        return float(np.mean((model(x) - target) ** 2))

    expected = finite_differences.gradient(loss, model.parameters().state_dict())
    for name, grad in grads.items():
        assert_close(grad, expected[name], 1e-7, name)


def test_batches_of_the_adding_problem_are_drawn_from_seed_and_number() -> None:
    batches = adding.Batches(adding.Settings(length=8, batch_size=3, steps=5), seed=1)
    again = adding.Batches(adding.Settings(length=8, batch_size=3, steps=5), seed=1)
    assert np.array_equal(batches[3][0], again[3][0])
    assert not np.array_equal(batches[3][0], batches[4][0])


# --- two commits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "before", "after", "verdict"),
    [
        ("seconds", 1.0, RATIO + 0.01, "WORSE"),
        ("seconds", 1.0, RATIO - 0.01, ""),
        ("seconds", 1e-6, 1e-6 + 0.9 * LEAST_DIFFERENCE["seconds"], ""),  # many times, but little
        ("seconds", RATIO + 0.01, 1.0, "better"),
        ("seconds", 1.0, None, "FAILS"),
        ("seconds", None, 1.0, "works again"),
        ("seconds", None, None, "fails in both"),
        ("bytes", 50e6, 100e6, "WORSE"),
        ("bytes", 1e6, 3e6, ""),
    ],
)
def test_slower_means_past_a_ratio_and_past_a_difference(
    unit: str, before: float | None, after: float | None, verdict: str
) -> None:
    comparison = Comparison("name", unit, before, after)
    assert comparison.verdict == verdict
    assert comparison.regressed == (verdict in ("WORSE", "FAILS"))
    assert str(comparison)
