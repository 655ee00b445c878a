"""Writes saved/: layers in files of this version, and what they computed. Each is written once.

    python -m tests.witnesses.make_saved

Versions to come have to read these files for ever, so one that is there is never written again;
new options get a layer of their own in `LAYERS`. What is expected comes from plain NumPy, in
tests/support.py and in `expected`; for options of the cell, which are compared with others
elsewhere, from the layer itself in float64.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import fastlstm
from fastlstm.parameters import Layer
from tests.support import Array, plain_lstm, plain_rnn

FOLDER = Path(__file__).with_name("saved")
LAYERS: dict[str, Layer] = {
    "lstm": fastlstm.LSTM(3, 5, 2, dropout=0.25, bidirectional=True, rng=1),
    "lstm-float64": fastlstm.LSTM(
        4, 3, bias=False, batch_first=True, dtype=np.float64, rng=2
    ),
    "rnn": fastlstm.RNN(3, 4, rng=3),
    "linear": fastlstm.Linear(3, 4, rng=4),
    "embedding": fastlstm.Embedding(6, 4, rng=5),
    "lstm-cell": fastlstm.LSTMCell(3, 5, rng=6),
    "lstm-of-onnx": fastlstm.LSTM(
        3, 5, reverse=True, peepholes=True, clip=0.5, input_forget=True,
        activations=("hard_sigmoid", ("scaled_tanh", 1.7, 0.7), "softsign"), rng=7,
    ),
    "lstm-normalised": fastlstm.LSTM(
        3, 5, 2, bidirectional=True, proj_size=2, layer_norm=True, dropout=0.1, input_dropout=0.2,
        locked_dropout=True, recurrent_dropout=0.3, weight_dropout=0.4, zoneout=(0.05, 0.06),
        rng=8,
    ),
    "rnn-deep": fastlstm.RNN(3, 5, 2, dropout=0.25, bidirectional=True, rng=9),
}  # fmt: skip


def input_of(layer: Layer) -> Array:
    """A batch for a layer."""
    rng = np.random.default_rng(0)
    if isinstance(layer, fastlstm.Embedding):
        return rng.integers(0, layer.num_embeddings, (3, 2))
    config = layer.get_config()
    width = config.get("input_size", config.get("in_features"))
    if isinstance(layer, fastlstm.LSTMCell):
        return rng.standard_normal((2, width)).astype(config["dtype"])
    return rng.standard_normal((7, 2, width)).astype(config["dtype"])


def expected(layer: Layer, x: Array) -> Array:
    """What a layer makes of a batch, in float64 NumPy."""
    weights = {name: array.astype(np.float64) for name, array in layer.state_dict().items()}
    if isinstance(layer, fastlstm.LSTM) and (layer.peepholes or layer.layer_norm):
        double = fastlstm.LSTM(**layer.get_config() | {"dtype": "float64"})
        double.load_state_dict(weights)
        return double(x.astype(np.float64))[0]
    if isinstance(layer, fastlstm.LSTMCell):
        lstm = fastlstm.LSTM(layer.input_size, layer.hidden_size)
        lstm.load_state_dict({f"{name}_l0": array for name, array in layer.state_dict().items()})
        return plain_lstm(lstm, x[None])[0][0]
    if isinstance(layer, fastlstm.LSTM):
        if layer.batch_first:
            return plain_lstm(layer, x.swapaxes(0, 1))[0].swapaxes(0, 1)
        return plain_lstm(layer, x)[0]
    if isinstance(layer, fastlstm.Embedding):
        return weights["weight"][x]
    if isinstance(layer, fastlstm.Linear):
        return x @ weights["weight"].T + weights["bias"]
    assert isinstance(layer, fastlstm.RNN)
    return plain_rnn(layer, x)[0]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, layer in LAYERS.items():
        path = FOLDER / f"{name}.safetensors"
        if path.exists():
            print(f"{path.name}: is there, and stays")
            continue
        fastlstm.save(layer, path)
        x = input_of(layer)
        np.savez_compressed(path.with_suffix(".npz"), x=x, output=expected(layer, x))
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
