"""ONNX models with one node LSTM, drawn at random: every input and attribute the operator has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import checker, helper, numpy_helper

from tests.support import Array, normal

# What takes alpha, and what takes beta.
ACTIVATIONS = {
    "Sigmoid": (False, False), "Tanh": (False, False), "Relu": (False, False),
    "Softsign": (False, False), "Softplus": (False, False), "LeakyRelu": (True, False),
    "ThresholdedRelu": (True, False), "Elu": (True, False), "HardSigmoid": (True, True),
    "Affine": (True, True), "ScaledTanh": (True, True),
}  # fmt: skip
# ONNX Runtime computes ScaledTanh by 2 σ(2x) - 1, and Elu by e^x - 1: few digits for small x.
EXACT = [name for name in ACTIVATIONS if name not in ("ScaledTanh", "Elu")]
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
OUTPUTS = ("Y", "Y_h", "Y_c")


@dataclass(frozen=True)
class Node:
    """One node: its inputs (None where it has none), its attributes, its version."""

    inputs: dict[str, Array | None]
    attributes: dict[str, Any]
    outputs: tuple[str, ...]
    opset: int

    def model(self, constants: tuple[str, ...] = ("W", "R", "B", "P")) -> Any:
        """A model of this node; the other inputs are the model's."""
        given = {name: array for name, array in self.inputs.items() if array is not None}
        names = [name if name in given else "" for name in INPUTS]
        node = helper.make_node(
            "LSTM", names, [o if o in self.outputs else "" for o in OUTPUTS], **self.attributes
        )
        element = helper.np_dtype_to_tensor_dtype(self.dtype)
        opsets = [helper.make_opsetid("", self.opset)]
        version = helper.find_min_ir_version_for(opsets)
        # In the oldest files, constants are inputs too.
        listed = [k for k in given if k not in constants or version < 4]
        graph = helper.make_graph(
            [node], "one", [_value(k, given[k]) for k in listed],
            [
                helper.make_tensor_value_info(name, element, [None] * (4 if name == "Y" else 3))
                for name in self.outputs
            ],
            [numpy_helper.from_array(a, k) for k, a in given.items() if k in constants],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=opsets, ir_version=version)
        checker.check_model(model)
        return model

    def feeds(self, constants: tuple[str, ...] = ("W", "R", "B", "P")) -> dict[str, Array]:
        return {k: a for k, a in self.inputs.items() if a is not None and k not in constants}

    @property
    def dtype(self) -> np.dtype[Any]:
        x = self.inputs["X"]
        assert x is not None
        return x.dtype


def _value(name: str, array: Array) -> Any:
    element = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, element, [f"{name}_{k}" for k in range(array.ndim)])


@st.composite
def nodes(
    draw: st.DrawFn,
    dtype: Any = np.float32,
    *,
    layouts: tuple[int, ...] = (0, 1),
    lengths: bool = True,
    variants: bool = True,
) -> Node:
    """A node; without `variants`, none of clip, input_forget and activations."""
    steps, batch, width, hidden = (draw(st.integers(1, n)) for n in (6, 4, 5, 5))
    directions = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    layout = draw(st.sampled_from(layouts))
    count = 2 if directions == "bidirectional" else 1
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def optional(*shape: int, scale: float = 0.5) -> Array | None:
        array = normal(rng, shape) * scale
        return array.astype(dtype) if draw(st.booleans()) else None

    x = (batch, steps, width) if layout else (steps, batch, width)
    state = (batch, count, hidden) if layout else (count, batch, hidden)
    inputs: dict[str, Array | None] = {
        "X": normal(rng, x, dtype),
        "W": (normal(rng, (count, 4 * hidden, width)) / math.sqrt(width)).astype(dtype),
        "R": (normal(rng, (count, 4 * hidden, hidden)) / math.sqrt(4 * hidden)).astype(dtype),
        "B": optional(count, 8 * hidden), "sequence_lens": None,
        "initial_h": optional(*state), "initial_c": optional(*state),
        "P": optional(count, 3 * hidden),
    }  # fmt: skip
    if lengths and draw(st.booleans()):
        inputs["sequence_lens"] = rng.integers(1, steps + 1, batch).astype(np.int32)
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": directions}
    if layout:
        attributes["layout"] = 1
    if variants:
        attributes |= draw(_variants(count))
    outputs = draw(st.sets(st.sampled_from(OUTPUTS), min_size=1))
    opset = draw(st.sampled_from([14, 17, 22] if layout else [7, 14, 22]))
    return Node(inputs, attributes, tuple(o for o in OUTPUTS if o in outputs), opset)


@st.composite
def _variants(draw: st.DrawFn, directions: int) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    if draw(st.booleans()):
        attributes["clip"] = draw(st.sampled_from([0.1, 0.5, 2.0]))
    if draw(st.booleans()):
        attributes["input_forget"] = 1
    if draw(st.booleans()):
        names = draw(st.lists(st.sampled_from(EXACT), min_size=3, max_size=3))
        if directions == 2:
            same = draw(st.booleans())
            more = st.lists(st.sampled_from(EXACT), min_size=3, max_size=3)
            names = names + (names if same else draw(more))
        attributes["activations"] = names
        values = st.sampled_from([0.125, 0.25, 0.5, 0.75])
        for k, key in enumerate(("activation_alpha", "activation_beta")):
            taken = [draw(values) for name in names if ACTIVATIONS[name][k]]
            if taken:
                attributes[key] = taken
    return attributes
