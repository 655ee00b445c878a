"""Layers written as ONNX models: one node LSTM for each layer, and what joins them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fastlstm._validate import Array, check_flag, check_size
from fastlstm._version import __version__
from fastlstm.interop.onnx._graph import LARGEST_FILE, Proto, import_onnx
from fastlstm.interop.onnx._lstm_node import node_attributes, node_weights
from fastlstm.lstm import LSTM
from fastlstm.storage import replacing

_OLDEST_OPSET = 14  # the first whose Reshape, Split and LSTM are those that are written here
_EXPRESSED = {
    "input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional", "reverse",
    "peepholes", "clip", "input_forget", "activations", "dtype",
}  # fmt: skip
_IN_TRAINING_ALONE = {
    "dropout", "input_dropout", "locked_dropout", "recurrent_dropout", "weight_dropout",
}  # fmt: skip


def save(
    lstm: LSTM,
    path: str | os.PathLike[str],
    *,
    state: bool = False,
    lengths: bool = False,
    opset: int = 17,
) -> None:
    """Write a layer as an ONNX model, atomically; see `to_onnx`.

    Parameters
    ----------
    lstm : LSTM
    path : str or path
        A file to write or replace, by custom with the suffix ".onnx".
    state, lengths, opset
        As for `to_onnx`.

    Raises
    ------
    TypeError, ValueError, ImportError
        As for `to_onnx`.
    OSError
        If the file cannot be written. What was there before is left as it was.
    """
    content = to_onnx(lstm, state=state, lengths=lengths, opset=opset).SerializeToString()
    with replacing(Path(os.fspath(path))) as file:
        file.write(content)


def to_onnx(lstm: LSTM, *, state: bool = False, lengths: bool = False, opset: int = 17) -> Proto:
    """A layer as an ONNX model, which computes what a call of the layer does.

    Its input is "x", its outputs are "output", "h_n" and "c_n", in the shapes that the layer has
    them in, with any T and B. Dropouts and weight dropout, which act in training alone, are left
    out. ONNX keeps clip and the numbers of activations in float32. ONNX Runtime runs float32 alone.

    Parameters
    ----------
    lstm : LSTM
    state : bool
        Whether the model has the inputs "h_0" and "c_0" (layers · directions, B, H); zeros
        otherwise.
    lengths : bool
        Whether the model has the input "lengths" (B,) of int32.
    opset : int
        Version of ONNX's operators, from 14.

    Returns
    -------
    model : onnx.ModelProto

    Raises
    ------
    TypeError
        If `lstm` is no LSTM.
    ValueError
        If the layer has an option that ONNX's LSTM does not know (the message names it), or its
        weights are more than one file holds (2 GiB).
    ImportError
        If onnx is not installed.
    """
    onnx = import_onnx()
    if not isinstance(lstm, LSTM):
        raise TypeError(f"lstm: expected a fastlstm.LSTM, got a {type(lstm).__name__}")
    has_state, has_lengths = check_flag("state", state), check_flag("lengths", lengths)
    newest = onnx.defs.onnx_opset_version()
    opset = check_size("opset", opset, least=_OLDEST_OPSET, most=newest)
    _check_expressible(lstm)
    graph = _Writer(onnx, lstm, has_state=has_state, has_lengths=has_lengths).graph()
    opsets = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(
        graph, opset_imports=opsets, producer_name="fastlstm", producer_version=__version__,
        # The oldest that has these operators: runtimes refuse what is newer than they are.
        ir_version=onnx.helper.find_min_ir_version_for(opsets),
    )  # fmt: skip
    onnx.checker.check_model(model)
    return model


def _check_expressible(lstm: LSTM) -> None:
    for name, value in lstm.get_config().items():
        if name not in _EXPRESSED | _IN_TRAINING_ALONE and np.any(value):
            raise ValueError(f"lstm: ONNX's LSTM has nothing like {name}={value!r}")
    size = sum(array.nbytes for array in lstm.parameters().values())
    if size > LARGEST_FILE - 2**20:
        raise ValueError(f"lstm: {size} bytes of weights are more than an ONNX file can hold")


class _Writer:
    """Puts the graph of one layer together."""

    def __init__(self, onnx: ModuleType, lstm: LSTM, *, has_state: bool, has_lengths: bool) -> None:
        self._onnx = onnx
        self._lstm = lstm
        self._has_state = has_state
        self._has_lengths = has_lengths
        self._directions = 2 if lstm.bidirectional else 1
        self._runs = lstm.num_layers * self._directions
        self._nodes: list[Proto] = []
        self._constants: list[Proto] = []

    def graph(self) -> Proto:
        lstm = self._lstm
        below = "x"
        if lstm.batch_first:
            below = self._node("Transpose", ["x"], ["x_time_first"], perm=[1, 0, 2])
        h_0, c_0, h_n, c_n = (self._per_layer(name) for name in ("h_0", "c_0", "h_n", "c_n"))
        if self._has_state:
            self._split("h_0", h_0)
            self._split("c_0", c_0)
        else:
            h_0 = c_0 = [""] * lstm.num_layers
        last = "output_time_first" if lstm.batch_first else "output"
        for k in range(lstm.num_layers):
            above = last if k == lstm.num_layers - 1 else f"output_l{k}"
            self._layer(k, [below, h_0[k], c_0[k]], [above, h_n[k], c_n[k]])
            below = above
        if lstm.batch_first:
            self._node("Transpose", [last], ["output"], perm=[1, 0, 2])
        if lstm.num_layers > 1:
            self._node("Concat", h_n, ["h_n"], axis=0)
            self._node("Concat", c_n, ["c_n"], axis=0)
        return self._onnx.helper.make_graph(
            self._nodes, "fastlstm", self._inputs(), self._outputs(), self._constants
        )

    def _per_layer(self, name: str) -> list[str]:
        layers = range(self._lstm.num_layers)
        return [f"{name}_l{k}" for k in layers] if len(layers) > 1 else [name]

    def _layer(self, k: int, inputs: list[str], outputs: list[str]) -> None:
        """x, h_0, c_0 -> output (T, B, directions · H), h_n, c_n of one layer."""
        weights = node_weights(self._lstm, k)
        names = {key: self._constant(f"{key}_l{k}", array) for key, array in weights.items()}
        x, h_0, c_0 = inputs
        lengths = "lengths" if self._has_lengths else ""
        given = [x, names["W"], names["R"], names.get("B", ""), lengths, h_0, c_0]
        given.append(names.get("P", ""))
        while not given[-1]:
            given.pop()
        output, *states = outputs
        attributes = node_attributes(self._lstm)
        y = self._node("LSTM", given, [f"y_l{k}", *states], name=f"lstm_l{k}", **attributes)
        if self._directions == 1:
            axis = self._constant_once("direction", [1])
            self._node("Squeeze", [y, axis], [output])
        else:
            # (T, directions, B, H) -> (T, B, directions · H), where 0 stands for "as it is"
            rows = self._node("Transpose", [y], [f"y_rows_l{k}"], perm=[0, 2, 1, 3])
            shape = self._constant_once("rows", [0, 0, self._directions * self._lstm.hidden_size])
            self._node("Reshape", [rows, shape], [output])

    def _split(self, name: str, parts: list[str]) -> None:
        """(layers · directions, B, H) -> (directions, B, H) for each layer"""
        if len(parts) > 1:
            sizes = self._constant_once("directions", [self._directions] * len(parts))
            self._node("Split", [name, sizes], parts, axis=0)

    def _constant_once(self, name: str, numbers: list[int]) -> str:
        if name not in {constant.name for constant in self._constants}:
            self._constant(name, np.array(numbers, np.int64))
        return name

    def _node(self, op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> str:
        attributes.setdefault("name", outputs[0])
        self._nodes.append(self._onnx.helper.make_node(op, inputs, outputs, **attributes))
        return outputs[0]

    def _constant(self, name: str, array: Array) -> str:
        self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def _value(self, name: str, shape: Iterable[int | str], dtype: Any) -> Proto:
        element = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self._onnx.helper.make_tensor_value_info(name, element, list(shape))

    def _sequences(self, name: str, width: int) -> Proto:
        axes = ("B", "T", width) if self._lstm.batch_first else ("T", "B", width)
        return self._value(name, axes, self._lstm.dtype)

    def _states(self, *names: str) -> list[Proto]:
        shape = (self._runs, "B", self._lstm.hidden_size)
        return [self._value(name, shape, self._lstm.dtype) for name in names]

    def _inputs(self) -> list[Proto]:
        inputs = [self._sequences("x", self._lstm.input_size)]
        if self._has_state:
            inputs += self._states("h_0", "c_0")
        if self._has_lengths:
            inputs.append(self._value("lengths", ["B"], np.int32))
        return inputs

    def _outputs(self) -> list[Proto]:
        width = self._directions * self._lstm.hidden_size
        return [self._sequences("output", width), *self._states("h_n", "c_n")]
