"""CTC's loss and its gradient, float32: a batch of utterances, 30 characters.

The shape is that of a small speech recogniser: 200 steps, 16 sequences, 40 labels each.
"""
# ruff: noqa: ARG002  (asv hands the parameters to every method)

from __future__ import annotations

import numpy as np

import fastlstm

STEPS, BATCH, CLASSES, LABELS = 200, 16, 30, 40


class CTC:
    """Random logits and labels; every sequence is full."""

    params = ((1, 2),)
    param_names = ("threads",)
    number = 1
    repeat = (10, 200, 1.0)  # samples in a round: at least, at most, and for how many seconds

    def setup(self, threads: int) -> None:
        if not hasattr(fastlstm, "ctc_loss"):
            raise NotImplementedError("ctc_loss")
        fastlstm.set_num_threads(threads)
        rng = np.random.default_rng(0)
        self.logits = rng.standard_normal((STEPS, BATCH, CLASSES), dtype=np.float32)
        self.targets = rng.integers(1, CLASSES, (BATCH, LABELS))
        self.lengths = np.full(BATCH, STEPS), np.full(BATCH, LABELS)
        self.time_ctc_loss(threads)

    def time_ctc_loss(self, threads: int) -> None:
        """The loss, and the gradient of the logits."""
        fastlstm.ctc_loss(self.logits, self.targets, *self.lengths)
