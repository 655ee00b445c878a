"""Vectors for words to begin with, from nothing but the texts: their neighbours and their letters.

A word is a row of positive pointwise mutual information with the words around it (Bullinaria &
Levy 2007; contexts smoothed as of Levy, Goldberg & Dagan 2015), beside its groups of letters. The
largest singular vectors of all rows are found by a randomised projection (Halko, Martinsson & Tropp
2011). They split into a part for the words and one for the groups, so that a new word's letters
give it a vector among its like.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from fastlstm._validate import Array
from fastlstm.tasks.text.tokenizer import UNKNOWN
from fastlstm.tasks.text.words import Texts

# Words to each side that are a word's neighbours; the k-th one counts 1/k.
_WINDOW = 5
# Power of the contexts' frequencies: rare ones are not to have too much information.
_SMOOTHING = 0.75
# Dimensions beyond those wanted, and powers, of the randomised projection.
_BEYOND, _POWERS = 10, 2
# Singular values below this part of the largest are noise.
_LEAST = 1e-3


def corpus_vectors(
    texts: Texts, vocabulary: int, size: int, deviation: float, rng: np.random.Generator
) -> tuple[Array, Array | None]:
    """Vectors of ids, and of groups of letters.

    Parameters
    ----------
    texts : Texts
    vocabulary : int
        How many ids there are.
    size : int
        Dimensions (D).
    deviation : float
        Of the numbers in the words' vectors, their letters' share included.
    rng : numpy.random.Generator
        Draws the projection, and those dimensions for which the texts are too few.

    Returns
    -------
    own : ndarray (vocabulary, D) of float32
        What is unknown has the mean of the words that are not known.
    letters : ndarray (groups, D) of float32 or None
    """
    own = rng.standard_normal((vocabulary, size)).astype(np.float32) * np.float32(deviation)
    groups = None if texts.letters is None else texts.letters.shape[1]
    letters = None if groups is None else np.zeros((groups, size), np.float32)
    if not len(texts.ids):
        return own, letters
    context = _normalised(_information(_neighbours(texts)))
    rows = context if texts.letters is None else scipy.sparse.hstack([context, texts.letters])
    columns = _singular_columns(rows.tocsr(), size, rng)
    used = columns.shape[1]
    if not used:  # texts of one word each
        return own, letters
    part = context.shape[1]
    mine = context @ columns[:part]
    everything = mine if texts.letters is None else mine + texts.letters @ columns[part:]
    factor = np.float32(deviation / (float(everything.std()) or 1.0))

    own[:, :used] = 0
    known = texts.ids != UNKNOWN
    own[texts.ids[known], :used] = factor * mine[known]
    if not known.all():
        own[UNKNOWN, :used] = factor * mine[~known].mean(axis=0)
    if letters is not None:
        letters[:, :used] = factor * columns[part:]
    return own, letters


def _neighbours(texts: Texts) -> Any:
    """How often word and word stand near each other, (V, V) of float32."""
    words = texts.places.rows
    count = len(texts.ids)
    left = np.repeat(np.cumsum(texts.lengths), texts.lengths) - np.arange(len(words))
    total = scipy.sparse.csr_array((count, count), dtype=np.float32)
    for distance in range(1, _WINDOW + 1):
        here = np.flatnonzero(left > distance)
        weights = np.full(len(here), 1 / distance, np.float32)
        pairs = (words[here], words[here + distance])
        one_way = scipy.sparse.coo_array((weights, pairs), (count, count)).tocsr()
        total = total + one_way + one_way.T
    return total


def _information(counts: Any) -> Any:
    """Positive pointwise mutual information of what is counted."""
    cells = counts.tocoo()
    words = np.asarray(counts.sum(axis=1), np.float64)
    contexts = words**_SMOOTHING
    contexts /= max(contexts.sum(), 1e-30)
    expected = words[cells.row] * contexts[cells.col]
    values = np.log(cells.data / expected).astype(np.float32)
    kept = values > 0
    places = (cells.row[kept], cells.col[kept])
    return scipy.sparse.coo_array((values[kept], places), counts.shape).tocsr()


def _normalised(rows: Any) -> Any:
    """Rows of length 1, or 0 where there is nothing."""
    norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1), np.float32))
    scale = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
    return (scipy.sparse.diags_array(scale) @ rows).tocsr()


def _singular_columns(rows: Any, size: int, rng: np.random.Generator) -> Array:
    """C with rows @ C = U·√S for the largest singular values S, `size` or fewer: (columns, k)."""
    wide = min(size + _BEYOND, *rows.shape)
    basis = rows @ rng.standard_normal((rows.shape[1], wide)).astype(np.float32)
    basis = np.linalg.qr(basis)[0]
    for _ in range(_POWERS):
        basis = np.linalg.qr(rows.T @ basis)[0]
        basis = np.linalg.qr(rows @ basis)[0]
    _, values, right = np.linalg.svd((rows.T @ basis).T, full_matrices=False)
    kept = values[:size] > max(_LEAST * float(values[0]), 1e-12)
    columns: Array = right[:size][kept].T * values[:size][kept] ** -0.5
    # The sign of a singular vector is anybody's choice: the largest number is positive.
    largest = columns[np.abs(columns).argmax(axis=0), np.arange(columns.shape[1])]
    columns *= np.sign(largest)
    return columns
