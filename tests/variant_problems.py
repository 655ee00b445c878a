"""Random LSTMs of the general cell: their options, and a scalar loss of all of their results."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np

from fastlstm import LSTM
from tests.support import Array, State, normal, output_shape, random_state

STEPS, BATCH, INPUTS, HIDDEN = 4, 3, 2, 3
LENGTHS = np.array([2, 0, 4])
MASK = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 0], [0, 0, 1]], bool)
MASKS_SEED = 5

# Each activation of ONNX, with other numbers than its defaults.
ACTIVATIONS: list[str | tuple[Any, ...]] = [
    "sigmoid", "tanh", "relu", "softsign", "softplus", ("affine", 0.7, 0.2), ("leaky_relu", 0.3),
    ("thresholded_relu", -0.4), ("scaled_tanh", 1.3, 0.6), ("hard_sigmoid", 0.3, 0.4),
    ("elu", 0.6),
]  # fmt: skip

# What can be chosen, each thing on its own. The first value of each is the plain one.
FACTORS: dict[str, list[Any]] = {
    "f": [ACTIVATIONS[0], *ACTIVATIONS[1:]],
    "g": [ACTIVATIONS[1], ACTIVATIONS[0], *ACTIVATIONS[2:]],
    "h": [ACTIVATIONS[1], ACTIVATIONS[0], *ACTIVATIONS[2:]],
    "proj_size": [0, 2],
    "peepholes": [False, True],
    "clip": [None, 0.9],
    "input_forget": [False, True],
    "layer_norm": [False, True],
    "bias": [True, False],
    "zoneout": [0.0, 0.3, (0.4, 0.0), (0.0, 0.4)],
    "recurrent_dropout": [0.0, 0.4],
    "weight_dropout": [0.0, 0.3],
    "input_dropout": [0.0, 0.3],
    "layers": ["one", "two", "dropout", "locked dropout"],
    "direction": ["forward", "reverse", "bidirectional"],
    "batch_first": [False, True],
    # Of the batch:
    "ends": ["none", "lengths", "mask"],
    "state": [True, False],
    "masks drawn": [True, False],
}

Choice = dict[str, Any]


def describe(choice: Choice) -> str:
    """What of it is not plain."""
    parts = [f"{name}={value}" for name, value in choice.items() if value != FACTORS[name][0]]
    return " ".join(parts) or "plain"


def plain_but(**changed: Any) -> Choice:
    """The plain choice with some things changed."""
    return {name: changed.get(name, values[0]) for name, values in FACTORS.items()}


def pairs_of(choice: Choice) -> set[tuple[tuple[str, str], tuple[str, str]]]:
    named = [(name, repr(value)) for name, value in choice.items()]
    return set(combinations(named, 2))


def every_pair() -> list[Choice]:
    """Choices in which any two values of any two factors meet, found greedily."""
    rng = np.random.default_rng(0)
    left: set[Any] = set()
    for (a, values_a), (b, values_b) in combinations(FACTORS.items(), 2):
        left |= {((a, repr(u)), (b, repr(v))) for u, v in product(values_a, values_b)}
    value_of = {(name, repr(v)): v for name, values in FACTORS.items() for v in values}
    order, choices = list(FACTORS), []
    while left:
        chosen = {name: value_of[name, text] for name, text in min(left)}
        for name in rng.permutation([name for name in order if name not in chosen]):
            # The value that brings most pairs with what is chosen already.
            chosen[name] = max(
                FACTORS[name],
                key=lambda value, name=name: len(_ordered({**chosen, name: value}) & left),  # type: ignore[misc]
            )
        choices.append({name: chosen[name] for name in order})
        left -= pairs_of(choices[-1])
    return choices


def _ordered(chosen: Choice) -> set[Any]:
    return pairs_of({name: chosen[name] for name in FACTORS if name in chosen})


def layer_of(choice: Choice, dtype: Any = np.float64) -> LSTM:
    layers = choice["layers"]
    given = (
        "proj_size", "peepholes", "clip", "input_forget", "layer_norm", "bias", "zoneout",
        "recurrent_dropout", "weight_dropout", "input_dropout", "batch_first",
    )  # fmt: skip
    return LSTM(
        INPUTS,
        HIDDEN,
        1 if layers == "one" else 2,
        activations=(choice["f"], choice["g"], choice["h"]),
        dropout=0.3 if "dropout" in layers else 0.0,
        locked_dropout=layers == "locked dropout",
        reverse=choice["direction"] == "reverse",
        bidirectional=choice["direction"] == "bidirectional",
        dtype=dtype,
        rng=0,
        **{name: choice[name] for name in given},
    )


@dataclass
class Problem:
    """A model with a scalar loss: the sum of all results, each with a weight of its own."""

    lstm: LSTM
    ends: dict[str, Array]  # `lengths` or `mask`
    masks_drawn: bool
    d_output: Array
    d_state: State
    arrays: dict[str, Array]  # what the loss depends on: x, h_0, c_0 and the parameters

    def _forward(self, arrays: dict[str, Array]) -> Any:
        self.lstm.load_state_dict({name: arrays[name] for name in self.lstm.parameters()})
        state = (arrays["h_0"], arrays["c_0"]) if "h_0" in arrays else None
        rng = np.random.default_rng(MASKS_SEED) if self.masks_drawn else None
        return self.lstm.forward(arrays["x"], state, **self.ends, rng=rng)

    def loss(self, arrays: dict[str, Array]) -> float:
        output, (h_n, c_n), _ = self._forward(arrays)
        d_h_n, d_c_n = self.d_state
        return float((output * self.d_output).sum() + (h_n * d_h_n).sum() + (c_n * d_c_n).sum())

    def gradients(self) -> dict[str, Array]:
        tape = self._forward(self.arrays)[-1]
        d_x, (d_h_0, d_c_0), grads = self.lstm.backward(tape, self.d_output, self.d_state)
        assert list(grads) == list(self.lstm.parameters())
        results = {"x": d_x, "h_0": d_h_0, "c_0": d_c_0} | grads
        return {name: results[name] for name in self.arrays}


def problem_of(choice: Choice, seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    lstm = layer_of(choice)
    first = choice["batch_first"]
    arrays = {"x": normal(rng, (BATCH, STEPS, INPUTS) if first else (STEPS, BATCH, INPUTS))}
    if choice["state"]:
        arrays["h_0"], arrays["c_0"] = random_state(rng, lstm, BATCH)
    arrays |= {name: 0.8 * normal(rng, w.shape) for name, w in lstm.parameters().items()}
    ends = {
        "none": {},
        "lengths": {"lengths": LENGTHS},
        "mask": {"mask": MASK.T if first else MASK},
    }[choice["ends"]]
    return Problem(
        lstm=lstm,
        ends=ends,
        masks_drawn=choice["masks drawn"],
        d_output=normal(rng, output_shape(lstm, STEPS, BATCH)),
        d_state=random_state(rng, lstm, BATCH),
        arrays=arrays,
    )
