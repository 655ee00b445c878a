"""Word vectors that others have trained, from the text files of GloVe, word2vec and fastText."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fastlstm._validate import Array


def read_vectors(path: str | os.PathLike[str], words: Sequence[str]) -> tuple[Array, Array]:
    """Read the vectors of some words.

    The file is read line by line, and nothing is kept of other words. A line is a word and its
    numbers, with single blanks between; a first line of two whole numbers, how many words and
    dimensions there are, may stand before them. Of a word that comes twice the first line counts.

    Parameters
    ----------
    path : str or path
        In UTF-8.
    words : sequence of str

    Returns
    -------
    vectors : ndarray (n, D) of float32
        Of the words that are there.
    which : ndarray (n,) of int64
        Their places in `words`, in rising order.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a line is not what it should be, or none of the words is there.
    """
    places = {word.encode("utf-8", "surrogatepass"): place for place, word in enumerate(words)}
    found: dict[int, Array] = {}
    with Path(path).open("rb") as file:
        size, first = _begin(path, file)
        for number, line in enumerate(file, first):
            # From the right: some words of GloVe have blanks inside.
            word, *numbers = line.rstrip().rsplit(b" ", size)
            if len(numbers) != size:
                if not line.strip():
                    continue
                raise ValueError(
                    f"vectors: {path}, line {number}: expected a word and {size} numbers, "
                    f"got {len(numbers)}"
                )
            place = places.get(word)
            if place is not None and place not in found:
                found[place] = _vector(f"vectors: {path}, line {number}", numbers)
    if not found:
        raise ValueError(
            f"vectors: {path}: has none of the {len(words)} words of the texts; are they of the "
            "same language, and lower-cased alike?"
        )
    which = np.array(sorted(found), np.int64)
    return np.stack([found[place] for place in which.tolist()]), which


def _begin(path: str | os.PathLike[str], file: BinaryIO) -> tuple[int, int]:
    """Dimensions, and the number of the first line of a word, to which the file is turned."""
    fields = file.readline().split()
    if len(fields) == 2 and all(field.isdigit() for field in fields):
        size, first = int(fields[1]), 2
    else:
        size, first = len(fields) - 1, 1
        file.seek(0)
    if size < 1:
        raise ValueError(f"vectors: {path}, line 1: expected a word and its numbers")
    return size, first


def _vector(where: str, numbers: Sequence[bytes]) -> Array:
    try:
        vector = np.array([float(number) for number in numbers], np.float32)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if not np.isfinite(vector).all():
        raise ValueError(f"{where}: expected finite numbers of float32")
    return vector
