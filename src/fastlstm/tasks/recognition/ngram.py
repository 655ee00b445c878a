"""n-grams of labels, as a language model of `ctc_beam_search`.

For a label w after a context h of n - 1 labels, and h' the context without its first one::

    p(w | h) = (c(h w) + u(h) p(w | h')) / (c(h) + u(h))

c counts occurrences and u(h) counts how many different labels followed h: Witten & Bell 1991,
method C, interpolated as in Chen & Goodman 1998. Below the single labels lies a uniform
distribution.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import numpy as np

from fastlstm._validate import Array, check_integers

Labels = tuple[int, ...]


class NGram:
    """Counts of the n-grams of all orders up to one, of labels from 1 to `labels`.

    Parameters
    ----------
    counts : mapping of tuples of int to int
        How often each n-gram occurred. Before a sequence's first label lie `order` - 1 zeros.
    labels : int
    order : int
    """

    def __init__(self, counts: Mapping[Labels, int], labels: int, order: int) -> None:
        self.labels, self.order = labels, order
        self._counts = dict(counts)
        self._followers: Counter[Labels] = Counter()
        self._totals: Counter[Labels] = Counter()
        for ngram, count in self._counts.items():
            self._followers[ngram[:-1]] += 1
            self._totals[ngram[:-1]] += count

    @classmethod
    def of(cls, sequences: Iterable[Sequence[int]], labels: int, order: int) -> Self:
        """Count in sequences."""
        counts: Counter[Labels] = Counter()
        for sequence in sequences:
            padded = (*[0] * (order - 1), *sequence)
            for end in range(order, len(padded) + 1):
                counts.update(padded[start:end] for start in range(end - order, end))
        return cls(counts, labels, order)

    def __call__(self, prefix: Labels, label: int) -> float:
        """log p(label | prefix)."""
        context = (*[0] * (self.order - 1), *prefix)[len(prefix) :]
        probability = 1 / self.labels
        for start in range(len(context), -1, -1):
            before = context[start:]
            followers = self._followers[before]
            if followers:
                count = self._counts.get((*before, label), 0)
                total = self._totals[before] + followers
                probability = (count + followers * probability) / total
        return math.log(probability)

    def arrays(self) -> dict[str, Array]:
        """For a file: n-grams, with -1 before shorter ones, and their counts."""
        table = [(*[-1] * (self.order - len(ngram)), *ngram) for ngram in self._counts]
        return {
            "ngram.labels": np.array(table, np.int32).reshape(-1, self.order),
            "ngram.counts": np.array(list(self._counts.values()), np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], labels: int) -> Self:
        """What `arrays` gave; raises KeyError, TypeError, ValueError or IndexError otherwise."""
        table = check_integers(
            "ngram.labels", arrays["ngram.labels"], ("N", "n"), least=-1, most=labels
        )
        counts = check_integers(
            "ngram.counts", arrays["ngram.counts"], (len(table),), least=1, most=2**53
        )
        if not table.shape[1]:
            raise ValueError("ngram.labels: expected an order of 1 at least")
        found = {
            tuple(label for label in row if label >= 0): count
            for row, count in zip(table.tolist(), counts.tolist(), strict=True)
        }
        if () in found:
            raise ValueError("ngram.labels: expected n-grams of one label at least, got none")
        return cls(found, labels, table.shape[1])
