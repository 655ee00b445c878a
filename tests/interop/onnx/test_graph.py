"""Reading a file: what is taken, what is refused, and what it may not do."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import external_data_helper, helper

from fastlstm import LSTM
from fastlstm.interop.onnx import load, read_lstms, save, to_onnx
from fastlstm.storage import FormatError
from tests.interop.onnx.graphs import model_of
from tests.support import assert_same_bits


def add(constant: Any = 2, **model: Any) -> Any:
    node = helper.make_node("Add", ["x", "two"], ["y"])
    return model_of([node], {"x": [1]}, {"y": 1}, {"two": np.float32([constant])}, **model)


# --- what is no model -----------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"not a model", b"\x08\x08" * 50])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    for read in (load, read_lstms):
        with pytest.raises(FormatError, match=r"model\.onnx: no"):
            read(path)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save(LSTM(2, 3, rng=0), path)
    content = path.read_bytes()
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        with pytest.raises(FormatError):
            load(path)


def test_a_damaged_file_raises_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    content = to_onnx(LSTM(2, 3, 2, bidirectional=True, rng=0), state=True).SerializeToString()
    rng = np.random.default_rng(0)
    x = np.ones((2, 1, 2), np.float32)
    state = np.ones((4, 1, 3), np.float32)
    loaded = 0
    for _ in range(400):
        damaged = bytearray(content)
        for at in rng.integers(0, len(content), rng.integers(1, 4)):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            model = load(path, memory_limit=2**24)
            loaded += 1
            model.run([x, state, state])
        except (FormatError, TypeError, ValueError):
            pass
    assert loaded > 40  # most of the file are weights


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing.onnx")


@pytest.mark.parametrize("source", [None, 3, b"bytes", LSTM])
def test_what_is_neither_path_nor_model_is_refused(source: Any) -> None:
    for read in (load, read_lstms):
        with pytest.raises(TypeError, match=r"expected a path or an onnx\.ModelProto"):
            read(source)


def test_a_model_that_is_handed_in_stays_as_it_is() -> None:
    model = to_onnx(LSTM(2, 3, rng=0))
    before = model.SerializeToString()
    load(model)
    read_lstms(model)
    assert model.SerializeToString() == before


def test_a_model_without_lstm_nodes_has_no_layers() -> None:
    with pytest.raises(FormatError, match="without a node LSTM"):
        read_lstms(add())
    assert load(add()).run([np.float32([1])])["y"] == 3


def test_layers_are_read_from_a_model_that_cannot_be_run() -> None:
    model = to_onnx(LSTM(2, 3, rng=0))
    model.graph.node.append(helper.make_node("NonZero", ["output"], ["places"]))
    model.graph.output.append(helper.make_empty_tensor_value_info("output_2"))
    model.graph.output.pop()
    assert list(read_lstms(model)) == ["lstm_l0"]
    with pytest.raises(FormatError, match="NonZero"):
        load(model)


# --- what is not supported ------------------------------------------------------------------------


def with_function(model: Any) -> None:
    body = [helper.make_node("Identity", ["a"], ["b"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "same", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))


def with_text(model: Any) -> None:
    model.graph.initializer.append(
        helper.make_tensor("labels", onnx.TensorProto.STRING, [1], ["yes"])
    )


def with_sparse(model: Any) -> None:
    values = helper.make_tensor("values", onnx.TensorProto.FLOAT, [1], [1.0])
    places = helper.make_tensor("places", onnx.TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [3]))


def with_sequence(model: Any) -> None:
    text = helper.make_tensor_sequence_value_info("parts", onnx.TensorProto.FLOAT, None)
    model.graph.input.append(text)


def with_half_input(model: Any) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", onnx.TensorProto.BFLOAT16, [1]))


def with_unknown_output(model: Any) -> None:
    model.graph.output[0].name = "z"


def with_old_operators(model: Any) -> None:
    model.opset_import[0].version = 6


def with_new_operators(model: Any) -> None:
    model.opset_import[0].version = 1000


def with_negative_size(model: Any) -> None:
    model.graph.initializer[0].dims[:] = [-1]


def with_too_large_a_size(model: Any) -> None:
    model.graph.initializer[0].dims[:] = [2**40, 2**40]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_function, "functions of the model's own"),
        (with_text, "'labels' has the type STRING"),
        (with_sparse, "sparse"),
        (with_sequence, "'parts' is no tensor"),
        (with_half_input, "'more' has the type BFLOAT16"),
        (with_unknown_output, r"\['z'\]|'z'"),
        (with_old_operators, "from 7 to"),
        (with_new_operators, "no valid|from 7 to"),
        (with_negative_size, "'two' has a negative size"),
        (with_too_large_a_size, "'two'"),
    ],
)
def test_what_cannot_be_taken_is_named(change: Any, message: str) -> None:
    model = add()
    change(model)
    with pytest.raises(FormatError, match=message):
        load(model)


# --- tensors in other files -----------------------------------------------------------------------


def external(folder: Path, location: str, **info: Any) -> Path:
    """A model of an LSTM whose W is in another file."""
    model = to_onnx(LSTM(4, 8, rng=0))
    (tensor,) = (t for t in model.graph.initializer if t.name == "W_l0")
    content = tensor.raw_data
    external_data_helper.set_external_data(tensor, location, **info)
    tensor.ClearField("raw_data")
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    (folder / "weights").write_bytes(b"\0" * 16 + content)
    return path


def test_a_tensor_in_a_file_beside_the_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for location in ("weights", "sub/weights", "./sub/../weights"):
        path = external(tmp_path, location, offset=16, length=4 * 32 * 4)
        (tmp_path / "sub" / "weights").write_bytes((tmp_path / "weights").read_bytes())
        (lstm,) = read_lstms(path).values()
        assert_same_bits(lstm.weight_ih_l0, LSTM(4, 8, rng=0).weight_ih_l0)
        x = np.ones((2, 1, 4), np.float32)
        assert_same_bits(load(path).run([x])["output"], LSTM(4, 8, rng=0)(x)[0])


@pytest.mark.parametrize("location", ["../weights", "/etc/hostname", "sub/../../weights", "", "."])
def test_a_file_outside_of_the_models_folder_is_not_opened(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = external(folder, location, offset=0)
    (tmp_path / "weights").write_bytes(b"\0" * 10_000)
    opened: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open":
            opened.append(str(arguments[0]))

    watching = True
    sys.addaudithook(hook)  # for good, and so it is told when to stop
    with pytest.raises(FormatError, match=r"not in the model's own folder|cannot be read"):
        load(path)
    watching = False
    assert str(path) in opened
    assert not [name for name in opened if "weights" in name or "hostname" in name]


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = external(folder, "link", offset=16)
    (folder / "weights").rename(tmp_path / "weights")
    (folder / "link").symlink_to(tmp_path / "weights")
    with pytest.raises(FormatError, match="not in the model's own folder"):
        load(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = external(tmp_path, "pipe")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="not a regular file"):
        load(path)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"offset": 17}, "too short"),
        ({"offset": 10**12}, "too short"),
        ({"offset": -1}, "expected 512 bytes"),
        ({"length": 511}, "expected 512 bytes"),
        ({"length": 10**18}, "expected 512 bytes"),
    ],
)
def test_a_file_that_lacks_a_tensors_bytes_is_refused(
    tmp_path: Path, info: dict[str, int], message: str
) -> None:
    path = external(tmp_path, "weights", **info)
    with pytest.raises(FormatError, match=message):
        load(path)


def test_a_file_read_again_and_again_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = external(tmp_path, "weights", offset=16)
    model = onnx.load(path, load_external_data=False)
    (tensor,) = (t for t in model.graph.initializer if t.name == "W_l0")
    for k in range(10):
        again = model.graph.initializer.add()
        again.CopyFrom(tensor)
        again.name = f"again_{k}"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(FormatError, match="too short"):
        load(path)


def test_a_model_without_a_folder_has_no_files(tmp_path: Path) -> None:
    model = onnx.load(external(tmp_path, "weights", offset=16), load_external_data=False)
    with pytest.raises(FormatError, match="give the model's path"):
        load(model)


# --- constants ------------------------------------------------------------------------------------


def test_constants_are_folded_as_far_as_they_stay_small() -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0),
        helper.make_node("Add", ["two", "two"], ["four"]),
        helper.make_node("Add", ["x", "four"], ["y"]),
    ]
    constants = {"size": np.array([2**26]), "two": np.float32([2])}
    model = load(model_of(nodes, {"x": [1]}, {"y": 1, "sum": 0}, constants))
    results = model.run([np.float32([1])])
    assert results["y"] == 5
    assert results["sum"] == 0
    assert len(model._steps) == 3


def test_a_constant_that_cannot_be_computed_names_its_node() -> None:
    nodes = [
        helper.make_node("Reshape", ["two", "shape"], ["z"], name="wrong"),
        helper.make_node("Add", ["x", "z"], ["y"]),
    ]
    constants = {"two": np.float32([2]), "shape": np.array([3])}
    with pytest.raises(FormatError, match=r"'wrong' \(Reshape\)"):
        load(model_of(nodes, {"x": [1]}, {"y": 1}, constants))
