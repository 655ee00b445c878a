"""What the translator says of a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastlstm._validate import Array
from fastlstm.tasks.translation import plot


@dataclass(frozen=True)
class Translation:
    """One translation of one sentence.

    Attributes
    ----------
    text : str
    log_prob : float
        Of its tokens and its end, in nats.
    score : float
        By which translations of a sentence are ordered:
        log_prob / (tokens + 1) ** length_penalty.
    source_tokens, tokens : tuple of str
        What was read and what was said, in pieces; a blank before a word belongs to its first
        piece.
    attention : ndarray (tokens + 1, source_tokens + 1), or None
        What part of each source token was looked at for each token; the last ones of both are the
        ends. Rows sum to 1.
    """

    text: str
    log_prob: float
    score: float
    source_tokens: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    attention: Array | None = None

    def plot(self) -> Any:
        """Draw the attention: a column for each source token, a row for each that was said.

        A character that no installed font has is shown as its number, such as U+65E5.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ValueError
            If there is no attention: `translate` gives it with `return_attention`.
        ImportError
            If matplotlib is not installed.
        """
        if self.attention is None:
            raise ValueError("attention: there is none; translate with return_attention=True")
        return plot.figure(self.attention, self.source_tokens, self.tokens)
