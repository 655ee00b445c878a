"""The operators that may stand around an LSTM: which they are, and how large a result can become.

They are computed by onnx's own reference implementations, which are written in NumPy. Only those
of a fixed list are taken: none reads a file, draws random numbers, loops, or holds a graph of its
own. For each the list has a bound on the elements of its results, so that a small file cannot ask
for more memory than a run allows (ConstantOfShape, Expand and Tile take any size from a few bytes).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastlstm._extras import import_extra
from fastlstm._validate import Array

Arrays = Sequence[Any]  # arrays; None where a node leaves an input out
Attributes = dict[str, Any]
_KINDS = "biuf"  # bools, whole numbers, floats


def _same(inputs: Arrays, _attributes: Attributes) -> int:
    """No result is larger than the largest input."""
    return max((array.size for array in inputs if array is not None), default=0)


def _broadcast(inputs: Arrays, _attributes: Attributes) -> int:
    return math.prod(np.broadcast_shapes(*(a.shape for a in inputs if a is not None)))


def _normalized(inputs: Arrays, attributes: Attributes) -> int:
    return 3 * _broadcast(inputs, attributes)  # beside the result: means, and deviations


def _reduced(inputs: Arrays, _attributes: Attributes) -> int:
    """An axis without elements is reduced to one element."""
    return math.prod(size or 1 for size in inputs[0].shape)


def _sum(inputs: Arrays, _attributes: Attributes) -> int:
    return sum(array.size for array in inputs if array is not None)


def _shape(inputs: Arrays, _attributes: Attributes) -> int:
    return _product(inputs[0])


def _expand(inputs: Arrays, _attributes: Attributes) -> int:
    data, shape = inputs
    return math.prod(np.broadcast_shapes(data.shape, tuple(_whole_numbers(shape))))


def _tile(inputs: Arrays, _attributes: Attributes) -> int:
    data, repeats = inputs
    return int(data.size) * _product(repeats)


def _range(inputs: Arrays, _attributes: Attributes) -> int:
    start, limit, delta = (float(np.asarray(a).reshape(())) for a in inputs)
    return max(0, math.ceil((limit - start) / delta))


def _gather(inputs: Arrays, attributes: Attributes) -> int:
    data, indices = inputs
    axis = attributes.get("axis", 0)
    rest = math.prod(data.shape[:axis]) * math.prod(data.shape[axis:][1:])
    return int(indices.size * rest)


def _matmul(inputs: Arrays, _attributes: Attributes) -> int:
    a, b = inputs
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return math.prod(batch + a.shape[-2:-1] + (b.shape[-1:] if b.ndim > 1 else ()))


def _gemm(inputs: Arrays, attributes: Attributes) -> int:
    a, b, c = (*inputs, None)[:3]
    rows = a.shape[1 if attributes.get("transA") else 0]
    columns = b.shape[0 if attributes.get("transB") else 1]
    shape = np.broadcast_shapes((rows, columns), () if c is None else c.shape)
    return math.prod(shape)


def _constant(_inputs: Arrays, _attributes: Attributes) -> int:
    return 0  # it is in the file


def _whole_numbers(array: Array) -> list[int]:
    # -1 in Expand's shape is no number of elements, but some exporters write it for 1.
    return [max(int(size), 0) if size != -1 else 1 for size in array.reshape(-1)]


def _product(array: Array) -> int:
    return math.prod(_whole_numbers(array))


Bound = Callable[[Arrays, Attributes], int]
_ELEMENTWISE = (
    "Add Sub Mul Div Pow Mod Min Max Sum Mean And Or Xor Equal Less LessOrEqual Greater "
    "GreaterOrEqual Where PRelu Clip"
)
_NO_LARGER = (
    "Identity Cast CastLike Reshape Flatten Squeeze Unsqueeze Transpose Slice ReverseSequence "
    "Split GatherElements Shape Size Abs Neg Reciprocal Sqrt Exp Log Erf Floor Ceil Round Sign Not "
    "IsNaN Relu LeakyRelu Elu Selu Celu ThresholdedRelu HardSigmoid Sigmoid Tanh Softplus Softsign "
    "Softmax LogSoftmax CumSum Trilu"
)
_REDUCING = (
    "ReduceMax ReduceMin ReduceSum ReduceMean ReduceProd ReduceL2 ReduceSumSquare ArgMax ArgMin"
)
OPERATORS: dict[str, Bound] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _broadcast),
    **dict.fromkeys(_NO_LARGER.split(), _same),
    **dict.fromkeys(_REDUCING.split(), _reduced),
    "Constant": _constant,
    "Concat": _sum,
    "BatchNormalization": _sum,
    "LayerNormalization": _normalized,
    "ConstantOfShape": _shape,
    "Expand": _expand,
    "Tile": _tile,
    "Range": _range,
    "Gather": _gather,
    "MatMul": _matmul,
    "Gemm": _gemm,
}


class Operator:
    """A node of one of these operators, ready to be called with its inputs (None where absent)."""

    def __init__(self, node: Any, opset: int) -> None:
        helper = import_extra("onnx.helper", extra="onnx", purpose="ONNX models")
        # A copy: a part of a model would keep all of it alive.
        node = type(node).FromString(node.SerializeToString())
        ops = import_extra("onnx.reference.ops", extra="onnx", purpose="ONNX models")
        self._attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self._bound = OPERATORS[node.op_type]
        self._last_axis = None
        if opset < 13 and node.op_type in ("Softmax", "LogSoftmax"):
            # It ran over all axes from this one on, flattened, and its default was another one.
            self._last_axis = self._attributes.get("axis", 1)
            node = helper.make_node(node.op_type, node.input, node.output, axis=-1)
        # As its own method `create` makes one, which always takes the newest operators.
        parameters = {"log": _ignore, "opsets": {"": opset}, "verbose": 0, "new_ops": None}
        self._run = ops.load_op("", node.op_type, opset)(node, parameters).run

    def bound(self, inputs: Arrays) -> int:
        """Bytes that the results take at most; eight for an element."""
        return 8 * self._bound(inputs, self._attributes)

    def __call__(self, inputs: Arrays) -> Sequence[Array]:
        if self._last_axis is not None:
            axes = inputs[0].ndim
            if self._last_axis % max(axes, 1) != axes - 1:
                raise ValueError(
                    f"before opset 13 and from axis {self._last_axis} of {axes} on is not supported"
                )
        outputs: Sequence[Array] = self._run(*inputs)
        for output in outputs:
            if not isinstance(output, np.ndarray) or output.dtype.kind not in _KINDS:
                kind = getattr(output, "dtype", type(output).__name__)
                raise TypeError(f"a result of the type {kind} is not supported")
        return outputs


def _ignore(*_: object) -> None:
    """Where the reference implementations log."""
