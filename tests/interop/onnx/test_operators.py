"""The operators around an LSTM: onnx's own tests of each, and that the bounds on memory hold."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastlstm.interop.onnx import load
from fastlstm.interop.onnx._operators import OPERATORS, Operator
from fastlstm.storage import FormatError
from tests.interop.onnx.graphs import model_of
from tests.support import assert_close


def onnx_cases() -> dict[str, list[Any]]:
    """onnx's own tests of the operators on the list, by operator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the modules are as they are
        package = importlib.import_module("onnx.backend.test.case.node")
        modules = [module.name for module in pkgutil.iter_modules(package.__path__)]
        for op in OPERATORS:
            for name in modules:
                if name.replace("_", "").removesuffix("op") == op.lower():
                    importlib.import_module(f"{package.__name__}.{name}")
    cases: dict[str, list[Any]] = {}
    for case in package._NodeTestCases:
        operators = [node.op_type for node in case.model.graph.node]
        if len(operators) == 1 and operators[0] in OPERATORS:
            cases.setdefault(operators[0], []).append(case)
    return cases


CASES = onnx_cases()


def test_onnx_tests_every_operator_on_the_list() -> None:
    assert set(OPERATORS) == set(CASES)


def _array(value: Any) -> Any:
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return None if value is None else np.asarray(value)


@pytest.mark.parametrize("op", OPERATORS)
def test_onnx_own_tests(op: str) -> None:
    refused, passed = [], 0
    for case in CASES[op]:
        # Not has been the same since before the oldest version that is read.
        opset = case.model.opset_import[0].version = max(7, case.model.opset_import[0].version)
        ((inputs, expected),) = case.data_sets
        arrays = [_array(value) for value in inputs if value is not None]
        expected = [_array(value) for value in expected]
        try:
            results = load(case.model).run(arrays)
        except FormatError as error:
            refused.append(str(error))
            continue
        for ours, theirs in zip(results.values(), expected, strict=True):
            assert ours.dtype == theirs.dtype, case.name
            np.testing.assert_allclose(ours, theirs, case.rtol, case.atol, err_msg=case.name)
        (node,) = case.model.graph.node
        given = iter(arrays)
        bound = Operator(node, opset).bound([next(given) if n else None for n in node.input])
        assert op == "Constant" or sum(array.size for array in expected) * 8 <= bound, case.name
        passed += 1
    assert passed
    # Text, sequences, and numbers of a few bits, which no LSTM meets.
    assert not [e for e in refused if "not supported" not in e and "is no tensor" not in e]


@pytest.mark.parametrize(("opset", "axis"), [(12, -1), (11, 1), (12, None), (13, 0), (13, None)])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_before_and_since_version_13(op: str, opset: int, axis: int | None) -> None:
    attributes = {} if axis is None else {"axis": axis}
    node = helper.make_node(op, ["x"], ["y"], **attributes)
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    actual = load(model_of([node], {"x": ["B", "C"]}, {"y": 2}, opset=opset)).run([x])["y"]
    along = 0 if axis == 0 else 1
    expected = np.exp(x) / np.exp(x).sum(along, keepdims=True)
    assert_close(actual, expected if op == "Softmax" else np.log(expected), 1e-6)


def test_softmax_over_several_axes_is_refused() -> None:
    """Before version 13, axis 1 of three meant the two last ones together."""
    node = helper.make_node("Softmax", ["x"], ["y"])
    model = load(model_of([node], {"x": [2, 3, 4]}, {"y": 3}, opset=11))
    with pytest.raises(FormatError, match=r"\(Softmax\): before opset 13"):
        model.run([np.zeros((2, 3, 4), np.float32)])


def test_a_constant_in_another_file_is_refused() -> None:
    node = helper.make_node("Constant", [], ["c"])
    tensor = numpy_helper.from_array(np.float32([1]))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights"
    node.attribute.append(helper.make_attribute("value", tensor))
    nodes = [node, helper.make_node("Add", ["x", "c"], ["y"])]
    with pytest.raises(FormatError, match="a constant in another file"):
        load(model_of(nodes, {"x": [1]}, {"y": 1}))
