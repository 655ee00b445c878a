"""Batches for CTC from seeds: steps that are short, lengths of all kinds, labels that repeat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class CTCCase:
    """What ctc_loss takes; some sequences have more labels than their steps can hold."""

    logits: Array  # (T, N, C) of float64
    targets: Array  # (N, S), padded with what is no label
    input_lengths: Array
    target_lengths: Array
    blank: int

    def concatenated(self) -> Array:
        rows = zip(self.targets, self.target_lengths, strict=True)
        return np.concatenate([row[:length] for row, length in rows])


def draw_ctc(seed: int) -> CTCCase:
    rng = np.random.default_rng([seed, 20060625])
    steps, batch, classes = (int(rng.integers(1, most)) for most in (13, 5, 7))
    classes += 1
    blank = int(rng.integers(classes))
    longest = int(rng.integers(1, steps + 2))
    labels = np.delete(np.arange(classes), blank)
    # Few labels repeat often.
    targets = rng.choice(labels[: int(rng.integers(1, classes))], (batch, longest))
    target_lengths = rng.integers(0, longest + 1, batch)
    targets[np.arange(longest) >= target_lengths[:, None]] = -1
    return CTCCase(
        logits=3.0 ** rng.integers(-2, 3) * rng.standard_normal((steps, batch, classes)),
        targets=targets,
        input_lengths=np.maximum(rng.integers(0, steps + 1, batch), steps * rng.integers(2)),
        target_lengths=target_lengths,
        blank=blank,
    )
