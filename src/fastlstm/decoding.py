"""From CTC's log-probabilities to labels: the best path, and prefix beam search.

The best path takes the likeliest class at each step. The likeliest labelling is another thing, for
the probability of a labelling is the sum over all of its paths: prefix beam search (Hannun, Maas,
Jurafsky & Ng 2014, "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional
Recurrent DNNs"; Graves & Jaitly 2014, "Towards End-to-End Speech Recognition with Recurrent Neural
Networks") sums over them, and takes a language model in. The loss of these is in ctc.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastlstm._core import beam as _compiled
from fastlstm._validate import (
    Array,
    check_floats,
    check_lengths,
    check_number,
    check_size,
)

Labels = tuple[int, ...]
LanguageModel = Callable[[Labels, int], float]

# Steps for which the search makes room at a time.
_STEPS = 16
# A node of the tree of prefixes: parent, label, child, sibling, place; see _core/beam.pyx.
_ROOT = (0, -1, 0, 0, -1)


class Hypothesis(NamedTuple):
    """What a sequence may mean, by ``ctc_beam_search``."""

    #: The labels, without blanks.
    labels: Labels
    #: What hypotheses are ranked by: log_prob, the weighted language model and the bonus.
    score: float
    #: log p(labels) by CTC, as far as the beam has followed their paths: never above the true one.
    log_prob: float


def ctc_greedy(
    log_probs: Array, lengths: Array | int | None = None, *, blank: int = 0
) -> list[Labels] | Labels:
    """Labels of the likeliest path: the best class at each step, repetitions merged, blanks out.

    Parameters
    ----------
    log_probs : ndarray (T, N, C) or (T, C)
        Log-probabilities, or anything that grows with them, such as logits; of float32 or float64.
    lengths : ndarray of integers (N,), optional
        Steps of each sequence, by default T; what lies past them is never read. Beside log_probs
        (T, C) an int.
    blank : int, default 0
        The class that stands for no label.

    Returns
    -------
    list of tuples of int
        The labels of each sequence; of equally good classes the first counts. One tuple for
        log_probs (T, C).

    Raises
    ------
    TypeError, ValueError
        If an argument is no array of the kind stated, the shapes do not fit, or there is a NaN.

    Examples
    --------
    >>> import numpy as np
    >>> log_probs = np.log([[0.1, 0.9], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]])
    >>> ctc_greedy(log_probs)
    (1, 1)
    """
    batched, steps, blank, alone = _check(log_probs, lengths, blank)
    best = batched.argmax(axis=2)
    found = []
    for b, length in enumerate(steps):
        path = best[:length, b]
        starts = np.flatnonzero(np.diff(path, prepend=-1))
        found.append(tuple(int(label) for label in path[starts] if label != blank))
    return found[0] if alone else found


def ctc_beam_search(
    log_probs: Array,
    lengths: Array | int | None = None,
    *,
    beam_width: int = 16,
    blank: int = 0,
    n_best: int = 1,
    language_model: LanguageModel | None = None,
    weight: float = 1.0,
    insertion_bonus: float = 0.0,
    least_log_prob: float = -math.inf,
) -> list[list[Hypothesis]] | list[Hypothesis]:
    """The likeliest labellings, by prefix beam search.

    A labelling is ranked by ``log p_ctc(labels) + weight * log p_lm(labels) + insertion_bonus *
    len(labels)``. Exact where `beam_width` is at least the number of prefixes that are possible.

    Parameters
    ----------
    log_probs : ndarray (T, N, C) or (T, C)
        Log-probabilities, as log_softmax gives them, of float32 or float64. -inf is a class that
        cannot be.
    lengths : ndarray of integers (N,), optional
        Steps of each sequence, by default T; what lies past them is never read. Beside log_probs
        (T, C) an int.
    beam_width : int, default 16
        Prefixes that are kept at each step.
    blank : int, default 0
        The class that stands for no label.
    n_best : int, default 1
        How many labellings to return, `beam_width` at most.
    language_model : callable, optional
        ``language_model(prefix, label)`` returns the log-probability of `label` after the tuple of
        labels `prefix`, from all labels but the blank. It is called once for each pair in a
        sequence. -inf forbids the label.
    weight : float, default 1.0
        Of the language model's log-probabilities.
    insertion_bonus : float, default 0.0
        Added for each label; against the language model, which prefers few labels.
    least_log_prob : float, default -inf
        No prefix gets a label that is less probable than this at the step: with many classes the
        search, and a language model above all, has much less to do.

    Returns
    -------
    list of lists of Hypothesis
        For each sequence `n_best` of them, the best one first, or fewer if no more are possible.
        One list for log_probs (T, C).

    Raises
    ------
    TypeError, ValueError
        If an argument is no array of the kind stated, the shapes do not fit, there is a NaN or
        +inf, or the language model returns one.

    Examples
    --------
    The best path is two blanks; but three paths mean [1], and are likelier together.

    >>> import numpy as np
    >>> log_probs = np.log([[0.6, 0.4], [0.6, 0.4]])
    >>> best, second = ctc_beam_search(log_probs, n_best=2)
    >>> best.labels, round(float(np.exp(best.log_prob)), 2)
    ((1,), 0.64)
    >>> second.labels, ctc_greedy(log_probs)
    ((), ())
    """
    batched, steps, blank, alone = _check(log_probs, lengths, blank)
    width = check_size("beam_width", beam_width)
    n_best = check_size("n_best", n_best, most=width)
    if language_model is not None and not callable(language_model):
        raise TypeError(f"language_model: expected a callable, got {language_model!r}")
    weight = check_number("weight", weight)
    bonus = check_number("insertion_bonus", insertion_bonus)
    least = -math.inf
    if least_log_prob != -math.inf:
        least = check_number("least_log_prob", least_log_prob)
    found = []
    for b, length in enumerate(steps):
        rows = np.array(batched[:length, b], np.float64, order="C")
        if (rows == math.inf).any():
            raise ValueError("log_probs: expected no +inf, got one")
        beam = _Beam(width, batched.shape[2], blank, bonus, least)
        if language_model is None:
            beam.advance(rows)
        else:
            for row in rows:
                beam.advance_with(row, language_model, weight)
        found.append(beam.hypotheses()[:n_best])
    return found[0] if alone else found


def _check(log_probs: object, lengths: object, blank: object) -> tuple[Array, list[int], int, bool]:
    """Return log_probs (T, N, C), the steps of each sequence, blank, and whether it is one."""
    alone = np.ndim(log_probs) == 2  # type: ignore[arg-type]
    array = check_floats("log_probs", log_probs, ("T", "C") if alone else ("T", "N", "C"))
    batched = array[:, None] if alone else array
    steps, batch, classes = batched.shape
    blank = check_size("blank", blank, least=0, most=classes - 1)
    if lengths is None:
        counts = [steps] * batch
    elif alone and not isinstance(lengths, np.ndarray):
        counts = [check_size("lengths", lengths, least=0, most=steps)]
    else:
        counts = check_lengths(lengths, batch, steps).tolist()
    for b, count in enumerate(counts):
        if np.isnan(batched[:count, b]).any():
            raise ValueError(f"log_probs: expected numbers, got a NaN in sequence {b}")
    return batched, counts, blank, alone


class _Beam:
    """The prefixes of one sequence that are followed; see _core/beam.pyx."""

    def __init__(self, width: int, classes: int, blank: int, bonus: float, least: float) -> None:
        self._blank, self._bonus, self._least = blank, bonus, least
        self._tree = np.array([_ROOT])
        self._added = np.zeros(1)
        self._beam = np.full(width, -1)
        self._beam[0] = 0
        self._probs = np.full((width, 3), -math.inf)
        self._probs[0, 0] = 0  # nothing yet is what ends in a blank
        self._counts = np.array([1, 1])
        self._scratch = np.empty((width, 3)), np.empty((width, 2), int), np.zeros(classes, np.uint8)
        # What a language model adds for each next label, NaN where it was not asked, by node.
        self._extra: dict[int, Array] = {}
        self._prefixes: dict[int, Labels] = {0: ()}

    def advance(self, rows: Array, extra: Array | None = None) -> None:
        """Take steps of log-probabilities (steps, C)."""
        for first in range(0, len(rows), _STEPS):
            part = rows[first : first + _STEPS]
            self._make_room(len(part))
            _compiled.advance(
                self._tree, self._added, self._beam, self._probs, self._counts, part, extra,
                self._bonus, self._least, self._blank, *self._scratch,
            )  # fmt: skip

    def advance_with(self, row: Array, language_model: LanguageModel, weight: float) -> None:
        """Take one step, and ask a language model for each prefix with each next label."""
        candidates = np.flatnonzero((row >= self._least) & (row > -math.inf)).tolist()
        labels = [label for label in candidates if label != self._blank]
        extra = np.empty((int(self._counts[0]), len(row)))
        for i, node in enumerate(self._beam[: len(extra)].tolist()):
            asked = self._extra.setdefault(node, np.full(len(row), np.nan))
            for label in labels:
                if math.isnan(asked[label]):
                    value = float(language_model(self._prefix(node), label))
                    if math.isnan(value) or value == math.inf:
                        raise ValueError(
                            f"language_model: expected a log-probability, got {value} for label "
                            f"{label} after {self._prefix(node)}"
                        )
                    # Not 0 · -inf: a label that is forbidden stays so at any weight.
                    asked[label] = value if value == -math.inf else weight * value + self._bonus
            # What cannot be was not asked for, and adds nothing.
            extra[i] = np.where(np.isnan(asked), 0.0, asked)
        self.advance(row[None], extra)

    def hypotheses(self) -> list[Hypothesis]:
        """All that are in the beam, the best one first; of equal ones the shortest."""
        found = []
        for i, node in enumerate(self._beam[: self._counts[0]].tolist()):
            log_prob = float(np.logaddexp(self._probs[i, 0], self._probs[i, 1]))
            score = log_prob + float(self._added[node])
            found.append(Hypothesis(self._prefix(node), score, log_prob))
        return sorted(found, key=lambda one: (-one.score, len(one.labels), one.labels))

    def _prefix(self, node: int) -> Labels:
        """The labels of a node, as its parent's and one more where these are known."""
        labels = []
        at = node
        while at not in self._prefixes:
            parent, label = self._tree[at, :2].tolist()
            labels.append(label)
            at = parent
        if labels:
            self._prefixes[node] = (*self._prefixes[at], *reversed(labels))
        return self._prefixes[node]

    def _make_room(self, steps: int) -> None:
        least = int(self._counts[1]) + steps * len(self._beam)
        if least > len(self._tree):
            more = max(least, 2 * len(self._tree)) - len(self._tree)
            self._tree = np.concatenate([self._tree, np.empty((more, len(_ROOT)), int)])
            self._added = np.concatenate([self._added, np.empty(more)])
