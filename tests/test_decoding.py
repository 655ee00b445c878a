"""CTC decoding beside all paths counted one by one, and beside prefix beam search in dicts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from fastlstm.ctc import ctc_loss
from fastlstm.decoding import Hypothesis, ctc_beam_search, ctc_greedy
from tests.strange import (
    assert_refuses_shapes,
    assert_refuses_what_is_no_such_array,
    assert_takes_any_layout,
)
from tests.support import Array, normal
from tests.test_arrays import Argument
from tests.test_ctc import collapsed, probabilities

ALL = 2000  # prefixes: more than there are in any small case
CLOSE = 1e-12


def draw(steps: int, classes: int, seed: int = 0, scale: float = 2) -> Array:
    """Log-probabilities (T, C)."""
    rng = np.random.default_rng(seed)
    return np.asarray(log_softmax(scale * normal(rng, (steps, classes)), axis=-1))


def likes_rising(prefix: tuple[int, ...], label: int) -> float:
    """A language model with something of everything: a label that it forbids, and a context."""
    if prefix[-2:] == (1, 2) and label == 1:
        return -math.inf
    return -0.3 if not prefix or label > prefix[-1] else -1.7 - 0.1 * len(prefix)


def log_of(labels: tuple[int, ...], model: Callable[[tuple[int, ...], int], float]) -> float:
    return sum(model(labels[:k], label) for k, label in enumerate(labels))


# --- the best path -------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(0, 12), blank=st.integers(0, 2))
def test_the_best_path_is_the_best_class_at_each_step_collapsed(
    seed: int, steps: int, blank: int
) -> None:
    log_probs = draw(steps, 3, seed)
    path = tuple(int(row.argmax()) for row in log_probs)
    assert ctc_greedy(log_probs, blank=blank) == collapsed(path, blank)


def test_what_lies_past_an_end_is_never_decoded() -> None:
    batch = np.stack([draw(9, 4, seed) for seed in range(4)], axis=1)
    lengths = np.array([9, 4, 0, 7])
    searches: list[Callable[..., Any]] = [ctc_greedy, ctc_beam_search]
    for decode in searches:
        expected = [decode(batch[:n, b]) for b, n in enumerate(lengths)]
        strange = batch.copy()
        for b, n in enumerate(lengths):
            strange[n:, b] = np.nan
        assert decode(strange, lengths) == expected
        assert decode(strange[:, 1], 4) == expected[1]
        assert (
            decode(strange[:, 1].astype("f"), np.array([4]))[0]
            == decode(batch[:4, 1].astype("f"))[0]
        )
    assert ctc_greedy(strange, lengths)[2] == ()
    assert ctc_beam_search(strange, lengths)[2] == [Hypothesis((), 0.0, 0.0)]


def test_labels_are_ints() -> None:
    log_probs = np.log([[0.1, 0.9], [0.9, 0.1], [0.1, 0.9]])
    (best,) = ctc_beam_search(log_probs)
    for labels in (ctc_greedy(log_probs), best.labels):
        assert labels == (1, 1)
        assert [type(label) for label in labels] == [int, int]
    assert [type(number) for number in best[1:]] == [float, float]


# --- prefix beam search --------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "classes"), [(0, 3), (1, 4), (5, 3), (7, 2), (5, 4)])
@pytest.mark.parametrize("blank", [0, 1])
def test_a_wide_beam_finds_every_labelling_with_its_probability(
    steps: int, classes: int, blank: int
) -> None:
    log_probs = draw(steps, classes, seed=steps)
    expected = probabilities(log_probs, blank)
    found = ctc_beam_search(log_probs, beam_width=ALL, n_best=ALL, blank=blank)
    assert {one.labels for one in found} == expected.keys()
    for one in found:
        assert abs(one.log_prob - math.log(expected[one.labels])) < CLOSE
        assert one.score == one.log_prob
    assert found == sorted(found, key=lambda one: -one.score)
    assert found[0].labels == max(expected, key=lambda labels: expected[labels])


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_beam_with_a_language_model_is_exact(seed: int) -> None:
    log_probs = draw(5, 4, seed)
    weight, bonus = 0.8, 0.6
    expected = {
        labels: math.log(probability) + weight * log_of(labels, likes_rising) + bonus * len(labels)
        for labels, probability in probabilities(log_probs, 0).items()
        if log_of(labels, likes_rising) > -math.inf
    }
    found = ctc_beam_search(
        log_probs, beam_width=ALL, n_best=ALL, language_model=likes_rising, weight=weight,
        insertion_bonus=bonus,
    )  # fmt: skip
    assert {one.labels for one in found} == expected.keys()
    for one in found:
        assert abs(one.score - expected[one.labels]) < CLOSE


def test_the_language_model_is_asked_once_about_what_may_come_next() -> None:
    asked: list[tuple[tuple[int, ...], int]] = []

    def model(prefix: tuple[int, ...], label: int) -> float:
        asked.append((prefix, label))
        return -1.0

    log_probs = draw(12, 4)
    log_probs[:, 3] = -20
    found = ctc_beam_search(log_probs, beam_width=5, language_model=model, least_log_prob=-10)
    assert len(set(asked)) == len(asked)
    assert {label for _, label in asked} == {1, 2}
    assert {type(item) for prefix, label in asked for item in (*prefix, label)} == {int}
    (best,) = found
    assert abs(best.score - (best.log_prob - len(best.labels))) < CLOSE


def in_dicts(
    log_probs: Array, width: int, model: Callable[[tuple[int, ...], int], float] | None = None,
    bonus: float = 0.0, least: float = -math.inf,
) -> list[tuple[tuple[int, ...], float]]:  # fmt: skip
    """Prefix beam search as in Hannun et al. 2014, algorithm 1, with logarithms; blank 0."""
    beam = {(): (0.0, -math.inf)}

    def added(labels: tuple[int, ...]) -> float:
        return bonus * len(labels) + (log_of(labels, model) if model else 0)

    def score(item: tuple[tuple[int, ...], tuple[float, float]]) -> float:
        return float(np.logaddexp(*item[1])) + added(item[0])

    for row in log_probs.tolist():
        after: dict[tuple[int, ...], tuple[float, float]] = {}

        def gain(labels: tuple[int, ...], blank: float, last: float, after: Any = after) -> None:
            before = after.get(labels, (-math.inf, -math.inf))
            after[labels] = (np.logaddexp(before[0], blank), np.logaddexp(before[1], last))

        for labels, (blank, last) in beam.items():
            total = np.logaddexp(blank, last)
            gain(labels, total + row[0], last + row[labels[-1]] if labels else -math.inf)
            for label in range(1, len(row)):
                longer = (*labels, label)
                if row[label] >= least or longer in beam:
                    start = blank if labels[-1:] == (label,) else total
                    gain(longer, -math.inf, start + row[label])
        possible = [item for item in after.items() if score(item) > -math.inf]
        beam = dict(sorted(possible, key=score, reverse=True)[:width])
    return [(item[0], score(item)) for item in sorted(beam.items(), key=score, reverse=True)]


@pytest.mark.parametrize("width", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("with_model", [False, True])
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 5), scale=st.sampled_from([0.3, 2.0]))
def test_a_narrow_beam_is_that_of_dicts(
    width: int, with_model: bool, seed: int, classes: int, scale: float
) -> None:
    """Prefixes leave it and come back while longer ones stay: 30 steps are enough for that."""
    log_probs = draw(30, classes, seed, scale)
    model = likes_rising if with_model else None
    expected = in_dicts(log_probs, width, model, 0.4, -4.0)
    found = ctc_beam_search(
        log_probs, beam_width=width, n_best=width, language_model=model, insertion_bonus=0.4,
        least_log_prob=-4.0,
    )  # fmt: skip
    assert [one.labels for one in found] == [labels for labels, _ in expected]
    for one, (_, score) in zip(found, expected, strict=True):
        assert abs(one.score - score) < 1e-10


def test_no_hypothesis_is_likelier_than_it_is() -> None:
    log_probs = draw(40, 6, scale=1)
    found = ctc_beam_search(log_probs, beam_width=30, n_best=30)
    assert len({one.labels for one in found}) == 30
    for one in found:
        loss, _ = ctc_loss(log_probs, np.array(one.labels, int), 40, len(one.labels))
        assert one.log_prob <= -loss * max(1, len(one.labels)) + CLOSE


def test_a_wider_beam_finds_what_the_best_path_misses() -> None:
    better = 0
    for seed in range(30):
        log_probs = draw(6, 4, seed, scale=1)
        (best,) = ctc_beam_search(log_probs, beam_width=ALL)
        greedy = ctc_greedy(log_probs)
        loss, _ = ctc_loss(log_probs, np.array(greedy, int), 6, len(greedy), reduction="sum")
        assert best.log_prob >= -loss - CLOSE
        better += best.labels != greedy
    assert better > 10


def test_a_bonus_for_each_label_makes_labellings_longer() -> None:
    log_probs = draw(20, 4, scale=1)
    sizes = [
        len(ctc_beam_search(log_probs, insertion_bonus=bonus)[0].labels) for bonus in (-2, 0, 2)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]


def test_long_sequences_and_wide_alphabets_are_no_matter() -> None:
    """The tree grows; a peaked sequence comes out as it is."""
    rng = np.random.default_rng(0)
    path = np.repeat(rng.integers(0, 300, 400), 3)
    log_probs = np.asarray(log_softmax(12.0 * np.eye(300)[path], axis=-1))
    (best,) = ctc_beam_search(log_probs, beam_width=8)
    assert best.labels == ctc_greedy(log_probs) == collapsed(tuple(path.tolist()), 0)
    assert len(best.labels) > 380


def test_of_equal_hypotheses_the_shortest_and_then_the_lowest_comes_first() -> None:
    log_probs = np.full((1, 4), math.log(0.25))
    found = ctc_beam_search(log_probs, beam_width=4, n_best=4)
    assert [one.labels for one in found] == [(), (1,), (2,), (3,)]
    found = ctc_beam_search(log_probs, beam_width=2, n_best=2)
    assert [one.labels for one in found] == [(), (1,)]


def test_what_cannot_be_is_not_found() -> None:
    log_probs = np.log([[0.5, 0.5, 1e-300], [1e-300, 1.0, 1e-300]])
    log_probs[log_probs < -600] = -np.inf
    found = ctc_beam_search(log_probs, beam_width=9, n_best=9)
    assert [one.labels for one in found] == [(1,)]
    assert abs(found[0].log_prob) < CLOSE
    found = ctc_beam_search(log_probs, beam_width=9, n_best=9, language_model=lambda *_: -1.0)
    assert [one.labels for one in found] == [(1,)]
    assert ctc_beam_search(log_probs, language_model=lambda *_: -math.inf) == []
    assert ctc_beam_search(np.full((2, 3), -np.inf)) == []


def test_a_model_of_no_weight_forbids_all_the_same() -> None:
    log_probs = draw(6, 3)
    alone = ctc_beam_search(log_probs, beam_width=ALL, n_best=ALL)
    weightless = ctc_beam_search(
        log_probs, beam_width=ALL, n_best=ALL, language_model=likes_rising, weight=0
    )
    allowed = [one for one in alone if log_of(one.labels, likes_rising) > -math.inf]
    assert len(allowed) < len(alone)
    assert weightless == allowed


# --- arguments -----------------------------------------------------------------------------------


def test_options_must_be_what_they_are() -> None:
    log_probs = draw(3, 4)
    bad: list[tuple[str, Any, type[Exception]]] = [
        ("beam_width", 0, ValueError), ("beam_width", 2.5, TypeError), ("n_best", 17, ValueError),
        ("n_best", 0, ValueError), ("blank", 4, ValueError), ("blank", -1, ValueError),
        ("language_model", "kenlm", TypeError), ("weight", math.nan, ValueError),
        ("insertion_bonus", math.inf, ValueError), ("least_log_prob", math.inf, ValueError),
        ("least_log_prob", "all", TypeError), ("lengths", 4, ValueError),
        ("lengths", -1, ValueError),
    ]  # fmt: skip
    for name, value, error in bad:
        with pytest.raises(error, match=rf"^{name}: expected"):
            ctc_beam_search(log_probs, **{name: value})
    for name in ("blank", "lengths"):
        with pytest.raises(ValueError, match=rf"^{name}: expected"):
            ctc_greedy(log_probs, **{name: 4})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_language_model_must_return_log_probabilities(value: float) -> None:
    with pytest.raises(ValueError, match=r"^language_model: expected a log-probability, got \w+ "):
        ctc_beam_search(draw(3, 4), language_model=lambda *_: value)


def test_what_a_language_model_raises_comes_through() -> None:
    def broken(prefix: tuple[int, ...], label: int) -> float:
        raise KeyError((prefix, label))

    with pytest.raises(KeyError):
        ctc_beam_search(draw(3, 4), language_model=broken)


def test_no_numbers_are_refused() -> None:
    log_probs = draw(3, 4)
    log_probs[1, 2] = np.nan
    for decode in (ctc_greedy, ctc_beam_search):
        with pytest.raises(ValueError, match=r"^log_probs: expected numbers, got a NaN"):
            decode(log_probs)
    log_probs[1, 2] = np.inf
    assert ctc_greedy(log_probs)[-1] in range(4)
    with pytest.raises(ValueError, match=r"^log_probs: expected no \+inf"):
        ctc_beam_search(log_probs)


def test_no_sequences_have_no_labels() -> None:
    for decode in (ctc_greedy, ctc_beam_search):
        assert decode(np.zeros((3, 0, 4), np.float32)) == []


def results_of(found: Any) -> list[Array]:
    """Labels and scores of a batch as arrays."""
    flat = list(itertools.chain(*found))
    if flat and isinstance(flat[0], Hypothesis):
        return [np.array(flat[0].labels), np.array([one.score for one in flat])]
    return [np.array(flat)]


BATCH = np.stack([draw(6, 4, seed).astype("f") for seed in range(3)], axis=1)
LENGTHS = np.array([2, 6, 0])
ARGUMENTS = [
    Argument("greedy-log_probs", "log_probs", BATCH, lambda a: results_of(ctc_greedy(a, LENGTHS))),
    Argument(
        "beam-log_probs", "log_probs", BATCH, lambda a: results_of(ctc_beam_search(a, LENGTHS))
    ),
    Argument(
        "greedy-lengths", "lengths", LENGTHS, lambda a: results_of(ctc_greedy(BATCH, a)),
        optional=True,
    ),
    Argument(
        "beam-lengths", "lengths", LENGTHS, lambda a: results_of(ctc_beam_search(BATCH, a)),
        optional=True,
    ),
]  # fmt: skip
every_argument = pytest.mark.parametrize("argument", ARGUMENTS, ids=str)


@every_argument
def test_any_layout_gives_the_same(argument: Argument, tmp_path: Any) -> None:
    assert_takes_any_layout(argument, tmp_path)


@every_argument
def test_what_is_no_such_array_is_refused(argument: Argument) -> None:
    assert_refuses_what_is_no_such_array(argument, any_float=argument.name == "log_probs")


@every_argument
def test_a_shape_that_does_not_fit_is_refused(argument: Argument) -> None:
    wrong = [(), (4,), (2, 2, 2, 2)] if argument.name == "log_probs" else [(), (2,), (4,), (3, 1)]
    assert_refuses_shapes(argument, *wrong)
