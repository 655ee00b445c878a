"""Whole models: what their own frameworks gave for them, and how a run behaves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from fastlstm import LSTM
from fastlstm.interop.onnx import load, read_lstms, to_onnx
from fastlstm.storage import FormatError
from tests.interop.onnx.graphs import model_of
from tests.support import Array, assert_close, assert_same_bits, normal

WITNESSES = Path(__file__).parents[2] / "witnesses" / "onnx"
NAMES = sorted(path.stem for path in WITNESSES.glob("*.onnx"))


def stored(name: str) -> tuple[Path, dict[str, Array], list[Array]]:
    """A witness: the model, its inputs, and what its framework gave for them."""
    with np.load(WITNESSES / f"{name}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    outputs = [arrays.pop(k) for k in sorted(arrays) if k.startswith("output_")]
    return WITNESSES / f"{name}.onnx", arrays, outputs


@pytest.mark.parametrize("name", NAMES)
def test_a_trained_model_gives_what_its_framework_gave(name: str) -> None:
    path, inputs, expected = stored(name)
    model = load(path)
    outputs = model.run(inputs)
    assert list(outputs) == list(model.outputs)
    for ours, theirs in zip(outputs.values(), expected, strict=True):
        assert_close(ours, theirs, 1e-5)
    assert len(model.lstms) == 2
    assert list(read_lstms(path)) == list(model.lstms)


@pytest.mark.oracle
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (4, 23)])
def test_a_trained_model_gives_what_onnx_runtime_gives_at_other_sizes(
    name: str, batch: int, steps: int
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    path, inputs, _ = stored(name)
    rng = np.random.default_rng(0)
    if "words" in inputs:
        inputs = {"words": rng.integers(1, 20, (batch, steps)).astype(inputs["words"].dtype)}
    else:
        lengths = np.linspace(steps, 1, batch).astype(np.int64)
        inputs = {"x": normal(rng, (steps, batch, 4), np.float32), "lengths": lengths}
        inputs |= {k: normal(rng, (2, batch, 5), np.float32) for k in ("h_0", "c_0")}
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = session.run(None, inputs)
    for ours, theirs in zip(load(path).run(inputs).values(), expected, strict=True):
        assert_close(ours, theirs, 1e-5)


@pytest.mark.oracle
@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("options", [{"bias": False}, {"num_layers": 2, "bidirectional": True}])
@pytest.mark.filterwarnings("ignore")
def test_what_torch_exports_gives_what_torch_gives(
    tmp_path: Path, options: dict[str, Any], dynamo: bool
) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    module = torch.nn.LSTM(3, 4, **options).eval()
    x = torch.randn(6, 2, 3)
    runs = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    state = torch.randn(runs, 2, 4), torch.randn(runs, 2, 4)
    path = tmp_path / "model.onnx"
    # The newer exporter keeps weights in a file beside the model, the older one joins them there.
    kinds = {"dynamo": True} if dynamo else {"dynamo": False, "do_constant_folding": False}
    torch.onnx.export(module, (x, state), path, verbose=False, **kinds)
    output, (h_n, c_n) = module(x, state)
    ours = load(path).run([x.numpy(), state[0].numpy(), state[1].numpy()])
    for actual, expected in zip(ours.values(), (output, h_n, c_n), strict=True):
        assert_close(actual, expected.detach().numpy(), 1e-5)


# --- a run ----------------------------------------------------------------------------------------


def exported(**options: Any) -> tuple[LSTM, Any, Array]:
    lstm = LSTM(3, 4, rng=0, **options)
    return lstm, load(to_onnx(lstm)), normal(np.random.default_rng(1), (5, 2, 3), np.float32)


def test_inputs_go_by_name_or_in_order() -> None:
    lstm, model, x = exported()
    output, (h_n, c_n) = lstm(x)
    for inputs in ({"x": x}, [x], (x,)):
        results = model.run(inputs)
        assert list(results) == ["output", "h_n", "c_n"]
        for ours, theirs in zip(results.values(), (output, h_n, c_n), strict=True):
            assert_same_bits(ours, theirs)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (None, TypeError, "inputs: expected a dict or a list"),
        ({}, ValueError, r"missing \['x'\]"),
        ({"y": 1}, ValueError, "unexpected"),
        ([], ValueError, "expected 1"),
        ([[1.0]], TypeError, r"inputs\['x'\]: expected a numpy.ndarray"),
        ([np.zeros((5, 2, 3))], TypeError, r"inputs\['x'\]: expected an array of float32"),
        ([np.zeros((5, 3), np.float32)], ValueError, r"\(T, B, 3\)"),
        ([np.zeros((5, 2, 4), np.float32)], ValueError, r"\(T, B, 3\)"),
    ],
)
def test_an_input_that_does_not_fit_is_named(
    inputs: Any, error: type[Exception], message: str
) -> None:
    _, model, _ = exported()
    with pytest.raises(error, match=message):
        model.run(inputs)


def test_outputs_are_arrays_of_their_own() -> None:
    node = helper.make_node("Identity", ["x"], ["same"])
    flat = helper.make_node("Reshape", ["x", "shape"], ["flat"])
    constants = {"shape": np.array([-1]), "two": np.float32([2])}
    model = load(model_of([node, flat], {"x": [3]}, {"same": 1, "flat": 1, "two": 1}, constants))
    x = np.ones(3, np.float32)
    for name, array in model.run([x]).items():
        assert not np.may_share_memory(array, x), name
        array[:] = 9
    assert (x == 1).all()
    assert model.run([x])["two"] == 2


def test_an_output_that_is_left_out_is_no_input_that_is_left_out() -> None:
    """onnx.reference keeps both under the name ""."""
    lstm = LSTM(3, 3, rng=0)
    model = to_onnx(lstm)
    weights = {t.name: t for t in model.graph.initializer}
    first = helper.make_node("LSTM", ["x", "W_l0", "R_l0"], ["", "h"], hidden_size=3)
    second = helper.make_node("LSTM", ["h", "W_l0", "R_l0", "", "", "h"], ["y"], hidden_size=3)
    built = model_of([first, second], {"x": ["T", "B", 3]}, {"y": 4})
    built.graph.initializer.extend([weights["W_l0"], weights["R_l0"]])
    bare = LSTM(3, 3, bias=False, rng=0)
    bare.load_state_dict({k: a for k, a in lstm.parameters().items() if k.startswith("weight")})
    x = normal(np.random.default_rng(0), (4, 2, 3), np.float32)
    _, (h, c) = bare(x)
    expected, _ = bare(h, (h, np.zeros_like(c)))
    assert_same_bits(load(built).run([x])["y"][:, 0], expected)


def test_a_change_of_a_layer_changes_the_next_run() -> None:
    lstm, model, x = exported()
    (own,) = model.lstms.values()
    for layer in (lstm, own):
        with layer.editing() as parameters:
            parameters["bias_ih_l0"][:] += 1
    assert_same_bits(model.run([x])["output"], lstm(x)[0])


def test_many_threads_may_run_one_model() -> None:
    lstm, model, _ = exported(num_layers=2, bidirectional=True)
    rng = np.random.default_rng(2)
    batches = [normal(rng, (7, size, 3), np.float32) for size in (1, 2, 3, 4) * 8]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda x: model.run([x])["output"], batches))
    for x, output in zip(batches, results, strict=True):
        assert_same_bits(output, lstm(x)[0])


def test_an_operator_that_is_not_on_the_list_is_named() -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["places"], name="where_it_is")]
    with pytest.raises(FormatError, match=r"'where_it_is' \(NonZero\).*NonZero is not one that"):
        load(model_of(nodes, {"x": [3]}, {"places": 2}))


def test_a_node_that_fails_in_a_run_is_named() -> None:
    nodes = [helper.make_node("MatMul", ["x", "x"], ["y"], name="square")]
    model = load(model_of(nodes, {"x": ["M", "N"]}, {"y": 2}))
    assert model.run([np.ones((2, 2), np.float32)])["y"].sum() == 8
    with pytest.raises(FormatError, match=r"'square' \(MatMul\)"):
        model.run([np.ones((2, 3), np.float32)])


def test_infinities_and_nans_pass_as_the_operators_define_them() -> None:
    model = load(model_of([helper.make_node("Log", ["x"], ["y"])], {"x": [3]}, {"y": 1}))
    y = model.run([np.float32([-1, 0, 1])])["y"]
    np.testing.assert_array_equal(y, np.float32([np.nan, -np.inf, 0]))


def test_weights_among_the_inputs_are_constants() -> None:
    built = model_of(
        [helper.make_node("Add", ["x", "w"], ["y"])], {"x": [1], "w": [1]}, {"y": 1},
        {"w": np.float32([2])},
    )  # fmt: skip
    model = load(built)
    assert [i.name for i in model.inputs] == ["x"]
    assert model.run([np.float32([1])])["y"] == 3


# --- memory ---------------------------------------------------------------------------------------

_column = helper.make_node("Unsqueeze", ["x", "one"], ["column"])
HUGE = {
    "ConstantOfShape": [helper.make_node("ConstantOfShape", ["size"], ["y"])],
    "Expand": [helper.make_node("Expand", ["column", "size"], ["y"])],
    "Tile": [helper.make_node("Tile", ["x", "size"], ["y"])],
    "Range": [helper.make_node("Range", ["zero", "end", "step"], ["y"])],
    "Gather": [helper.make_node("Gather", ["column", "places"], ["y"], axis=1)],
    "Add": [helper.make_node("Add", ["x", "column"], ["y"])],
    "MatMul": [
        helper.make_node("Transpose", ["column"], ["row"]),
        helper.make_node("MatMul", ["column", "row"], ["y"]),
    ],
    "Gemm": [helper.make_node("Gemm", ["column", "column"], ["y"], transB=1)],
    "Concat": [
        helper.make_node("Concat", [f"x{k or ''}"] * 8, ["y" if k == 9 else f"x{k + 1}"], axis=0)
        for k in range(10)
    ],
}


@pytest.mark.parametrize("op", HUGE)
def test_a_small_file_cannot_fill_the_memory(op: str) -> None:
    constants = {
        "size": np.array([2**36]), "one": np.array([1]), "places": np.zeros(2**17, np.int64),
        "zero": np.float32(0), "end": np.float32(1e12), "step": np.float32(1),
    }  # fmt: skip
    nodes = HUGE[op] if op in ("Tile", "Concat") else [_column, *HUGE[op]]
    built = model_of(nodes, {"x": ["N"]}, {"y": 1}, constants)
    model = load(built, memory_limit=2**28)
    with pytest.raises(FormatError, match="bytes, the limit leaves"):
        model.run([np.ones(2**17, np.float32)])


def test_what_was_used_is_forgotten() -> None:
    """A chain of results needs room for two of them, however long it is."""
    names = ["x", *(f"x{k}" for k in range(50)), "y"]
    nodes = [helper.make_node("Neg", [a], [b]) for a, b in pairwise(names)]
    model = load(model_of(nodes, {"x": ["N"]}, {"y": 1}), memory_limit=3 * 8 * 1000)
    assert_same_bits(model.run([np.ones(1000, np.float32)])["y"], -np.ones(1000, np.float32))


def test_the_last_step_does_not_keep_the_whole_sequence() -> None:
    nodes = [
        helper.make_node("Neg", ["x"], ["z"]),
        helper.make_node("Gather", ["z", "last"], ["y"]),
    ]
    model = load(model_of(nodes, {"x": ["T", 2]}, {"y": 2}, {"last": np.array([-1])}))
    y = model.run([np.ones((1000, 2), np.float32)])["y"]
    held = y if y.base is None else y.base
    assert held.nbytes <= 2 * y.nbytes
