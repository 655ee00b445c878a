"""The operator LSTM: its weights and attributes as layers of ours, and how a node is run by them.

ONNX keeps W (D, 4H, I), R (D, 4H, H), B (D, 8H) and P (D, 3H) of D directions, gates in the order
i, o, f, c and peepholes in the order i, o, f; B holds both biases, one behind the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastlstm._extras import import_extra
from fastlstm._validate import Array
from fastlstm._variants import ACTIVATIONS, PLAIN, Activation
from fastlstm.lstm import LSTM, State

_DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
_OURS, _THEIRS = (0, 2, 3, 1), (0, 3, 1, 2)  # blocks of i, o, f, c -> i, f, g, o and back
_PEEPHOLES = (0, 2, 1)  # blocks of i, o, f -> i, f, o, and back

_ACTIVATIONS = {
    "Affine": "affine", "Relu": "relu", "LeakyRelu": "leaky_relu",
    "ThresholdedRelu": "thresholded_relu", "Tanh": "tanh", "ScaledTanh": "scaled_tanh",
    "Sigmoid": "sigmoid", "HardSigmoid": "hard_sigmoid", "Elu": "elu", "Softsign": "softsign",
    "Softplus": "softplus",
}  # fmt: skip
_READ = {theirs.lower(): ours for theirs, ours in _ACTIVATIONS.items()}
_WRITTEN = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
# A node may leave out alpha and beta where ONNX has an operator of the same name, with defaults.
_WITHOUT_DEFAULTS = ("affine", "scaled_tanh")


class LSTMNode:
    """The attributes of a node, as far as weights have no say in them."""

    def __init__(self, node: Any) -> None:
        helper = import_extra("onnx.helper", extra="onnx", purpose="ONNX models")
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self.direction = attributes.get("direction", b"forward").decode()
        if self.direction not in _DIRECTIONS:
            raise ValueError(f"an unknown direction {self.direction!r}")
        self.directions = _DIRECTIONS[self.direction]
        self.hidden_size = attributes.get("hidden_size")
        self.batch_first = attributes.get("layout", 0) == 1
        self.clip = attributes.get("clip")
        self.input_forget = attributes.get("input_forget", 0) == 1
        self.activations = _read_activations(attributes, self.directions)

    def layers(self, W: Array, R: Array, B: Array | None, P: Array | None) -> tuple[LSTM, ...]:
        """One layer with these weights; two where the directions have different activations."""
        hidden = R.shape[-1] if R.ndim else 0
        if self.hidden_size not in (None, hidden):
            raise ValueError(f"hidden_size is {self.hidden_size}, but R has shape {R.shape}")
        for name, array, tail in (
            ("W", W, (4 * hidden, W.shape[-1] if W.ndim else 0)),
            ("R", R, (4 * hidden, hidden)),
            ("B", B, (8 * hidden,)),
            ("P", P, (3 * hidden,)),
        ):
            expected = (self.directions, *tail)
            if array is not None and array.shape != expected:
                raise ValueError(f"{name} has shape {array.shape}, expected {expected}")
        if len(set(self.activations)) == 1:
            return (self._layer(W, R, B, P, self.direction, self.activations[0]),)
        return tuple(
            self._layer(
                W[k : k + 1], R[k : k + 1],
                None if B is None else B[k : k + 1], None if P is None else P[k : k + 1],
                direction, self.activations[k],
            )
            for k, direction in enumerate(("forward", "reverse"))
        )  # fmt: skip

    def _layer(
        self,
        W: Array,
        R: Array,
        B: Array | None,
        P: Array | None,
        direction: str,
        activations: tuple[Activation, ...],
    ) -> LSTM:
        weights = {}
        for k, suffix in zip(range(len(W)), ("_l0", "_l0_reverse"), strict=False):
            weights[f"weight_ih{suffix}"] = _reorder(W[k], _OURS)
            weights[f"weight_hh{suffix}"] = _reorder(R[k], _OURS)
            if B is not None:
                b_ih, b_hh = np.split(B[k], 2)
                weights[f"bias_ih{suffix}"] = _reorder(b_ih, _OURS)
                weights[f"bias_hh{suffix}"] = _reorder(b_hh, _OURS)
            if P is not None:
                weights[f"peephole{suffix}"] = _reorder(P[k], _PEEPHOLES)
        config = {
            "input_size": W.shape[2], "hidden_size": R.shape[2], "bias": B is not None,
            "batch_first": self.batch_first, "bidirectional": direction == "bidirectional",
            "reverse": direction == "reverse", "peepholes": P is not None, "clip": self.clip,
            "input_forget": self.input_forget, "activations": activations, "dtype": W.dtype,
        }  # fmt: skip
        return LSTM._build(config, weights)


def _read_activations(
    attributes: dict[str, Any], directions: int
) -> tuple[tuple[Activation, ...], ...]:
    """f, g, h of each direction. A value of alpha or beta goes to the next one that takes it."""
    names = [n.decode() for n in attributes.get("activations", [])]
    names = names or ["Sigmoid", "Tanh", "Tanh"] * directions
    if len(names) != 3 * directions:
        raise ValueError(f"expected {3 * directions} activations, got {names}")
    alphas = iter(attributes.get("activation_alpha", []))
    betas = iter(attributes.get("activation_beta", []))
    read: list[Activation] = []
    for name in names:
        if name.lower() not in _READ:
            raise ValueError(f"an unknown activation {name!r}")
        ours = _READ[name.lower()]
        values = [
            next(given, None if ours in _WITHOUT_DEFAULTS else default)
            for given, default in zip((alphas, betas), ACTIVATIONS[ours], strict=False)
        ]
        if None in values:
            raise ValueError(f"the activation {name} without its activation_alpha and _beta")
        read.append((ours, *values) if values else ours)
    return tuple(tuple(read[k : k + 3]) for k in range(0, len(read), 3))


def node_weights(lstm: LSTM, layer: int) -> dict[str, Array]:
    """W, R, and B and P if there are such, of the node for one layer of a stack."""
    weights = lstm.parameters()
    suffixes = [f"_l{layer}", f"_l{layer}_reverse"][: 2 if lstm.bidirectional else 1]

    def stacked(kind: str, order: tuple[int, ...]) -> Array:
        return np.stack([_reorder(weights[kind + suffix], order) for suffix in suffixes])

    tensors = {"W": stacked("weight_ih", _THEIRS), "R": stacked("weight_hh", _THEIRS)}
    if lstm.bias:
        biases = [stacked(kind, _THEIRS) for kind in ("bias_ih", "bias_hh")]
        tensors["B"] = np.concatenate(biases, axis=1)
    if lstm.peepholes:
        tensors["P"] = stacked("peephole", _PEEPHOLES)
    return tensors


def node_attributes(lstm: LSTM) -> dict[str, Any]:
    """The attributes of a layer's nodes; those with their default are left out."""
    attributes: dict[str, Any] = {"hidden_size": lstm.hidden_size}
    if lstm.bidirectional or lstm.reverse:
        attributes["direction"] = "bidirectional" if lstm.bidirectional else "reverse"
    if lstm.clip is not None:
        attributes["clip"] = lstm.clip
    if lstm.input_forget:
        attributes["input_forget"] = 1
    return attributes | _write_activations(lstm.activations, lstm.bidirectional)


def _write_activations(activations: Sequence[Activation], bidirectional: bool) -> dict[str, Any]:
    """The attributes for f, g, h; a name, or a name with its alpha and beta."""
    if tuple(activations) == PLAIN:
        return {}
    attributes: dict[str, list[Any]] = {"activations": []}
    for activation in (*activations, *activations)[: 6 if bidirectional else 3]:
        ours, given = (
            (activation, ()) if isinstance(activation, str) else (activation[0], activation[1:])
        )
        attributes["activations"].append(_WRITTEN[ours])
        # What takes a value is always given one: runtimes differ in what they take otherwise.
        values = (*given, *ACTIVATIONS[ours][len(given) :])
        for key, value in zip(("activation_alpha", "activation_beta"), values, strict=False):
            attributes.setdefault(key, []).append(value)
    return attributes


def _reorder(array: Array, order: tuple[int, ...]) -> Array:
    """The blocks of an array's first axis in another order."""
    blocks = array.reshape(len(order), -1, *array.shape[1:])
    return blocks[list(order)].reshape(array.shape)


# --- running --------------------------------------------------------------------------------------


def run_layers(
    layers: Sequence[LSTM], x: Array, lengths: Array | None, h_0: Array | None, c_0: Array | None
) -> tuple[Array, Array, Array]:
    """A node's Y, Y_h and Y_c, in the layout of the layers."""
    batch_first = layers[0].batch_first
    if x.ndim != 3:
        raise ValueError(f"X has shape {x.shape}, expected three axes")
    state = _read_state(layers, h_0, c_0)
    if len(layers) == 1:
        output, (h, c) = layers[0](x, state, lengths=lengths)
    else:
        halves = []
        for k, lstm in enumerate(layers):
            part = None if state is None else (state[0][k : k + 1], state[1][k : k + 1])
            halves.append(lstm(x, part, lengths=lengths))
        output = np.concatenate([half[0] for half in halves], axis=-1)
        h, c = (np.concatenate([half[1][k] for half in halves]) for k in (0, 1))
    # Directions have an axis of their own: (B, T, D, H), or (T, D, B, H).
    y = output.reshape(*output.shape[:2], len(h), -1)
    if batch_first:
        return y, h.swapaxes(0, 1), c.swapaxes(0, 1)
    return y.swapaxes(1, 2), h, c


def _read_state(layers: Sequence[LSTM], h_0: Array | None, c_0: Array | None) -> State | None:
    if h_0 is None and c_0 is None:
        return None
    given = h_0 if h_0 is not None else c_0
    assert given is not None
    h, c = (np.zeros_like(given) if a is None else a for a in (h_0, c_0))
    return (h.swapaxes(0, 1), c.swapaxes(0, 1)) if layers[0].batch_first else (h, c)
