"""Labels as CTC counts them: from what a user gives to numbers, and their loss."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np

from fastlstm._validate import Array
from fastlstm.ctc import ctc_loss
from fastlstm.decoding import ctc_greedy
from fastlstm.tasks._base.batches import Ragged, in_chunks

BLANK = 0

Ids = tuple[int, ...]

# Sequences that are decoded at once.
_AT_ONCE = 64


def check_labels(y: Any, count: int) -> tuple[list[tuple[Hashable, ...]], bool]:
    """The labels of each of `count` sequences, and whether they are characters of strings."""
    if isinstance(y, (str, bytes)) or not hasattr(y, "__len__") or not hasattr(y, "__iter__"):
        raise TypeError(f"y: expected a list of strings or of lists of labels, got {y!r:.80}")
    if len(y) != count:
        raise ValueError(f"y: expected {count} sequences of labels, as X has, got {len(y)}")
    items = list(y)
    joined = all(isinstance(one, str) for one in items)
    found: list[tuple[Hashable, ...]] = []
    for i, one in enumerate(items):
        if isinstance(one, str) is not joined or not hasattr(one, "__iter__"):
            raise TypeError(
                f"y[{i}]: expected strings alone, or lists of labels alone, got {one!r:.80}"
            )
        labels = tuple(one.tolist() if isinstance(one, np.ndarray) else one)
        for label in labels:
            try:
                odd = hash(label) is None or label != label
            except TypeError:
                odd = True
            if odd:
                raise TypeError(
                    f"y[{i}]: expected labels that can be told apart, got {label!r:.80}"
                )
        found.append(tuple(k.item() if isinstance(k, np.generic) else k for k in labels))
    return found, joined


def classes_of(labels: list[tuple[Hashable, ...]]) -> Array:
    """All labels, each once: sorted, or where that is not possible as they come."""
    classes: list[Any] = list(dict.fromkeys(label for one in labels for label in one))
    if not classes:
        raise ValueError("y: expected at least one label, got empty sequences alone")
    with contextlib.suppress(TypeError):
        classes = sorted(classes)
    return as_objects(classes)


def as_objects(values: Sequence[Any]) -> Array:
    """An array (n,) of whatever these are, tuples among them."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def check_room(lengths: Array, targets: Sequence[Ids], stack: int) -> None:
    """Raise if a sequence has fewer steps than its labels need: its loss would be infinite."""
    steps, needed = -(-lengths // stack), np.array([_least_steps(one) for one in targets])
    short = np.flatnonzero(steps < needed)
    if len(short):
        i = short[0]
        raise ValueError(
            f"X[{i}]: expected at least {needed[i]} steps"
            + (f" after stacking {stack} as one" if stack > 1 else "")
            + f" for {len(targets[i])} labels (one each, and one between two that are alike), got "
            f"{steps[i]}" + (f"; {len(short) - 1} more are too short" if len(short) > 1 else "")
        )


def _least_steps(labels: Ids) -> int:
    """One for each label, and a blank between two that are alike."""
    return len(labels) + sum(a == b for a, b in pairwise(labels))


# --- loss -----------------------------------------------------------------------------------------


def ctc(rows: Array, target: Any) -> tuple[float, Array]:
    """The loss of rows (N, C), the valid steps of all sequences; target: lengths, labels, sizes."""
    lengths, labels, sizes = target
    logits, _ = Ragged(rows, lengths).padded()
    loss, d_logits = ctc_loss(logits, labels, lengths, sizes, blank=BLANK)
    valid = np.arange(len(logits)) < lengths[:, np.newaxis]
    return loss, d_logits.swapaxes(0, 1)[valid]


def log_likelihoods(log_probs: Ragged, targets: list[Ids]) -> Array:
    """log p(labels) of each sequence, (n,)."""
    found = []
    for part in in_chunks(len(log_probs), _AT_ONCE):
        padded, lengths = log_probs.padded(part)
        labels, sizes = joined_targets(targets[part])
        losses, _ = ctc_loss(padded, labels, lengths, sizes, blank=BLANK, reduction="none")
        found.append(-losses)
    return np.concatenate(found)


def joined_targets(targets: Sequence[Ids]) -> tuple[Array, Array]:
    """Labels one sequence behind the other, and how many each has."""
    sizes = np.array([len(one) for one in targets], np.int64)
    return np.array([k for one in targets for k in one], np.int64), sizes


def best_paths(log_probs: Ragged) -> list[Ids]:
    """Labels of the likeliest alignments."""
    return [cast(Ids, ctc_greedy(one, blank=BLANK)) for one in log_probs]
