"""Word for word: a lexicon learnt from pairs of sentences, as a baseline of translation.

Model 1 of Brown et al. 1993, "The mathematics of statistical machine translation": each word of the
target comes of one of the source, or of none, whichever place these have.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NOTHING = ""  # beside the words of each source


class Lexicon:
    """t(target word | source word) by expectation maximisation, and the likeliest of each."""

    def __init__(self, sources: Sequence[str], targets: Sequence[str], *, rounds: int = 10) -> None:
        self._source = _numbered([NOTHING, *" ".join(sources).split()])
        self._target = _numbered(" ".join(targets).split())
        pairs, places, many = self._links(sources, targets)
        entries, of_link = np.unique(pairs, return_inverse=True)
        sources_of, _ = np.divmod(entries, len(self._target))
        t = np.ones(len(entries))
        for _ in range(rounds):
            weights = t[of_link]
            weights /= np.bincount(places, weights, many)[places]
            counts = np.bincount(of_link, weights, len(entries))
            t = counts / np.bincount(sources_of, counts)[sources_of]
        self._best = self._likeliest(entries, t)

    def _links(
        self, sources: Sequence[str], targets: Sequence[str]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """Each source word with each target word of its pair: their number, and whose place."""
        pairs, places, many = [], [], 0
        for source, target in zip(sources, targets, strict=True):
            a = np.array([self._source[word] for word in [NOTHING, *source.split()]])
            b = np.array([self._target[word] for word in target.split()])
            pairs.append((a * len(self._target) + b[:, np.newaxis]).ravel())
            places.append(np.repeat(np.arange(many, many + len(b)), len(a)))
            many += len(b)
        return np.concatenate(pairs), np.concatenate(places), many

    def _likeliest(self, entries: NDArray[np.int64], t: NDArray[np.float64]) -> dict[str, str]:
        names, words = list(self._source), list(self._target)
        best: dict[str, tuple[float, str]] = {}
        for entry, probability in zip(entries.tolist(), t.tolist(), strict=True):
            source, target = divmod(entry, len(words))
            if probability > best.get(names[source], (0.0, ""))[0]:
                best[names[source]] = probability, words[target]
        return {name: word for name, (_, word) in best.items()}

    def translate(self, source: str) -> str:
        """Each word as its likeliest translation; one that was not learnt stays."""
        return " ".join(self._best.get(word, word) for word in source.split())


def _numbered(words: Sequence[str]) -> dict[str, int]:
    return {word: number for number, word in enumerate(dict.fromkeys(words))}
