"""What can be measured side by side: each library's LSTM, set up for one task.

An engine is a function from a task to a job; a peer of ours is one more of them. Each runs in a
process of its own and imports its library only there.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

INFER, TRAIN = "infer", "train"


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
        return forward if mode == INFER else 3 * forward


@dataclass(frozen=True)
class Task:
    """What to compute: INFER all outputs, or TRAIN: forward, then gradients of x and weights."""

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


def fastlstm_engine(task: Task) -> Job:
    import fastlstm

    fastlstm.set_num_threads(task.threads)
    weights, x, d_output = task.arrays()
    shape = task.shape
    lstm = fastlstm.LSTM(shape.input_size, shape.hidden_size, shape.num_layers, rng=0)
    lstm.load_state_dict(weights)

    def train() -> tuple[Any, ...]:
        output, state, tape = lstm.forward(x)
        return output, state, lstm.backward(tape, d_output)

    def results() -> dict[str, Array]:
        if task.mode == INFER:
            output, (h_n, c_n) = lstm(x)
            return {"output": output, "h_n": h_n, "c_n": c_n}
        output, (h_n, c_n), (d_x, _, grads) = train()
        return {"output": output, "h_n": h_n, "c_n": c_n, "d_x": d_x, **grads}

    return Job((lambda: lstm(x)) if task.mode == INFER else train, results)


def torch_engine(task: Task) -> Job:
    import torch

    torch.set_num_threads(task.threads)
    weights, x_array, d_array = task.arrays()
    x, d_output = torch.from_numpy(x_array), torch.from_numpy(d_array)
    x.requires_grad_(task.mode == TRAIN)
    shape = task.shape
    lstm = torch.nn.LSTM(shape.input_size, shape.hidden_size, shape.num_layers)
    lstm.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    inputs = {"d_x": x, **dict(lstm.named_parameters())}

    def infer() -> Any:
        with torch.inference_mode():
            return lstm(x)

    def train() -> tuple[Any, ...]:
        output, state = lstm(x)
        return output, state, torch.autograd.grad(output, list(inputs.values()), d_output)

    def results() -> dict[str, Array]:
        output, (h_n, c_n), *rest = infer() if task.mode == INFER else train()
        found = {"output": output, "h_n": h_n, "c_n": c_n}
        for grads in rest:
            found |= dict(zip(inputs, grads, strict=True))
        return {name: tensor.detach().numpy() for name, tensor in found.items()}

    return Job(infer if task.mode == INFER else train, results)


OURS = "fastlstm"
ENGINES = {OURS: fastlstm_engine, "torch": torch_engine}


def median_time(call: Callable[[], object], seconds: float) -> float:
    """Seconds that a call takes: the median of as many as fit, after a fifth of that to warm up.

    The warming up also lets the threads of whoever had the turn before fall asleep.
    """
    start = time.perf_counter()
    call()
    while time.perf_counter() - start < seconds / 5:
        call()
    times: list[float] = []
    while not times or sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def serve(engine: str, connection: Connection) -> None:
    """A worker's life: a Task is answered with its results, a number of seconds with a time."""
    job = None
    while (request := connection.recv()) is not None:
        if isinstance(request, Task):
            job = ENGINES[engine](request)
            connection.send(dict(job.results()))
        else:
            assert job is not None
            connection.send(median_time(job.call, request))
