"""How far labels are from what they should be: Levenshtein's distance, and error rates.

Why our own: the distance is ten lines of NumPy over labels of any kind, and a package for it
(jiwer, rapidfuzz) would be one more that every recogniser installs.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np


def edit_distance(truth: Sequence[Hashable], found: Sequence[Hashable]) -> int:
    """The fewest insertions, deletions and substitutions that make one sequence the other.

    Levenshtein 1966, by the dynamic programme of Wagner & Fischer 1974, a row at a time.

    Examples
    --------
    >>> edit_distance("kitten", "sitting")
    3
    """
    names: dict[Hashable, int] = {}
    rows = np.array([names.setdefault(label, len(names)) for label in truth], np.int64)
    columns = np.array([names.setdefault(label, len(names)) for label in found], np.int64)
    places = np.arange(len(columns) + 1)
    costs = places
    for k, label in enumerate(rows, 1):
        # Deleted or replaced; and then whatever is cheapest and inserted up to here.
        best = np.minimum(costs[1:] + 1, costs[:-1] + (columns != label))
        costs = np.minimum.accumulate(np.concatenate([[k], best]) - places) + places
    return int(costs[-1])


def error_rate(truth: Iterable[Sequence[Hashable]], found: Iterable[Sequence[Hashable]]) -> float:
    """Edits over all pairs of sequences, for each label that should be there.

    0 is perfect; it may exceed 1. The character error rate of strings, the word error rate of lists
    of words. Where nothing should be there at all, it is the number of edits.

    Raises
    ------
    ValueError
        If there are not as many sequences on both sides.

    Examples
    --------
    >>> error_rate(["one", "two"], ["ore", "to"])
    0.3333333333333333
    """
    edits = labels = 0
    for expected, got in zip(truth, found, strict=True):
        edits += edit_distance(expected, got)
        labels += len(expected)
    return edits / max(labels, 1)
