"""What numbers below the normal range cost: ``python -m benchmarks.denormals``.

The same layer computes the same thing twice: from ordinary numbers, and from a state or a gradient
that has decayed to 1e-40 and stays there, because the forget gates are open. The ratio of the two
times is what is of interest; the two take turns, on one thread. Ours, and torch's where it is
installed: on some processors a number below the normal range costs a hundred times an ordinary
one, on others nothing. Gradients of 1e-37 are normal numbers, but their products are not.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np

from benchmarks.tasks import Array, Shape
from benchmarks.timing import median_time

SHAPES = [Shape(100, 1, 64, 64), Shape(100, 1, 256, 256), Shape(100, 16, 128, 128)]
ORDINARY = 1.0
SIZES = [ORDINARY, 1e-37, 1e-40]

Call = Callable[[], object]
# Of the initial state's size, a call, and of the size of the output's gradient, a training step.
Calls = tuple[Callable[[float], Call], Callable[[float], Call]]


def weights_of(shape: Shape) -> dict[str, Array]:
    """Under torch's names; the biases open the forget gates, so that what is small stays so."""
    rng = np.random.default_rng(0)
    hidden, bound = shape.hidden_size, shape.hidden_size**-0.5

    def uniform(*sizes: int) -> Array:
        return rng.uniform(-bound, bound, sizes).astype(np.float32)

    bias = np.zeros(4 * hidden, np.float32)
    bias[hidden : 2 * hidden] = 20
    return {
        "weight_ih_l0": uniform(4 * hidden, shape.input_size),
        "weight_hh_l0": uniform(4 * hidden, hidden),
        "bias_ih_l0": bias,
        "bias_hh_l0": np.zeros_like(bias),
    }


def arrays_of(shape: Shape) -> tuple[Array, Array, Array]:
    """x, and a state and a gradient of the output, to be scaled. A state is alone without x."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((shape.steps, shape.batch, shape.input_size), dtype=np.float32)
    state = rng.uniform(0.5, 1, (1, shape.batch, shape.hidden_size)).astype(np.float32)
    d_output = rng.standard_normal((shape.steps, shape.batch, shape.hidden_size), dtype=np.float32)
    return x, state, d_output


def ours(shape: Shape) -> Calls:
    import fastlstm

    fastlstm.set_num_threads(1)
    lstm = fastlstm.LSTM(shape.input_size, shape.hidden_size, rng=0)
    lstm.load_state_dict(weights_of(shape))
    x, unit, d_unit = arrays_of(shape)

    def infer(size: float) -> Call:
        state, zeros = unit * np.float32(size), np.zeros_like(x)
        return lambda: lstm(zeros, (state, state))

    def train(size: float) -> Call:
        d_output = d_unit * np.float32(size)
        return lambda: lstm.backward(lstm.forward(x)[-1], d_output)

    return infer, train


def torchs(shape: Shape) -> Calls:
    import torch

    torch.set_num_threads(1)
    lstm = torch.nn.LSTM(shape.input_size, shape.hidden_size)
    lstm.load_state_dict({k: torch.from_numpy(v) for k, v in weights_of(shape).items()})
    x, unit, d_unit = (torch.from_numpy(array) for array in arrays_of(shape))

    def infer(size: float) -> Call:
        state, zeros = unit * size, torch.zeros_like(x)

        def call() -> None:
            with torch.inference_mode():
                lstm(zeros, (state, state))

        return call

    def train(size: float) -> Call:
        d_output = d_unit * size

        def call() -> None:
            lstm.zero_grad()
            lstm(x.clone().requires_grad_())[0].backward(d_output)

        return call

    return infer, train


ENGINES: dict[str, Callable[[Shape], Calls]] = {"fastlstm": ours, "torch": torchs}


def measure(make: Callable[[float], Call], seconds: float, rounds: int) -> list[float]:
    """Seconds for each of SIZES: medians over rounds in which they take turns."""
    calls = [make(size) for size in SIZES]
    times = [[median_time(call, seconds) for call in calls] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def report(seconds: float, rounds: int) -> Iterator[str]:
    """The lines of the table, as they come."""
    columns = "".join(f" {f'{size:g}':>9}" for size in SIZES[1:])
    yield f"{'':<48} {'ordinary':>10}{columns}  times as long"
    for engine, calls_of in ENGINES.items():
        if find_spec(engine) is None:
            yield f"{engine}: left out, it is not installed"
            continue
        for shape in SHAPES:
            kinds = ("infer, of a state", "train, of gradients")
            for kind, make in zip(kinds, calls_of(shape), strict=True):
                ordinary, *small = measure(make, seconds, rounds)
                ratios = "".join(f" {time / ordinary:>9.2f}" for time in small)
                label = f"{engine:<8} {shape!s:<18} {kind}"
                yield f"{label:<48} {1e3 * ordinary:>7.2f} ms{ratios}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.2, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="of turns, of which the median")
    options = parser.parse_args()
    for line in report(options.seconds, options.rounds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
