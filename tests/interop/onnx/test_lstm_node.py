"""Nodes of ONNX's operator LSTM against onnx.reference, onnx's own tests, and ONNX Runtime.

ONNX Runtime and onnx.reference do not compute the same operator. The reference ignores
sequence_lens, clip, input_forget and activations altogether; ONNX Runtime knows all of them, but
neither float64 nor layout 1. Where only one has an answer, that is ours, too. Where ONNX Runtime
differs from the operator's text we follow the text: "where peers differ" has these cases.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fastlstm.interop.onnx import load, read_lstms
from fastlstm.storage import FormatError
from tests.interop.onnx.cases import Node, nodes
from tests.support import Array, assert_close, assert_same_bits, normal, tolerance_of


def run_ours(node: Node) -> list[Array]:
    return list(load(node.model()).run(node.feeds()).values())


def assert_outputs(node: Node, expected: list[Array]) -> None:
    for name, ours, theirs in zip(node.outputs, run_ours(node), expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert_close(ours, theirs, tolerance_of(node.dtype), f"{name} of {node.attributes}")


@given(node=nodes(np.float64, lengths=False, variants=False))
def test_float64_equals_the_reference(node: Node) -> None:
    assert_outputs(node, ReferenceEvaluator(node.model()).run(None, node.feeds()))


@given(node=nodes(np.float32, lengths=False, variants=False))
def test_float32_equals_the_reference(node: Node) -> None:
    assert_outputs(node, ReferenceEvaluator(node.model()).run(None, node.feeds()))


@pytest.mark.oracle
@given(node=nodes(np.float32, layouts=(0,)))
def test_every_attribute_equals_onnx_runtime(node: Node) -> None:
    assert_outputs(node, run_runtime(node))


def run_runtime(node: Node) -> list[Array]:
    runtime = pytest.importorskip("onnxruntime")
    runtime.set_default_logger_severity(3)
    session = runtime.InferenceSession(
        node.model().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    outputs: list[Array] = session.run(None, node.feeds())
    return outputs


@given(node=nodes(np.float32))
def test_weights_computed_in_a_run_give_what_constant_ones_give(node: Node) -> None:
    computed = load(node.model(constants=())).run(node.feeds(constants=()))
    for ours, theirs in zip(computed.values(), run_ours(node), strict=True):
        assert_same_bits(ours, theirs)


def onnx_cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the module is as it is
        node = importlib.import_module("onnx.backend.test.case.node")
        importlib.import_module("onnx.backend.test.case.node.lstm")
    return [c for c in node._NodeTestCases if c.name.startswith("test_lstm")]


CASES = onnx_cases()


def test_onnx_tests_its_operator() -> None:
    assert len(CASES) >= 4


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_onnx_own_test(case: Any) -> None:
    ((inputs, expected),) = case.data_sets
    actual = load(case.model).run(inputs)
    for ours, theirs in zip(actual.values(), expected, strict=True):
        assert_close(ours, theirs, 1e-5)


# --- where peers differ ---------------------------------------------------------------------------


def node_of(**changes: Any) -> Node:
    """A small node; a change is an input if it is an array, and an attribute otherwise."""
    rng = np.random.default_rng(0)
    directions = 2 if changes.get("direction") == "bidirectional" else 1
    inputs: dict[str, Any] = {
        "X": normal(rng, (3, 2, 3), np.float32),
        "W": normal(rng, (directions, 8, 3), np.float32),
        "R": normal(rng, (directions, 8, 2), np.float32),
    }
    inputs |= {name: value for name, value in changes.items() if isinstance(value, np.ndarray)}
    attributes = {name: value for name, value in changes.items() if name not in inputs}
    return Node(inputs, {"hidden_size": 2} | attributes, ("Y", "Y_h", "Y_c"), 14)


@pytest.mark.oracle
def test_onnx_runtime_starts_an_empty_sequence_from_zeros() -> None:
    """Ours ends where it began, as in every layer here; the operator's text does not say."""
    state = np.ones((1, 2, 2), np.float32)
    node = node_of(sequence_lens=np.int32([0, 2]), initial_h=state, initial_c=2 * state)
    (_, h, c), (_, runtime_h, runtime_c) = run_ours(node), run_runtime(node)
    assert (h[0, 0] == 1).all()
    assert (c[0, 0] == 2).all()
    assert (runtime_h[0, 0] == 0).all()
    assert (runtime_c[0, 0] == 0).all()
    assert_close(h[0, 1], runtime_h[0, 1], 1e-5)


@pytest.mark.oracle
def test_onnx_runtime_has_other_defaults_than_the_operators() -> None:
    """The text: those of the operator of the same name. ThresholdedRelu's alpha is 1 there."""
    default, one, zero = (
        node_of(activations=["Sigmoid", "ThresholdedRelu", "Tanh"], **alpha)
        for alpha in ({}, {"activation_alpha": [1.0]}, {"activation_alpha": [0.0]})
    )
    for ours, expected in zip(run_ours(default), run_ours(one), strict=True):
        assert_same_bits(ours, expected)
    for theirs, expected in zip(run_runtime(default), run_runtime(zero), strict=True):
        assert_same_bits(theirs, expected)
    # The text has none for Affine, ONNX Runtime takes zeros for both: every h is zero then.
    affine = node_of(activations=["Affine", "Tanh", "Tanh"])
    assert (run_runtime(affine)[0] == 0).all()
    with pytest.raises(FormatError, match="Affine without"):
        load(affine.model())


@pytest.mark.oracle
@pytest.mark.parametrize("change", [{"layout": 1}, {"dtype": np.float64}], ids=repr)
def test_what_onnx_runtime_refuses_runs_here(change: dict[str, Any]) -> None:
    node = node_of(**{k: v for k, v in change.items() if k == "layout"})
    if "dtype" in change:
        inputs = {k: a.astype(np.float64) for k, a in node.inputs.items() if a is not None}
        node = Node(inputs, node.attributes, node.outputs, node.opset)
    with pytest.raises(Exception, match=r"(?i)layout|double"):
        run_runtime(node)
    assert_outputs(node, ReferenceEvaluator(node.model()).run(None, node.feeds()))


@pytest.mark.parametrize(
    "change",
    [
        {"sequence_lens": np.int32([1, 3])},
        {"clip": 0.1},
        {"input_forget": 1},
        {"activations": ["HardSigmoid", "Relu", "Softsign"]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_reference_knows_less_than_the_operator(change: dict[str, Any]) -> None:
    """It gives what the plain node gives; ours is ONNX Runtime's (see above)."""
    node, plain = node_of(**change), node_of()
    reference = ReferenceEvaluator(node.model()).run(None, node.feeds())
    assert_outputs(plain, reference)
    with pytest.raises(AssertionError):
        assert_outputs(node, reference)


# --- weights --------------------------------------------------------------------------------------


def test_gates_and_biases_go_where_they_belong() -> None:
    hidden, width = 2, 3
    blocks = {gate: float(k) for k, gate in enumerate("iofc", start=1)}

    def stacked(*shape: int) -> Array:
        return np.stack([np.full((hidden, *shape), blocks[g], np.float32) for g in "iofc"]).reshape(
            1, 4 * hidden, *shape
        )

    bias = np.concatenate([stacked(), 10 * stacked()], axis=1)
    inputs = {"X": np.zeros((1, 1, width), np.float32), "W": stacked(width), "R": -stacked(hidden)}
    node = Node(inputs | {"B": bias}, {"hidden_size": hidden}, ("Y",), 14)
    (lstm,) = read_lstms(node.model()).values()
    expected = np.repeat([blocks[gate] for gate in "ifco"], hidden).astype(np.float32)
    assert_same_bits(lstm.weight_ih_l0, np.tile(expected[:, None], width))
    assert_same_bits(lstm.weight_hh_l0, -np.tile(expected[:, None], hidden))
    assert_same_bits(lstm.bias_ih_l0, expected)
    assert_same_bits(lstm.bias_hh_l0, 10 * expected)


def test_a_layer_is_named_like_its_node_or_its_output() -> None:
    node = node_of()
    model = node.model()
    assert list(read_lstms(model)) == ["Y"]
    model.graph.node[0].name = "encoder"
    assert list(read_lstms(model)) == list(load(model).lstms) == ["encoder"]


def test_two_nodes_of_one_name_are_told_apart() -> None:
    model = node_of().model()
    again = model.graph.node.add()
    again.CopyFrom(model.graph.node[0])
    again.output[:] = ["Y2", "", ""]
    for node in model.graph.node:
        node.name = "twin"
    assert list(read_lstms(model)) == ["twin", "Y2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 3}, "hidden_size is 3"),
        ({"direction": "sideways"}, "direction"),
        ({"direction": "bidirectional", "W": (1, 8, 3)}, r"W has shape \(1, 8, 3\)"),
        ({"W": (1, 6, 3)}, r"W has shape \(1, 6, 3\)"),
        ({"R": (8, 2)}, "R has shape"),
        ({"B": (1, 8)}, "B has shape"),
        ({"P": (1, 8)}, "P has shape"),
        ({"activations": ["Sigmoid", "Tanh"]}, "expected 3 activations"),
        ({"activations": ["Sigmoid", "Tanh", "Swish"]}, "unknown activation 'Swish'"),
        ({"activations": ["Affine", "Tanh", "Tanh"]}, "Affine without"),
    ],
)
def test_a_node_that_is_no_lstm_is_refused(change: dict[str, Any], message: str) -> None:
    changes = {k: np.zeros(v, np.float32) if isinstance(v, tuple) else v for k, v in change.items()}
    broken = node_of(**changes)
    for read in (load, read_lstms):
        with pytest.raises(FormatError, match=message):
            read(broken.model())


def test_half_precision_is_refused() -> None:
    node = node_of()
    halves = {k: a.astype(np.float16) for k, a in node.inputs.items() if a is not None}
    with pytest.raises(FormatError, match="float16"):
        load(Node(halves, node.attributes, ("Y",), 14).model())


def test_weights_that_a_run_computes_are_no_layer() -> None:
    with pytest.raises(FormatError, match=r"'Y' .*computed while the model runs"):
        read_lstms(node_of().model(constants=("R",)))


def test_weights_behind_other_nodes_are_found() -> None:
    node = node_of()
    expected = read_lstms(node.model())["Y"]
    model = node.model()
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = numpy_helper.to_array(tensors["W"])
    del model.graph.initializer[:]
    lstm = model.graph.node[0]
    lstm.input[1], lstm.input[2] = "W_joined", "R_same"
    halves = [helper.make_node("Constant", [], [f"W_{k}"]) for k in range(2)]
    for half, array in zip(halves, np.split(weights, 2, axis=1), strict=True):
        half.attribute.append(helper.make_attribute("value", numpy_helper.from_array(array)))
    tensors["R"].name = "R_given"
    model.graph.initializer.append(tensors["R"])
    nodes_ = [
        *halves,
        helper.make_node("Concat", ["W_0", "W_1"], ["W_joined"], axis=1),
        helper.make_node("Identity", ["R_given"], ["R_same"]),
        lstm,
    ]
    copied = [type(lstm).FromString(n.SerializeToString()) for n in nodes_]
    del model.graph.node[:]
    model.graph.node.extend(copied)
    found = read_lstms(model)["Y"]
    assert_same_bits(found.weight_ih_l0, expected.weight_ih_l0)
    assert_same_bits(found.weight_hh_l0, expected.weight_hh_l0)
    assert list(load(model).lstms) == ["Y"]
