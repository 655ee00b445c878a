"""Interpolated n-grams: Witten-Bell over characters and Kneser-Ney over words, as baselines.

Witten-Bell. For a character w after a context h of n - 1 characters, and h' the context without
its first one::

    p(w | h) = (c(h w) + u(h) p(w | h')) / (c(h) + u(h))

c counts occurrences in the training text and u(h) counts how many different characters followed h.
A context that never occurred passes p(w | h') on unchanged. Below the single characters lies a
uniform distribution. Witten & Bell 1991, method C; interpolated as in Chen & Goodman 1998.

Kneser-Ney. For a word w after a context h of n - 1 words::

    p(w | h) = max(a(h w) - D, 0) / a(h ·) + γ(h) p(w | h')

a counts occurrences at the highest order, and below that how many different words came before h w;
D is a discount of its own for a = 1, 2 and more, and γ(h) what the discounts after h have saved.
Kneser & Ney 1995 as modified by Chen & Goodman 1998.

Why our own: nltk.lm has these very models (the tests compare with it), but gives a character that
the training text lacks no probability at all, keeps its counts in nested dictionaries (12 s to
count half a million characters up to order 6, where arrays take 0.3 s), looks through all n-grams
for each probability of Kneser-Ney, and would be one more package that the demo installs. KenLM is
fast, but its Python package holds no trainer, and what its command-line tools estimate is modified
Kneser-Ney, whose discounts come from counts of counts that a hundred different characters do not
fill.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

CODE_POINTS = 0x110000  # all that a character can be


@dataclass(frozen=True)
class _Counts:
    """The n-grams of one order, each coded as (rank of its context) · V + its last character."""

    codes: Array  # sorted; an n-gram's place here is its rank, as a context of the next order
    counts: Array  # (codes,) occurrences
    total: Array  # (contexts,) characters that followed
    unique: Array  # (contexts,) different characters that followed

    def rank(self, code: Array) -> Array:
        """Places of codes, -1 for those that did not occur."""
        place = np.minimum(np.searchsorted(self.codes, code), len(self.codes) - 1)
        return np.where(self.codes[place] == code, place, -1)


class WittenBell:
    """n-grams of all orders up to one, counted in a training text.

    Parameters
    ----------
    text : str
        What to count in; not empty.
    order : int
        The longest n-gram: order - 1 characters of context.
    """

    def __init__(self, text: str, order: int) -> None:
        points = _code_points(text)
        if not len(points) or order < 1:
            raise ValueError("expected a text that is not empty and an order of at least 1")
        self.known = np.unique(points)
        # One symbol more than there are characters stands for all others.
        self.symbols = len(self.known) + 1
        ids = self._encode(points)
        self._orders = []
        contexts, rank = 1, np.zeros(len(ids) + 1, np.int64)  # the empty context, before each one
        for n in range(1, min(order, len(ids)) + 1):
            code = rank[:-1] * self.symbols + ids[n - 1 :]
            codes, rank, counts = np.unique(code, return_inverse=True, return_counts=True)
            context = codes // self.symbols
            total = np.bincount(context, counts, contexts)
            unique = np.bincount(context, minlength=contexts)
            self._orders.append(_Counts(codes, counts, total, unique))
            contexts = len(codes)

    def bits_per_character(self, text: str) -> list[float]:
        """Bits that a character of `text` costs on average, for the orders from 1 upwards.

        A character that the training text did not have costs the unknown symbol's probability,
        shared out evenly among all characters that it stands for.
        """
        ids = self._encode(_code_points(text))
        others = np.log2(CODE_POINTS - len(self.known)) * np.mean(ids == self.symbols - 1)
        return [float(others - np.mean(np.log2(p))) for p in self._probabilities(ids)]

    def probabilities(self, text: str) -> Iterator[Array]:
        """Of each symbol of `text` after those before it, (characters,) for each order."""
        return self._probabilities(self._encode(_code_points(text)))

    def _probabilities(self, ids: Array) -> Iterator[Array]:
        p = np.full(len(ids), 1 / self.symbols)
        rank = np.zeros(len(ids), np.int64)  # of the context of each character; -1 if unseen
        for order in self._orders:
            ngram = np.where(rank >= 0, order.rank(rank * self.symbols + ids), -1)
            count = np.where(ngram >= 0, order.counts[ngram], 0)
            unique = order.unique[rank]
            seen = (rank >= 0) & (unique > 0)
            weight = np.where(seen, order.total[rank] + unique, 1)
            p = np.where(seen, (count + unique * p) / weight, p)
            yield p
            # The first characters have no context of this length: they keep their p.
            rank = np.concatenate([[-1], ngram[:-1]])

    def _encode(self, points: Array) -> Array:
        place = np.minimum(np.searchsorted(self.known, points), len(self.known) - 1)
        return np.where(self.known[place] == points, place, self.symbols - 1)


def _code_points(text: str) -> Array:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


# --- words ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Grams:
    """The n-grams of one order as they occur in a text."""

    codes: Array  # sorted, as those of `_Counts`
    counts: Array  # (codes,)
    first: Array  # (codes,) a place where it ends
    rank: Array  # (places,) which one ends there

    @classmethod
    def of(cls, code: Array, places: Array) -> _Grams:
        """Of the code at each place, those that end at some of the places."""
        codes, first, counts = np.unique(code[places], return_index=True, return_counts=True)
        # Of a code that none of these places has, the rank means nothing.
        rank = np.minimum(np.searchsorted(codes, code), len(codes) - 1)
        return cls(codes, counts, places[first], rank)


@dataclass(frozen=True)
class _Adjusted:
    """The n-grams of one order, coded as those of `_Counts`, with what Kneser-Ney counts."""

    codes: Array
    discounted: Array  # (codes,) a - D
    total: Array  # (contexts,) the sum of a after each context
    saved: Array  # (contexts,) the sum of the discounts


class KneserNey:
    """n-grams of words of all orders up to one, counted in a training text.

    Parameters
    ----------
    words : sequence of str
    order : int
        The longest n-gram: order - 1 words of context.
    boundary : str, optional
        A word that ends every sentence, such as "<eos>". A context then reaches back to the end of
        the sentence before at most, as SRILM has it; the text is taken to begin after one.
    discount : float, optional
        One D for all, as Kneser & Ney have it. Without it those that Chen & Goodman estimate from
        how many n-grams occur once, twice, three and four times, for each order.
    """

    def __init__(
        self,
        words: Sequence[str],
        order: int,
        *,
        boundary: str | None = None,
        discount: float | None = None,
    ) -> None:
        if not len(words) or order < 1:
            raise ValueError("expected a text that is not empty and an order of at least 1")
        self._ids = {word: id_ for id_, word in enumerate(dict.fromkeys(words))}
        self._boundary = boundary
        if boundary is not None and boundary not in self._ids:
            raise ValueError(f"boundary: {boundary!r} does not occur in the text")
        ids, reach = self._encode(words)
        grams = [_Grams.of(ids, np.flatnonzero(reach >= 0))]
        for n in range(2, min(order, len(words)) + 1):
            context = np.concatenate([[-1], grams[-1].rank[:-1]])
            code = context * len(self._ids) + ids
            grams.append(_Grams.of(code, np.flatnonzero(reach >= n - 1)))
        self._orders = []
        contexts = 1
        for n, gram in enumerate(grams):
            counts = gram.counts
            if n + 1 < len(grams):
                longer = gram.rank[grams[n + 1].first]  # what those of the next order end with
                counts = np.bincount(longer, minlength=len(counts))
                if boundary is not None:  # nothing comes before a sentence
                    counts = np.where(counts, counts, gram.counts)
            self._orders.append(self._discounted(gram.codes, counts, contexts, discount))
            contexts = len(gram.codes)

    def _discounted(
        self, codes: Array, counts: Array, contexts: int, discount: float | None
    ) -> _Adjusted:
        if discount is None:
            discounts = _estimate_discounts(counts)[np.minimum(counts, 3)]
        else:
            discounts = np.full(len(counts), discount)
        discounts = np.minimum(discounts, counts)  # of 0: nothing to save
        context = codes // len(self._ids)
        return _Adjusted(
            codes,
            counts - discounts,
            np.bincount(context, counts, contexts),
            np.bincount(context, discounts, contexts),
        )

    def perplexities(self, words: Sequence[str]) -> list[float]:
        """Of a text, for the orders from 1 upwards. All of its words have to be known."""
        return [float(np.exp(-np.mean(np.log(p)))) for p in self.probabilities(words)]

    def probabilities(self, words: Sequence[str]) -> Iterator[Array]:
        """Of each word after those before it, (words,) for each order."""
        ids, reach = self._encode(words)
        skipped = len(ids) - len(words)
        p = np.full(len(ids), 1 / len(self._ids))
        rank = np.zeros(len(ids), np.int64)  # of the context of each word; -1 if unseen
        for n, order in enumerate(self._orders):
            code = rank * len(self._ids) + ids
            place = np.minimum(np.searchsorted(order.codes, code), len(order.codes) - 1)
            ngram = np.where((rank >= 0) & (order.codes[place] == code), place, -1)
            seen = (rank >= 0) & (reach >= n) & (order.total[rank] > 0)
            own = np.where(ngram >= 0, order.discounted[ngram], 0)
            weight = np.where(seen, order.total[rank], 1)
            p = np.where(seen, (own + order.saved[rank] * p) / weight, p)
            yield p[skipped:]
            rank = np.concatenate([[-1], ngram[:-1]])

    def _encode(self, words: Sequence[str]) -> tuple[Array, Array]:
        """Ids, after that of a boundary if there is one, and how far each context may reach."""
        try:
            ids = np.array([self._ids[word] for word in words], np.int64)
        except KeyError as error:
            raise ValueError(f"the training text has no {error}") from None
        if self._boundary is None:
            return ids, np.arange(len(ids))
        ids = np.concatenate([[self._ids[self._boundary]], ids])
        places = np.arange(len(ids))
        ends = np.where(ids == self._ids[self._boundary], places, -1)
        last = np.concatenate([[1], np.maximum.accumulate(ends)[:-1]])
        return ids, places - last  # -1 of the first boundary, which nobody predicts


def _estimate_discounts(counts: Array) -> Array:
    """D for what is counted 0, 1, 2 and at least 3 times (Chen & Goodman 1998, equation 26)."""
    n1, n2, n3, n4 = (max(int((counts == k).sum()), 1) for k in range(1, 5))
    y = n1 / (n1 + 2 * n2)
    discounts = [0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    return np.maximum(discounts, 0)
