"""Beam search beside greedy search and all sequences, over models of which nothing is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from fastlstm.tasks.translation.search import Hypothesis, beam_search
from tests.support import Array

BEGIN, END, OTHERS = 0, 1, (2, 3)
VOCABULARY = 4

few = settings(max_examples=30)


class Tables:
    """A model that gives each prefix of each sentence log-probabilities of its own."""

    def __init__(self, seed: int, beam_size: int, batch: int, *, scale: float = 1.0) -> None:
        self.seed, self.scale = seed, scale
        self.sentences = np.arange(batch)
        self.prefixes = np.empty((beam_size, batch), dtype=object)
        for place in np.ndindex(self.prefixes.shape):
            self.prefixes[place] = ()

    def log_probs(self, sentence: int, prefix: tuple[int, ...]) -> Array:
        rng = np.random.default_rng([self.seed, sentence, *prefix])
        log_probs: Array = log_softmax(self.scale * rng.standard_normal(VOCABULARY))
        return log_probs

    def step(self, ids: Array) -> Array:
        assert ids.shape == self.prefixes.shape
        proposed = np.empty((*ids.shape, VOCABULARY))
        for k, b in np.ndindex(ids.shape):
            self.prefixes[k, b] += (int(ids[k, b]),)
            proposed[k, b] = self.log_probs(int(self.sentences[b]), self.prefixes[k, b])
        return proposed

    def select(self, parents: Array, sentences: Array) -> None:
        self.prefixes = self.prefixes[parents, sentences]
        self.sentences = self.sentences[sentences]


def search(
    limits: list[int], *, beam_size: int, seed: int = 0, n_best: int = 1, penalty: float = 1.0,
    scale: float = 1.0,
) -> list[list[Hypothesis]]:  # fmt: skip
    return beam_search(
        Tables(seed, beam_size, len(limits), scale=scale), np.array(limits), beam_size=beam_size,
        n_best=n_best, length_penalty=penalty, begin=BEGIN, end=END, barred=(BEGIN,),
    )  # fmt: skip


def everything(sentence: int, limit: int, *, seed: int, penalty: float) -> list[Hypothesis]:
    """All sequences of at most so many tokens, best first, by going through them."""
    tables = Tables(seed, 1, 1)
    found = []
    for length in range(limit + 1):
        for ids in itertools.product(OTHERS, repeat=length):
            said = (BEGIN, *ids)
            log_prob = math.fsum(
                tables.log_probs(sentence, said[: k + 1])[id_] for k, id_ in enumerate((*ids, END))
            )
            score = log_prob / (length + 1) ** penalty
            found.append(Hypothesis(np.array(ids), log_prob, score))
    return sorted(found, key=lambda one: -one.score)


@few
@given(
    seed=st.integers(0, 2**20),
    limits=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    penalty=st.sampled_from([0.0, 0.7, 1.0, 2.0]),
    n_best=st.integers(1, 4),
)
def test_a_beam_with_room_for_all_misses_nothing(
    seed: int, limits: list[int], penalty: float, n_best: int
) -> None:
    found = search(limits, beam_size=16, seed=seed, n_best=n_best, penalty=penalty)
    for sentence, (limit, own) in enumerate(zip(limits, found, strict=True)):
        expected = everything(sentence, limit, seed=seed, penalty=penalty)[:n_best]
        assert [one.ids.tolist() for one in own] == [one.ids.tolist() for one in expected]
        for one, other in zip(own, expected, strict=True):
            assert one.log_prob == pytest.approx(other.log_prob, rel=1e-12)
            assert one.score == pytest.approx(other.score, rel=1e-12)


@few
@given(seed=st.integers(0, 2**20), limits=st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_a_beam_of_one_is_greedy_search(seed: int, limits: list[int]) -> None:
    tables = Tables(seed, 1, 1)
    for sentence, (own,) in enumerate(search(limits, beam_size=1, seed=seed)):
        said = [BEGIN]
        while len(said) <= limits[sentence]:
            log_probs = tables.log_probs(sentence, tuple(said))
            log_probs[BEGIN] = -np.inf
            if log_probs.argmax() == END:
                break
            said.append(int(log_probs.argmax()))
        assert own.ids.tolist() == said[1:]


@few
@given(
    seed=st.integers(0, 2**20),
    limits=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    beam_size=st.integers(1, 4),
    penalty=st.sampled_from([0.0, 1.0]),
)
def test_what_is_found_is_what_the_model_says(
    seed: int, limits: list[int], beam_size: int, penalty: float
) -> None:
    """Different hypotheses, in order, within the limits, with the log-probabilities they have."""
    tables = Tables(seed, 1, 1)
    found = search(limits, beam_size=beam_size, seed=seed, n_best=beam_size, penalty=penalty)
    for sentence, (limit, own) in enumerate(zip(limits, found, strict=True)):
        assert 1 <= len(own) <= beam_size
        assert len({tuple(one.ids) for one in own}) == len(own)
        assert [one.score for one in own] == sorted((one.score for one in own), reverse=True)
        for one in own:
            assert len(one.ids) <= limit
            said = (BEGIN, *one.ids.tolist(), END)
            log_prob = math.fsum(
                tables.log_probs(sentence, said[: k + 1])[said[k + 1]] for k in range(len(said) - 1)
            )
            assert one.log_prob == pytest.approx(log_prob, rel=1e-12)
            assert one.score == pytest.approx(log_prob / (len(said) - 1) ** penalty, rel=1e-12)


@few
@given(seed=st.integers(0, 2**20), beam_size=st.integers(1, 5), n_best=st.integers(1, 2))
def test_leaving_early_loses_nothing(seed: int, beam_size: int, n_best: int) -> None:
    """Who wants all hypotheses of a beam lets it run to its end; the best are the same ones."""
    n_best = min(n_best, beam_size)
    some = search([5, 2], beam_size=beam_size, seed=seed, n_best=n_best, scale=3)
    full = search([5, 2], beam_size=beam_size, seed=seed, n_best=beam_size, scale=3)
    for own, longer in zip(some, full, strict=True):
        kept = longer[:n_best]
        assert [one.ids.tolist() for one in own] == [one.ids.tolist() for one in kept]


@few
@given(seed=st.integers(0, 2**20), limits=st.lists(st.integers(0, 6), min_size=2, max_size=4))
def test_a_sentence_is_searched_as_if_it_were_alone(seed: int, limits: list[int]) -> None:
    together = search(limits, beam_size=3, seed=seed, n_best=2)

    class Alone(Tables):
        def __init__(self, sentence: int) -> None:
            super().__init__(seed, 3, 1)
            self.sentences = np.array([sentence])

    for sentence, own in enumerate(together):
        (alone,) = beam_search(
            Alone(sentence), np.array([limits[sentence]]), beam_size=3, n_best=2,
            length_penalty=1.0, begin=BEGIN, end=END, barred=(BEGIN,),
        )  # fmt: skip
        assert [one.ids.tolist() for one in own] == [one.ids.tolist() for one in alone]


def test_a_longer_sentence_wins_only_with_a_length_penalty() -> None:
    """A dislike of ending that is less than that of going on, for each token."""

    class Steady(Tables):
        def log_probs(self, _sentence: int, prefix: tuple[int, ...]) -> Array:
            ends = 0.5 if len(prefix) > 3 else 0.3
            return np.log([1e-9, ends, 1 - ends - 1e-9, 1e-9])

    def best(penalty: float) -> list[int]:
        ((one,),) = beam_search(
            Steady(0, 4, 1), np.array([6]), beam_size=4, n_best=1, length_penalty=penalty,
            begin=BEGIN, end=END, barred=(BEGIN,),
        )  # fmt: skip
        return one.ids.tolist()

    assert best(0.0) == []
    assert len(best(1.0)) > 2
