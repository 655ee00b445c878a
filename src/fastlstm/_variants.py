"""Cells that are not the plain one: what their options are, and how callers may give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fastlstm._random import uniform_arrays
from fastlstm._validate import Array, check_number, check_pair
from fastlstm._weights import GATES

# The activations of ONNX in the order of csrc/kernels.h, each with its own alpha and beta.
ACTIVATIONS: dict[str, tuple[float, ...]] = {
    "sigmoid": (),
    "tanh": (),
    "affine": (1.0, 0.0),
    "relu": (),
    "leaky_relu": (0.01,),
    "thresholded_relu": (1.0,),
    "scaled_tanh": (1.0, 1.0),
    "hard_sigmoid": (0.2, 0.5),
    "elu": (1.0,),
    "softsign": (),
    "softplus": (),
}

Activation = str | tuple[Any, ...]  # a name, or one with alpha and beta
PLAIN: tuple[Activation, ...] = ("sigmoid", "tanh", "tanh")


@dataclass(frozen=True)
class Variant:
    """The options of a cell; see `LSTM`."""

    proj_size: int = 0
    peepholes: bool = False
    clip: float | None = None
    input_forget: bool = False
    activations: tuple[Activation, ...] = PLAIN
    layer_norm: bool = False
    zoneout: tuple[float, float] = (0.0, 0.0)

    @cached_property
    def plain(self) -> bool:
        """Whether this is the cell of the fast loop."""
        return self == PLAIN_CELL

    @property
    def zones_out(self) -> bool:
        """Whether c or h may keep its value of the step before."""
        return self.zoneout != (0.0, 0.0)

    def parameter_shapes(self, suffix: str, hidden: int, *, bias: bool) -> dict[str, Any]:
        """What the options add to a direction's parameters."""
        rows = GATES * hidden
        shapes: dict[str, tuple[int, ...]] = {}
        if self.proj_size:
            shapes[f"weight_hr{suffix}"] = (self.proj_size, hidden)
        if self.peepholes:
            shapes[f"peephole{suffix}"] = (3 * hidden,)
        if self.layer_norm:
            shapes[f"gain_ih{suffix}"] = (rows,)
            shapes[f"gain_hh{suffix}"] = (rows,)
            shapes[f"gain_c{suffix}"] = (hidden,)
            if bias:
                shapes[f"bias_c{suffix}"] = (hidden,)
        return shapes


PLAIN_CELL = Variant()


def initial_parameters(
    rng: np.random.Generator,
    shapes: Mapping[str, tuple[int, ...]],
    bound: float,
    dtype: np.dtype[Any],
) -> dict[str, Array]:
    """U(-bound, bound), as PyTorch has it; a normalisation begins with gain 1 and bias 0."""
    kept = {name: shape for name, shape in shapes.items() if name.startswith(("gain_", "bias_c"))}
    drawn = {name: shape for name, shape in shapes.items() if name not in kept}
    arrays = uniform_arrays(rng, drawn, bound, dtype)
    arrays |= {name: np.full(s, name.startswith("gain_"), dtype) for name, s in kept.items()}
    return {name: arrays[name] for name in shapes}


def check_activations(value: object) -> tuple[str | tuple[Any, ...], ...]:
    """Three activations: a name each, or (name, alpha, beta) as far as they differ from ONNX's."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"activations: expected a sequence of three, got {value!r:.80}")
    if len(value) != 3:
        raise ValueError(f"activations: expected three, got {len(value)}")
    return tuple(_check_activation(f"activations[{k}]", item) for k, item in enumerate(value))


def _check_activation(name: str, value: object) -> str | tuple[Any, ...]:
    kind, *numbers = [value] if isinstance(value, str) else list(_items(name, value))
    if not isinstance(kind, str):
        raise TypeError(f"{name}: expected a name first, got {kind!r:.80}")
    if kind not in ACTIVATIONS:
        raise ValueError(f"{name}: expected one of {', '.join(ACTIVATIONS)}, got {kind!r}")
    most = len(ACTIVATIONS[kind])
    if len(numbers) > most:
        raise ValueError(f"{name}: {kind} takes {most} numbers, got {len(numbers)}")
    checked = [check_number(f"{name}, number {k + 1}", n) for k, n in enumerate(numbers)]
    return (kind, *checked) if checked else kind


def _items(name: str, value: object) -> Sequence[object]:
    if not isinstance(value, Sequence) or not value:
        raise TypeError(f"{name}: expected a name or (name, alpha, beta), got {value!r:.80}")
    return value


def check_zoneout(value: object) -> float | tuple[float, float]:
    """One probability, or those of c and of h."""
    if not isinstance(value, (tuple, list)):
        return check_number("zoneout", value, least=0, most=1)
    of_c, of_h = check_pair("zoneout", value, "of probabilities")
    return (
        check_number("zoneout[0] (of c)", of_c, least=0, most=1),
        check_number("zoneout[1] (of h)", of_h, least=0, most=1),
    )


def pair_of(zoneout: float | tuple[float, float]) -> tuple[float, float]:
    """Probabilities for c and for h."""
    return zoneout if isinstance(zoneout, tuple) else (zoneout, zoneout)


def index_and_numbers(activation: Activation) -> tuple[int, float, float]:
    """As the kernels have an activation: its place in `ACTIVATIONS`, alpha and beta."""
    name, given = name_and_numbers(activation)
    numbers = (*given, 0.0, 0.0)
    return list(ACTIVATIONS).index(name), numbers[0], numbers[1]


def name_and_numbers(activation: Activation) -> tuple[str, tuple[float, ...]]:
    """An activation and all of its numbers, ONNX's where none are given."""
    name, *given = [activation] if isinstance(activation, str) else activation
    return name, (*given, *ACTIVATIONS[name][len(given) :])
