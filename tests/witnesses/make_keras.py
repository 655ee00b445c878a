"""Writes keras/: small models in the files that Keras writes, and what it computes with them.

    python -m tests.witnesses.make_keras

Needs Keras 3 with torch and jax; reading the files needs h5py alone. The files of one model that
two backends wrote differ in nothing but dates and the identities of shared objects: the layout is
Keras' own. In an environment with Keras 2.13 (tensorflow-cpu==2.13.*), where files are laid out
in ways of their own and "hard_sigmoid" has another slope, the same command writes those with 2.13
in their names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).with_name("keras")
BACKENDS = ("torch", "jax")
STEPS, BATCH, INPUTS = 6, 2, 3


def sequential(keras: Any) -> Any:
    """LSTM layers on top of each other, one in both directions, with other layers around."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((None, INPUTS)),
            layers.Dense(4, activation="tanh", name="before"),
            layers.LSTM(5, return_sequences=True, name="first"),
            layers.Dropout(0.5, name="between"),
            layers.LSTM(5, return_sequences=True, dropout=0.25, use_bias=False, name="second"),
            layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both"),
            layers.Dense(2, name="after"),
        ],
        name="sequential",
    )


def functional(keras: Any) -> Any:
    """Models within a model, cells, a layer used twice, and layers whose names mislead."""
    layers = keras.layers
    x = keras.Input((None, INPUTS), name="x")
    twice = layers.LSTM(INPUTS, return_sequences=True, name="lstm_1")
    encoder = keras.Sequential(
        [
            keras.Input((None, INPUTS)),
            layers.LSTM(4, return_sequences=True, name="lstm"),
            layers.LSTM(2, return_sequences=True, name="lstm_2"),
        ],
        name="encoder",
    )
    cells = [layers.LSTMCell(4), layers.LSTMCell(4)]
    stacked = layers.RNN(cells, return_sequences=True, name="stacked")
    y = stacked(encoder(twice(twice(x))))
    y = keras.ops.add(y, 1.0)
    last = layers.LSTM(3, name="lstm", return_sequences=True, go_backwards=True)(y)
    other = layers.GRU(3, name="gru")(y)
    wide = layers.Bidirectional(layers.GRU(2), name="not_an_lstm")(last)
    return keras.Model(x, [last, other, wide], name="functional")


def activations(keras: Any) -> Any:
    """Options that stand in a configuration alone."""
    layers = keras.layers
    options = {"activation": "softsign", "recurrent_activation": "hard_sigmoid"}
    return keras.Sequential(
        [
            keras.Input((None, INPUTS)),
            layers.LSTM(4, return_sequences=True, recurrent_dropout=0.25, name="layer", **options),
        ],
        name="activations",
    )


MODELS = {"sequential": sequential, "functional": functional, "activations": activations}
OF_KERAS_2 = ("sequential", "activations")


def results(model: Any, x: np.ndarray[Any, Any]) -> dict[str, Any]:
    """What goes into each layer at its first use, and what comes out."""
    kept: dict[str, Any] = {"x": x}

    def watch(layer: Any, prefix: str) -> None:
        for inner in getattr(layer, "layers", ()):
            watch(inner, f"{prefix}{inner.name}/")
        call = layer.call

        def watched(value: Any, *arguments: Any, **options: Any) -> Any:
            output = call(value, *arguments, **options)
            for name, array in (("in", value), ("out", output)):
                if not isinstance(array, (list, tuple)):
                    array = array.detach() if hasattr(array, "detach") else array
                    kept.setdefault(f"{prefix}{name}", np.asarray(array))
            return output

        layer.call = watched

    for layer in model.layers:
        watch(layer, f"{layer.name}/")
    model(x)
    return kept


def write(name: str, label: str) -> None:
    """The files of one model, on the backend that this process has."""
    import keras

    model = MODELS[name](keras)
    rng = np.random.default_rng(len(name))
    model.set_weights([0.7 * rng.standard_normal(w.shape) for w in model.weights])
    model.save(FOLDER / f"{name}-{label}.keras")
    x = rng.standard_normal((BATCH, STEPS, INPUTS)).astype(np.float32)
    if label == BACKENDS[0]:
        model.save_weights(FOLDER / f"{name}.weights.h5")
    if label != BACKENDS[1]:
        model.save(FOLDER / f"{name}-{label}.h5")
        np.savez_compressed(FOLDER / f"{name}-{label}.npz", **results(model, x))


def main() -> None:
    if len(sys.argv) > 1:
        write(*sys.argv[1:])
        return
    FOLDER.mkdir(exist_ok=True)
    old = version("keras").startswith("2.13.")
    for label in ("2.13",) if old else BACKENDS:
        for name in OF_KERAS_2 if old else MODELS:
            command = [sys.executable, "-m", "tests.witnesses.make_keras", name, label]
            subprocess.run(command, check=True, env=os.environ | {"KERAS_BACKEND": label})
    for path in sorted(FOLDER.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
