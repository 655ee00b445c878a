"""Cases for keras.layers.LSTM in Keras' layout, and what it computed for them.

Numbers come from NumPy's RandomState, whose stream is frozen for ever. All are float32 values, so
a case means the same to both dtypes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FILE = Path(__file__).with_name("keras_cases.npz")
BATCH, STEPS, INPUTS, HIDDEN = 5, 6, 3, 4
DIRECTIONS = ["forward", "go_backwards", "bidirectional"]
LENGTHS = np.array([6, 3, 1, 0, 4])


@dataclass(frozen=True)
class KerasCase:
    """A stack of keras.layers.LSTM, or of Bidirectional ones, and a batch for it."""

    direction: str
    mask: str
    state: bool
    num_layers: int
    use_bias: bool

    def __str__(self) -> str:
        options = "-state" * self.state + "-no_bias" * (not self.use_bias)
        return f"{self.num_layers}-{self.direction}-{self.mask}{options}"

    @property
    def runs(self) -> int:
        """Directions of all layers."""
        return self.num_layers * (2 if self.direction == "bidirectional" else 1)

    @property
    def width(self) -> int:
        return HIDDEN * self.runs // self.num_layers

    @cached_property
    def arrays(self) -> dict[str, Array]:
        """x (B, T, I); states (runs, 2, B, H), h then c; d_output, d_states; and the weights."""
        rng = np.random.RandomState(CASES.index(self))

        def normal(*shape: int) -> Array:
            return rng.standard_normal(shape).astype(np.float32)

        arrays = {
            "x": normal(BATCH, STEPS, INPUTS),
            "states": normal(self.runs, 2, BATCH, HIDDEN),
            "d_output": normal(BATCH, STEPS, self.width),
            "d_states": normal(self.runs, 2, BATCH, HIDDEN),
        }
        for k in range(self.runs):
            width = INPUTS if k < self.runs // self.num_layers else self.width
            arrays[f"kernel_{k}"] = 0.5 * normal(width, 4 * HIDDEN)
            arrays[f"recurrent_kernel_{k}"] = 0.5 * normal(HIDDEN, 4 * HIDDEN)
            if self.use_bias:
                arrays[f"bias_{k}"] = 0.5 * normal(4 * HIDDEN)
        return arrays

    @cached_property
    def valid(self) -> Array | None:
        """The mask (B, T)."""
        steps = np.arange(STEPS)
        right: Array = steps < LENGTHS[:, np.newaxis]
        if self.mask == "right":
            return right
        if self.mask == "left":
            return right[:, ::-1]
        if self.mask == "holes":
            holes = np.random.RandomState(1).random_sample((BATCH, STEPS)) < 0.5
            holes[0], holes[1] = [1, 0, 0, 1, 0, 1], [0, 1, 1, 0, 1, 0]
            return holes
        return None

    def weights(self) -> list[str]:
        return [name for name in self.arrays if "kernel" in name or "bias" in name]

    def result_shapes(self) -> dict[str, tuple[int, ...]]:
        """What is compared; see `make_keras_cases.run_keras`."""
        states = self.arrays["states"].shape
        shapes = {
            "output": (BATCH, STEPS, self.width),
            "last": (BATCH, self.width),
            "states": states,
            "stateful": (BATCH, STEPS, self.width),
            "d_x": (BATCH, STEPS, INPUTS),
        }
        if self.state:
            shapes["d_states"] = states
        return shapes | {f"d_{name}": self.arrays[name].shape for name in self.weights()}


def _all_cases() -> Iterator[KerasCase]:
    for k, (direction, mask, state) in enumerate(
        product(DIRECTIONS, ["none", "right", "left", "holes"], [False, True])
    ):
        # Above a layer that goes backwards, Keras has time turned round and the mask not.
        for num_layers in (1,) if direction == "go_backwards" else (1, 2):
            yield KerasCase(direction, mask, state, num_layers, use_bias=(k + num_layers) % 3 > 0)


CASES = list(_all_cases())


def stored_results(case: KerasCase) -> dict[str, Array]:
    """What Keras computed, in float32."""
    with np.load(FILE, allow_pickle=False) as file:
        values = file["values"]
    sizes = [sum(map(_size, other.result_shapes().values())) for other in CASES]
    start = sum(sizes[: CASES.index(case)])
    results = {}
    for name, shape in case.result_shapes().items():
        results[name] = values[start : start + _size(shape)].reshape(shape)
        start += _size(shape)
    return results


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))
