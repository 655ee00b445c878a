"""saving: a layer comes back from its file as it was, old files for ever; no other is let in."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import fastlstm
from fastlstm import LSTM, RNN, Embedding, Linear, LSTMCell, storage
from fastlstm.parameters import Layer
from fastlstm.storage import FormatError
from tests.support import Array, assert_close, assert_same_bits, tolerance_of

WITNESSES = Path(__file__).parent / "witnesses" / "saved"
CONFIG = {
    "input_size": 3, "hidden_size": 4, "num_layers": 2, "bias": True, "batch_first": False,
    "dropout": 0.0, "bidirectional": False, "reverse": False, "input_dropout": 0.0,
    "locked_dropout": False, "weight_dropout": 0.0, "dtype": "float32",
    "proj_size": 0, "peepholes": False, "clip": None, "input_forget": False,
    "activations": ["sigmoid", "tanh", "tanh"], "layer_norm": False,
    "recurrent_dropout": 0.0, "zoneout": 0.0,
}  # fmt: skip
LAYERS: dict[str, Layer] = {
    "lstm": LSTM(3, 4, 2, rng=0),
    "lstm-cell": LSTMCell(3, 4, bias=False, rng=0),
    "rnn": RNN(3, 4, bias=False, batch_first=True, rng=0),
    "linear": Linear(3, 4, bias=False, dtype=np.float64, rng=0),
    "embedding": Embedding(5, 2, rng=0),
}


def write(path: Path, config: object, arrays: dict[str, Array] | None = None) -> Path:
    """A file as `save` writes it, with another configuration or other arrays."""
    state = LAYERS["lstm"].state_dict() if arrays is None else arrays
    storage.save(path, "lstm", state, {"config": config})
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "layer.safetensors"


# --- round trips ----------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    st.builds(
        LSTM,
        st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), bias=st.booleans(),
        batch_first=st.booleans(), bidirectional=st.booleans(),
        dtype=st.sampled_from([np.float32, np.float64]), rng=st.integers(0, 99),
    )
)  # fmt: skip
def test_an_lstm_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, lstm: LSTM) -> None:
    path = tmp_path_factory.mktemp("round") / "lstm"
    fastlstm.save(lstm, path)
    loaded = fastlstm.load(path)
    assert loaded.get_config() == lstm.get_config()
    assert list(loaded.parameters()) == list(lstm.parameters())
    for name, array in lstm.parameters().items():
        assert_same_bits(loaded.parameters()[name], array, name)
    x = np.ones((3, 2, lstm.input_size), lstm.dtype)
    assert_same_bits(loaded(x)[0], lstm(x)[0])


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_every_layer_has_its_file(path: Path, layer: Layer) -> None:
    fastlstm.save(layer, path)
    loaded = fastlstm.load(path, type(layer))
    assert repr(loaded) == repr(layer)
    for name, array in layer.parameters().items():
        assert_same_bits(loaded.parameters()[name], array, name)
    with loaded.editing() as edited:  # its own memory, and writable
        for array in edited.values():
            array[...] = 7


@pytest.mark.parametrize("name", sorted(path.stem for path in WITNESSES.glob("*.safetensors")))
def test_files_of_older_versions_load_and_compute_what_they_did(name: str) -> None:
    kinds = {"lstm-cell": LSTMCell, "linear": Linear, "embedding": Embedding}
    kind = RNN if name.startswith("rnn") else kinds.get(name, LSTM)
    layer: Any = fastlstm.load(WITNESSES / f"{name}.safetensors", kind)
    with np.load(WITNESSES / f"{name}.npz") as file:
        x, expected = file["x"], file["output"]
    output = layer(x)
    output = output[0] if isinstance(output, tuple) else output
    assert_close(output, expected, tolerance_of(layer.dtype))


def test_the_first_witness_has_the_options_that_it_was_made_with() -> None:
    lstm = fastlstm.load(WITNESSES / "lstm.safetensors")
    assert repr(lstm) == "LSTM(3, 5, 2, dropout=0.25, bidirectional=True)"


def test_a_witness_of_every_option_has_what_it_was_made_with() -> None:
    assert repr(fastlstm.load(WITNESSES / "lstm-of-onnx.safetensors")) == (
        "LSTM(3, 5, 1, reverse=True, peepholes=True, clip=0.5, input_forget=True, "
        "activations=['hard_sigmoid', ['scaled_tanh', 1.7, 0.7], 'softsign'])"
    )
    assert repr(fastlstm.load(WITNESSES / "lstm-normalised.safetensors")) == (
        "LSTM(3, 5, 2, dropout=0.1, bidirectional=True, proj_size=2, layer_norm=True, "
        "input_dropout=0.2, locked_dropout=True, recurrent_dropout=0.3, weight_dropout=0.4, "
        "zoneout=[0.05, 0.06])"
    )
    paths = [path for path in WITNESSES.glob("lstm*.safetensors") if path.stem != "lstm-cell"]
    kept = [fastlstm.load(path) for path in paths]
    plain = LSTM(1, 1, rng=0).get_config()
    for option in plain.keys() - {"input_size", "hidden_size"}:
        assert any(lstm.get_config()[option] != plain[option] for lstm in kept), option


def test_any_reader_of_safetensors_sees_pytorchs_names(path: Path) -> None:
    lstm = LAYERS["lstm"]
    fastlstm.save(lstm, path)
    found = safetensors.numpy.load_file(path)
    assert set(found) == set(lstm.parameters())
    with safetensors.safe_open(path, "np") as file:
        assert json.loads(file.metadata()["fastlstm"])["header"] == {"config": CONFIG}


def test_options_that_a_file_does_not_have_take_their_defaults(path: Path) -> None:
    sizes = {"input_size": 3, "hidden_size": 4, "num_layers": 2}
    assert fastlstm.load(write(path, sizes)).get_config() == CONFIG


# --- what load refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_size": ...}, r"config: missing \['input_size'\], unknown \[\]"),
        ({"soul": 1}, r"config: missing \[\], unknown \['soul'\]"),
        ({"rng": 1}, r"unknown \['rng'\]"),
        ({"self": 1}, r"unknown \['self'\]"),
        ({"hidden_size": 0}, "hidden_size: expected a whole number >= 1, got 0"),
        ({"hidden_size": 4.0}, "hidden_size: expected a whole number, got 4.0"),
        ({"hidden_size": True}, "hidden_size: expected a whole number, got True"),
        ({"hidden_size": 2**40}, "hidden_size: .* exceeds"),
        ({"hidden_size": 5_000}, r"'weight_ih_l0'\]: expected shape \(20000, 3\), got \(16, 3\)"),
        ({"input_size": 4}, r"'weight_ih_l0'\]: expected shape \(16, 4\), got \(16, 3\)"),
        ({"num_layers": 1}, r"arrays: missing \[\], unexpected \['bias_hh_l1'"),
        ({"num_layers": 3}, r"arrays: missing \['weight_ih_l2', .*\], unexpected \[\]"),
        ({"num_layers": 2**27}, "num_layers: 134217728 layers have more than 8 arrays"),
        ({"num_layers": "2"}, "num_layers: expected a whole number, got '2'"),
        ({"bias": False}, r"arrays: missing \[\], unexpected \['bias_hh_l0'"),
        ({"bias": 1}, "bias: expected True or False, got 1"),
        ({"bidirectional": True}, r"arrays: missing \['weight_ih_l0_reverse'"),
        ({"dropout": 2}, "dropout: expected a finite number >= 0 and <= 1, got 2"),
        ({"dropout": None}, "dropout: expected a number, got None"),
        ({"dtype": "float64"}, r"'weight_ih_l0'\]: expected an array of float64, got float32"),
        ({"dtype": "float16"}, "dtype: expected float32 or float64, got 'float16'"),
        ({"dtype": {"names": ["a"]}}, "dtype: expected float32 or float64, got {"),
    ],
)  # fmt: skip
def test_a_config_that_does_not_fit_is_named(
    path: Path, change: dict[str, Any], message: str
) -> None:
    changed = {**CONFIG, **change}
    write(path, {name: value for name, value in changed.items() if value is not ...})
    with pytest.raises(FormatError, match=rf"layer\.safetensors: .*do not belong.*: .*{message}"):
        fastlstm.load(path)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("bias_hh_l1", None, r"arrays: missing \['bias_hh_l1'\], unexpected \[\]"),
        ("extra", np.zeros(1), r"arrays: missing \[\], unexpected \['extra'\]"),
        ("bias_hh_l1", np.zeros(15, np.float32), r"'bias_hh_l1'\]: expected shape \(16,\), got"),
        ("bias_hh_l1", np.zeros((16, 1), np.float32), r"expected shape \(16,\), got \(16, 1\)"),
        ("bias_hh_l1", np.zeros(16), r"'bias_hh_l1'\]: expected an array of float32, got float64"),
        ("bias_hh_l1", np.zeros(16, np.int32), "expected an array of float32, got int32"),
    ],
)
def test_an_array_that_does_not_fit_is_named(
    path: Path, name: str, array: Array | None, message: str
) -> None:
    arrays = LAYERS["lstm"].state_dict()
    arrays.pop(name, None)
    write(path, CONFIG, arrays if array is None else {**arrays, name: array})
    with pytest.raises(FormatError, match=rf"layer\.safetensors: .*{message}"):
        fastlstm.load(path)


@pytest.mark.parametrize("header", [{}, {"config": []}, {"config": CONFIG, "more": 1}])
def test_a_header_of_another_form_is_refused(path: Path, header: dict[str, Any]) -> None:
    storage.save(path, "lstm", LAYERS["lstm"].state_dict(), header)
    with pytest.raises(FormatError, match="in the header of a lstm"):
        fastlstm.load(path)


def test_another_class_than_asked_for_is_refused(path: Path) -> None:
    fastlstm.save(LAYERS["rnn"], path)
    with pytest.raises(FormatError, match="expected a file of kind 'lstm', got 'rnn'"):
        fastlstm.load(path)
    with pytest.raises(TypeError, match="layer: expected one of the classes LSTM, LSTMCell, RNN"):
        fastlstm.load(path, dict)  # type: ignore[type-var]


def test_a_class_that_could_not_be_rebuilt_is_not_saved(path: Path) -> None:
    class Mine(LSTM):
        pass

    for layer in (Mine(2, 3), fastlstm.Dropout(0.5), {"weight": np.zeros(2)}):
        with pytest.raises(TypeError, match="layer: expected one of LSTM, LSTMCell, RNN"):
            fastlstm.save(layer, path)  # type: ignore[arg-type]
    assert not path.exists()


def test_nothing_of_a_claimed_size_is_made(path: Path) -> None:
    """The arrays would be gigabytes; every layer that is claimed would be listed."""
    for change in ({"hidden_size": 8_000, "input_size": 20_000}, {"num_layers": 2**27}):
        write(path, CONFIG | change)
        tracemalloc.start()
        try:
            with pytest.raises(FormatError):
                fastlstm.load(path)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 1_000_000
