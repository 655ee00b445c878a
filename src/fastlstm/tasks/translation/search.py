"""Beam search over the hypotheses of many sentences at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fastlstm._validate import Array


class Decoder(Protocol):
    """What proposes the next tokens of hypotheses: K of each of B sentences."""

    def step(self, ids: Array) -> Array:
        """Append ids (K, B) to the hypotheses; log-probabilities (K, B, V) of what follows."""

    def select(self, parents: Array, sentences: Array) -> None:
        """Go on with hypotheses `parents` (K, B') of the sentences with these numbers (B',)."""


@dataclass(frozen=True)
class Hypothesis:
    """A finished sentence.

    Attributes
    ----------
    ids : ndarray of int64 (n,)
        Without begin and end.
    log_prob : float
        Of these and end, in nats.
    score : float
        What the best have most of: log_prob / (n + 1)^length_penalty.
    """

    ids: Array
    log_prob: float
    score: float


def beam_search(
    decoder: Decoder,
    limits: Array,
    *,
    beam_size: int,
    n_best: int,
    length_penalty: float,
    begin: int,
    end: int,
    barred: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """The best hypotheses of each sentence that the beam finds, best first.

    Of all continuations of a sentence's hypotheses the `beam_size` likeliest go on; those that end
    leave the beam, and it is narrower by them from then on (as in Nematus, Sennrich et al. 2017).
    So a beam of one is greedy search, and one that has room for everything misses nothing. A
    sentence is left as soon as nothing can become better than what was found.

    Parameters
    ----------
    decoder : Decoder
        Its K is `beam_size`; all hypotheses of a sentence are alike at first.
    limits : ndarray of int (B,)
        The most tokens of each sentence, after which it has to end.
    beam_size, n_best : int
    length_penalty : float
        From 0, which prefers short sentences; 1 compares means over the tokens.
    begin, end : int
        Ids.
    barred : sequence of int
        Ids that no hypothesis has.

    Returns
    -------
    list of list of Hypothesis
        `n_best` of each sentence, or as many as there are.
    """
    found: list[list[Hypothesis]] = [[] for _ in limits]
    alive = np.arange(len(limits))
    ids = np.full((beam_size, len(limits)), begin)
    totals = np.full(ids.shape, -np.inf)
    totals[0] = 0  # of hypotheses that are alike, one
    said = np.empty((*ids.shape, 0), np.int64)
    while len(alive):
        log_probs = decoder.step(ids)
        log_probs[..., list(barred)] = -np.inf
        must_end = limits[alive] <= said.shape[2]
        log_probs[:, must_end, :end] = log_probs[:, must_end, end + 1 :] = -np.inf
        parents, ids, totals = _likeliest(totals, log_probs)
        # What has left the beam before has left no room behind.
        room = beam_size - np.array([len(found[sentence]) for sentence in alive])
        totals[np.arange(beam_size)[:, np.newaxis] >= room] = -np.inf
        ended = (ids == end) & (totals > -np.inf)
        columns = np.arange(len(alive))
        said = said[parents, columns]
        length = said.shape[2] + 1
        for k, b in np.argwhere(ended):
            score = totals[k, b] / length**length_penalty
            found[alive[b]].append(Hypothesis(said[k, b], float(totals[k, b]), float(score)))
        totals[ended] = -np.inf
        said = np.concatenate([said, ids[..., np.newaxis]], axis=2)
        hopes = totals.max(axis=0) / (limits[alive] + 1.0) ** length_penalty
        going = np.flatnonzero(hopes > [_to_beat(found[b], n_best) for b in alive])
        decoder.select(parents[:, going], going)
        alive, ids, totals, said = alive[going], ids[:, going], totals[:, going], said[:, going]
    return [sorted(own, key=lambda one: -one.score)[:n_best] for own in found]


def _likeliest(totals: Array, log_probs: Array) -> tuple[Array, Array, Array]:
    """Of all continuations (K, B, V) the K likeliest of each sentence, likeliest first.

    Returns
    -------
    parents, ids, totals : ndarray (K, B)
        Which hypothesis goes on, with what, and its log-probability.
    """
    beam, batch, vocabulary = log_probs.shape
    width = min(beam, vocabulary)
    tokens = np.argpartition(log_probs, vocabulary - width, axis=2)[..., -width:]
    tokens.sort(axis=2)  # of those that are as likely, the first
    each = totals[..., np.newaxis] + np.take_along_axis(log_probs, tokens, axis=2)
    flat = each.transpose(1, 0, 2).reshape(batch, -1)
    order = np.argsort(-flat, axis=1, kind="stable")[:, :beam]
    parents, places = np.divmod(order.T, width)
    columns = np.arange(batch)
    return parents, tokens[parents, columns, places], flat[columns, order.T]


def _to_beat(found: list[Hypothesis], n_best: int) -> float:
    """The score above which a hypothesis is still wanted."""
    scores = sorted((one.score for one in found), reverse=True)
    return scores[n_best - 1] if len(scores) >= n_best else -np.inf
