"""All gradients of the LSTM against central differences of its own forward, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest

from fastlstm import LSTM
from tests.finite_differences import gradient
from tests.support import Array, assert_close, normal, output_shape, random_state

TOLERANCE = 1e-6
STEPS, BATCH, INPUTS, HIDDEN = 4, 3, 2, 2
LENGTHS = np.array([2, 0, 4])
DROPOUT_SEED = 5


@dataclass(frozen=True)
class Options:
    num_layers: int
    bidirectional: bool
    bias: bool
    batch_first: bool
    lengths: bool
    state: bool
    dropout: bool

    def __str__(self) -> str:
        chosen = [name for name, value in vars(self).items() if value is True]
        return "-".join([f"{self.num_layers}layers", *chosen])


EVERYTHING = [
    Options(*options)
    for options in product((1, 2, 3), *[(False, True)] * 6)
    if options[0] > 1 or not options[-1]  # dropout acts between layers
]
# An eighth of them, such that all values of any two options meet; see the test below.
SOME = [
    options
    for options in EVERYTHING
    if (options.bidirectional + options.bias + options.lengths) % 2 == 0
    and (options.bias + options.batch_first + options.state) % 2 == 0
    and (options.lengths + options.state + options.dropout) % 2 == 0
]


@dataclass
class Problem:
    """A model with a scalar loss: the sum of all results, each with a weight of its own."""

    lstm: LSTM
    lengths: Array | None
    with_state: bool
    dropout: bool
    d_output: Array
    d_state: tuple[Array, Array]
    arrays: dict[str, Array]  # what the loss depends on: x, h_0, c_0 and the parameters

    def rng(self) -> np.random.Generator | None:
        return np.random.default_rng(DROPOUT_SEED) if self.dropout else None

    def loss(self, arrays: dict[str, Array]) -> float:
        self.lstm.load_state_dict({name: arrays[name] for name in self.lstm.parameters()})
        state = (arrays["h_0"], arrays["c_0"]) if self.with_state else None
        output, (h_n, c_n), _ = self.lstm.forward(
            arrays["x"], state, lengths=self.lengths, rng=self.rng()
        )
        d_h_n, d_c_n = self.d_state
        return float((output * self.d_output).sum() + (h_n * d_h_n).sum() + (c_n * d_c_n).sum())

    def gradients(self) -> dict[str, Array]:
        self.lstm.load_state_dict({name: self.arrays[name] for name in self.lstm.parameters()})
        state = (self.arrays["h_0"], self.arrays["c_0"]) if self.with_state else None
        _, _, tape = self.lstm.forward(
            self.arrays["x"], state, lengths=self.lengths, rng=self.rng()
        )
        d_x, (d_h_0, d_c_0), grads = self.lstm.backward(tape, self.d_output, self.d_state)
        assert list(grads) == list(self.lstm.parameters())
        results = {"x": d_x, "h_0": d_h_0, "c_0": d_c_0} | grads
        return {name: results[name] for name in self.arrays}


def problem_of(options: Options) -> Problem:
    rng = np.random.default_rng(EVERYTHING.index(options))
    lstm = LSTM(
        INPUTS,
        HIDDEN,
        options.num_layers,
        bias=options.bias,
        batch_first=options.batch_first,
        bidirectional=options.bidirectional,
        dropout=0.4 if options.dropout else 0.0,
        dtype=np.float64,
    )
    x_shape = (BATCH, STEPS, INPUTS) if options.batch_first else (STEPS, BATCH, INPUTS)
    arrays = {"x": normal(rng, x_shape)}
    if options.state:
        arrays["h_0"], arrays["c_0"] = random_state(rng, lstm, BATCH)
    arrays |= {name: 0.8 * normal(rng, w.shape) for name, w in lstm.parameters().items()}
    return Problem(
        lstm=lstm,
        lengths=LENGTHS if options.lengths else None,
        with_state=options.state,
        dropout=options.dropout,
        d_output=normal(rng, output_shape(lstm, STEPS, BATCH)),
        d_state=random_state(rng, lstm, BATCH),
        arrays=arrays,
    )


def along(
    loss: Callable[[dict[str, Array]], float],
    arrays: dict[str, Array],
    directions: dict[str, Array],
) -> Callable[[dict[str, Array]], float]:
    """The loss as a function of how far each array has gone in its direction."""

    def moved(distances: dict[str, Array]) -> float:
        return loss({name: arrays[name] + distances[name] * directions[name] for name in arrays})

    return moved


@pytest.mark.parametrize("options", EVERYTHING, ids=str)
def test_gradients_in_random_directions(options: Options) -> None:
    """Every combination: the slope of the loss when one whole array moves in some direction."""
    problem = problem_of(options)
    rng = np.random.default_rng(1)
    directions = {name: normal(rng, array.shape) for name, array in problem.arrays.items()}
    start = {name: np.zeros(()) for name in problem.arrays}
    expected = gradient(along(problem.loss, problem.arrays, directions), start)
    for name, actual in problem.gradients().items():
        # A sum may cancel, so the error is measured by what it would be if nothing did.
        scale = float(np.abs(actual * directions[name]).sum())
        slope = float((actual * directions[name]).sum())
        assert abs(slope - float(expected[name])) <= TOLERANCE * scale, f"{name} of {options}"
        assert scale > 1e-3, f"{name} of {options}: a gradient of zero would say nothing"


@pytest.mark.parametrize("options", SOME, ids=str)
def test_gradients_element_by_element(options: Options) -> None:
    problem = problem_of(options)
    expected = gradient(problem.loss, problem.arrays)
    for name, actual in problem.gradients().items():
        assert_close(actual, expected[name], TOLERANCE, f"{name} of {options}")


def test_the_selection_has_every_pair_of_options() -> None:
    fields = list(vars(SOME[0]))
    for first, second in product(fields, fields):
        met = {(getattr(options, first), getattr(options, second)) for options in SOME}
        possible = {(getattr(options, first), getattr(options, second)) for options in EVERYTHING}
        assert met == possible, (first, second)


def test_gradients_of_one_unbatched_sequence() -> None:
    rng = np.random.default_rng(2)
    lstm = LSTM(INPUTS, HIDDEN, 2, bidirectional=True, dtype=np.float64, rng=rng)
    d_output = normal(rng, (STEPS, 2 * HIDDEN))
    d_state = random_state(rng, lstm, None)
    h_0, c_0 = random_state(rng, lstm, None)
    arrays = {"x": normal(rng, (STEPS, INPUTS)), "h_0": h_0, "c_0": c_0}

    def loss(moved: dict[str, Array]) -> float:
        output, (h_n, c_n) = lstm(moved["x"], (moved["h_0"], moved["c_0"]), lengths=3)
        return float(
            (output * d_output).sum() + (h_n * d_state[0]).sum() + (c_n * d_state[1]).sum()
        )

    expected = gradient(loss, arrays)
    _, _, tape = lstm.forward(arrays["x"], (h_0, c_0), lengths=3)
    d_x, (d_h_0, d_c_0), _ = lstm.backward(tape, d_output, d_state)
    for name, actual in {"x": d_x, "h_0": d_h_0, "c_0": d_c_0}.items():
        assert_close(actual, expected[name], TOLERANCE, name)
