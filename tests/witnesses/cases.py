"""Random LSTMs with inputs, states and incoming gradients, each drawn from a seed.

NumPy's RandomState draws them: its stream is frozen for ever, so a case is its seed, and only what
PyTorch makes of it needs keeping. All numbers are float32 values, so that a case means the same in
both precisions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
State = tuple[Array, Array]

# Half a unit in the last place of a float32, as a part of the number itself.
ROUNDING = 2.0**-24
# The most that a result may move, by `relative_error`, when each number of its case is moved by
# ROUNDING: a fifth of the bound that float32 has to keep.
#
# Some cases move more: their result is the small remainder of large terms that cancel, and it has
# few elements, so that nothing larger stands beside it. Arithmetic in float32 rounds at every
# step, so the remainder means little in it, whoever computes: of 400 small cases 28 are like that,
# and PyTorch's own float32 is up to 2.4e-5 away from its float64 in them (as is ours, within 1e-7
# of PyTorch's for seed 229). In the other 372, and in 383 of 400 large ones, neither is further
# away than 4e-6. Cases beyond the limit are compared in float64 alone.
WELL_CONDITIONED = 2e-6


@dataclass(frozen=True)
class Extents:
    """The largest sizes that cases may have, the smallest being 1."""

    steps: int
    batch: int
    input_size: int
    hidden_size: int


SMALL = Extents(steps=6, batch=4, input_size=5, hidden_size=4)
LARGE = Extents(steps=40, batch=20, input_size=50, hidden_size=70)


@dataclass
class Case:
    """One random model and one batch for it; see `draw`."""

    seed: int
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    bidirectional: bool
    batched: bool
    steps: int
    batch: int
    lengths: Array | None = None
    weights: dict[str, Array] = field(default_factory=dict)
    x: Array = field(default_factory=lambda: np.empty(0))
    state: State | None = None
    d_output: Array | None = None
    d_state: State | None = None

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """Features of h in one direction."""
        return self.hidden_size

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Of c, and of h if that is as large."""
        return self._state_shape(self.hidden_size)

    @property
    def h_shape(self) -> tuple[int, ...]:
        return self._state_shape(self.output_size)

    def _state_shape(self, features: int) -> tuple[int, ...]:
        runs = self.num_layers * self.directions
        return (runs, self.batch, features) if self.batched else (runs, features)

    def sequence_shape(self, features: int) -> tuple[int, ...]:
        if not self.batched:
            return (self.steps, features)
        axes = (self.batch, self.steps) if self.batch_first else (self.steps, self.batch)
        return (*axes, features)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """torch.nn.LSTM's parameters, as its documentation lists them."""
        rows, shapes = 4 * self.hidden_size, {}
        for layer in range(self.num_layers):
            width = self.directions * self.hidden_size if layer else self.input_size
            for suffix in (f"_l{layer}", f"_l{layer}_reverse")[: self.directions]:
                shapes[f"weight_ih{suffix}"] = (rows, width)
                shapes[f"weight_hh{suffix}"] = (rows, self.hidden_size)
                if self.bias:
                    shapes[f"bias_ih{suffix}"] = (rows,)
                    shapes[f"bias_hh{suffix}"] = (rows,)
        return shapes

    def result_shapes(self) -> dict[str, tuple[int, ...]]:
        """What is compared, in the order in which a witness file holds it."""
        shapes: dict[str, tuple[int, ...]] = {
            "output": self.sequence_shape(self.directions * self.output_size),
            "h_n": self.h_shape,
            "c_n": self.state_shape,
            "d_x": self.sequence_shape(self.input_size),
        }
        if self.state is not None:
            shapes |= {"d_h_0": self.h_shape, "d_c_0": self.state_shape}
        return shapes | self.weight_shapes()

    def size(self) -> int:
        return sum(math.prod(shape) for shape in self.result_shapes().values())

    def describe(self) -> str:
        lengths = None if self.lengths is None else self.lengths.tolist()
        return (
            f"seed={self.seed} I={self.input_size} H={self.hidden_size} layers={self.num_layers} "
            f"T={self.steps} B={self.batch} bias={self.bias} batch_first={self.batch_first} "
            f"bidirectional={self.bidirectional} batched={self.batched} "
            f"state={self.state is not None} lengths={lengths}"
        )


def draw(seed: int, largest: Extents) -> Case:
    """The case of a seed: sizes spread over all magnitudes, every option about half of the time."""
    rng = np.random.RandomState(seed)

    def size(most: int) -> int:
        return int(math.exp(rng.uniform(0, math.log(most + 1))))

    def flag() -> bool:
        return bool(rng.randint(2))

    def values(shape: tuple[int, ...], scale: float = 1.0) -> Array:
        return (scale * rng.standard_normal(shape)).astype(np.float32).astype(np.float64)

    batched = bool(rng.randint(8))
    case = Case(
        seed=seed,
        input_size=size(largest.input_size),
        hidden_size=size(largest.hidden_size),
        num_layers=int(rng.choice([1, 1, 2, 3])),
        bias=bool(rng.randint(4)),
        batch_first=flag(),
        bidirectional=flag(),
        batched=batched,
        steps=size(largest.steps),
        batch=size(largest.batch) if batched else 1,
    )
    if batched and flag():
        case.lengths = rng.randint(1, case.steps + 1, case.batch).astype(np.int64)
    # Wide enough to bend every gate, narrow enough to leave none saturated.
    scale = 1.2 / math.sqrt(case.hidden_size)
    case.weights = {name: values(shape, scale) for name, shape in case.weight_shapes().items()}
    case.x = values(case.sequence_shape(case.input_size))
    if rng.randint(4):
        case.state = values(case.state_shape), values(case.state_shape)
    arriving = int(rng.choice([0, 0, 0, 1, 2]))  # through both, only the output, only the states
    if arriving != 2:
        case.d_output = values(case.sequence_shape(case.directions * case.hidden_size))
    if arriving != 1:
        case.d_state = values(case.state_shape), values(case.state_shape)
    return case


def moved(case: Case, k: int) -> Case:
    """The case with each of its numbers ROUNDING up or down, differently for each k."""
    rng = np.random.RandomState(10_000 * k + case.seed)

    def move(array: Array) -> Array:
        up_or_down: Array = rng.choice([-1.0, 1.0], array.shape)
        return array * (1 + ROUNDING * up_or_down)

    return replace(
        case,
        weights={name: move(array) for name, array in case.weights.items()},
        x=move(case.x),
        state=case.state and (move(case.state[0]), move(case.state[1])),
        d_output=None if case.d_output is None else move(case.d_output),
        d_state=case.d_state and (move(case.d_state[0]), move(case.d_state[1])),
    )
