"""An LSTM of ours as Keras describes layers: what `to_keras` makes and what `save` writes."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm._validate import Array
from fastlstm._variants import Activation, name_and_numbers
from fastlstm.interop.keras._configs import ACTIVATIONS, Weights
from fastlstm.lstm import LSTM

# Options that Keras has in one way or another; batch_first is no part of a layer of Keras.
_CARRIED = {
    "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional",
    "reverse", "activations", "input_dropout", "locked_dropout", "recurrent_dropout", "dtype",
}  # fmt: skip


def describe_layers(lstm: LSTM, *, return_sequences: bool, return_state: bool) -> list[Any]:
    """Keras' serialised layers, from the bottom up; Dropout layers stand among them.

    Raises
    ------
    TypeError
        If `lstm` is no LSTM.
    ValueError
        If Keras has nothing that is the same; the message names the option.
    """
    if not isinstance(lstm, LSTM):
        raise TypeError(f"lstm: expected a fastlstm.LSTM, got a {type(lstm).__name__}")
    config, neutral = lstm.get_config(), LSTM(1, 1, rng=0).get_config()
    for name in config.keys() - _CARRIED:
        if config[name] != neutral[name]:
            raise ValueError(f"{name}={config[name]!r}: Keras' LSTM lacks it")
    locked = lstm.locked_dropout
    items = []
    for k in range(lstm.num_layers):
        last = k == lstm.num_layers - 1
        if k and lstm.dropout and not locked:
            items.append(serialised("Dropout", {"rate": lstm.dropout, "dtype": lstm.dtype.name}))
        between = lstm.dropout if locked else 0.0
        cell = _cell_config(lstm) | {
            "dropout": between if k else lstm.input_dropout,
            "return_sequences": return_sequences or not last,
            "return_state": return_state and last,
            # What the first layer hands on is turned round already.
            "go_backwards": k == 0 and lstm.reverse,
        }
        items.append(_bidirectional(cell) if lstm.bidirectional else serialised("LSTM", cell))
    return items


def is_recurrent(item: Any) -> bool:
    """Whether a layer of `describe_layers` has weights."""
    return bool(item["class_name"] != "Dropout")


def weights_of(lstm: LSTM) -> list[list[Weights]]:
    """Keras' arrays of each layer, for each of its directions."""
    suffixes = ("", "_reverse") if lstm.bidirectional else ("",)
    return [
        [_weights(lstm, f"_l{k}{suffix}") for suffix in suffixes] for k in range(lstm.num_layers)
    ]


def _weights(lstm: LSTM, suffix: str) -> Weights:
    arrays = lstm.parameters()
    kernels = arrays[f"weight_ih{suffix}"].T.copy(), arrays[f"weight_hh{suffix}"].T.copy()
    if not lstm.bias:
        return kernels
    bias: Array = arrays[f"bias_ih{suffix}"] + arrays[f"bias_hh{suffix}"]
    return *kernels, bias


def serialised(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """A layer as Keras writes it down."""
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": config,
        "registered_name": None,
    }


def _bidirectional(cell: dict[str, Any]) -> dict[str, Any]:
    config = {
        "dtype": cell["dtype"],
        "merge_mode": "concat",
        "layer": serialised("LSTM", cell),
        "backward_layer": serialised("LSTM", cell | {"go_backwards": True}),
    }
    return serialised("Bidirectional", config)


def _cell_config(lstm: LSTM) -> dict[str, Any]:
    """What all LSTM layers of the stack have in common."""
    f, g, h = (_name_of(activation, lstm.dtype) for activation in lstm.activations)
    if g != h:
        raise ValueError(
            f"activations: Keras has one for both the second and the third, got {g!r} and {h!r}"
        )
    return {
        "dtype": lstm.dtype.name,
        "units": lstm.hidden_size,
        "activation": g,
        "recurrent_activation": f,
        "use_bias": lstm.bias,
        "recurrent_dropout": lstm.recurrent_dropout,
    }


def _name_of(activation: Activation, dtype: np.dtype[Any]) -> str:
    """Keras' name for an activation of ours; its numbers are compared as the layer rounds them."""

    def rounded(one: Activation) -> tuple[str, list[float]]:
        kind, numbers = name_and_numbers(one)
        return kind, np.array(numbers, dtype).tolist()

    for name, same in ACTIVATIONS.items():
        if rounded(same) == rounded(activation):
            return name
    raise ValueError(f"activations: Keras 3 has no {activation!r}")
