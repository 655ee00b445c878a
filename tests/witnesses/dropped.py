"""Cases with dropout, and the masks that a given stream of random numbers means in them.

Random numbers come from NumPy's RandomState, whose stream is frozen for ever, through a Generator
that hands them out. So the masks can be written down here, from the documented order alone: those
of a layer's input, then those of its recurrent weights, layer by layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.witnesses.cases import SMALL, Array, Case, draw


class FrozenGenerator(np.random.Generator):
    """Hands out the uniform numbers of RandomState(seed) and nothing else."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.PCG64(0))
        self.stream = np.random.RandomState(seed)

    def random(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        assert out is None
        return self.stream.random_sample(size).astype(dtype)


@dataclass(frozen=True)
class Dropped:
    """A case, and the probabilities of its dropouts."""

    case: Case
    input_dropout: float
    dropout: float
    locked_dropout: bool
    weight_dropout: float

    def options(self) -> dict[str, Any]:
        """As our constructor takes them."""
        return {name: value for name, value in vars(self).items() if name != "case"}


@dataclass(frozen=True)
class LayerMasks:
    """Of one layer: on its input (broadcast over steps if locked), and on each weight_hh."""

    on_input: Array | None
    on_weights: list[Array | None]


def draw_dropped(seed: int) -> Dropped:
    """The case of a seed, with about half of the dropouts, and one at the least."""
    case, rng = draw(seed, SMALL), np.random.RandomState(70_000 + seed)
    while True:
        dropped = Dropped(
            case,
            input_dropout=float(rng.choice([0.0, 0.4])),
            dropout=float(rng.choice([0.0, 0.5, 0.5, 0.5])) if case.num_layers > 1 else 0.0,
            # Step by step, a mask of unequal lengths has a layout that is nobody's business.
            locked_dropout=bool(rng.randint(2)) or case.lengths is not None,
            weight_dropout=float(rng.choice([0.0, 0.3])),
        )
        if dropped.input_dropout or dropped.dropout or dropped.weight_dropout:
            return dropped


def masks_of(dropped: Dropped) -> list[LayerMasks]:
    """The masks of each layer that FrozenGenerator(case.seed) draws."""
    case, stream = dropped.case, np.random.RandomState(dropped.case.seed)

    def mask(shape: tuple[int, ...], p: float) -> Array | None:
        if not p:
            return None
        return (stream.random_sample(shape).astype(np.float32) >= p) / (1 - p)

    def on_input(layer: int) -> Array | None:
        if layer == 0:
            p, width, locked = dropped.input_dropout, case.input_size, True
        else:
            width = case.directions * case.hidden_size
            p, locked = dropped.dropout, dropped.locked_dropout
        factors = mask((1 if locked else case.steps, case.batch, width), p)
        if factors is None:
            return None
        if not case.batched:
            return factors[:, 0]
        return factors.swapaxes(0, 1) if case.batch_first else factors

    square = (4 * case.hidden_size, case.hidden_size)
    return [
        LayerMasks(
            on_input(layer),
            [mask(square, dropped.weight_dropout) for _ in range(case.directions)],
        )
        for layer in range(case.num_layers)
    ]
