"""Keras' files without Keras: what it wrote gives what it computed, and ours come back to the bit.

tests/witnesses/make_keras.py made the files and the results beside them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from fastlstm import LSTM
from fastlstm.interop.keras import load, save, save_weights
from tests.processes import run_python
from tests.support import assert_close, assert_same_bits, normal

FOLDER = Path(__file__).parent.parent / "witnesses" / "keras"

# The layers of each model, with the groups that Keras gave them.
LAYERS = {
    "sequential": {
        "first": "layers/lstm",
        "second": "layers/lstm_1",
        "both": "layers/bidirectional",
    },
    "functional": {
        "lstm_1": "layers/lstm",
        "encoder/lstm": "layers/sequential/layers/lstm",
        "encoder/lstm_2": "layers/sequential/layers/lstm_1",
        "stacked": "layers/rnn",
        "lstm": "layers/lstm_1",
    },
    "activations": {"layer": "layers/lstm"},
}
# With the runs of Keras whose results they are compared with.
FILES = {
    "sequential-torch.keras": "sequential-torch",
    "sequential-jax.keras": "sequential-torch",
    "sequential-torch.h5": "sequential-torch",
    "sequential-2.13.keras": "sequential-2.13",
    "sequential-2.13.h5": "sequential-2.13",
    "functional-torch.keras": "functional-torch",
    "functional-jax.keras": "functional-torch",
    "functional-torch.h5": "functional-torch",
    "activations-torch.keras": "activations-torch",
    "activations-jax.keras": "activations-torch",
    "activations-torch.h5": "activations-torch",
    "activations-2.13.keras": "activations-2.13",
    "activations-2.13.h5": "activations-2.13",
}


def results(run: str) -> dict[str, NDArray[Any]]:
    with np.load(FOLDER / f"{run}.npz") as stored:
        return dict(stored)


def assert_layers(layers: dict[str, LSTM], run: str) -> None:
    """Each layer, on what it got in Keras, gives what it gave there."""
    stored = results(run)
    for name in LAYERS[run.partition("-")[0]]:
        expected = stored[f"{name}/out"]
        if layers[name].reverse:  # Keras gives the steps in the order in which it took them
            expected = expected[:, ::-1]
        output, _ = layers[name](stored[f"{name}/in"])
        assert_close(output, expected, 1e-5, name)


def with_options(lstm: LSTM, **options: Any) -> LSTM:
    copy = LSTM(**lstm.get_config() | options)
    copy.load_state_dict(lstm.state_dict())
    return copy


@pytest.mark.parametrize("file", FILES)
def test_a_model_gives_what_keras_computed(file: str) -> None:
    layers = load(FOLDER / file)
    assert list(layers) == list(LAYERS[file.partition("-")[0]])
    assert_layers(layers, FILES[file])


@pytest.mark.parametrize("model", ["sequential", "functional"])
def test_weights_alone_give_what_keras_computed(model: str) -> None:
    layers = load(FOLDER / f"{model}.weights.h5")
    assert set(layers) == set(LAYERS[model].values())
    named = {name: layers[group] for name, group in LAYERS[model].items()}
    if model == "functional":  # weights do not say that this one goes backwards
        named["lstm"] = with_options(named["lstm"], reverse=True)
    assert_layers(named, f"{model}-torch")


def test_weights_alone_have_keras_default_options() -> None:
    (lstm,) = load(FOLDER / "activations.weights.h5").values()
    assert lstm.get_config() == LSTM(3, 4, batch_first=True).get_config()
    ((name, whole),) = load(FOLDER / "activations-torch.keras").items()
    assert_layers({name: with_options(lstm, **whole.get_config())}, "activations-torch")


@pytest.mark.parametrize("model", LAYERS)
def test_the_backend_that_wrote_a_file_plays_no_part(model: str) -> None:
    ours, theirs = (load(FOLDER / f"{model}-{backend}.keras") for backend in ("torch", "jax"))
    for name, lstm in ours.items():
        assert theirs[name].get_config() == lstm.get_config()
        for parameter, array in lstm.state_dict().items():
            assert_same_bits(theirs[name].state_dict()[parameter], array)


def test_a_whole_model_with_the_layers_around() -> None:
    """A sequence through the dense layers of the file too, from the input to the output."""
    stored, layers = results("sequential-torch"), load(FOLDER / "sequential-torch.keras")
    with h5py.File(FOLDER / "sequential.weights.h5") as file:
        before, after = (
            [np.array(file[f"layers/{name}/vars/{k}"]) for k in (0, 1)]
            for name in ("dense", "dense_1")
        )
    x = np.tanh(stored["x"] @ before[0] + before[1])
    for lstm in layers.values():
        x, _ = lstm(x)
    assert_close(x @ after[0] + after[1], stored["after/out"], 1e-5)


def test_options_come_from_the_configuration() -> None:
    layers = load(FOLDER / "sequential-torch.keras")
    configs = {name: lstm.get_config() for name, lstm in layers.items()}
    assert configs["second"]["input_dropout"] == 0.25
    assert configs["second"]["bias"] is False
    assert configs["both"]["bidirectional"] is True
    others = load(FOLDER / "functional-torch.keras")
    assert others["stacked"].num_layers == 2
    assert [name for name, lstm in others.items() if lstm.reverse] == ["lstm"]
    assert all(lstm.batch_first for lstm in layers.values())
    layer = load(FOLDER / "activations-torch.keras")["layer"]
    assert layer.recurrent_dropout == 0.25
    assert layer.activations == (("hard_sigmoid", 1 / 6, 0.5), "softsign", "softsign")


def test_hard_sigmoid_is_that_of_the_version_that_wrote_a_file() -> None:
    for file in ("activations-2.13.keras", "activations-2.13.h5"):
        assert load(FOLDER / file)["layer"].activations[0] == "hard_sigmoid"  # of slope 0.2


def test_reading_imports_neither_keras_nor_a_backend() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['keras', 'torch', 'jax', 'tensorflow']));"
        "from fastlstm.interop.keras import load;"
        f"print(sorted(load({str(FOLDER / 'sequential-torch.keras')!r})))"
    )
    assert run_python("-c", code).strip() == "['both', 'first', 'second']"


def test_without_h5py_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ImportError, match=r"Keras' files need h5py: pip install 'fastlstm\[keras"):
        load(FOLDER / "sequential-torch.keras")
    with pytest.raises(ImportError, match=r"pip install 'fastlstm\[keras\]'"):
        save_weights(LSTM(2, 3), tmp_path / "a.weights.h5")
    assert not list(tmp_path.iterdir())


# --- ours ---------------------------------------------------------------------------------------

OURS: dict[str, dict[str, Any]] = {
    "plain": {},
    "float64": {"dtype": "float64"},
    "no bias": {"bias": False},
    "both directions": {"bidirectional": True},
    "three layers": {"num_layers": 3},
    "backwards": {"reverse": True},
    "three layers backwards": {"num_layers": 3, "reverse": True},
    "three layers of both directions": {"num_layers": 3, "bidirectional": True},
    "dropout": {"num_layers": 2, "dropout": 0.25, "input_dropout": 0.5},
    "activations": {"activations": (("hard_sigmoid", 1 / 6, 0.5), "relu", "relu")},
    "recurrent dropout": {"recurrent_dropout": 0.5},
    "locked dropout": {"num_layers": 2, "dropout": 0.25, "locked_dropout": True},
}


def keras_like(**options: Any) -> LSTM:
    """An LSTM as Keras would give one: its second bias is zero."""
    lstm = LSTM(3, 4, batch_first=True, rng=0, **options)
    with lstm.editing() as parameters:
        for name, array in parameters.items():
            if name.startswith("bias_hh"):
                array[:] = 0
    return lstm


def layer_parameters(lstm: LSTM, k: int) -> dict[str, NDArray[Any]]:
    """Those of one layer, under the names that they have in a layer alone."""
    return {
        name.replace(f"_l{k}", "_l0"): array
        for name, array in lstm.state_dict().items()
        if f"_l{k}" in name
    }


def assert_returned(layers: dict[str, LSTM], lstm: LSTM) -> None:
    assert len(layers) == lstm.num_layers
    for k, returned in enumerate(layers.values()):
        expected = layer_parameters(lstm, k)
        assert list(returned.parameters()) == list(expected)
        for name, array in returned.state_dict().items():
            assert_same_bits(array, expected[name], name)


@pytest.mark.parametrize("case", OURS)
def test_ours_come_back_to_the_bit(case: str, tmp_path: Path) -> None:
    lstm = keras_like(**OURS[case])
    save(lstm, tmp_path / "ours.keras")
    save_weights(lstm, tmp_path / "ours.weights.h5")
    assert_returned(load(tmp_path / "ours.keras"), lstm)
    assert_returned(load(tmp_path / "ours.weights.h5"), lstm)
    assert len(list(tmp_path.iterdir())) == 2


def test_options_come_back_with_a_model(tmp_path: Path) -> None:
    for case in (
        "plain",
        "float64",
        "no bias",
        "both directions",
        "backwards",
        "activations",
        "recurrent dropout",
    ):
        lstm = keras_like(**OURS[case], input_dropout=0.5)
        save(lstm, tmp_path / "ours.keras")
        (returned,) = load(tmp_path / "ours.keras").values()
        assert returned.get_config() == lstm.get_config()


def test_both_biases_become_one(tmp_path: Path) -> None:
    lstm = LSTM(3, 4, rng=0)
    save(lstm, tmp_path / "ours.keras")
    returned = load(tmp_path / "ours.keras")["lstm"]
    assert_same_bits(returned.bias_ih_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0)
    assert not returned.bias_hh_l0.any()
    x = normal(np.random.default_rng(0), (5, 2, 3), np.float32)
    assert_close(returned(x.transpose(1, 0, 2))[0].transpose(1, 0, 2), lstm(x)[0], 1e-5)


def test_the_same_lstm_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.keras", "b.keras"):
        save(LSTM(3, 4, rng=0), tmp_path / name)
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    for write, name in ((save, "x.keras"), (save_weights, "x.weights.h5")):
        with pytest.raises(ValueError, match=r"weight_dropout=0.5: Keras' LSTM lacks it"):
            write(LSTM(3, 4, weight_dropout=0.5), tmp_path / name)
        with pytest.raises(TypeError, match=r"lstm: expected a fastlstm\.LSTM, got a N"):
            write(None, tmp_path / name)  # type: ignore[operator]
        with pytest.raises(ValueError, match="path: Keras wants a name that ends in"):
            write(LSTM(3, 4), tmp_path / "x.h5")
        with pytest.raises(FileNotFoundError):
            write(LSTM(3, 4), tmp_path / "absent" / name)
    assert not list(tmp_path.iterdir())


# --- Keras itself -----------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("case", OURS)
def test_keras_loads_what_we_write(case: str, sequences: bool, tmp_path: Path) -> None:
    from tests.keras_peer import import_keras, run_layer

    keras = import_keras()
    lstm = LSTM(3, 4, batch_first=True, rng=0, **OURS[case])
    x = normal(np.random.default_rng(0), (2, 5, 3), lstm.dtype)
    expected, _ = lstm(x)
    save(lstm, tmp_path / "ours.keras", return_sequences=sequences)
    model = keras.saving.load_model(tmp_path / "ours.keras")
    if not sequences:
        last = expected[:, 0 if lstm.reverse else -1]
        if lstm.bidirectional:  # that of the second direction is its last one, at the first step
            last = np.concatenate([last[:, :4], expected[:, 0, 4:]], axis=1)
        assert_close(run_layer(model, x), last, 1e-5)
        return
    if lstm.reverse:
        expected = expected[:, ::-1]
    assert_close(run_layer(model, x), expected, 1e-5)

    kinds = [type(layer) for layer in model.layers]
    fresh = keras.models.clone_model(model)
    assert [type(layer) for layer in fresh.layers] == kinds
    save_weights(lstm, tmp_path / "ours.weights.h5")
    fresh.load_weights(tmp_path / "ours.weights.h5")
    assert_close(run_layer(fresh, x), expected, 1e-5)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in Keras' save
@pytest.mark.parametrize("case", OURS)
def test_a_file_through_keras_is_the_same_to_the_bit(case: str, tmp_path: Path) -> None:
    from tests.keras_peer import import_keras

    keras = import_keras()
    lstm = keras_like(**OURS[case])
    save(lstm, tmp_path / "ours.keras")
    model = keras.saving.load_model(tmp_path / "ours.keras")
    model.save(tmp_path / "theirs.keras")
    model.save_weights(tmp_path / "theirs.weights.h5")
    assert_returned(load(tmp_path / "theirs.keras"), lstm)
    assert_returned(load(tmp_path / "theirs.weights.h5"), lstm)
    ours = load(tmp_path / "ours.keras")
    for name, returned in load(tmp_path / "theirs.keras").items():
        assert returned.get_config() == ours[name].get_config()
