"""What made a text's classifier say so: what each token adds to the log-odds of a class.

Integrated gradients (Sundararajan, Taly & Yan 2017, "Axiomatic attribution for deep networks"):
the gradient of the log-odds is integrated along the straight line from a text of which no word is
known to the text as it is. What all tokens add up to is then the difference of the two log-odds,
whatever the network (their axiom of completeness); what the integral's sum misses of it is in the
result.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm._validate import Array

# Gradients at so many points at first; twice as many until the sum is close enough, or too many.
_FIRST, _MOST = 16, 512
# What a sum may miss of the difference: this part of it, or this much where it is small.
_RELATIVE, _ABSOLUTE = 0.01, 0.005
# Points whose gradients are taken together: steps of all their sequences.
_AT_ONCE = 1 << 14
# Of the 256 colours of a terminal, from pale to strong.
_GREENS, _REDS = (194, 157, 120, 82), (224, 217, 210, 203)


@dataclass(frozen=True)
class Token:
    """A word, piece or character.

    Attributes
    ----------
    text : str
        As it stands in the text.
    start, stop : int
        Where: ``explanation.text[start:stop]``.
    contribution : float
        What it adds to the log-odds of the label: above 0 it speaks for the label, below against.
    """

    text: str
    start: int
    stop: int
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """Why a text has a label.

    Attributes
    ----------
    text : str
    label : object
        The class that is explained.
    probability : float
        Of the label.
    log_odds : float
        log(p / (1 - p)) of that probability.
    baseline : float
        The log-odds of a text as long, of which no word is known.
    tokens : tuple of Token
        In the order of the text. Their contributions add up to ``log_odds - baseline``, but for
        `error`.
    error : float
        ``log_odds - baseline`` less the sum of the contributions.
    """

    text: str
    label: Any
    probability: float
    log_odds: float
    baseline: float
    tokens: tuple[Token, ...]
    error: float

    def __str__(self) -> str:
        """The label, and the tokens with their contributions, the largest first."""
        head = f"{self.label}: {self.probability:.3f} (log-odds {self.log_odds:+.2f})"
        ranked = sorted(self.tokens, key=lambda token: -abs(token.contribution))
        lines = [f"{token.contribution:+8.3f}  {token.text}" for token in ranked]
        return "\n".join([head, *lines, f"{self.baseline:+8.3f}  (no word known)"])

    def to_terminal(self) -> str:
        """The text for a terminal of 256 colours: green speaks for the label, red against."""

        def paint(text: str, strength: float) -> str:
            colours = _GREENS if strength > 0 else _REDS
            place = min(int(abs(strength) * len(colours)), len(colours) - 1)
            return f"\x1b[30;48;5;{colours[place]}m{text}\x1b[0m"

        return self._painted(paint, str)

    def to_html(self) -> str:
        """The text as HTML: green speaks for the label, red against; a notebook shows it."""

        def paint(text: str, strength: float) -> str:
            colour = "0,150,0" if strength > 0 else "210,0,0"
            shade = f"background:rgba({colour},{0.6 * abs(strength):.2f})"
            return f'<span style="{shade}">{html.escape(text)}</span>'

        label = f"{html.escape(str(self.label))}: {self.probability:.3f}"
        return f"<p><b>{label}</b><br>{self._painted(paint, html.escape)}</p>"

    _repr_html_ = to_html

    def _painted(self, paint: Callable[[str, float], str], plain: Callable[[str], str]) -> str:
        """The whole text, with each token painted by what it adds, from -1 to 1."""
        most = max((abs(token.contribution) for token in self.tokens), default=0.0) or 1.0
        parts, end = [], 0
        for token in self.tokens:
            if token.stop <= end:  # a further piece of the same character
                continue
            parts.append(plain(self.text[end : max(end, token.start)]))
            strength = token.contribution / most
            piece = self.text[max(end, token.start) : token.stop]
            # A hundredth of the most is not to be seen.
            parts.append(paint(piece, strength) if abs(strength) > 0.01 else plain(piece))
            end = token.stop
        return "".join([*parts, plain(self.text[end:])])


def integrated_gradients(
    gradient: Callable[[Array], tuple[Array, Array]], baseline: Array, vectors: Array
) -> Array:
    """What each step of a sequence adds to f(vectors) - f(baseline).

    Parameters
    ----------
    gradient : callable
        Takes sequences (T, B, D), returns f of each, (B,), and its gradient (T, B, D).
    baseline, vectors : ndarray (T, D)

    Returns
    -------
    ndarray (T,) of float64
        Their sum is the difference, to a hundredth of it where 512 points are enough for that.
    """
    way = (vectors - baseline).astype(np.float64)
    ends, _ = gradient(np.stack([baseline, vectors], axis=1))
    difference = float(ends[1]) - float(ends[0])
    points = _FIRST
    while True:
        # Gauss and Legendre's points and weights on (0, 1).
        places, shares = np.polynomial.legendre.leggauss(points)
        mean = _weighted_gradient(gradient, baseline, vectors, (places + 1) / 2, shares / 2)
        added: Array = (way * mean).sum(axis=1)
        missed = abs(difference - float(added.sum()))
        if missed <= max(_RELATIVE * abs(difference), _ABSOLUTE) or points >= _MOST:
            return added
        points *= 2


def _weighted_gradient(
    gradient: Callable[[Array], tuple[Array, Array]],
    baseline: Array,
    vectors: Array,
    places: Array,
    shares: Array,
) -> Array:
    """The sum of gradients (T, D) at places between baseline and vectors, each with its share."""
    total = np.zeros(vectors.shape)
    size = max(1, _AT_ONCE // len(vectors))
    for start in range(0, len(places), size):
        some = slice(start, start + size)
        way = places[some].astype(vectors.dtype)[:, np.newaxis]
        line = baseline[:, np.newaxis] + way * (vectors - baseline)[:, np.newaxis]
        total += np.einsum("tbd,b->td", gradient(line)[1], shares[some])
    return total


def tokens_of(text: str, spans: Sequence[tuple[int, int]], added: Array) -> tuple[Token, ...]:
    """The tokens at these places, with what they add (T,)."""
    return tuple(
        Token(text[start:stop], start, stop, float(value))
        for (start, stop), value in zip(spans, added, strict=True)
    )
