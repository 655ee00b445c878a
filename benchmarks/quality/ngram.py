"""Interpolated Witten-Bell n-grams over characters: the baseline of a character language model.

For a character w after a context h of n - 1 characters, and h' the context without its first one::

    p(w | h) = (c(h w) + u(h) p(w | h')) / (c(h) + u(h))

c counts occurrences in the training text and u(h) counts how many different characters followed h.
A context that never occurred passes p(w | h') on unchanged. Below the single characters lies a
uniform distribution. Witten & Bell 1991, method C; interpolated as in Chen & Goodman 1998.

Why our own: nltk.lm has this very model (the tests compare with it), but gives a character that
the training text lacks no probability at all, keeps its counts in nested dictionaries (12 s to
count half a million characters up to order 6, where arrays take 0.3 s), and would be one more
package that the demo installs. KenLM is fast, but its Python package holds no trainer, and what its
command-line tools estimate is modified Kneser-Ney, whose discounts come from counts of counts that
a hundred different characters do not fill.
"""

from __future__ import annotations

from collections.abc import Iterator
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
