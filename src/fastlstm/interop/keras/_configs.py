"""What Keras' configuration of a layer says, as arguments of ours, and back.

Keras describes a layer as a JSON object: its class, where that comes from, and the arguments of
its constructor. A layer object gives one (``get_config``), and a file is made of them, so both
ways in begin here, and both ways out end here. The objects may come from a file of anybody's: each
field is checked before it is used, and what only a name stands for is never looked up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastlstm._validate import Array
from fastlstm._variants import Activation
from fastlstm.lstm import LSTM

Item = Mapping[str, Any]  # one serialised object of Keras
Weights = tuple[Array, ...]  # kernel (I, 4U), recurrent_kernel (U, 4U) and, with a bias, (4U,)

LAYERS = ("LSTM", "RNN", "Bidirectional", "LSTMCell")  # classes of Keras that hold an LSTM
CELLS = ("LSTM", "LSTMCell", "CuDNNLSTM")  # classes by whose name one is known

# Keras' activations, as ours names them (with ONNX's names, alpha and beta).
ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "softsign": "softsign",
    "softplus": "softplus",
    "linear": "affine",
    "elu": "elu",
    "leaky_relu": ("leaky_relu", 0.2),
    "hard_sigmoid": ("hard_sigmoid", 1 / 6, 0.5),
}
_HARD_SIGMOID_OF_KERAS_2 = "hard_sigmoid"  # with ONNX's numbers, 0.2 and 0.5


@dataclass(frozen=True)
class Cell:
    """One LSTMCell: a layer of ours in one direction."""

    units: int
    bias: bool
    recurrent_activation: Activation
    activation: Activation
    dropout: float
    recurrent_dropout: float
    dtype: str


@dataclass(frozen=True)
class Description:
    """A Keras layer, or a stack of them, that is one LSTM of ours.

    Attributes
    ----------
    cells : tuple of Cell
        One for each layer of ours, from the bottom up.
    bidirectional, reverse : bool
        As the arguments of `LSTM`.
    between : float or None
        Rate of a Dropout layer that stands between each two layers of a stack.
    locked : bool
        Whether that one has one mask for all steps.
    """

    cells: tuple[Cell, ...]
    bidirectional: bool = False
    reverse: bool = False
    between: float = 0.0
    locked: bool = False

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    def options(self) -> dict[str, Any]:
        """The arguments of `LSTM` that these cells stand for, but for the size of its input."""
        first = self.cells[0]
        for cell in self.cells[1:]:
            if replace(cell, dropout=first.dropout) != first:
                raise ValueError(f"layers of one stack differ: {first} and {cell}")
        dropout, locked = self._dropout_between()
        return {
            "hidden_size": first.units,
            "num_layers": len(self.cells),
            "bias": first.bias,
            "batch_first": True,
            "dropout": dropout,
            "bidirectional": self.bidirectional,
            "reverse": self.reverse,
            "activations": (first.recurrent_activation, first.activation, first.activation),
            "input_dropout": first.dropout,
            "locked_dropout": locked,
            "recurrent_dropout": first.recurrent_dropout,
            "dtype": first.dtype,
        }

    def _dropout_between(self) -> tuple[float, bool]:
        rates = {cell.dropout for cell in self.cells[1:]}
        if len(rates) > 1:
            raise ValueError(f"layers of one stack have different dropout: {sorted(rates)}")
        inside = rates.pop() if rates else 0.0
        if inside and self.between:
            raise ValueError("dropout of a layer comes on top of a Dropout layer below it")
        return (inside, True) if inside else (self.between, self.locked)


def describe(item: Item, keras_version: str) -> Description:
    """What a serialised LSTM, RNN, Bidirectional or LSTMCell of Keras says.

    Raises
    ------
    ValueError
        If LSTM has nothing that is the same; the message names what.
    """
    kind, config = item["class_name"], field(item, "config", dict)
    if kind == "LSTMCell":
        return Description((_cell(config, keras_version),))
    if kind == "LSTM":
        backwards = field(config, "go_backwards", bool, default=False)
        return Description((_cell(config, keras_version),), reverse=backwards)
    if kind == "RNN":
        backwards = field(config, "go_backwards", bool, default=False)
        return Description(_cells(config, keras_version), reverse=backwards)
    if kind == "Bidirectional":
        return _bidirectional(config, keras_version)
    raise ValueError(f"{kind} is none of {', '.join(LAYERS)}")


def is_kerass(item: Item) -> bool:
    """Whether a serialised object is of a class of Keras, and not of one that a user wrote."""
    module = item.get("module")  # absent in files of Keras 2
    registered = f"{item.get('registered_name')}{item.get('class_name')}"
    return (module is None or str(module).partition(".")[0] == "keras") and ">" not in registered


def field(item: Item, name: str, kind: type, *, default: Any = None) -> Any:
    """A field of this JSON type; an int passes for a float."""
    value = item.get(name, default)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"{name}: expected {kind.__name__}, got {value!r:.80}")
    return value


def merge(descriptions: Sequence[Description]) -> Description:
    """One LSTM of ours for layers that stand on each other: each takes the output of the last.

    A stack that runs from the last step to the first has go_backwards in its first layer alone,
    for Keras hands on what that layer gives out in the order in which it came.
    """
    first, above = descriptions[0], descriptions[1:]
    for other in above:
        if other.bidirectional != first.bidirectional:
            raise ValueError("layers of one stack: some are Bidirectional, some are not")
        if other.reverse:
            raise ValueError("layers of one stack: only the first may have go_backwards")
    return replace(first, cells=tuple(cell for each in descriptions for cell in each.cells))


def build(description: Description, weights: Sequence[Weights]) -> LSTM:
    """An LSTM of ours; the weights are those of each layer, and of each direction within.

    Raises
    ------
    ValueError
        If shapes or dtypes do not belong to the description, checked before anything is made.
    """
    options, first = description.options(), description.cells[0]
    inputs = weights[0][0].shape[0] if weights[0][0].ndim == 2 else 0
    arrays: dict[str, Array] = {}
    for k, own in enumerate(weights):
        if len(own) != 2 + first.bias:
            raise ValueError(f"use_bias={first.bias}, but there are {len(own)} arrays of weights")
        suffix = f"_l{k // description.directions}"
        suffix += "_reverse" * (k % description.directions)
        arrays[f"weight_ih{suffix}"] = own[0].T
        arrays[f"weight_hh{suffix}"] = own[1].T
        if first.bias:
            arrays[f"bias_ih{suffix}"] = own[2]
            arrays[f"bias_hh{suffix}"] = np.zeros_like(own[2])
    return LSTM._build({"input_size": inputs, **options}, arrays)


# --- from Keras -----------------------------------------------------------------------------------


def _cells(config: Item, keras_version: str) -> tuple[Cell, ...]:
    """The cells of an RNN: one, or those that a StackedRNNCells holds."""
    cell = field(config, "cell", dict)
    stacked = cell.get("class_name") == "StackedRNNCells" and is_kerass(cell)
    items = field(field(cell, "config", dict), "cells", list) if stacked else [cell]
    if not items:
        raise ValueError("an RNN without cells")
    for item in items:
        kind = item.get("class_name") if isinstance(item, dict) else item
        if kind != "LSTMCell" or not is_kerass(item):
            raise ValueError(f"an RNN over a cell of class {kind!r:.80}, which is no LSTMCell")
    return tuple(_cell(field(item, "config", dict), keras_version) for item in items)


def _bidirectional(config: Item, keras_version: str) -> Description:
    mode = config.get("merge_mode", "concat")
    if mode != "concat":
        raise ValueError(f"merge_mode={mode!r:.80}: ours puts both directions side by side, concat")
    layer = field(config, "layer", dict)
    if layer.get("class_name") not in ("LSTM", "RNN") or not is_kerass(layer):
        raise ValueError(f"Bidirectional over a {layer.get('class_name')!r:.80}, which is no LSTM")
    forward = describe(layer, keras_version)
    if forward.reverse:
        raise ValueError("a Bidirectional whose first layer has go_backwards")
    backward = _backward(config, keras_version)
    if backward is not None and replace(backward, reverse=False) != forward:
        raise ValueError(f"directions differ: {forward.cells} and {backward.cells}")
    if len(forward.cells) > 1:
        raise ValueError("Bidirectional over stacked cells: ours joins the directions after each")
    return replace(forward, bidirectional=True)


def _backward(config: Item, keras_version: str) -> Description | None:
    """The second direction, where the configuration has one of its own, as Keras 3 always does."""
    layer = config.get("backward_layer")
    if layer is None:
        return None
    if not isinstance(layer, dict) or layer.get("class_name") not in ("LSTM", "RNN"):
        raise ValueError("a Bidirectional whose backward_layer is no LSTM")
    backward = describe(layer, keras_version)
    if not backward.reverse:
        raise ValueError("a Bidirectional whose backward_layer does not go backwards")
    return backward


def _cell(config: Item, keras_version: str) -> Cell:
    units = field(config, "units", int)
    if units < 1:
        raise ValueError(f"units: expected a whole number >= 1, got {units}")
    return Cell(
        units,
        field(config, "use_bias", bool, default=True),
        _activation(config, "recurrent_activation", "sigmoid", keras_version),
        _activation(config, "activation", "tanh", keras_version),
        _rate(config, "dropout"),
        _rate(config, "recurrent_dropout"),
        _dtype(config.get("dtype", "float32")),
    )


def _activation(config: Item, name: str, default: str, keras_version: str) -> Activation:
    value = config.get(name, default)
    if isinstance(value, str) and value in ACTIVATIONS:
        if value == "hard_sigmoid" and keras_version.partition(".")[0] in ("1", "2"):
            return _HARD_SIGMOID_OF_KERAS_2
        return ACTIVATIONS[value]
    if isinstance(value, dict):  # a function or a layer of the user's: named, and never made
        inner = value.get("config")
        value = inner if isinstance(inner, str) else value.get("class_name")
    raise ValueError(f"{name}={value!r:.80}: expected one of {', '.join(ACTIVATIONS)}")


def _rate(config: Item, name: str) -> float:
    rate: float = field(config, name, float, default=0.0)
    if not 0 <= rate < 1:
        raise ValueError(f"{name}={rate}: expected a rate in [0, 1)")
    return rate


def _dtype(policy: Any) -> str:
    """The name of a dtype policy under which weights, inputs and outputs have one dtype."""
    if isinstance(policy, dict):
        inner = policy.get("config")
        policy = inner.get("name") if isinstance(inner, dict) else policy.get("class_name")
    if policy not in ("float32", "float64"):
        raise ValueError(f"dtype policy {policy!r:.80}: expected float32 or float64")
    return str(policy)
