"""What is measured: an LSTM's sizes, and what it is asked to compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import median_time

Array = NDArray[Any]

INFER, TRAIN, STEP = "infer", "train", "step"
MODES = (INFER, TRAIN, STEP)


@dataclass(frozen=True)
class Shape:
    """Sizes of an LSTM in one direction and of its input x (T, B, I)."""

    steps: int
    batch: int
    input_size: int
    hidden_size: int
    num_layers: int = 1

    def __str__(self) -> str:
        text = f"T{self.steps} B{self.batch} I{self.input_size} H{self.hidden_size}"
        return text if self.num_layers == 1 else f"{text} L{self.num_layers}"

    def widths(self) -> list[int]:
        """Features that go into each layer."""
        return [self.input_size] + [self.hidden_size] * (self.num_layers - 1)

    def operations(self, mode: str) -> int:
        """Floating-point operations of the matrix products; backward needs twice forward's."""
        width = sum(features + self.hidden_size for features in self.widths())
        forward = 2 * self.steps * self.batch * 4 * self.hidden_size * width
        return 3 * forward if mode == TRAIN else forward


@dataclass(frozen=True)
class Task:
    """What to compute, in float32.

    INFER: all outputs and the last state. TRAIN: the same, then the gradients of x and of all
    weights. STEP: one step of a stream that carries its state, called from Python.
    """

    shape: Shape
    mode: str
    threads: int

    def arrays(self) -> tuple[dict[str, Array], Array, Array]:
        """Weights under torch's names, x, and the gradient of the output: the same everywhere."""
        shape, rng = self.shape, np.random.RandomState(0)
        rows, bound = 4 * shape.hidden_size, 1 / math.sqrt(shape.hidden_size)
        weights = {}
        for layer, features in enumerate(shape.widths()):
            sizes = {
                "weight_ih": (rows, features),
                "weight_hh": (rows, shape.hidden_size),
                "bias_ih": (rows,),
                "bias_hh": (rows,),
            }
            for name, size in sizes.items():
                weights[f"{name}_l{layer}"] = rng.uniform(-bound, bound, size).astype(np.float32)
        x = rng.standard_normal((shape.steps, shape.batch, shape.input_size))
        d_output = rng.standard_normal((shape.steps, shape.batch, shape.hidden_size))
        return weights, x.astype(np.float32), d_output.astype(np.float32)


@dataclass(frozen=True)
class Job:
    """A task that a library is ready to do."""

    call: Callable[[], object]  # what is timed
    results: Callable[[], Mapping[str, Array]]  # the same, by name
    context: Callable[[], AbstractContextManager[object]] = nullcontext  # of all calls together

    def compute(self) -> dict[str, Array]:
        with self.context():
            return dict(self.results())

    def time(self, seconds: float) -> float:
        with self.context():
            return median_time(self.call, seconds)


def stream_job(
    step: Callable[[], object],
    state: Callable[[], tuple[Array, Array]],
    context: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Job:
    """A job of STEP: `step` takes the task's x and carries its state from zeros on.

    `state` gives h and c (B, H), and is not timed.
    """

    def results() -> dict[str, Array]:
        states = []
        for _ in range(5):  # the first ones: nobody has called before
            step()
            states.append([np.array(array) for array in state()])
        return {"h": np.stack([h for h, _ in states]), "c": np.stack([c for _, c in states])}

    return Job(step, results, context)
