"""Small ONNX models put together by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.support import Array

FLOAT = TensorProto.FLOAT


def model_of(
    nodes: Sequence[Any],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, int],
    constants: Mapping[str, Array] | None = None,
    opset: int = 17,
) -> Any:
    """A model with float32 inputs of these shapes, and outputs of so many axes."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(k, FLOAT, shape) for k, shape in inputs.items()],
        [helper.make_tensor_value_info(k, FLOAT, [None] * axes) for k, axes in outputs.items()],
        [numpy_helper.from_array(np.asarray(a), k) for k, a in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
