"""How a language model writes: one token at a time, drawn, or the likeliest continuations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastlstm._validate import Array, check_number, check_size
from fastlstm.lstm import LSTM
from fastlstm.tasks.language_model.network import LanguageNetwork
from fastlstm.tasks.language_model.vocabularies import Vocabulary


class Completion(NamedTuple):
    """One continuation of a prompt."""

    #: What follows the prompt.
    text: str
    #: Of the model, for the whole of it, in nats.
    log_prob: float


@dataclass(frozen=True)
class Drawing:
    """How a token is drawn from logits.

    Attributes
    ----------
    temperature : float
        Divides the logits; at 0 the likeliest token is taken.
    top_k : int or None
        Only so many of the likeliest tokens can be drawn.
    top_p : float or None
        Only the likeliest ones whose probabilities together reach this (Holtzman et al. 2020).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    @classmethod
    def checked(cls, temperature: object, top_k: object, top_p: object) -> Drawing:
        """From what a caller gave."""
        return cls(
            check_number("temperature", temperature, least=0),
            None if top_k is None else check_size("top_k", top_k),
            None if top_p is None else check_number("top_p", top_p, above=0, most=1),
        )

    def __call__(self, logits: Array, rng: np.random.Generator) -> int:
        """An id by the softmax of float64 logits (V,); -inf is one that cannot be."""
        if self.temperature == 0:
            return int(logits.argmax())
        with np.errstate(over="ignore"):  # a very low one makes -inf of all but the largest
            weights = np.exp((logits - logits.max()) / self.temperature)
        if self.top_k is None and self.top_p is None:
            return _drawn(weights, rng)
        order = np.argsort(-logits, kind="stable")[: self.top_k]
        if self.top_p is not None:
            before = np.concatenate(([0.0], weights[order].cumsum()[:-1]))
            order = order[before < self.top_p * weights[order].sum()]
        return int(order[_drawn(weights[order], rng)])


def _drawn(weights: Array, rng: np.random.Generator) -> int:
    edges = weights.cumsum()
    return int(np.searchsorted(edges[:-1], rng.random() * edges[-1], side="right"))


class Reader:
    """A network that has read some ids, and reads on one at a time."""

    def __init__(self, network: LanguageNetwork, ids: Array) -> None:
        self._network = network
        output, self._state = network.read(ids)
        self._output = output[-1]
        self._stream = None
        if isinstance(network.recurrent, LSTM):
            self._stream = network.recurrent.stream()
            self._stream.state = self._state[0], self._state[1]

    def logits(self) -> Array:
        """float64 logits (V,) of what comes next."""
        found: Array = self._network.head(self._output)
        return found.astype(np.float64)

    def read(self, id_: int) -> None:
        """Take one id on."""
        ids = np.array([id_])
        if self._stream is not None:
            self._output = self._stream.step(self._network.embedding(ids)[0])
        else:
            output, self._state = self._network.read(ids, self._state)
            self._output = output[-1]


def check_stops(stop: object) -> tuple[str, ...]:
    """Return the texts that end writing."""
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, Sequence) or not all(isinstance(text, str) for text in stops):
        raise TypeError(f"stop: expected a text or a list of texts, got {stop!r:.80}")
    if not all(stops):
        raise ValueError("stop: expected texts of at least one character, got an empty one")
    return tuple(stops)


def write(
    network: LanguageNetwork,
    vocabulary: Vocabulary,
    prompt: str,
    length: int,
    drawing: Drawing,
    stops: Sequence[str],
    rng: np.random.Generator,
) -> Iterator[str]:
    """What `LanguageModel.generate` yields."""
    if not length:
        return
    reader = Reader(network, _context(vocabulary, prompt))
    text_of = vocabulary.writer(prompt)
    longest = max(map(len, stops), default=1)
    tail = ""
    for left in reversed(range(length)):
        logits = reader.logits()
        drawn = drawing(_without_unknown(logits, vocabulary), rng)
        piece = text_of(drawn)
        tail += piece
        yield piece
        if any(stop in tail for stop in stops):
            return
        tail = tail[len(tail) - longest + 1 :] if longest > 1 else ""
        if left:
            reader.read(drawn)


def complete(
    network: LanguageNetwork,
    vocabulary: Vocabulary,
    prompt: str,
    *,
    n: int,
    length: int,
    stops: Sequence[str],
    beam_width: int,
) -> list[Completion]:
    """What `LanguageModel.complete` returns: a beam search over continuations."""
    ids = _context(vocabulary, prompt)
    output, state = network.read(ids[:, np.newaxis])
    beam, done = [_Hypothesis((), 0.0)], list[_Hypothesis]()
    text_of = _texts(vocabulary, prompt)
    for step in range(length):
        rows = _log_probs(network.head(output[-1]), vocabulary)
        found = _best_next(beam, rows, beam_width)
        ended = [
            step == length - 1 or any(stop in text_of(one.ids) for stop in stops)
            for one, _ in found
        ]
        done += [one for (one, _), over in zip(found, ended, strict=True) if over]
        done = sorted(done, key=lambda one: -one.log_prob)[:n]
        kept = [pair for pair, over in zip(found, ended, strict=True) if not over]
        if not kept or (len(done) == n and done[-1].log_prob >= kept[0][0].log_prob):
            break  # no continuation can become likelier than it is
        beam = [one for one, _ in kept]
        state = tuple(part[:, [parent for _, parent in kept]] for part in state)
        output, state = network.read(np.array([[one.ids[-1] for one in beam]]), state)
    return [Completion(text_of(one.ids), one.log_prob) for one in done]


@dataclass(frozen=True)
class _Hypothesis:
    ids: tuple[int, ...]
    log_prob: float


def _best_next(
    beam: Sequence[_Hypothesis], rows: Array, width: int
) -> list[tuple[_Hypothesis, int]]:
    """The likeliest hypotheses of one more id, each with its parent's number."""
    scores = (np.array([one.log_prob for one in beam])[:, np.newaxis] + rows).reshape(-1)
    best = np.argsort(-scores, kind="stable")[:width]
    found = []
    for place in best[scores[best] > -math.inf].tolist():
        parent, id_ = divmod(place, rows.shape[1])
        found.append((_Hypothesis((*beam[parent].ids, id_), float(scores[place])), parent))
    return found


def _log_probs(logits: Array, vocabulary: Vocabulary) -> Array:
    """Logits (K, V) -> log-probabilities, -inf of the unknown id."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    rows = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    found = vocabulary.with_unknown(rows, np.arange(rows.shape[1]))
    return _without_unknown(found, vocabulary)


def _without_unknown(rows: Array, vocabulary: Vocabulary) -> Array:
    """Rows (..., V) in which the unknown id, where it could come, cannot: it says nothing."""
    if vocabulary.unknown < rows.shape[-1]:
        rows[..., vocabulary.unknown] = -math.inf
    return rows


def _texts(vocabulary: Vocabulary, prompt: str) -> Callable[[tuple[int, ...]], str]:
    def text_of(ids: tuple[int, ...]) -> str:
        return "".join(map(vocabulary.writer(prompt), ids))

    return text_of


def _context(vocabulary: Vocabulary, prompt: str) -> Array:
    return np.concatenate(([vocabulary.start], vocabulary.encode(prompt)))
