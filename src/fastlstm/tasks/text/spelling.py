"""Words by their letters, so that rare and unknown ones mean something.

A word's vector is one of its own and those of its groups of three and four letters, as of
Bojanowski et al. 2017, "Enriching word vectors with subword information": "<ca", "cat", "at>",
"<cat", "cat>". Which groups count is learnt from the words of the texts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import scipy.sparse

from fastlstm._validate import Array

_SIZES = (3, 4)
# A group that fewer words have tells nothing; and there are no more groups than this.
_LEAST_WORDS, _MOST_GROUPS = 3, 20_000
# Of a longer word, the beginning.
_LONGEST = 40


class Spelling:
    """The groups of letters that are known.

    Parameters
    ----------
    groups : sequence of str

    Raises
    ------
    ValueError
        If one is no text, or there twice.
    """

    def __init__(self, groups: Sequence[str]) -> None:
        self.groups = tuple(groups)
        if not all(isinstance(group, str) for group in self.groups):
            raise ValueError("letters: expected groups of letters")
        self._places = {group: place for place, group in enumerate(self.groups)}
        if len(self._places) != len(self.groups):
            raise ValueError("letters: has a group twice")

    @classmethod
    def of(cls, words: Iterable[str]) -> Spelling:
        """The groups that several of these words have, the most frequent ones first."""
        counts = Counter(group for word in words for group in _groups(word))
        known = sorted((-n, group) for group, n in counts.items() if n >= _LEAST_WORDS)
        return cls([group for _, group in known[:_MOST_GROUPS]])

    def __len__(self) -> int:
        return len(self.groups)

    def matrix(self, words: Sequence[str]) -> Any:
        """A sparse matrix (words, groups) of float32: 1/√n for each of a word's n known groups."""
        columns: list[int] = []
        ends, values = [0], []
        get = self._places.get
        for word in words:
            found = [place for group in _groups(word) if (place := get(group)) is not None]
            columns += sorted(found)
            ends.append(len(columns))
            values += [1 / math.sqrt(len(found))] * len(found) if found else []
        shape = (len(words), len(self.groups))
        parts: tuple[Array, ...] = (
            np.array(values, np.float32), np.array(columns, np.int32), np.array(ends, np.int32),
        )  # fmt: skip
        return scipy.sparse.csr_array(parts, shape)


def _groups(word: str) -> set[str]:
    marked = f"<{word[:_LONGEST]}>"
    return {
        marked[start : start + size]
        for size in _SIZES
        for start in range(len(marked) - size + 1)
        if size < len(marked)  # the whole word has a vector of its own
    }
