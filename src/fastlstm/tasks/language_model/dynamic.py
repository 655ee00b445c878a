"""Dynamic evaluation: a language model that goes on learning from what it has just scored.

Krause, Kahembwe, Murray & Renals 2018, "Dynamic evaluation of neural sequence models". After each
window of the text, with gradient g of its mean loss and the weights θ₀ from before::

    θ = θ - lr · g + decay · (θ₀ - θ)                                      plain

    θ = θ - lr · g / (√m + ε) + min(1, decay · r) ⊙ (θ₀ - θ)               by root mean squares

where m is the mean of g² over windows of the training text, ε = 0.001, and r is √m over its mean
over all weights: those that learnt much in training learn less now, and forget it sooner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fastlstm._validate import Array
from fastlstm.tasks._base.batches import StreamBatches
from fastlstm.tasks.language_model.network import LanguageNetwork, State

_EPS = 1e-3
# Windows of the training text that give the mean squares.
_WINDOWS = 500


@dataclass(frozen=True)
class Adaptation:
    """How the weights follow a text.

    Attributes
    ----------
    learning_rate, decay : float
    root : dict of str to ndarray, or None
        √m by parameter.
    """

    learning_rate: float
    decay: float
    root: Mapping[str, Array] | None = None

    def apply(
        self, network: LanguageNetwork, first: Mapping[str, Array], grads: Mapping[str, Array]
    ) -> None:
        """One step from the present weights, with those from before as `first`."""
        mean = self._mean_root()
        with network.parameters().updating() as weights:
            for name, weight in weights.items():
                change, pull = grads[name] * -self.learning_rate, first[name] - weight
                if self.root is None:
                    pull *= self.decay
                else:
                    root = self.root[name]
                    change /= root + _EPS
                    pull *= np.minimum(root * (self.decay / mean), 1)
                weight += change
                weight += pull

    def _mean_root(self) -> float:
        if self.root is None:
            return 1.0
        total = sum(float(root.sum(dtype=np.float64)) for root in self.root.values())
        return max(total / sum(root.size for root in self.root.values()), 1e-30)


def root_mean_squares(network: LanguageNetwork, batches: StreamBatches) -> dict[str, Array]:
    """√(mean of g²) of each parameter over the windows of a text."""
    squares = {name: np.zeros_like(w) for name, w in network.parameters().items()}
    count, state = 0, None
    for batch in batches[:_WINDOWS]:
        _, grads, state = network.loss_and_grads(batch, state, None)
        for name, grad in grads.items():
            squares[name] += np.square(grad)
        count += 1
    return {name: np.sqrt(total / count) for name, total in squares.items()}


def followed(
    network: LanguageNetwork,
    first: Mapping[str, Array],
    ids: Array,
    window: int,
    adaptation: Adaptation,
) -> Iterator[float]:
    """Log-probability of each window of ids (N,), the first of which is only read.

    `first` are the weights from before; the network's are then those that followed the text.
    """
    state: State | None = None
    for start in range(0, len(ids) - 1, window):
        part = ids[start : start + window + 1, np.newaxis]
        loss, grads, state = network.loss_and_grads((part[:-1], part[1:]), state, None)
        yield -loss * int((part[1:] < network.outputs).sum())
        adaptation.apply(network, first, grads)
