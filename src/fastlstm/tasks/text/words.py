"""Texts as a network reads them: which words stand where, and what is known of each word."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm._validate import Array
from fastlstm.tasks._base.batches import Ragged
from fastlstm.tasks._base.supervision import Weighted
from fastlstm.tasks.text.spelling import Spelling
from fastlstm.tasks.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Words:
    """What stands in a batch.

    Attributes
    ----------
    places : ndarray of integers (T, B)
        Which of U different words stands where; past an end, any.
    ids : ndarray of integers (U,)
        The words' ids, those of `Tokenizer`.
    letters : sparse matrix (U, groups) or None
        Their groups of letters.
    """

    places: Array
    ids: Array
    letters: Any


@dataclass(frozen=True)
class Texts:
    """n texts.

    Attributes
    ----------
    places : Ragged
        Which of the different words stands where.
    ids : ndarray of integers (V,)
    letters : sparse matrix (V, groups) or None
    """

    places: Ragged
    ids: Array
    letters: Any

    @classmethod
    def read(cls, texts: Iterable[str], tokenizer: Tokenizer, spelling: Spelling | None) -> Texts:
        """Of strings; known words and unknown ones."""
        numbers: dict[str, int] = {}
        every = [
            [numbers.setdefault(word, len(numbers)) for word in tokenizer.cut(text)]
            for text in texts
        ]
        lengths = np.array([len(places) for places in every], np.int64)
        flat = (place for places in every for place in places)
        rows = np.fromiter(flat, np.int32, int(lengths.sum()))
        ids = np.array([tokenizer.id_of(word) for word in numbers], np.int32)
        letters = None if spelling is None else spelling.matrix(list(numbers))
        return cls(Ragged(rows, lengths), ids, letters)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def lengths(self) -> Array:
        """Words of each text, (n,)."""
        return self.places.lengths

    def take(self, which: Array) -> Texts:
        """Some of the texts."""
        return Texts(self.places.take(which), self.ids, self.letters)

    def padded(self, which: Array) -> tuple[Words, Array]:
        """Some texts as a batch, and lengths (B,)."""
        padded, lengths = self.places.padded(which)
        used, places = np.unique(padded, return_inverse=True)
        if not len(self.ids):  # nothing but empty texts
            return Words(padded, self.ids, self.letters), lengths
        letters = None if self.letters is None else self.letters[used]
        return Words(places.reshape(padded.shape), self.ids[used], letters), lengths


@dataclass(frozen=True)
class TextExamples:
    """What is learnt from: texts, the number of each one's class, weights (n,) or None."""

    texts: Texts
    codes: Array
    weights: Array | None

    def batch(self, which: Array) -> tuple[Words, Array, Weighted]:
        """What a TextNetwork's `loss_and_grads` takes, of these texts."""
        words, lengths = self.texts.padded(which)
        weights = None if self.weights is None else self.weights[which]
        return words, lengths, (self.codes[which], weights)

    def take(self, which: Array) -> TextExamples:
        """Some of them."""
        weights = None if self.weights is None else self.weights[which]
        return TextExamples(self.texts.take(which), self.codes[which], weights)
