"""The upper end of a word language model, float32: Linear onto 10,000 words, and its loss.

On such a vocabulary most of a training step's time goes here, not into the LSTM.
"""
# ruff: noqa: ARG002  (asv hands the parameters to every method)

from __future__ import annotations

import numpy as np

import fastlstm

WORDS = 10_000
# T·B rows (35 steps of 20 sequences, as Zaremba, Sutskever & Vinyals 2014), and features
ROWS, FEATURES = 700, 200


class Words:
    """700 rows of 200 features, as an LSTM layer would hand them up."""

    params = ((1, 2),)
    param_names = ("threads",)
    number = 1
    repeat = (5, 100, 2.0)  # samples in a round: at least, at most, and for how many seconds

    def setup(self, threads: int) -> None:
        if not hasattr(fastlstm, "softmax_cross_entropy"):
            raise NotImplementedError("softmax_cross_entropy")
        fastlstm.set_num_threads(threads)
        rng = np.random.default_rng(0)
        self.linear = fastlstm.Linear(FEATURES, WORDS, rng=rng)
        self.x = rng.standard_normal((ROWS, FEATURES), dtype=np.float32)
        self.targets = rng.integers(0, WORDS, ROWS)
        self.logits = self.linear(self.x)

    def time_softmax_cross_entropy(self, threads: int) -> None:
        """The loss, and the gradient of the logits."""
        fastlstm.softmax_cross_entropy(self.logits, self.targets)

    def time_training(self, threads: int) -> None:
        """Linear forward, the loss, and Linear backward."""
        logits, tape = self.linear.forward(self.x)
        _, d_logits = fastlstm.softmax_cross_entropy(logits, self.targets)
        self.linear.backward(tape, d_logits)
