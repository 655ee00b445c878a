"""Changes of training sequences that leave their labels what they are, anew in each epoch.

An estimator's `augment` is any callable ``augment(sequence, rng)`` that returns another sequence
(T', F) for one (T, F) of float64, which it must not write to; these are two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastlstm._validate import Array, check_number, check_size

Augment = Callable[[Array, np.random.Generator], Array]

# The columns of `fastlstm.tasks.features.strokes`.
_STROKES = 6


@dataclass(frozen=True)
class SpecAugment:
    """Hide some bands and some stretches of time behind the recording's mean.

    Park et al. 2019, "SpecAugment: A simple data augmentation method for automatic speech
    recognition", without its warping of time. For log-mel features, whose columns are neighbours.

    Parameters
    ----------
    feature_masks, time_masks : int
        How many of each.
    feature_width, time_width : int
        The widest of each (F and T of the paper); widths are drawn from 0 on, evenly.
    time_part : float
        No stretch is longer than this part of the recording (p of the paper).
    """

    feature_masks: int = 2
    feature_width: int = 8
    time_masks: int = 2
    time_width: int = 10
    time_part: float = 0.2

    def __post_init__(self) -> None:
        for name in ("feature_masks", "feature_width", "time_masks", "time_width"):
            check_size(name, getattr(self, name), least=0)
        check_number("time_part", self.time_part, least=0, most=1)

    def __call__(self, sequence: Array, rng: np.random.Generator) -> Array:
        """A copy (T, F) with masks."""
        steps, features = sequence.shape
        masked = sequence.copy()
        if not steps:
            return masked
        mean = sequence.mean(axis=0)
        for _ in range(self.feature_masks):
            where = _stretch(rng, features, self.feature_width)
            masked[:, where] = mean[where]
        for _ in range(self.time_masks):
            longest = min(self.time_width, int(self.time_part * steps))
            masked[_stretch(rng, steps, longest)] = mean
        return masked


@dataclass(frozen=True)
class StrokeDistortion:
    """Draw the same character with another hand: slant, turn and size, and a trembling pen.

    For the features of `fastlstm.tasks.features.strokes`. Simard, Steinkraus & Platt 2003, "Best
    practices for convolutional neural networks applied to visual document analysis", do this to
    pictures.

    Parameters
    ----------
    rotation, shear, scale, shift, tremble : float
        Deviations of what is drawn from normal distributions: radians; the tangent of the slant;
        logarithms of width and height; and parts of the drawing's size.
    reverse : float
        Probability that a stroke is drawn from its other end.
    reorder : float
        Probability that all strokes come in a random order.
    """

    rotation: float = 0.15
    shear: float = 0.2
    scale: float = 0.15
    shift: float = 0.03
    tremble: float = 0.005
    reverse: float = 0.1
    reorder: float = 0.1

    def __post_init__(self) -> None:
        for name in ("rotation", "shear", "scale", "shift", "tremble"):
            check_number(name, getattr(self, name), least=0)
        for name in ("reverse", "reorder"):
            check_number(name, getattr(self, name), least=0, most=1)

    def __call__(self, sequence: Array, rng: np.random.Generator) -> Array:
        """A distorted copy (T, 6).

        Raises
        ------
        ValueError
            If these are no features of strokes.
        """
        if sequence.shape[1] != _STROKES:
            raise ValueError(
                f"sequence: expected {_STROKES} features, as of strokes, got {sequence.shape[1]}"
            )
        matrix = random_slant(rng, self.rotation, self.shear)
        matrix = matrix * np.exp(rng.normal(0, self.scale, 2))
        distorted = self._rearranged(sequence, rng)
        places = distorted[:, 4:]
        places[:] = places @ matrix.T + rng.normal(0, self.shift, 2)
        places += rng.normal(0, self.tremble, places.shape)
        distorted[:, :2] = np.diff(places, axis=0, prepend=places[:1])
        return distorted

    def _rearranged(self, sequence: Array, rng: np.random.Generator) -> Array:
        """A copy with strokes in another order, or drawn from the other end."""
        strokes = np.split(sequence, np.flatnonzero(sequence[1:, 2]) + 1)
        if len(strokes) > 1 and rng.random() < self.reorder:
            strokes = [strokes[k] for k in rng.permutation(len(strokes))]
        turned = [s[::-1] if rng.random() < self.reverse else s for s in strokes]
        copy = np.concatenate(turned)
        for marks in (copy[:, 2], copy[:, 3]):
            marks[:] = 0
        ends = np.cumsum([len(s) for s in strokes])
        copy[ends - 1, 3] = 1
        copy[np.concatenate([[0], ends[:-1]]), 2] = 1
        return copy


def random_slant(rng: np.random.Generator, rotation: float, shear: float) -> Array:
    """What slants and turns the places of a pen, for an `augment` of one's own.

    Parameters
    ----------
    rng : numpy.random.Generator
    rotation, shear : float
        As StrokeDistortion has them.

    Returns
    -------
    ndarray (2, 2) of float64
        M of ``places @ M.T``, for places (n, 2).
    """
    turn = rng.normal(0, rotation)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    slanted = np.array([[1, rng.normal(0, shear)], [0, 1]])
    matrix: Array = turned @ slanted
    return matrix


def _stretch(rng: np.random.Generator, count: int, widest: int) -> slice:
    """A stretch of 0 to `widest` places, anywhere among `count`."""
    width = int(rng.integers(min(widest, count) + 1))
    start = int(rng.integers(count - width + 1))
    return slice(start, start + width)
