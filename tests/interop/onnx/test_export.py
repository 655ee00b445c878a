"""Layers as ONNX models: ONNX Runtime and onnx.reference compute from them what the layers do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from fastlstm import LSTM
from fastlstm._variants import ACTIVATIONS
from fastlstm.interop.onnx import load, read_lstms, save, to_onnx
from tests.interop.onnx.cases import Node, nodes
from tests.support import (
    Array,
    State,
    assert_close,
    assert_same_bits,
    normal,
    random_state,
    tolerance_of,
)

NEWEST = onnx.defs.onnx_opset_version()


ACTIVATIONS_OF_LAYERS = [
    ("sigmoid", "tanh", "tanh"),
    (("hard_sigmoid", 0.25, 0.5), "tanh", "softsign"),
    (("affine", 0.25, 0.5), "softplus", ("leaky_relu", 0.125)),
    ("sigmoid", ("thresholded_relu", 0.125), "relu"),
]


@st.composite
def layers(draw: st.DrawFn, dtype: Any = np.float32, *, variants: bool = True) -> LSTM:
    """A layer of any of the options that ONNX knows; without `variants`, as its reference does."""
    options: dict[str, Any] = {
        name: draw(st.booleans()) for name in ("bias", "batch_first", "bidirectional", "peepholes")
    }
    sizes = [draw(st.integers(1, most)) for most in (4, 5, 3)]
    options["reverse"] = not options["bidirectional"] and draw(st.booleans())
    if variants:
        options["clip"] = draw(st.sampled_from([None, 0.25, 1.0]))
        options["input_forget"] = draw(st.booleans())
        options["activations"] = draw(st.sampled_from(ACTIVATIONS_OF_LAYERS))
    return LSTM(*sizes, **options, dtype=dtype, rng=draw(st.integers(0, 2**32 - 1)))


@st.composite
def calls(draw: st.DrawFn, lstm: LSTM) -> tuple[Array, State | None, Array | None]:
    """x, an initial state and lengths to call a layer with."""
    steps, batch = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (batch, steps) if lstm.batch_first else (steps, batch)
    x = normal(rng, (*shape, lstm.input_size), lstm.dtype)
    state = random_state(rng, lstm, batch) if draw(st.booleans()) else None
    lengths = rng.integers(1, steps + 1, batch).astype(np.int32)
    return x, state, lengths if draw(st.booleans()) else None


def feeds(x: Array, state: State | None, lengths: Array | None) -> dict[str, Array]:
    given = {"x": x}
    if state is not None:
        given |= {"h_0": state[0], "c_0": state[1]}
    if lengths is not None:
        given["lengths"] = lengths
    return given


def assert_results(lstm: LSTM, call: tuple[Any, Any, Any], results: list[Array]) -> None:
    x, state, lengths = call
    output, (h_n, c_n) = lstm(x, state, lengths=lengths)
    for ours, theirs in zip((output, h_n, c_n), results, strict=True):
        assert theirs.dtype == lstm.dtype
        assert_close(theirs, ours, tolerance_of(lstm.dtype), repr(lstm))


@pytest.mark.oracle
@given(data=st.data(), lstm=layers(), opset=st.integers(14, 23))
def test_onnx_runtime_computes_what_the_layer_does(
    data: st.DataObject, lstm: LSTM, opset: int
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    runtime.set_default_logger_severity(3)
    _, state, lengths = call = data.draw(calls(lstm))
    model = to_onnx(lstm, state=state is not None, lengths=lengths is not None, opset=opset)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    assert_results(lstm, call, session.run(None, feeds(*call)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
def test_the_reference_computes_what_the_layer_does(dtype: Any, data: st.DataObject) -> None:
    lstm = data.draw(layers(dtype, variants=False))
    x, state, _ = data.draw(calls(lstm))
    model = to_onnx(lstm, state=state is not None, opset=data.draw(st.sampled_from([14, 22])))
    results = ReferenceEvaluator(model).run(None, feeds(x, state, None))
    assert_results(lstm, (x, state, None), results)


@given(data=st.data(), dtype=st.sampled_from([np.float32, np.float64]))
def test_a_layer_comes_back_to_the_bit(data: st.DataObject, dtype: Any) -> None:
    lstm = data.draw(layers(dtype))
    x, state, lengths = call = data.draw(calls(lstm))
    model = to_onnx(lstm, state=state is not None, lengths=lengths is not None)
    for layer, found in enumerate(read_lstms(model).values()):
        assert found.input_size == (found.input_size if layer else lstm.input_size)
        for name, array in found.parameters().items():
            assert_same_bits(array, lstm.parameters()[name.replace("_l0", f"_l{layer}")])
    output, (h_n, c_n) = lstm(x, state, lengths=lengths)
    results = load(model).run(feeds(*call))
    for ours, theirs in zip((output, h_n, c_n), results.values(), strict=True):
        assert_same_bits(theirs, ours)


@given(node=nodes(np.float32, layouts=(0,), variants=False))
def test_a_node_comes_back_to_the_bit(node: Node) -> None:
    model = node.model()
    (lstm,) = read_lstms(model).values()
    written = to_onnx(lstm)
    before, after = (
        {t.name.removesuffix("_l0"): numpy_helper.to_array(t) for t in m.graph.initializer}
        for m in (model, written)
    )
    assert set(before) == set(after) - {"direction", "rows"}
    for name, array in before.items():
        assert_same_bits(after[name], array)


def test_a_file_is_that_model(tmp_path: Path) -> None:
    lstm = LSTM(2, 3, rng=0)
    path = tmp_path / "lstm.onnx"
    for _ in range(2):  # the second time it replaces the first
        save(lstm, path, state=True, lengths=True, opset=22)
    assert onnx.load(path) == to_onnx(lstm, state=True, lengths=True, opset=22)
    assert [i.name for i in load(path).inputs] == ["x", "h_0", "c_0", "lengths"]
    assert list(tmp_path.iterdir()) == [path]


def test_dropout_acts_in_training_alone() -> None:
    options = ("dropout", "input_dropout", "recurrent_dropout", "weight_dropout")
    with_dropout = LSTM(2, 3, 2, rng=0, locked_dropout=True, **dict.fromkeys(options, 0.5))
    assert to_onnx(with_dropout) == to_onnx(LSTM(2, 3, 2, rng=0))


@pytest.mark.parametrize(
    "option",
    [{"proj_size": 2}, {"layer_norm": True}, {"zoneout": 0.1}, {"zoneout": (0.0, 0.1)}],
    ids=repr,
)
def test_what_onnx_has_no_words_for_is_named(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(ValueError, match=f"lstm: ONNX's LSTM has nothing like {name}="):
        to_onnx(LSTM(2, 3, rng=0, **option))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lstm": None}, TypeError, "lstm: expected a fastlstm.LSTM"),
        ({"state": 1}, TypeError, "state"),
        ({"lengths": None}, TypeError, "lengths"),
        ({"opset": 13}, ValueError, "opset.*14"),
        ({"opset": NEWEST + 1}, ValueError, f"opset.*{NEWEST}"),
        ({"opset": 17.0}, TypeError, "opset"),
    ],
)
def test_arguments_are_checked(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        to_onnx(**({"lstm": LSTM(2, 3, rng=0)} | arguments))


@pytest.mark.oracle
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_onnx_runtimes(name: str, place: int) -> None:
    """With and without numbers, in each of the three places."""
    runtime = pytest.importorskip("onnxruntime")
    numbers = (0.25, 0.5)[: len(ACTIVATIONS[name])]
    x = normal(np.random.default_rng(0), (4, 3, 5), np.float32) * np.float32(2)
    for activation in (name, (name, *numbers)):
        activations: list[Any] = ["sigmoid", "tanh", "tanh"]
        activations[place] = activation
        lstm = LSTM(5, 6, activations=activations, bidirectional=place == 1, rng=0)
        session = runtime.InferenceSession(
            to_onnx(lstm).SerializeToString(), providers=["CPUExecutionProvider"]
        )
        assert_results(lstm, (x, None, None), session.run(None, {"x": x}))
